//! One month in figures: 48 partitions, each from the same rows.

use flowstone_sdk::prelude::*;
use serde::{Deserialize, Serialize};

use crate::clean::{Day, Weather};

/// The weather of one month or year. Sums and extremes, so that a year can be told from its months.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// The partition's key: `2012-01` or `2012`.
    pub period: String,
    /// Days that were measured.
    pub days: u32,
    /// Mean of the days' highest temperatures, in degrees Celsius.
    pub temp_max_mean: f64,
    /// Mean of the days' lowest temperatures, in degrees Celsius.
    pub temp_min_mean: f64,
    /// The hottest day.
    pub hottest: Extreme,
    /// The coldest night.
    pub coldest: Extreme,
    /// The wettest day.
    pub wettest: Extreme,
    /// Of all days, in mm.
    pub precipitation: f64,
    /// Days with at least 1 mm, as meteorologists count them.
    pub wet_days: u32,
    /// Mean wind, in m/s.
    pub wind_mean: f64,
    /// Days of each kind, in the order of [`Weather::ALL`].
    pub weather: [u32; 5],
}

/// A record and the day that holds it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Extreme {
    /// The first day with this value.
    pub date: String,
    /// In the unit of what was measured.
    pub value: f64,
}

/// The weather of one month in figures.
#[asset(
    inputs(days = "clean_weather"),
    partitions(month = monthly("2012-01", "2015-12")),
    tags(stage = "statistics")
)]
fn monthly_weather(ctx: &Context) -> Result<Json<Statistics>> {
    let month = ctx.partition().key("month")?;
    let mut days = Vec::new();
    for day in ctx.input("days")?.csv::<Day>()? {
        let day = day?;
        if day.month() == month {
            days.push(day);
        }
    }
    if days.is_empty() {
        return skip(format!("nothing was measured in {month}"));
    }
    ctx.add_metadata("days", days.len())?;
    Ok(Json(summarise(month, &days)))
}

/// The figures of at least one day.
fn summarise(period: &str, days: &[Day]) -> Statistics {
    let mean = |measure: fn(&Day) -> f64| round(days.iter().map(measure).sum::<f64>() / days.len() as f64);
    Statistics {
        period: period.into(),
        days: days.len() as u32,
        temp_max_mean: mean(|day| day.temp_max),
        temp_min_mean: mean(|day| day.temp_min),
        hottest: find_highest(days, |day| day.temp_max),
        coldest: find_lowest(days, |day| day.temp_min),
        wettest: find_highest(days, |day| day.precipitation),
        precipitation: round(days.iter().map(|day| day.precipitation).sum()),
        wet_days: days.iter().filter(|day| day.precipitation >= 1.0).count() as u32,
        wind_mean: mean(|day| day.wind),
        weather: Weather::ALL.map(|kind| days.iter().filter(|day| day.weather == kind).count() as u32),
    }
}

/// The first day with the highest value.
fn find_highest(days: &[Day], measure: fn(&Day) -> f64) -> Extreme {
    let first = Extreme { date: String::new(), value: f64::NEG_INFINITY };
    let higher = |record: Extreme, day: &Day| match measure(day) > record.value {
        true => Extreme { date: day.date.clone(), value: measure(day) },
        false => record,
    };
    days.iter().fold(first, higher)
}

/// The first day with the lowest value.
fn find_lowest(days: &[Day], measure: fn(&Day) -> f64) -> Extreme {
    let first = Extreme { date: String::new(), value: f64::INFINITY };
    let lower = |record: Extreme, day: &Day| match measure(day) < record.value {
        true => Extreme { date: day.date.clone(), value: measure(day) },
        false => record,
    };
    days.iter().fold(first, lower)
}

/// To hundredths: more than the instruments give, and free of the dust of adding.
pub fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use flowstone_sdk::testing::{Job, Outcome};

    use super::*;

    const DAYS: &str = "date,precipitation,temp_max,temp_min,wind,weather
2012-01-30,9.0,30.0,20.0,9.0,snow
2012-02-01,0.0,12.5,5.0,4.0,sun
2012-02-02,1.0,10.0,-2.5,2.0,rain
2012-02-03,0.9,12.5,-2.5,3.0,sun
2013-02-01,9.0,30.0,20.0,9.0,snow
";

    #[test]
    fn a_month_is_made_of_its_own_days() {
        let finished = Job::new("monthly_weather").partition("month", "2012-02").input("days", DAYS).run();
        let extreme = |date: &str, value| Extreme { date: date.into(), value };
        let expected = Statistics {
            period: "2012-02".into(),
            days: 3,
            temp_max_mean: 11.67,
            temp_min_mean: 0.0,
            hottest: extreme("2012-02-01", 12.5),
            coldest: extreme("2012-02-02", -2.5),
            wettest: extreme("2012-02-02", 1.0),
            precipitation: 1.9,
            wet_days: 1,
            wind_mean: 3.0,
            weather: [2, 0, 0, 1, 0],
        };
        assert_eq!(finished.json::<Statistics>(), expected);
        assert_eq!(finished.metadata, [("days".into(), "3".into())]);
    }

    #[test]
    fn a_month_without_a_day_is_skipped() {
        let finished = Job::new("monthly_weather").partition("month", "2012-03").input("days", DAYS).run();
        assert_eq!(finished.outcome, Outcome::Skipped("nothing was measured in 2012-03".into()));
    }
}
