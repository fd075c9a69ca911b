//! The partition of an asset, or of one version of an input.

use std::fmt;

use crate::error::{Error, Result};

/// A partition: dimensions and the key on each, in the order in which the asset declares them; empty for an asset
/// without partitions.
///
/// ```
/// use flowstone_sdk::Partition;
///
/// let partition = Partition::new([("month", "2012-01"), ("region", "north")]);
/// assert_eq!(partition.key("month").unwrap(), "2012-01");
/// assert_eq!(partition.to_string(), "month=2012-01, region=north");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(Vec<(String, String)>);

impl Partition {
    /// From dimensions and keys, in order.
    pub fn new<D: Into<String>, K: Into<String>>(coordinates: impl IntoIterator<Item = (D, K)>) -> Self {
        Self(coordinates.into_iter().map(|(dimension, key)| (dimension.into(), key.into())).collect())
    }

    /// The key on this dimension. Asking for a dimension that does not exist is a permanent error which lists those
    /// that do.
    pub fn key(&self, dimension: &str) -> Result<&str> {
        let found = self.iter().find(|(name, _)| *name == dimension);
        found.map(|(_, key)| key).ok_or_else(|| {
            let names: Vec<_> = self.iter().map(|(name, _)| format!("`{name}`")).collect();
            let known = if names.is_empty() { "none".into() } else { names.join(", ") };
            Error::permanent(format!("no dimension `{dimension}`; this partition has: {known}"))
        })
    }

    /// The dimensions and their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(dimension, key)| (dimension.as_str(), key.as_str()))
    }

    /// Whether the asset has no partitions.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Partition {
    /// For people; the host's own encoding is another.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        for (index, (dimension, key)) in self.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{dimension}={key}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_dimension_is_answered_with_those_that_exist() {
        let partition = Partition::new([("year", "2012")]);
        assert_eq!(partition.key("month").unwrap_err().to_string(), "no dimension `month`; this partition has: `year`");
        let error = Partition::default().key("month").unwrap_err();
        assert_eq!(error.to_string(), "no dimension `month`; this partition has: none");
    }
}
