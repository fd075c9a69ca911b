//! When a cron pattern fires in a time zone.
//!
//! Which wall-clock times a pattern means is the business of `croner`; which instants those are is decided here, because
//! clocks skip some times and show others twice. A pattern that names its hours fires once for each of its times: one that
//! is skipped, at the moment at which the clocks skip it; one that is shown twice, the first time. A pattern with a `*` in
//! its hours means an interval, and fires whenever a clock on the wall shows one of its times: never at a skipped one, and
//! twice at one that is shown twice. No clock is read here.

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{
    SignedDuration, Timestamp,
    civil::{DateTime, date},
    tz::{AmbiguousOffset, TimeZone},
};

use super::calendar::find_time_zone;

/// A cron pattern in a time zone.
#[derive(Clone, Debug)]
pub struct FireTimes {
    pattern: Cron,
    zone: TimeZone,
}

/// Why there are no fire times.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FireTimesError {
    /// The pattern cannot be read.
    #[error("{0}")]
    Pattern(String),
    /// The pattern means no day of any year.
    #[error("no day of any year is like that")]
    Never,
    /// Nobody knows the time zone.
    #[error("not a time zone")]
    Zone,
}

impl FireTimes {
    /// Reads a pattern of five fields, or of six with the seconds first, and an IANA time zone.
    pub fn new(cron: &str, time_zone: &str) -> Result<Self, FireTimesError> {
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let pattern = parser.parse(cron).map_err(|error| FireTimesError::Pattern(plain(&error)))?;
        // Without a year, what does not come in this calendar's cycle of leap years and weekdays never comes.
        pattern.find_next_occurrence(&LONG_AGO, true).map_err(|_| FireTimesError::Never)?;
        let zone = find_time_zone(time_zone).ok_or(FireTimesError::Zone)?;
        Ok(Self { pattern, zone })
    }

    /// The first fire time after an instant; none where the calendar ends.
    pub fn next_after(&self, instant: Timestamp) -> Option<Timestamp> {
        if self.pattern.pattern.hours.from_wildcard { self.next_shown(instant) } else { self.next_named(instant) }
    }

    /// The fire times after an instant, in order.
    pub fn after(&self, instant: Timestamp) -> impl Iterator<Item = Timestamp> {
        std::iter::successors(self.next_after(instant), |last| self.next_after(*last))
    }

    /// The newest fire times from `first` to `now`, both included, in order: at most so many.
    pub fn newest_until(&self, first: Timestamp, now: Timestamp, most: usize) -> Vec<Timestamp> {
        // From the end, in spans that double: what was missed may be years of seconds.
        let mut span = SignedDuration::from_mins(1);
        loop {
            let from = now.checked_sub(span).map_or(first, |from| from.max(first));
            let before = from.checked_sub(SignedDuration::from_secs(1)).unwrap_or(Timestamp::MIN);
            let mut found: Vec<Timestamp> =
                self.after(before).skip_while(|at| *at < from).take_while(|at| *at <= now).collect();
            if found.len() >= most || from == first {
                found.drain(..found.len().saturating_sub(most));
                return found;
            }
            span = span.saturating_mul(2);
        }
    }

    /// The time zone.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// Of a pattern that names its hours.
    fn next_named(&self, instant: Timestamp) -> Option<Timestamp> {
        let mut wall = self.zone.to_datetime(instant);
        loop {
            wall = self.next_wall(wall, false)?;
            let at = match self.zone.to_ambiguous_timestamp(wall).offset() {
                AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(wall).ok()?,
                AmbiguousOffset::Fold { before, .. } => before.to_timestamp(wall).ok()?,
                // By the clocks after it, a skipped time lies before the change.
                AmbiguousOffset::Gap { after, .. } => {
                    self.zone.following(after.to_timestamp(wall).ok()?).next()?.timestamp()
                }
            };
            // What is shown for the second time was there the first time, and several skipped times are one moment.
            if at > instant {
                return Some(at);
            }
        }
    }

    /// Of a pattern that means an interval. Between two changes of the clocks, wall-clock time is plain time.
    fn next_shown(&self, instant: Timestamp) -> Option<Timestamp> {
        let (mut from, mut inclusive) = (instant, false);
        loop {
            let offset = self.zone.to_offset(from);
            let wall = self.next_wall(offset.to_datetime(from), inclusive);
            let at = wall.and_then(|wall| offset.to_timestamp(wall).ok());
            match (at, self.zone.following(from).next()) {
                (Some(at), Some(change)) if at >= change.timestamp() => {
                    (from, inclusive) = (change.timestamp(), true);
                }
                (at, _) => return at,
            }
        }
    }

