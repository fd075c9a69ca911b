//! The charts, as SVG that takes its colours from the page.
//!
//! Each is drawn on a canvas of the same width, with the month's place in time as x, so that those above each other can
//! be compared. Values appear as titles, which a browser shows under the pointer.

use std::fmt::Write;
use std::ops::Range;

use super::percent;
use super::units::{self, Units};
use crate::clean::Weather;
use crate::monthly::Statistics;

/// From January.
pub const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Of every canvas.
const WIDTH: f64 = 1_000.0;
/// Where the plot begins: the scale's figures stand left of it.
const LEFT: f64 = 44.0;
/// Where it ends.
const RIGHT: f64 = WIDTH - 6.0;

/// The band of each month, from night to day.
pub fn draw_temperatures(months: &[Statistics], units: Units) -> String {
    let calendar = Calendar::of(months);
    let step = if units == Units::Metric { 10.0 } else { 20.0 };
    let value = |celsius: f64| units.temperature(celsius);
    let lowest = months.iter().map(|month| value(month.coldest.value)).fold(f64::INFINITY, f64::min);
    let highest = months.iter().map(|month| value(month.hottest.value)).fold(f64::NEG_INFINITY, f64::max);
    let scale = Scale::new(lowest, highest, step, 24.0..300.0);

    let mut svg = open_canvas(330.0, "Temperature of each month");
    let (warm, cold) = (scale.place(value(25.0)), scale.place(value(0.0)));
    write_gradient(&mut svg, warm, cold);
    scale.draw(&mut svg, "°");
    calendar.draw(&mut svg, 24.0..300.0);

    let place = |month: &Statistics, celsius: f64| (calendar.centre(&month.period), scale.place(value(celsius)));
    let line = |pick: fn(&Statistics) -> f64| months.iter().map(|month| place(month, pick(month))).collect::<Vec<_>>();
    let (hottest, coldest) = (line(|month| month.hottest.value), line(|month| month.coldest.value));
    let (days, nights) = (line(|month| month.temp_max_mean), line(|month| month.temp_min_mean));
    draw_band(&mut svg, "extremes", &hottest, &coldest);
    draw_band(&mut svg, "means", &days, &nights);
    draw_line(&mut svg, &days);
    draw_line(&mut svg, &nights);
    for month in months {
        let title = format!(
            "{}: days {}, nights {}; hottest {}, coldest {}",
            write_month(&month.period),
            units.write_temperature(month.temp_max_mean),
            units.write_temperature(month.temp_min_mean),
            units.write_temperature(month.hottest.value),
            units.write_temperature(month.coldest.value)
        );
        calendar.draw_hit(&mut svg, &month.period, 24.0..300.0, &title);
    }
    svg + "</svg>\n"
}

/// A bar for each month, and the sum of each year.
pub fn draw_precipitation(months: &[Statistics], years: &[Statistics], units: Units) -> String {
    let calendar = Calendar::of(months);
    let step = if units == Units::Metric { 50.0 } else { 2.0 };
    let highest = months.iter().map(|month| units.precipitation(month.precipitation)).fold(0.0, f64::max);
    let scale = Scale::new(0.0, highest, step, 44.0..240.0);

    let mut svg = open_canvas(270.0, "Precipitation of each month");
    scale.draw(&mut svg, "");
    calendar.draw(&mut svg, 44.0..240.0);
    for year in years {
        let x = calendar.centre_of_year(&year.period);
        let sum = units.write_precipitation(year.precipitation);
        writeln_text(&mut svg, "sum", x, 30.0, &sum);
    }
    for month in months {
        let top = scale.place(units.precipitation(month.precipitation));
        let width = calendar.month_width() * 0.68;
        let x = calendar.centre(&month.period) - width / 2.0;
        let height = scale.place(0.0) - top;
        push(
            &mut svg,
            format_args!(
                "<rect class=\"rain bar\" x=\"{x:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"2\"/>"
            ),
        );
        let title = format!(
            "{}: {} on {} wet days",
            write_month(&month.period),
            units.write_precipitation(month.precipitation),
            month.wet_days
        );
        calendar.draw_hit(&mut svg, &month.period, 44.0..240.0, &title);
    }
    svg + "</svg>\n"
}

