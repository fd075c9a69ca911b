//! Time partitions as numbers: each interval of a unit is counted from the one that holds 1970-01-01.
//!
//! Enumerating, comparing and shifting intervals is then arithmetic; the calendar and the time zones are asked only where
//! numbers meet text, dates or instants. Hours are those of UTC, because local hours repeat once a year; the other units
//! are civil, and a time zone decides when they begin. The zones are compiled in, so that every machine agrees on them.
//! No clock is read here: callers say what time it is.

use jiff::{
    SignedDuration, Timestamp,
    civil::{Date, ISOWeekDate, Weekday, date},
    tz::{TimeZone, TimeZoneDatabase},
};

use super::asset::TimeUnit;

/// Keys end here: the next year is the last that the calendar can add an interval to.
const YEAR_MAX: i64 = 9_998;

/// Day 0. A Thursday, so week 0 begins three days before it.
const EPOCH: Date = date(1970, 1, 1);

impl TimeUnit {
    /// Its name in messages and canonical keys.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    /// A key of this unit, for messages.
    pub fn example(self) -> &'static str {
        match self {
            Self::Hour => "2024-01-31T13",
            Self::Day => "2024-01-31",
            Self::Week => "2024-W05",
            Self::Month => "2024-01",
            Self::Year => "2024",
        }
    }

    /// Whether each interval of this unit lies within one interval of the longer unit. Weeks cross months and years.
    pub fn nests_in(self, longer: Self) -> bool {
        self == longer || (self < longer && self != Self::Week)
    }
}

/// Finds a time zone by its IANA name in the compiled-in database.
pub fn find_time_zone(name: &str) -> Option<TimeZone> {
    static ZONES: std::sync::LazyLock<TimeZoneDatabase> = std::sync::LazyLock::new(TimeZoneDatabase::bundled);
    // The database folds case; a stored name is compared as text, so only one spelling may pass.
    ZONES.get(name).ok().filter(|zone| zone.iana_name() == Some(name))
}

/// The interval that a key names; absent when it is not a key of this unit in its one spelling.
pub fn parse_key(unit: TimeUnit, text: &str) -> Option<i64> {
    let year: i64 = number(text.get(..4)?)?;
    let rest = text.get(4..)?;
    let ordinal = match unit {
        TimeUnit::Year => rest.is_empty().then(|| year - 1970)?,
        TimeUnit::Month => {
            let month = number(rest.strip_prefix('-')?).filter(|month| (1..=12).contains(month))?;
            (year - 1970) * 12 + month - 1
        }
        TimeUnit::Week => {
            let week = number(rest.strip_prefix("-W")?)?;
            let monday = ISOWeekDate::new(year as i16, week as i8, Weekday::Monday).ok()?;
            (day_number(monday.date()) + 3).div_euclid(7)
        }
        TimeUnit::Day => parse_day(year, rest)?,
        TimeUnit::Hour => {
            let (day, hour) = rest.split_once('T')?;
            let hour = number(hour).filter(|hour| (0..24).contains(hour))?;
            parse_day(year, day)? * 24 + hour
        }
    };
    // One spelling: whatever the parser would let through besides it, such as one digit for a month, is refused here.
    ((1..=YEAR_MAX).contains(&year) && key_text(unit, ordinal) == text).then_some(ordinal)
}

fn parse_day(year: i64, rest: &str) -> Option<i64> {
    let (month, day) = rest.strip_prefix('-')?.split_once('-')?;
    Date::new(year as i16, number(month)? as i8, number(day)? as i8).ok().map(day_number)
}

fn number(digits: &str) -> Option<i64> {
    let sound = (1..=4).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    sound.then(|| digits.parse().ok())?.filter(|n: &i64| *n <= 9_999)
}

/// The key of an interval.
pub fn key_text(unit: TimeUnit, ordinal: i64) -> String {
    let start = start_date(unit, ordinal);
    match unit {
        TimeUnit::Hour => format!("{}T{:02}", date_text(start), ordinal.rem_euclid(24)),
        TimeUnit::Day => date_text(start),
        TimeUnit::Week => {
            let week = start.iso_week_date();
            format!("{:04}-W{:02}", week.year(), week.week())
        }
        TimeUnit::Month => format!("{:04}-{:02}", start.year(), start.month()),
        TimeUnit::Year => format!("{:04}", start.year()),
    }
}

fn date_text(date: Date) -> String {
    format!("{:04}-{:02}-{:02}", date.year(), date.month(), date.day())
}

fn day_number(date: Date) -> i64 {
    date.duration_since(EPOCH).as_hours() / 24
}

/// The civil date on which an interval begins (of UTC for hours). Dates past the calendar's ends stop at them.
fn start_date(unit: TimeUnit, ordinal: i64) -> Date {
    let from_day = |day: i64| EPOCH.saturating_add(SignedDuration::from_hours(day.saturating_mul(24)));
    let from_month = |month: i64| {
        let year = i16::try_from(1970 + month.div_euclid(12)).unwrap_or(if month < 0 { -9_999 } else { 9_999 });
        Date::new(year, month.rem_euclid(12) as i8 + 1, 1).unwrap_or(Date::MAX)
    };
    match unit {
        TimeUnit::Hour => from_day(ordinal.div_euclid(24)),
        TimeUnit::Day => from_day(ordinal),
        TimeUnit::Week => from_day(ordinal * 7 - 3),
        TimeUnit::Month => from_month(ordinal),
        TimeUnit::Year => from_month(ordinal * 12),
    }
}

