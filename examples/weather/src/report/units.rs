//! The units of the page. Everything before it is metric.

use serde::Deserialize;

/// For whom the page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Units {
    /// Degrees Celsius, mm, m/s.
    Metric,
    /// Degrees Fahrenheit, inches, miles an hour.
    Imperial,
}

impl Units {
    /// From degrees Celsius.
    pub fn temperature(self, celsius: f64) -> f64 {
        match self {
            Self::Metric => celsius,
            Self::Imperial => celsius * 1.8 + 32.0,
        }
    }

    /// From mm.
    pub fn precipitation(self, millimetres: f64) -> f64 {
        match self {
            Self::Metric => millimetres,
            Self::Imperial => millimetres / 25.4,
        }
    }

    /// From degrees Celsius, with the unit.
    pub fn write_temperature(self, celsius: f64) -> String {
        let unit = if self == Self::Metric { "°C" } else { "°F" };
        format!("{}&nbsp;{unit}", group(self.temperature(celsius), 1))
    }

    /// From mm, with the unit.
    pub fn write_precipitation(self, millimetres: f64) -> String {
        let (unit, digits) = match self {
            Self::Metric if millimetres < 100.0 => ("mm", 1),
            Self::Metric => ("mm", 0),
            Self::Imperial => ("in", 1),
        };
        format!("{}&nbsp;{unit}", group(self.precipitation(millimetres), digits))
    }

    /// From m/s, with the unit.
    pub fn write_wind(self, metres_per_second: f64) -> String {
        match self {
            Self::Metric => format!("{metres_per_second:.1}&nbsp;m/s"),
            Self::Imperial => format!("{:.1}&nbsp;mph", metres_per_second / 0.447_04),
        }
    }
}

/// With so many digits after the point, commas between thousands, and a real minus sign.
pub fn group(value: f64, digits: usize) -> String {
    let text = format!("{:.digits$}", value.abs());
    let (whole, fraction) = text.split_once('.').map_or((text.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    let is_zero = text.bytes().all(|byte| matches!(byte, b'0' | b'.'));
    let mut grouped = if value < 0.0 && !is_zero { String::from("−") } else { String::new() };
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    fraction.map_or(grouped.clone(), |fraction| format!("{grouped}.{fraction}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        let written = [(1_461.0, 0), (-7.14, 1), (-0.04, 1), (1_234_567.0, 2), (99.96, 1)];
        let written = written.map(|(value, digits)| group(value, digits));
        assert_eq!(written, ["1,461", "−7.1", "0.0", "1,234,567.00", "100.0"]);
    }
}
