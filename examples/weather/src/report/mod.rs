//! One page that needs nothing else: no script, no font, no image from anywhere. What it shows is computed here; how the
//! charts are drawn is in [`chart`], how it looks in `style.css`.

mod chart;
mod units;

use flowstone_sdk::prelude::*;
use serde::Deserialize;

use crate::clean::Weather;
use crate::monthly::{Extreme, Statistics};
use units::Units;

/// What the manifest decides.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Where the station stands.
    city: String,
    /// For whom the page is.
    units: Units,
}

/// A page with the climate of all years, as charts.
#[asset(
    inputs(years = all("yearly_weather"), months = all("monthly_weather")),
    config(
        city = text("where the station stands"),
        units = text("for whom the page is: metric or imperial", default = "metric"),
    ),
    tags(stage = "report"),
    media_type = "text/html; charset=utf-8"
)]
fn weather_report(ctx: &Context) -> Result<String> {
    let config: Config = ctx.config()?;
    let (year_inputs, month_inputs) = (ctx.inputs("years")?, ctx.inputs("months")?);
    let years = year_inputs.iter().map(Input::json).collect::<Result<Vec<Statistics>>>()?;
    let months = month_inputs.iter().map(Input::json).collect::<Result<Vec<Statistics>>>()?;
    let (Some(first), Some(last)) = (years.first(), years.last()) else {
        return skip("there is no year to report");
    };

    let title = format!("{} weather, {} to {}", escape(&config.city), first.period, last.period);
    let units = config.units;
    ctx.add_metadata("title", &title)?;
    log::info!(years = years.len(), months = months.len(), "drew {title}");
    Ok([
        &format!("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n"),
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n",
        "<meta name=\"color-scheme\" content=\"light dark\">\n",
        &format!("<style>\n{}</style>\n</head>\n<body>\n<main>\n", include_str!("style.css")),
        &write_header(&title, &years),
        &write_records(&years, units),
        &write_figure("Temperature", TEMPERATURE, &chart::draw_temperatures(&months, units)),
        &write_figure("Precipitation", PRECIPITATION, &chart::draw_precipitation(&months, &years, units)),
        &write_figure("Kinds of days", KINDS, &chart::draw_kinds(&years)),
        &write_table(&years, units),
        &write_sources(&year_inputs, &month_inputs),
        "</main>\n</body>\n</html>\n",
    ]
    .concat())
}

const TEMPERATURE: &str = "The strong band runs from the mean of the nights to the mean of the days of each month; \
                           the faint one reaches from the coldest night to the hottest day.";
const PRECIPITATION: &str = "Rain and melted snow of each month, with the sum of each year above.";
const KINDS: &str = "Each year&rsquo;s days by the kind of weather that the station recorded.";

fn write_header(title: &str, years: &[Statistics]) -> String {
    let days: u32 = years.iter().map(|year| year.days).sum();
    let wet: u32 = years.iter().map(|year| year.wet_days).sum();
    let share = percent(wet, days);
    format!(
        "<header>\n<h1>{title}</h1>\n<p>{} days of measurements. On {share} of them it rained or snowed at least a \
         millimetre.</p>\n</header>\n",
        units::group(f64::from(days), 0)
    )
}

/// The four figures that people ask for first.
fn write_records(years: &[Statistics], units: Units) -> String {
    let best = |pick: fn(&Statistics) -> &Extreme, sign: f64| {
        let records = years.iter().map(pick);
        records.max_by(|a, b| (sign * a.value).total_cmp(&(sign * b.value))).expect("there is at least one year")
    };
    let (hottest, coldest) = (best(|year| &year.hottest, 1.0), best(|year| &year.coldest, -1.0));
    let wettest = best(|year| &year.wettest, 1.0);
    let sunniest = years.iter().max_by_key(|year| year.weather[Weather::Sun as usize] * 1_000 / year.days);
    let sunniest = sunniest.expect("there is at least one year");
    let tile = |name: &str, value: String, when: String| {
        format!("<div><dt>{name}</dt><dd>{value}</dd><dd class=\"when\">{when}</dd></div>\n")
    };
    [
        "<dl class=\"records\">\n".into(),
        tile("Hottest day", units.write_temperature(hottest.value), write_date(&hottest.date)),
        tile("Coldest night", units.write_temperature(coldest.value), write_date(&coldest.date)),
        tile("Wettest day", units.write_precipitation(wettest.value), write_date(&wettest.date)),
        tile(
            "Sunniest year",
            percent(sunniest.weather[Weather::Sun as usize], sunniest.days),
            format!("of the days of {}", sunniest.period),
        ),
        "</dl>\n".into(),
    ]
    .concat()
}

fn write_figure(title: &str, caption: &str, chart: &str) -> String {
    format!("<figure>\n<h2>{title}</h2>\n<figcaption>{caption}</figcaption>\n{chart}</figure>\n")
}