/// The interval of a civil unit (not hours) that holds this date.
fn holding_date(unit: TimeUnit, date: Date) -> i64 {
    match unit {
        TimeUnit::Hour => day_number(date) * 24,
        TimeUnit::Day => day_number(date),
        TimeUnit::Week => (day_number(date) + 3).div_euclid(7),
        TimeUnit::Month => (i64::from(date.year()) - 1970) * 12 + i64::from(date.month()) - 1,
        TimeUnit::Year => i64::from(date.year()) - 1970,
    }
}

/// The instant at which an interval begins. Where a day has no midnight, it begins when its clocks do.
pub fn start(unit: TimeUnit, ordinal: i64, zone: &TimeZone) -> Timestamp {
    if unit == TimeUnit::Hour {
        let seconds = ordinal.saturating_mul(3_600);
        return Timestamp::from_second(seconds).unwrap_or(if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX });
    }
    let date = start_date(unit, ordinal);
    let edge = if ordinal < 0 { Timestamp::MIN } else { Timestamp::MAX };
    zone.to_timestamp(date.at(0, 0, 0, 0)).unwrap_or(edge)
}

/// The interval that holds an instant.
pub fn holding(unit: TimeUnit, instant: Timestamp, zone: &TimeZone) -> i64 {
    match unit {
        TimeUnit::Hour => instant.as_second().div_euclid(3_600),
        _ => holding_date(unit, zone.to_datetime(instant).date()),
    }
}

/// The interval of `to` in which an interval of `from` begins. Two civil units count in the same zone.
pub fn converted(from: TimeUnit, ordinal: i64, to: TimeUnit, zone: &TimeZone) -> i64 {
    match (from, to) {
        _ if from == to => ordinal,
        (TimeUnit::Hour, _) | (_, TimeUnit::Hour) => holding(to, start(from, ordinal, zone), zone),
        _ => holding_date(to, start_date(from, ordinal)),
    }
}