    fn next_wall(&self, from: DateTime, inclusive: bool) -> Option<DateTime> {
        self.pattern.find_next_occurrence(&from, inclusive).ok()
    }
}

/// Where a pattern is first looked for: any day before the first fire of all.
const LONG_AGO: DateTime = date(2000, 1, 1).at(0, 0, 0, 0);

/// In the words of our messages: no capital, no full stop, nothing of the parser's names.
fn plain(error: &croner::errors::CronError) -> String {
    let text = error.to_string();
    let text = ["Invalid pattern: ", "Component error: ", "Pattern contains illegal characters: "]
        .iter()
        .find_map(|start| text.strip_prefix(start))
        .unwrap_or(&text);
    let mut characters = text.trim_end_matches('.').chars();
    let first = characters.next().map(|first| first.to_ascii_lowercase());
    first.into_iter().chain(characters).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The next fire times after an instant, as the zone's clocks show them, with their offset.
    #[track_caller]
    fn check(cron: &str, zone: &str, after: &str, expected: &[&str]) {
        let times = FireTimes::new(cron, zone).unwrap();
        let shown: Vec<String> = times
            .after(after.parse().unwrap())
            .take(expected.len())
            .map(|at| at.to_zoned(times.zone().clone()).strftime("%m-%d %H:%M:%S%:z").to_string())
            .collect();
        assert_eq!(shown, expected, "{cron} in {zone}");
    }

    const BERLIN: &str = "Europe/Berlin";
    const NEW_YORK: &str = "America/New_York";
    const LORD_HOWE: &str = "Australia/Lord_Howe";

    #[test]
    fn a_pattern_is_meant_in_the_time_of_its_zone() {
        let after = "2024-01-31T12:00:00Z";
        check("0 6 * * *", "UTC", after, &["02-01 06:00:00+00:00", "02-02 06:00:00+00:00"]);
        check("0 6 * * *", BERLIN, after, &["02-01 06:00:00+01:00", "02-02 06:00:00+01:00"]);
        check("0 14 * * MON-FRI", BERLIN, "2024-02-02T13:00:00Z", &["02-05 14:00:00+01:00"]);
        check("0 0 L * *", BERLIN, after, &["02-29 00:00:00+01:00", "03-31 00:00:00+01:00"]);
        check("0 9 * * MON#1", NEW_YORK, after, &["02-05 09:00:00-05:00", "03-04 09:00:00-05:00"]);
        check("0 9 15W * *", "UTC", "2024-06-01T00:00:00Z", &["06-14 09:00:00+00:00", "07-15 09:00:00+00:00"]);
        check("0 9 * * FRI#L", "UTC", after, &["02-23 09:00:00+00:00", "03-29 09:00:00+00:00"]);
        check(
            "0 8-18/5 * * 7",
            "UTC",
            after,
            &["02-04 08:00:00+00:00", "02-04 13:00:00+00:00", "02-04 18:00:00+00:00"],
        );
        check("@monthly", "UTC", after, &["02-01 00:00:00+00:00", "03-01 00:00:00+00:00"]);
        check(
            "*/20 * * * * *",
            "UTC",
            after,
            &["01-31 12:00:20+00:00", "01-31 12:00:40+00:00", "01-31 12:01:00+00:00"],
        );
        // As cron always had it: of two days that are named, either will do.
        check("0 0 13 * FRI", "UTC", "2024-09-07T00:00:00Z", &["09-13 00:00:00+00:00", "09-20 00:00:00+00:00"]);
        check("0 0 13 * WED", "UTC", "2024-09-07T00:00:00Z", &["09-11 00:00:00+00:00", "09-13 00:00:00+00:00"]);
    }

    #[test]
    fn the_instant_itself_is_not_after_it() {
        check("0 6 * * *", "UTC", "2024-01-31T06:00:00Z", &["02-01 06:00:00+00:00"]);
        check("0 6 * * *", "UTC", "2024-01-31T05:59:59.999999Z", &["01-31 06:00:00+00:00"]);
        check("0 6 * * *", "UTC", "2024-01-31T06:00:00.000001Z", &["02-01 06:00:00+00:00"]);
        check("0 * * * *", "UTC", "2024-01-31T06:00:00Z", &["01-31 07:00:00+00:00"]);
        check("0 * * * *", "UTC", "2024-01-31T06:00:00.5Z", &["01-31 07:00:00+00:00"]);
    }

    #[test]
    fn a_skipped_time_fires_once_when_the_clocks_skip_it() {
        // 02:00 to 03:00 on 2024-03-31.
        check("30 2 * * *", BERLIN, "2024-03-30T12:00:00Z", &["03-31 03:00:00+02:00", "04-01 02:30:00+02:00"]);
        check("0 2,14 * * *", BERLIN, "2024-03-31T00:00:00Z", &["03-31 03:00:00+02:00", "03-31 14:00:00+02:00"]);
        // Skipped times and the one to which the clocks go are one moment.
        check(
            "0,30 2,3 * * *",
            BERLIN,
            "2024-03-31T00:00:00Z",
            &["03-31 03:00:00+02:00", "03-31 03:30:00+02:00", "04-01 02:00:00+02:00"],
        );
        check("*/15 2 * * *", BERLIN, "2024-03-31T00:00:00Z", &["03-31 03:00:00+02:00", "04-01 02:00:00+02:00"]);
        // The hour before is not concerned.
        check("30 1 * * *", BERLIN, "2024-03-30T12:00:00Z", &["03-31 01:30:00+01:00", "04-01 01:30:00+02:00"]);
        // 02:00 to 03:00 on 2024-03-10.
        check("30 2 * * *", NEW_YORK, "2024-03-09T12:00:00Z", &["03-10 03:00:00-04:00", "03-11 02:30:00-04:00"]);
        // 02:00 to 02:30 on 2024-10-06.
        check("15 2 * * *", LORD_HOWE, "2024-10-05T00:00:00Z", &["10-06 02:30:00+11:00", "10-07 02:15:00+11:00"]);
        check("45 2 * * *", LORD_HOWE, "2024-10-05T00:00:00Z", &["10-06 02:45:00+11:00", "10-07 02:45:00+11:00"]);
        // A day without midnight.
        check(
            "0 0 * * *",
            "America/Sao_Paulo",
            "2018-11-03T12:00:00Z",
            &["11-04 01:00:00-02:00", "11-05 00:00:00-02:00"],
        );
        // A day that there was not.
        check("0 6 30 12 *", "Pacific/Apia", "2011-12-01T00:00:00Z", &["12-31 00:00:00+14:00", "12-30 06:00:00+14:00"]);
    }

    #[test]
    fn a_time_that_is_shown_twice_fires_the_first_time() {
        // 03:00 to 02:00 on 2024-10-27.
        check("30 2 * * *", BERLIN, "2024-10-26T12:00:00Z", &["10-27 02:30:00+02:00", "10-28 02:30:00+01:00"]);
        check("0 2,14 * * *", BERLIN, "2024-10-26T23:00:00Z", &["10-27 02:00:00+02:00", "10-27 14:00:00+01:00"]);
        check(
            "*/30 2 * * *",
            BERLIN,
            "2024-10-26T23:00:00Z",
            &["10-27 02:00:00+02:00", "10-27 02:30:00+02:00", "10-28 02:00:00+01:00"],
        );
        check("0 3 * * *", BERLIN, "2024-10-26T12:00:00Z", &["10-27 03:00:00+01:00"]);
        // Asked while the clocks show it for the second time.
        check("30 2 * * *", BERLIN, "2024-10-27T01:10:00Z", &["10-28 02:30:00+01:00"]);
        // 02:00 to 01:00 on 2024-11-03.
        check("30 1 * * *", NEW_YORK, "2024-11-02T12:00:00Z", &["11-03 01:30:00-04:00", "11-04 01:30:00-05:00"]);
        // 02:00 to 01:30 on 2024-04-07.
        check("45 1 * * *", LORD_HOWE, "2024-04-06T00:00:00Z", &["04-07 01:45:00+11:00", "04-08 01:45:00+10:30"]);
        check("15 1 * * *", LORD_HOWE, "2024-04-06T00:00:00Z", &["04-07 01:15:00+11:00", "04-08 01:15:00+10:30"]);
    }

    #[test]
    fn an_interval_fires_whenever_a_clock_shows_its_times() {
        check("0 * * * *", BERLIN, "2024-03-31T00:00:00Z", &["03-31 03:00:00+02:00", "03-31 04:00:00+02:00"]);
        check(
            "30 * * * *",
            BERLIN,
            "2024-10-26T23:45:00Z",
            &["10-27 02:30:00+02:00", "10-27 02:30:00+01:00", "10-27 03:30:00+01:00"],
        );
        check(
            "0 * * * *",
            NEW_YORK,
            "2024-11-03T04:30:00Z",
            &["11-03 01:00:00-04:00", "11-03 01:00:00-05:00", "11-03 02:00:00-05:00"],
        );
        // Every second hour is none that is skipped.
        check("0 */2 * * *", BERLIN, "2024-03-30T23:30:00Z", &["03-31 04:00:00+02:00"]);
        // Half an hour is skipped, and shown twice.
        check("*/20 * * * *", LORD_HOWE, "2024-10-05T15:05:00Z", &["10-06 01:40:00+10:30", "10-06 02:40:00+11:00"]);
        check(
            "*/20 * * * *",
            LORD_HOWE,
            "2024-04-06T14:30:00Z",
            &["04-07 01:40:00+11:00", "04-07 01:40:00+10:30", "04-07 02:00:00+10:30"],
        );
    }

    #[track_caller]
    fn check_newest(cron: &str, first: &str, now: &str, most: usize, expected: &[&str]) {
        let times = FireTimes::new(cron, "UTC").unwrap();
        let found = times.newest_until(first.parse().unwrap(), now.parse().unwrap(), most);
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_newest_are_found_from_the_end() {
        check_newest(
            "0 6 * * *",
            "2024-01-01T06:00:00Z",
            "2024-01-03T06:00:00Z",
            5,
            &["2024-01-01T06:00:00Z", "2024-01-02T06:00:00Z", "2024-01-03T06:00:00Z"],
        );
        check_newest("0 6 * * *", "2024-01-01T06:00:00Z", "2024-01-03T05:00:00Z", 1, &["2024-01-02T06:00:00Z"]);
        check_newest("0 6 * * *", "2024-01-01T06:00:01Z", "2024-01-02T05:00:00Z", 3, &[]);
        check_newest("0 6 * * *", "2024-01-05T06:00:00Z", "2024-01-02T05:00:00Z", 3, &[]);
        check_newest(
            "0 0 1 1 *",
            "1990-01-01T00:00:00Z",
            "2024-06-01T00:00:00Z",
            2,
            &["2023-01-01T00:00:00Z", "2024-01-01T00:00:00Z"],
        );
        // Ten years of seconds are not walked through.
        check_newest(
            "* * * * * *",
            "2014-01-01T00:00:00Z",
            "2024-01-01T00:00:00.3Z",
            2,
            &["2023-12-31T23:59:59Z", "2024-01-01T00:00:00Z"],
        );
    }

    #[test]
    fn a_leap_day_on_a_weekday_comes() {
        check("0 0 29 2 +FRI", "UTC", "2024-03-01T00:00:00Z", &["02-29 00:00:00+00:00"]);
        // The slowest answer: each day of three thousand years is looked at.
        for never in ["0 0 30 2 *", "0 0 31 * +MON#1", "0 0 28-31 2,4,6 +MON#1"] {
            assert_eq!(FireTimes::new(never, "UTC").unwrap_err(), FireTimesError::Never);
        }
        assert_eq!(FireTimes::new("0 0 1 1 *", "Mars/Olympus").unwrap_err(), FireTimesError::Zone);
    }

    proptest! {
        #[test]
        fn fire_times_are_after_what_was_asked_and_move_on(
            cron in prop::sample::select(&["0 2 * * *", "*/7 1-3 * * *", "0 * * * *", "15,45 */3 * * *", "0 0 0 29 2 *", "13 17 1 L * *"][..]),
            zone in prop::sample::select(&[BERLIN, NEW_YORK, LORD_HOWE, "Africa/Casablanca", "America/Sao_Paulo", "Asia/Gaza"][..]),
            second in 0i64..4_000_000_000,
        ) {
            let times = FireTimes::new(cron, zone).unwrap();
            let instant = Timestamp::from_second(second).unwrap();
            let next = times.next_after(instant).unwrap();
            prop_assert!(next > instant && next.subsec_nanosecond() == 0);
            // Whenever in between is asked, the answer is the same.
            let between = Timestamp::from_second((second + next.as_second()) / 2).unwrap();
            if between < next {
                prop_assert_eq!(times.next_after(between), Some(next));
            }
            let just_before = Timestamp::from_second(next.as_second() - 1).unwrap();
            prop_assert_eq!(times.next_after(just_before), Some(next));
        }

        #[test]
        fn no_text_makes_the_reader_panic(cron in "[-0-9*/,#LW+?@ A-Z]{0,20}") {
            if let Ok(times) = FireTimes::new(&cron, BERLIN) {
                times.next_after(Timestamp::UNIX_EPOCH);
            }
        }
    }
}