/// One bar for each year, divided by kind.
pub fn draw_kinds(years: &[Statistics]) -> String {
    let (row, bar) = (46.0, 32.0);
    let top = 38.0;
    let mut svg = open_canvas(top + row * years.len() as f64, "Share of each kind of day");
    draw_legend(&mut svg);
    for (index, year) in years.iter().enumerate() {
        let y = top + row * index as f64;
        writeln_text(&mut svg, "axis end", LEFT - 8.0, y + bar / 2.0 + 5.0, &year.period);
        let mut x = LEFT;
        for (kind, count) in Weather::ALL.into_iter().zip(year.weather) {
            let width = (RIGHT - LEFT) * f64::from(count) / f64::from(year.days.max(1));
            let (name, share) = (kind.name(), percent(count, year.days));
            push(&mut svg, format_args!("<g><title>{}: {name} on {count} days, {share}</title>", year.period));
            push(
                &mut svg,
                format_args!(
                    "<rect class=\"{name} part\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{bar}\"/>"
                ),
            );
            // Narrow parts have no room for a figure; the title has it.
            if width > 40.0 {
                writeln_text(&mut svg, &format!("share on-{name}"), x + width / 2.0, y + bar / 2.0 + 5.0, &share);
            }
            svg += "</g>\n";
            x += width;
        }
    }
    svg + "</svg>\n"
}

fn draw_legend(svg: &mut String) {
    let mut x = LEFT;
    for kind in Weather::ALL {
        let name = kind.name();
        push(svg, format_args!("<rect class=\"{name}\" x=\"{x}\" y=\"4\" width=\"14\" height=\"14\" rx=\"3\"/>"));
        writeln_text(svg, "legend", x + 21.0, 16.0, name);
        x += 52.0 + 8.0 * name.len() as f64;
    }
}

/// Months in their order along x, those without a measurement included.
struct Calendar {
    /// The first year.
    first: i32,
    years: i32,
}

impl Calendar {
    fn of(months: &[Statistics]) -> Self {
        let year = |month: Option<&Statistics>| month.map_or(0, |month| split(&month.period).0);
        let first = year(months.first());
        Self { first, years: year(months.last()) - first + 1 }
    }

    fn month_width(&self) -> f64 {
        (RIGHT - LEFT) / f64::from(self.years * 12)
    }

    /// The middle of a month: `2012-01`.
    fn centre(&self, period: &str) -> f64 {
        let (year, month) = split(period);
        LEFT + self.month_width() * (f64::from((year - self.first) * 12 + month - 1) + 0.5)
    }

    /// The middle of a year: `2012`.
    fn centre_of_year(&self, period: &str) -> f64 {
        LEFT + self.month_width() * (f64::from((split(period).0 - self.first) * 12) + 6.0)
    }

    /// Years below the plot, and lines between them.
    fn draw(&self, svg: &mut String, height: Range<f64>) {
        for index in 0..=self.years {
            let x = LEFT + self.month_width() * f64::from(index * 12);
            let (top, bottom) = (height.start, height.end);
            push(
                svg,
                format_args!("<line class=\"year\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{top}\" y2=\"{bottom}\"/>\n"),
            );
            if index < self.years {
                let year = (self.first + index).to_string();
                writeln_text(svg, "axis middle", self.centre_of_year(&year), height.end + 22.0, &year);
            }
        }
    }

    /// What the pointer meets over a month.
    fn draw_hit(&self, svg: &mut String, period: &str, height: Range<f64>, title: &str) {
        let width = self.month_width();
        let x = self.centre(period) - width / 2.0;
        let (y, tall) = (height.start, height.end - height.start);
        push(
            svg,
            format_args!(
                "<rect class=\"hit\" x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{tall}\"><title>{title}</title></rect>\n"
            ),
        );
    }
}

/// Values along y.
struct Scale {
    values: Range<f64>,
    step: f64,
    height: Range<f64>,
}

