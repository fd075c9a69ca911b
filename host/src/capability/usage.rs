//! What a guest did with what it was granted: each use counted, recorded with the attempt.
//!
//! Uses of the same kind are one entry with a count, so that a guest that reads in chunks is one line, and one that
//! floods a host function costs a bounded amount of memory.

use std::collections::HashMap;

use super::{
    Calls,
    text::{neutralise, truncate},
};
use crate::limit::{DENIED_NAME_BYTES_MAX, USES_MAX};

/// Uses that differ in nothing but their bytes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Use {
    /// The interface: `files`, `http`.
    pub capability: String,
    /// The resource.
    pub resource: String,
    /// The function: `read`, `send`.
    pub operation: String,
    /// The path or key, where there is one. Empty for those past the bound, which are counted together.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub target: String,
    /// How the calls ended: `ok`, or the word that the guest was told.
    pub result: String,
    /// How many there were.
    pub calls: u64,
    /// Bytes that went in or out.
    pub bytes: u64,
}

/// One use, as it is recorded.
#[derive(Clone, Copy, Debug)]
pub struct Used<'a> {
    /// The resource.
    pub resource: &'a str,
    /// The function.
    pub operation: &'static str,
    /// The path or key, where there is one.
    pub target: &'a str,
    /// `ok`, or the word that the guest was told.
    pub result: &'static str,
    /// Bytes that went in or out.
    pub bytes: u64,
}

/// The uses of one capability in one attempt.
#[derive(Debug)]
pub struct Uses {
    capability: &'static str,
    entries: Vec<Use>,
    /// Where the entries of a target are.
    places: HashMap<String, Vec<usize>>,
    last: usize,
    calls: Option<Calls>,
}

impl Uses {
    /// Of this capability, none yet.
    pub fn of(capability: &'static str) -> Self {
        Self { capability, entries: Vec::new(), places: HashMap::new(), last: 0, calls: None }
    }

    /// The same, whose calls are timed if anybody wants to know.
    pub fn timed(self, calls: Option<Calls>) -> Self {
        Self { calls, ..self }
    }

    /// Counts a use.
    pub fn record(&mut self, used: Used<'_>) {
        if let Some(calls) = &self.calls {
            calls.end(self.capability, &used);
        }
        let target = truncate(used.target, DENIED_NAME_BYTES_MAX);
        // A guest that reads in chunks does the same again.
        let place = match self.entries.get(self.last) {
            Some(last) if is_same(last, &used, target) => self.last,
            _ => self.place(&used, target),
        };
        let entry = &mut self.entries[place];
        entry.calls += 1;
        entry.bytes = entry.bytes.saturating_add(used.bytes);
        self.last = place;
    }

    fn place(&mut self, used: &Used<'_>, target: &str) -> usize {
        let known = |target: &str| {
            let places = self.places.get(target)?;
            places.iter().copied().find(|place| is_same(&self.entries[*place], used, target))
        };
        if let Some(place) = known(target) {
            return place;
        }
        // Past the bound only the target is lost: resources, operations and results are few.
        let target = if self.entries.len() < USES_MAX { target } else { "" };
        if let Some(place) = known(target) {
            return place;
        }
        self.entries.push(Use {
            capability: self.capability.to_owned(),
            resource: used.resource.to_owned(),
            operation: used.operation.to_owned(),
            target: target.to_owned(),
            result: used.result.to_owned(),
            calls: 0,
            bytes: 0,
        });
        self.places.entry(target.to_owned()).or_default().push(self.entries.len() - 1);
        self.entries.len() - 1
    }

    /// All of them, in the order in which each kind was first seen.
    pub fn take(&mut self) -> Vec<Use> {
        self.places.clear();
        let mut entries = std::mem::take(&mut self.entries);
        entries.iter_mut().for_each(|entry| entry.target = neutralise(&entry.target));
        entries
    }
}

fn is_same(entry: &Use, used: &Used<'_>, target: &str) -> bool {
    entry.target == target
        && entry.operation == used.operation
        && entry.result == used.result
        && entry.resource == used.resource
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(target: &str, bytes: u64) -> Used<'_> {
        Used { resource: "station", operation: "read", target, result: "ok", bytes }
    }

    #[test]
    fn uses_of_a_kind_are_counted_together() {
        let mut uses = Uses::of("files");
        for (target, bytes) in [("a.csv", 10), ("b.csv", 1), ("a.csv", 5), ("a.csv", 5)] {
            uses.record(read(target, bytes));
        }
        uses.record(Used { result: "denied", ..read("a.csv", 0) });
        let uses = uses.take();
        let seen: Vec<_> = uses.iter().map(|u| (&*u.target, &*u.result, u.calls, u.bytes)).collect();
        assert_eq!(seen, [("a.csv", "ok", 3, 20), ("b.csv", "ok", 1, 1), ("a.csv", "denied", 1, 0)]);
    }

    #[test]
    fn a_flood_of_targets_is_bounded_and_none_of_it_is_lost() {
        let mut uses = Uses::of("files");
        for n in 0..10 * USES_MAX {
            uses.record(read(&format!("{n}.csv"), 2));
        }
        let uses = uses.take();
        assert_eq!(uses.len(), USES_MAX + 1);
        assert_eq!(uses.iter().map(|u| u.calls).sum::<u64>(), 10 * USES_MAX as u64);
        assert_eq!(uses.iter().map(|u| u.bytes).sum::<u64>(), 20 * USES_MAX as u64);
    }

    #[test]
    fn targets_are_cut_and_cannot_steer_a_terminal() {
        let mut uses = Uses::of("files");
        let long = format!("\u{1b}[2J{}", "x".repeat(64 << 10));
        uses.record(read(&long, 0));
        uses.record(read(&long, 0));
        let uses = uses.take();
        assert_eq!((uses.len(), uses[0].calls), (1, 2));
        assert!(uses[0].target.len() < 2 * DENIED_NAME_BYTES_MAX && !uses[0].target.contains('\u{1b}'));
    }
}
