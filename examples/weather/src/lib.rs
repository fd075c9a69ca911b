//! Four years of weather, from the station's file to a page that shows them:
//!
//! ```text
//!   raw_weather -> clean_weather -> monthly_weather -> yearly_weather -> weather_report
//!      a file         its rows         48 months           4 years          one page
//!                                          \___________________________________/
//! ```
//!
//! One file per asset, and the rows that they share in `clean`. Everything is metric until the report, which is the only
//! one that knows for whom it is.

mod clean;
mod monthly;
mod raw;
mod report;
mod yearly;

#[cfg(test)]
mod tests {
    use flowstone_sdk::testing::{Job, Version};
    use serde_json::json;

    use crate::monthly::Statistics;

    /// All five, over the real file, each fed with what the one before it made.
    #[test]
    fn four_years_go_through_all_assets() {
        let file = include_bytes!("../data/seattle-weather.csv");
        let raw = Job::new("raw_weather").directory("station", [("seattle-weather.csv", file)]).run();
        let clean = Job::new("clean_weather").input("raw", &raw.output).run();
        assert_eq!(clean.metadata, [("rows".into(), "1461".into()), ("rows_dropped".into(), "0".into())]);

        let mut report = Job::new("weather_report").config(json!({ "city": "Seattle", "units": "metric" }));
        for year in 2012..=2015 {
            let year = year.to_string();
            let mut yearly = Job::new("yearly_weather").partition("year", &year);
            for month in 1..=12 {
                let month = format!("{year}-{month:02}");
                let made = Job::new("monthly_weather").partition("month", &month).input("days", &clean.output).run();
                yearly = yearly.input("months", Version::new(&made.output).at("month", &month));
                report = report.input("months", Version::new(made.output).at("month", &month));
            }
            let yearly = yearly.run();
            assert_eq!(yearly.json::<Statistics>().days, if year == "2012" { 366 } else { 365 });
            report = report.input("years", Version::new(yearly.output).at("year", &year));
        }
        let page = report.run();
        assert!(page.text().contains("<dd>35.6&nbsp;°C</dd><dd class=\"when\">11 August 2014</dd>"));
        assert_eq!(page.text().matches("class=\"rain bar\"").count(), 48);
    }
}