/// The intervals of `part` that lie within one of `whole`.
///
/// A week that crosses an end is not within. An hour belongs to where it begins: in zones whose offset is not in whole
/// hours, every hour at midnight would otherwise belong to no day.
pub fn parts(whole: TimeUnit, ordinal: i64, part: TimeUnit, zone: &TimeZone) -> std::ops::Range<i64> {
    let holding = |ordinal| converted(whole, ordinal, part, zone);
    let first_from = |ordinal| {
        let begun_before = start(part, holding(ordinal), zone) < start(whole, ordinal, zone);
        holding(ordinal) + i64::from(begun_before)
    };
    let end = if part == TimeUnit::Week { holding(ordinal + 1) } else { first_from(ordinal + 1) };
    first_from(ordinal)..end
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UNITS: [TimeUnit; 5] = [TimeUnit::Hour, TimeUnit::Day, TimeUnit::Week, TimeUnit::Month, TimeUnit::Year];

    #[track_caller]
    fn check(unit: TimeUnit, text: &str, expected: Option<i64>) {
        assert_eq!(parse_key(unit, text), expected, "{text:?} as {}", unit.name());
    }

    #[test]
    fn keys_are_counted_from_1970() {
        check(TimeUnit::Hour, "1970-01-01T00", Some(0));
        check(TimeUnit::Hour, "1969-12-31T23", Some(-1));
        check(TimeUnit::Day, "1970-01-02", Some(1));
        check(TimeUnit::Day, "2024-02-29", Some(19_782));
        check(TimeUnit::Week, "1970-W01", Some(0));
        check(TimeUnit::Week, "1970-W02", Some(1));
        check(TimeUnit::Week, "2020-W53", Some(2_661));
        check(TimeUnit::Month, "1969-12", Some(-1));
        check(TimeUnit::Year, "2012", Some(42));
    }

    #[test]
    fn what_is_not_a_key_in_its_one_spelling_is_refused() {
        for (unit, texts) in [
            (TimeUnit::Hour, &["2024-01-31", "2024-01-31T24", "2024-01-31T3", "2024-01-31 13", "2024-01-31T13:00"][..]),
            (TimeUnit::Day, &["2023-02-29", "2024-1-31", "2024-13-01", "20240131", "2024-01-31x", "+024-01-01"]),
            (TimeUnit::Week, &["2021-W53", "2024-W00", "2024-W5", "2024-w05", "2024-W005"]),
            (TimeUnit::Month, &["2024-00", "2024-13", "2024-1", "2024", "2024-01-01", "٢٠٢٤-01"]),
            (TimeUnit::Year, &["0000", "9999", "24", "20244", "", "é024"]),
        ] {
            texts.iter().for_each(|text| check(unit, text, None));
        }
    }

    #[test]
    fn a_day_begins_at_its_zones_midnight() {
        let day = parse_key(TimeUnit::Day, "2024-07-01").unwrap();
        let begin = |zone| start(TimeUnit::Day, day, &find_time_zone(zone).unwrap()).to_string();
        assert_eq!(begin("UTC"), "2024-07-01T00:00:00Z");
        assert_eq!(begin("Europe/Berlin"), "2024-06-30T22:00:00Z");
        assert_eq!(begin("America/Los_Angeles"), "2024-07-01T07:00:00Z");
    }

    #[test]
    fn a_day_without_midnight_begins_when_its_clocks_do() {
        // Brazil moved its clocks forward at midnight: 2018-11-04 began at 01:00, which is 03:00 UTC.
        let zone = find_time_zone("America/Sao_Paulo").unwrap();
        let day = parse_key(TimeUnit::Day, "2018-11-04").unwrap();
        assert_eq!(start(TimeUnit::Day, day, &zone).to_string(), "2018-11-04T03:00:00Z");
    }

    #[test]
    fn unknown_zones_and_other_spellings_are_refused() {
        assert!(find_time_zone("Mars/Olympus").is_none());
        assert!(find_time_zone("europe/berlin").is_none());
        assert!(find_time_zone("").is_none());
    }

    #[track_caller]
    fn check_parts(whole: (TimeUnit, &str), part: TimeUnit, zone: &str, expected: (usize, &str, &str)) {
        let zone = find_time_zone(zone).unwrap();
        let parts = parts(whole.0, parse_key(whole.0, whole.1).unwrap(), part, &zone);
        let (first, last) = (key_text(part, parts.start), key_text(part, parts.end - 1));
        assert_eq!((parts.count(), &*first, &*last), expected);
    }

    #[test]
    fn an_interval_is_made_of_the_shorter_ones_within_it() {
        check_parts((TimeUnit::Year, "2012"), TimeUnit::Month, "UTC", (12, "2012-01", "2012-12"));
        check_parts((TimeUnit::Month, "2024-02"), TimeUnit::Day, "UTC", (29, "2024-02-01", "2024-02-29"));
        check_parts((TimeUnit::Week, "2020-W53"), TimeUnit::Day, "UTC", (7, "2020-12-28", "2021-01-03"));
        check_parts((TimeUnit::Day, "2024-01-31"), TimeUnit::Hour, "UTC", (24, "2024-01-31T00", "2024-01-31T23"));
    }

    #[test]
    fn weeks_that_cross_a_months_ends_are_not_within_it() {
        check_parts((TimeUnit::Month, "2024-01"), TimeUnit::Week, "UTC", (4, "2024-W01", "2024-W04"));
        check_parts((TimeUnit::Month, "2024-09"), TimeUnit::Week, "UTC", (4, "2024-W36", "2024-W39"));
        check_parts((TimeUnit::Month, "2027-02"), TimeUnit::Week, "UTC", (4, "2027-W05", "2027-W08"));
    }

    #[test]
    fn a_local_day_may_have_23_or_25_hours() {
        let day = |text| (TimeUnit::Day, text);
        check_parts(day("2024-03-31"), TimeUnit::Hour, "Europe/Berlin", (23, "2024-03-30T23", "2024-03-31T21"));
        check_parts(day("2024-10-27"), TimeUnit::Hour, "Europe/Berlin", (25, "2024-10-26T22", "2024-10-27T22"));
        // India is five and a half hours ahead: an hour belongs to the day in which it begins.
        check_parts(day("2024-01-02"), TimeUnit::Hour, "Asia/Kolkata", (24, "2024-01-01T19", "2024-01-02T18"));
    }

    proptest! {
        #[test]
        fn keys_round_trip(unit in prop::sample::select(&UNITS[..]), years in -1_900i64..8_000, step in 0i64..8_784) {
            let first = converted(TimeUnit::Year, years, unit, &TimeZone::UTC);
            let ordinal = if unit == TimeUnit::Year { years } else { first + step / if unit == TimeUnit::Hour { 1 } else { 24 } };
            prop_assert_eq!(parse_key(unit, &key_text(unit, ordinal)), Some(ordinal));
        }

        #[test]
        fn an_interval_holds_its_start_and_not_its_end(
            unit in prop::sample::select(&UNITS[..]),
            zone in prop::sample::select(&["UTC", "Europe/Berlin", "Asia/Kolkata", "America/Sao_Paulo", "Pacific/Apia"][..]),
            second in 0i64..4_000_000_000,
        ) {
            let zone = find_time_zone(zone).unwrap();
            let instant = Timestamp::from_second(second).unwrap();
            let ordinal = holding(unit, instant, &zone);
            prop_assert!(start(unit, ordinal, &zone) <= instant && instant < start(unit, ordinal + 1, &zone));
        }

        #[test]
        fn no_text_makes_the_parser_panic(unit in prop::sample::select(&UNITS[..]), text in "\\PC{0,16}") {
            parse_key(unit, &text);
        }
    }
}
