//! Rows that can be believed: typed, in range, in order, one a day. What cannot is counted and left out.

use std::collections::BTreeMap;

use flowstone_sdk::prelude::*;
use serde::{Deserialize, Serialize};

/// The weather of one day.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Day {
    /// As `2012-01-31`.
    pub date: String,
    /// In mm.
    pub precipitation: f64,
    /// In degrees Celsius.
    pub temp_max: f64,
    /// In degrees Celsius.
    pub temp_min: f64,
    /// In m/s.
    pub wind: f64,
    /// What kind of day it was.
    pub weather: Weather,
}

impl Day {
    /// As `2012-01`.
    pub fn month(&self) -> &str {
        &self.date[..7]
    }
}

/// What kind of day it was, from fair to foul.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weather {
    /// Dry and clear.
    Sun,
    /// Fog.
    Fog,
    /// A little rain.
    Drizzle,
    /// Rain.
    Rain,
    /// Snow.
    Snow,
}

impl Weather {
    /// From fair to foul.
    pub const ALL: [Self; 5] = [Self::Sun, Self::Fog, Self::Drizzle, Self::Rain, Self::Snow];

    /// As in the data.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sun => "sun",
            Self::Fog => "fog",
            Self::Drizzle => "drizzle",
            Self::Rain => "rain",
            Self::Snow => "snow",
        }
    }
}

/// Daily measurements that are complete, in range, in order and unique.
#[asset(inputs(raw = "raw_weather"), tags(stage = "clean"))]
fn clean_weather(ctx: &Context) -> Result<Csv<Vec<Day>>> {
    let mut days: Vec<Day> = Vec::new();
    let mut dropped: BTreeMap<&str, u32> = BTreeMap::new();
    for row in ctx.input("raw")?.csv::<Day>()? {
        let flaw = match &row {
            Ok(day) => find_flaw(day, days.last()),
            Err(_) => Some("unreadable"),
        };
        match (flaw, row) {
            (None, Ok(day)) => days.push(day),
            (flaw, _) => *dropped.entry(flaw.unwrap_or("unreadable")).or_default() += 1,
        }
    }
    if days.is_empty() {
        return skip("no row of the station's file can be used");
    }
    for (flaw, count) in &dropped {
        log::warn!(count = count, "left out rows: {flaw}");
    }
    ctx.add_metadata("rows", days.len())?;
    ctx.add_metadata("rows_dropped", dropped.values().sum::<u32>())?;
    log::info!("kept {} rows", days.len());
    Ok(Csv(days))
}

/// Why a day cannot be believed. The ranges are a little wider than any record of the state of Washington.
fn find_flaw(day: &Day, previous: Option<&Day>) -> Option<&'static str> {
    let is_date = |text: &str| {
        let form = text.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
        text.len() == 10 && form
    };
    if !is_date(&day.date) {
        Some("no date")
    } else if previous.is_some_and(|previous| previous.date >= day.date) {
        Some("out of order or twice")
    } else if !(-50.0..=50.0).contains(&day.temp_min) || !(-50.0..=50.0).contains(&day.temp_max) {
        Some("impossible temperature")
    } else if day.temp_min > day.temp_max {
        Some("colder by day than by night")
    } else if !(0.0..=400.0).contains(&day.precipitation) {
        Some("impossible precipitation")
    } else if !(0.0..=60.0).contains(&day.wind) {
        Some("impossible wind")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use flowstone_sdk::testing::{Finished, Job, Outcome};

    fn clean(rows: &str) -> Finished {
        let raw = format!("date,precipitation,temp_max,temp_min,wind,weather\n{rows}");
        Job::new("clean_weather").input("raw", raw).run()
    }

    #[test]
    fn good_rows_stay_as_they_are() {
        let rows = "2012-01-01,0.0,12.8,5.0,4.7,drizzle\n2012-01-02,10.9,10.6,2.8,4.5,rain\n";
        let finished = clean(rows);
        assert_eq!(finished.text(), format!("date,precipitation,temp_max,temp_min,wind,weather\n{rows}"));
        assert_eq!(finished.metadata, [("rows".into(), "2".into()), ("rows_dropped".into(), "0".into())]);
    }

    #[test]
    fn every_flaw_is_left_out_and_counted() {
        let good = "2012-01-01,0.0,12.8,5.0,4.7,sun\n";
        for (row, flaw) in [
            ("2012-1-2,0.0,12.8,5.0,4.7,sun", "no date"),
            ("2012-01-01,0.0,12.8,5.0,4.7,sun", "out of order or twice"),
            ("2012-01-02,0.0,92.8,5.0,4.7,sun", "impossible temperature"),
            ("2012-01-02,0.0,NaN,5.0,4.7,sun", "impossible temperature"),
            ("2012-01-02,0.0,2.8,5.0,4.7,sun", "colder by day than by night"),
            ("2012-01-02,-1.0,12.8,5.0,4.7,sun", "impossible precipitation"),
            ("2012-01-02,0.0,12.8,5.0,4711,sun", "impossible wind"),
            ("2012-01-02,0.0,12.8,5.0,4.7,frogs", "unreadable"),
            ("2012-01-02,0.0,12.8", "unreadable"),
        ] {
            let finished = clean(&format!("{good}{row}\n"));
            assert_eq!(finished.text().lines().count(), 2, "{row}");
            assert_eq!(finished.log[0].to_string(), format!("Warn: left out rows: {flaw} count=1"), "{row}");
            assert_eq!(finished.metadata[1], ("rows_dropped".into(), "1".into()), "{row}");
        }
    }

    #[test]
    fn a_file_without_one_good_row_is_skipped() {
        let skipped = Outcome::Skipped("no row of the station's file can be used".into());
        assert_eq!(clean("nothing\n").outcome, skipped);
    }
}
