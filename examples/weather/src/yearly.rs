//! A year from its twelve months, without looking at a single day again.

use flowstone_sdk::prelude::*;

use crate::monthly::{Extreme, Statistics, round};

/// The weather of one year in figures, from its months.
#[asset(
    inputs(months = within("monthly_weather")),
    partitions(year = yearly("2012", "2015")),
    tags(stage = "statistics")
)]
fn yearly_weather(ctx: &Context) -> Result<Json<Statistics>> {
    let year = ctx.partition().key("year")?;
    let inputs = ctx.inputs("months")?;
    let months = inputs.iter().map(Input::json).collect::<Result<Vec<Statistics>>>()?;
    if months.is_empty() {
        return skip(format!("nothing was measured in {year}"));
    }
    if months.len() < 12 {
        log::warn!(months = months.len(), "{year} is not complete");
    }
    ctx.add_metadata("months", months.len())?;
    Ok(Json(combine(year, &months)))
}

/// The figures of at least one month. Means are weighted by days, because months differ in length.
fn combine(period: &str, months: &[Statistics]) -> Statistics {
    let days: u32 = months.iter().map(|month| month.days).sum();
    let mean = |measure: fn(&Statistics) -> f64| {
        let weighted = months.iter().map(|month| measure(month) * f64::from(month.days));
        round(weighted.sum::<f64>() / f64::from(days))
    };
    let pick = |measure: fn(&Statistics) -> &Extreme, beats: fn(f64, f64) -> bool| {
        let better = |record: &Extreme, month: &Extreme| beats(month.value, record.value);
        let first = measure(&months[0]);
        months
            .iter()
            .map(measure)
            .fold(first, |record, month| if better(record, month) { month } else { record })
            .clone()
    };
    Statistics {
        period: period.into(),
        days,
        temp_max_mean: mean(|month| month.temp_max_mean),
        temp_min_mean: mean(|month| month.temp_min_mean),
        hottest: pick(|month| &month.hottest, |a, b| a > b),
        coldest: pick(|month| &month.coldest, |a, b| a < b),
        wettest: pick(|month| &month.wettest, |a, b| a > b),
        precipitation: round(months.iter().map(|month| month.precipitation).sum()),
        wet_days: months.iter().map(|month| month.wet_days).sum(),
        wind_mean: mean(|month| month.wind_mean),
        weather: std::array::from_fn(|kind| months.iter().map(|month| month.weather[kind]).sum()),
    }
}

#[cfg(test)]
mod tests {
    use flowstone_sdk::testing::{Finished, Job, Outcome, Version};

    use super::*;

    fn month(period: &str, days: u32, temp: f64, rain: f64) -> Statistics {
        let extreme = |value| Extreme { date: format!("{period}-05"), value };
        Statistics {
            period: period.into(),
            days,
            temp_max_mean: temp,
            temp_min_mean: temp - 10.0,
            hottest: extreme(temp + 5.0),
            coldest: extreme(temp - 15.0),
            wettest: extreme(rain / 2.0),
            precipitation: rain,
            wet_days: 3,
            wind_mean: 2.0,
            weather: [days - 3, 0, 0, 3, 0],
        }
    }

    fn combine_months(months: &[Statistics]) -> Finished {
        let job = Job::new("yearly_weather").partition("year", "2012");
        let add = |job: Job, month: &Statistics| {
            let bytes = serde_json::to_vec(month).unwrap();
            job.input("months", Version::new(bytes).at("month", &month.period))
        };
        months.iter().fold(job, add).run()
    }

    #[test]
    fn a_year_adds_up_and_weighs_its_months() {
        let finished = combine_months(&[month("2012-01", 30, 8.0, 100.0), month("2012-02", 10, 12.0, 60.0)]);
        let year: Statistics = finished.json();
        assert_eq!((&*year.period, year.days, year.wet_days), ("2012", 40, 6));
        assert_eq!((year.temp_max_mean, year.temp_min_mean), (9.0, -1.0));
        assert_eq!((&*year.hottest.date, year.hottest.value), ("2012-02-05", 17.0));
        assert_eq!((&*year.coldest.date, year.coldest.value), ("2012-01-05", -7.0));
        assert_eq!((&*year.wettest.date, year.wettest.value), ("2012-01-05", 50.0));
        assert_eq!((year.precipitation, year.weather), (160.0, [34, 0, 0, 6, 0]));
        assert_eq!(finished.log[0].to_string(), "Warn: 2012 is not complete months=2");
    }

    #[test]
    fn a_year_of_one_month_is_that_month() {
        let only = month("2012", 31, 8.0, 100.0);
        assert_eq!(combine_months(std::slice::from_ref(&only)).json::<Statistics>(), only);
    }

    #[test]
    fn a_year_without_a_month_is_skipped() {
        assert_eq!(combine_months(&[]).outcome, Outcome::Skipped("nothing was measured in 2012".into()));
    }
}