fn write_table(years: &[Statistics], units: Units) -> String {
    let row = |year: &Statistics| {
        let cells = [
            units.write_temperature(year.temp_max_mean),
            units.write_temperature(year.temp_min_mean),
            units.write_temperature(year.hottest.value),
            units.write_temperature(year.coldest.value),
            units.write_precipitation(year.precipitation),
            year.wet_days.to_string(),
            units.write_wind(year.wind_mean),
        ];
        let cells: String = cells.iter().map(|cell| format!("<td>{cell}</td>")).collect();
        format!("<tr><th scope=\"row\">{}</th>{cells}</tr>\n", year.period)
    };
    let names =
        ["Year", "Days&rsquo; mean", "Nights&rsquo; mean", "Hottest", "Coldest", "Precipitation", "Wet days", "Wind"];
    let names: String = names.iter().map(|name| format!("<th scope=\"col\">{name}</th>")).collect();
    let rows: String = years.iter().map(row).collect();
    format!(
        "<section>\n<h2>Year by year</h2>\n<div class=\"wide\"><table>\n<thead><tr>{names}</tr></thead>\n\
         <tbody>\n{rows}</tbody>\n</table></div>\n</section>\n"
    )
}

/// What the page was made from, by digest: the same digests give the same page, byte for byte.
fn write_sources(years: &[Input], months: &[Input]) -> String {
    let item = |input: &Input| {
        let digest = input.digest().get(..12).unwrap_or_default();
        format!("<li>{} <code>{digest}</code></li>\n", escape(&input.partition().to_string()))
    };
    let list = |inputs: &[Input]| inputs.iter().map(item).collect::<String>();
    format!(
        "<details>\n<summary>Made from {} years and {} months</summary>\n<p>Each with the beginning of the sha256 of its \
         bytes. The same inputs give this page again, byte for byte.</p>\n<ul>\n{}{}</ul>\n</details>\n",
        years.len(),
        months.len(),
        list(years),
        list(months)
    )
}

/// The share as `44 %`, with a space that does not break.
fn percent(part: u32, whole: u32) -> String {
    format!("{:.0}&nbsp;%", 100.0 * f64::from(part) / f64::from(whole.max(1)))
}

/// `2012-01-31` as `31 January 2012`; what is not a date stays as it is.
fn write_date(date: &str) -> String {
    let mut parts = date.split('-');
    let (year, month, day) = (parts.next(), parts.next(), parts.next());
    let month = month.and_then(|month| chart::MONTHS.get(month.parse::<usize>().ok()?.checked_sub(1)?));
    match (year, month, day) {
        (Some(year), Some(month), Some(day)) => format!("{} {month} {year}", day.trim_start_matches('0')),
        _ => escape(date),
    }
}

/// For text between tags.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use flowstone_sdk::testing::{Finished, Job, Outcome, Version};
    use serde_json::json;

    use super::*;

    fn statistics(period: &str) -> Statistics {
        let extreme = |value| Extreme { date: "2012-08-05".into(), value };
        Statistics {
            period: period.into(),
            days: 20,
            temp_max_mean: 20.0,
            temp_min_mean: 10.0,
            hottest: extreme(30.0),
            coldest: extreme(-5.0),
            wettest: extreme(50.8),
            precipitation: 1_270.0,
            wet_days: 5,
            wind_mean: 3.0,
            weather: [10, 1, 2, 6, 1],
        }
    }

    fn report(config: serde_json::Value) -> Finished {
        let add = |job: Job, (input, dimension, period): (&str, &str, &str)| {
            let version = Version::new(serde_json::to_vec(&statistics(period)).unwrap());
            job.input(input, version.at(dimension, period).digest("0123456789abcdef"))
        };
        let inputs = [("years", "year", "2012"), ("months", "month", "2012-07"), ("months", "month", "2012-08")];
        inputs.into_iter().fold(Job::new("weather_report").config(config), add).run()
    }

    #[test]
    fn the_page_shows_what_it_was_given() {
        let page = report(json!({ "city": "Seattle", "units": "metric" })).text().to_owned();
        assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
        for shown in [
            "<title>Seattle weather, 2012 to 2012</title>",
            "<dt>Hottest day</dt><dd>30.0&nbsp;°C</dd><dd class=\"when\">5 August 2012</dd>",
            "<dd>−5.0&nbsp;°C</dd>",
            "1,270&nbsp;mm",
            "<title>August 2012: ",
            "<li>year=2012 <code>0123456789ab</code></li>",
        ] {
            assert!(page.contains(shown), "{shown}");
        }
    }

    #[test]
    fn units_are_those_of_the_configuration() {
        let page = report(json!({ "city": "Seattle", "units": "imperial" })).text().to_owned();
        assert!(page.contains("<dd>86.0&nbsp;°F</dd>") && page.contains("50.0&nbsp;in"));
        assert!(!page.contains("°C") && !page.contains("&nbsp;mm"));
    }

    #[test]
    fn the_page_reaches_for_nothing_outside_itself() {
        let page = report(json!({ "city": "<script src=//x>", "units": "metric" })).text().to_owned();
        for outside in ["<script", "src=\"", "href=", "url(http", "@import"] {
            assert!(!page.contains(outside), "{outside}");
        }
    }

    #[test]
    fn a_wrong_configuration_says_so() {
        let Outcome::Permanent(message) = report(json!({ "city": "Seattle", "units": "nautical" })).outcome else {
            panic!("it was accepted");
        };
        assert!(message.contains("unknown variant `nautical`, expected `metric` or `imperial`"), "{message}");
    }

    #[test]
    fn without_a_year_there_is_no_report() {
        let job = Job::new("weather_report").config(json!({ "city": "Seattle", "units": "metric" }));
        assert_eq!(job.run().outcome, Outcome::Skipped("there is no year to report".into()));
    }
}
