//! Figures and names as people read them: sizes, times, fuel, ids, partitions.
//!
//! For text only: JSON carries the plain numbers and the full ids.

use crate::{
    id::RunId,
    pipeline::partition::{ParsePartitionKeyError, PartitionKey},
};

/// `512 B`, `1.5 KiB`, `24.0 MiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1_024 {
        return format!("{bytes} B");
    }
    let (mut value, mut unit) = (bytes as f64 / 1_024.0, 0);
    while value >= 1_023.95 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1_024.0, unit + 1);
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// Fuel and other large counts: `950`, `12.3 k`, `5.0 M`, `1.2 G`.
pub fn count(count: u64) -> String {
    const UNITS: [&str; 5] = ["k", "M", "G", "T", "P"];
    if count < 1_000 {
        return count.to_string();
    }
    let (mut value, mut unit) = (count as f64 / 1_000.0, 0);
    while value >= 999.95 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1_000.0, unit + 1);
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// `380 us`, `41.2 ms`, `3.4 s`, `2 min 5 s`, `3 h 20 min`.
pub fn duration_us(us: u64) -> String {
    let seconds = us / 1_000_000;
    match us {
        0..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        1_000_000..60_000_000 => format!("{:.1} s", us as f64 / 1e6),
        60_000_000..3_600_000_000 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds / 60 % 60),
    }
}

/// The same of milliseconds.
pub fn duration_ms(ms: u64) -> String {
    if ms == 0 { "0 ms".to_owned() } else { duration_us(ms.saturating_mul(1_000)) }
}

/// `2026-11-23 08:43:11`, in UTC like everything that is stored.
pub fn instant(ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(ms) {
        Ok(at) => at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => format!("{ms} ms"),
    }
}

/// `1 job`, `3 jobs`.
pub fn plural(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

/// Enough of a run's id to tell it from others: its millisecond.
pub fn short(run: RunId) -> String {
    run.to_string()[..SHORT_ID_CHARS].to_owned()
}

/// The 48 bits of time in a UUIDv7, with the hyphen between them.
const SHORT_ID_CHARS: usize = 13;

/// A partition as a person writes it; empty for the only one of an unpartitioned asset.
pub fn partition(key: &str) -> String {
    match key.parse::<PartitionKey>() {
        Ok(key) => key.label(),
        // A later version may know more kinds of keys than this one.
        Err(ParsePartitionKeyError { .. }) => key.to_owned(),
    }
}

/// `asset`, or `asset[partition]`.
pub fn job(asset: &str, partition_key: &str) -> String {
    match &*partition(partition_key) {
        "" => asset.to_owned(),
        partition => format!("{asset}[{partition}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_counts_have_one_decimal_and_never_four_digits() {
        let sizes = [0, 1_023, 1_024, 1_536, 1_048_575, 1_048_576, 5 << 40, u64::MAX].map(bytes);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "1.0 MiB", "5.0 TiB", "16384.0 PiB"]);
        let counts = [0, 999, 1_000, 999_949, 999_950, 5_000_000_000].map(count);
        assert_eq!(counts, ["0", "999", "1.0 k", "999.9 k", "1.0 M", "5.0 G"]);
    }

    #[test]
    fn durations_use_the_unit_that_fits() {
        let texts = [0, 999, 1_000, 41_230, 1_000_000, 3_440_000, 125_000_000, 12_000_000_000].map(duration_us);
        assert_eq!(texts, ["0 us", "999 us", "1.0 ms", "41.2 ms", "1.0 s", "3.4 s", "2 min 5 s", "3 h 20 min"]);
        assert_eq!(duration_ms(0), "0 ms");
        assert_eq!(duration_ms(u64::MAX), duration_us(u64::MAX));
    }

    #[test]
    fn instants_are_utc() {
        assert_eq!(instant(1_795_423_391_000), "2026-11-23 08:43:11");
        assert_eq!(instant(i64::MAX), "9223372036854775807 ms");
    }

    #[test]
    fn jobs_are_named_by_asset_and_label() {
        assert_eq!(job("raw", "none"), "raw");
        assert_eq!(job("monthly", "month=month:2012-01"), "monthly[2012-01]");
        assert_eq!(job("monthly", "from=later:x"), "monthly[from=later:x]");
    }

    #[test]
    fn a_short_id_is_a_prefix() {
        let run: RunId = "0193b5a0-1c2d-7abc-8def-0123456789ab".parse().unwrap();
        assert_eq!(short(run), "0193b5a0-1c2d");
    }
}
