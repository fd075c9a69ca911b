//! Room for what guests may hold open: readers, staged files and answers are descriptors of this process.
//!
//! Shells give a process 1,024 of them, which two guests could take; the database, the blob store and every other guest
//! would then be told that there are too many open files. Most systems allow far more to who asks.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::limit::{DESCRIPTORS_OF_HOST, DESCRIPTORS_PER_GUEST};

/// Raises the limit to what so many guests at once may need, as far as the system allows; says so where it does not.
pub fn make_room(guests: usize) {
    let needed = (DESCRIPTORS_OF_HOST + guests * DESCRIPTORS_PER_GUEST) as u64;
    let limit = getrlimit(Resource::Nofile);
    let allowed = match raised(&limit, needed) {
        Some(raised) if setrlimit(Resource::Nofile, raised).is_ok() => raised.current,
        _ => limit.current,
    };
    if let Some(allowed) = allowed.filter(|allowed| *allowed < needed) {
        tracing::warn!(
            allowed,
            needed,
            "guests could use up the descriptors of this process: raise its limit (ulimit -n), or run fewer at a time"
        );
    }
}

/// The limit to set, if it is to be changed. `None` in a limit is no limit.
fn raised(limit: &Rlimit, needed: u64) -> Option<Rlimit> {
    let current = limit.current.filter(|current| *current < needed)?;
    let wanted = limit.maximum.map_or(needed, |maximum| maximum.min(needed));
    (wanted > current).then_some(Rlimit { current: Some(wanted), maximum: limit.maximum })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_it_is_needed_and_allowed_and_never_lowered() {
        let check = |current: Option<u64>, maximum: Option<u64>, expected: Option<u64>| {
            let raised = raised(&Rlimit { current, maximum }, 2_000);
            assert_eq!(raised.as_ref().and_then(|limit| limit.current), expected, "{current:?} {maximum:?}");
            assert!(raised.is_none_or(|limit| limit.maximum == maximum));
        };
        check(Some(1_024), Some(1 << 20), Some(2_000));
        check(Some(1_024), None, Some(2_000));
        check(Some(1_024), Some(1_500), Some(1_500));
        check(Some(1_024), Some(1_024), None);
        check(Some(4_096), Some(1 << 20), None);
        check(None, None, None);
    }
}