impl Scale {
    /// Wide enough for both values, from step to step.
    fn new(lowest: f64, highest: f64, step: f64, height: Range<f64>) -> Self {
        let from = (lowest / step).floor() * step;
        // A scale has a length even where nothing was measured.
        let to = ((highest / step).ceil() * step).max(from + step);
        Self { values: from..to, step, height }
    }

    fn place(&self, value: f64) -> f64 {
        let share = (value - self.values.start) / (self.values.end - self.values.start);
        self.height.end - share * (self.height.end - self.height.start)
    }

    /// A line and a figure at every step.
    fn draw(&self, svg: &mut String, unit: &str) {
        let mut value = self.values.start;
        while value <= self.values.end {
            let y = self.place(value);
            let class = if value == 0.0 { "grid zero" } else { "grid" };
            push(
                svg,
                format_args!("<line class=\"{class}\" x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\n"),
            );
            writeln_text(svg, "axis end", LEFT - 8.0, y + 4.0, &format!("{}{unit}", units::group(value, 0)));
            value += self.step;
        }
    }
}

fn open_canvas(height: f64, label: &str) -> String {
    format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{label}\">\n")
}

/// Warm above, cold below: the colour of a point on the band is its temperature.
fn write_gradient(svg: &mut String, warm: f64, cold: f64) {
    push(
        svg,
        format_args!(
            "<defs><linearGradient id=\"heat\" gradientUnits=\"userSpaceOnUse\" x1=\"0\" x2=\"0\" y1=\"{warm:.1}\" \
         y2=\"{cold:.1}\"><stop class=\"warm\" offset=\"0\"/><stop class=\"mild\" offset=\"0.5\"/>\
         <stop class=\"cold\" offset=\"1\"/></linearGradient></defs>\n"
        ),
    );
}

fn draw_band(svg: &mut String, class: &str, upper: &[(f64, f64)], lower: &[(f64, f64)]) {
    let outline = write_points(upper.iter().chain(lower.iter().rev()));
    push(svg, format_args!("<polygon class=\"{class}\" points=\"{outline}\"/>\n"));
}

fn draw_line(svg: &mut String, points: &[(f64, f64)]) {
    push(svg, format_args!("<polyline class=\"mean\" points=\"{}\"/>\n", write_points(points.iter())));
}

fn write_points<'a>(points: impl Iterator<Item = &'a (f64, f64)>) -> String {
    points.map(|(x, y)| format!("{x:.1},{y:.1} ")).collect::<String>().trim_end().to_owned()
}

fn writeln_text(svg: &mut String, class: &str, x: f64, y: f64, text: &str) {
    push(svg, format_args!("<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>\n"));
}

fn push(svg: &mut String, text: std::fmt::Arguments<'_>) {
    svg.write_fmt(text).expect("a string takes everything");
}

/// The year and the month of `2012-01`; of `2012`, January.
fn split(period: &str) -> (i32, i32) {
    let (year, month) = period.split_once('-').unwrap_or((period, "1"));
    (year.parse().unwrap_or(0), month.parse().unwrap_or(1))
}

/// `2012-01` as `January 2012`.
fn write_month(period: &str) -> String {
    let (year, month) = split(period);
    let name = usize::try_from(month - 1).ok().and_then(|index| MONTHS.get(index)).copied().unwrap_or("?");
    format!("{name} {year}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_reaches_from_step_to_step() {
        let scale = Scale::new(-7.1, 35.6, 10.0, 0.0..100.0);
        assert_eq!(scale.values, -10.0..40.0);
        assert_eq!((scale.place(-10.0), scale.place(15.0), scale.place(40.0)), (100.0, 50.0, 0.0));
        assert_eq!(Scale::new(0.0, 0.0, 50.0, 0.0..100.0).values, 0.0..50.0);
    }

    #[test]
    fn months_stand_in_the_middle_of_their_place() {
        let calendar = Calendar { first: 2012, years: 4 };
        assert_eq!(calendar.centre("2012-01"), LEFT + calendar.month_width() / 2.0);
        assert!((calendar.centre("2015-12") - (RIGHT - calendar.month_width() / 2.0)).abs() < 1e-9);
        assert_eq!(calendar.centre_of_year("2013"), LEFT + 18.0 * calendar.month_width());
    }
}
