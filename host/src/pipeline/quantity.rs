//! Quantities as people write them: fuel `5G`, sizes `256MiB`, durations `1m30s`.
//!
//! Exact or refused: nothing is rounded, nothing overflows, and no unit is guessed.

use std::time::Duration;

/// Units of fuel, in powers of a thousand.
const FUEL_UNITS: [(&str, u128); 5] =
    [("", 1), ("K", 1_000), ("M", 1_000_000), ("G", 1_000_000_000), ("T", 1_000_000_000_000)];

/// Sizes: `KiB` is 1,024 bytes and `KB` is 1,000, as the standards say.
const BYTE_UNITS: [(&str, u128); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Durations, in milliseconds. Months and years are left out: they have no fixed length.
const TIME_UNITS: [(&str, u128); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Parses an amount of fuel: `5G`, `1.5M`, `1000`.
pub fn parse_fuel(text: &str) -> Option<u64> {
    let (amount, rest) = leading_amount(text, &FUEL_UNITS)?;
    (rest.is_empty()).then(|| u64::try_from(amount).ok())?
}

/// Parses a size in bytes: `256MiB`, `1.5GB`, `512B`.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let (amount, rest) = leading_amount(text, &BYTE_UNITS)?;
    (rest.is_empty()).then(|| u64::try_from(amount).ok())?
}

/// Parses a duration of whole milliseconds: `250ms`, `60s`, `1h30m`; longer units come first.
pub fn parse_duration_ms(text: &str) -> Option<u64> {
    let (mut total, mut rest, mut shortest) = (0u128, text, u128::MAX);
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let unit_end = rest[unit_at..].find(|c: char| !c.is_ascii_alphabetic()).map_or(rest.len(), |n| unit_at + n);
        let (amount, _) = leading_amount(&rest[..unit_end], &TIME_UNITS)?;
        let (_, unit) = TIME_UNITS.iter().find(|(name, _)| *name == &rest[unit_at..unit_end])?;
        if *unit >= shortest {
            return None;
        }
        (total, rest, shortest) = (total.checked_add(amount)?, &rest[unit_end..], *unit);
    }
    (!text.is_empty()).then(|| u64::try_from(total).ok())?
}

/// The amount at the start of the text in base units, and what follows its unit. Absent when it is not a whole number of them.
fn leading_amount<'a>(text: &'a str, units: &[(&str, u128)]) -> Option<(u128, &'a str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    // 18 digits of each keep every product below within 128 bits.
    if whole.is_empty() || fraction.is_empty() || whole.len() > 18 || fraction.len() > 18 || fraction.contains('.') {
        return None;
    }
    let unit_end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (_, unit) = units.iter().find(|(name, _)| *name == &rest[..unit_end])?;
    let scale = 10u128.pow(fraction.len() as u32);
    let fraction = fraction.parse::<u128>().ok()? * unit;
    let whole = whole.parse::<u128>().ok()?.checked_mul(*unit)?;
    (fraction % scale == 0).then(|| (whole + fraction / scale, &rest[unit_end..]))
}

/// Fuel in the largest unit that divides it.
pub fn fuel_text(fuel: u64) -> String {
    exact_text(fuel, &FUEL_UNITS)
}

/// A size in the largest binary unit that divides it.
pub fn bytes_text(bytes: u64) -> String {
    exact_text(bytes, &BYTE_UNITS[..5])
}

/// A duration in the largest unit that divides it.
pub fn duration_text(duration: Duration) -> String {
    exact_text(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX), &TIME_UNITS)
}

fn exact_text(amount: u64, units: &[(&str, u128)]) -> String {
    let amount = u128::from(amount);
    let divides = |(_, unit): &&(&str, u128)| amount != 0 && amount % unit == 0;
    let (name, unit) = units.iter().rev().find(divides).unwrap_or(&units[0]);
    format!("{}{name}", amount / unit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(parse: fn(&str) -> Option<u64>, cases: &[(&str, Option<u64>)]) {
        for (text, expected) in cases {
            assert_eq!(parse(text), *expected, "{text:?}");
        }
    }

    #[test]
    fn fuel_has_decimal_units() {
        check(
            parse_fuel,
            &[
                ("5G", Some(5_000_000_000)),
                ("1.5M", Some(1_500_000)),
                ("12", Some(12)),
                ("0", Some(0)),
                ("5X", None),
                ("5 G", None),
                ("-5G", None),
                ("1.5", None),
                ("", None),
                ("G", None),
                ("1..5G", None),
                ("999999999999999999T", None),
                ("99999999999999999999", None),
            ],
        );
    }

    #[test]
    fn sizes_tell_binary_units_from_decimal_ones() {
        check(
            parse_bytes,
            &[
                ("256MiB", Some(256 << 20)),
                ("256MB", Some(256_000_000)),
                ("0.5KiB", Some(512)),
                ("7B", Some(7)),
                ("256M", None),
                ("256", None),
                ("256mib", None),
                ("0.3KiB", None),
            ],
        );
    }

    #[test]
    fn durations_add_up_from_the_longest_unit_down() {
        check(
            parse_duration_ms,
            &[
                ("60s", Some(60_000)),
                ("1h30m", Some(5_400_000)),
                ("1.5s", Some(1_500)),
                ("2d", Some(172_800_000)),
                ("10ms", Some(10)),
                ("30m1h", None),
                ("1s1s", None),
                ("5M", None),
                ("5", None),
                ("", None),
                ("s", None),
                ("0.5ms", None),
                ("1h 30m", None),
            ],
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(amount: u32) {
            let amount = u64::from(amount);
            prop_assert_eq!(parse_fuel(&fuel_text(amount)), Some(amount));
            prop_assert_eq!(parse_bytes(&bytes_text(amount)), Some(amount));
            prop_assert_eq!(parse_duration_ms(&duration_text(Duration::from_millis(amount))), Some(amount));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in "[0-9.KMGTiBsmhd -]{0,40}") {
            parse_fuel(&text);
            parse_bytes(&text);
            parse_duration_ms(&text);
        }
    }
}
