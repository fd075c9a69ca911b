//! Progress without a terminal: one line on stderr for each job of a small run; of a large one, its progress once a
//! second and what fails.

use std::time::Instant;

use super::{
    board::{Board, End},
    reporter::{Begun, Notice, Outcome, Reporter},
};
use crate::{
    cli::{
        figures::{duration_ms, job, plural},
        print::{Talk, one_line},
    },
    limit::{JOB_LINES_MAX, PROGRESS_INTERVAL, TROUBLE_LINES_MAX},
};

/// Lines on stderr.
pub struct Lines {
    talk: Talk,
    told_at: Instant,
    troubles: usize,
}

impl Lines {
    /// Nothing is told before the run begins.
    pub fn new(talk: Talk) -> Self {
        Self { talk, told_at: Instant::now(), troubles: 0 }
    }
}

impl Reporter for Lines {
    fn begin(&mut self, begun: Begun<'_>, board: &Board) {
        self.talk.say(headline(begun, board.jobs()));
        self.told_at = Instant::now();
    }

    fn note(&mut self, notice: Notice<'_>, board: &Board) {
        let Some(line) = line(notice, board.jobs() > JOB_LINES_MAX) else { return };
        let end = Notice::is_trouble(&notice);
        self.troubles += usize::from(end);
        match self.troubles.checked_sub(TROUBLE_LINES_MAX) {
            Some(1) if end => self.talk.say("further failures and retries are counted and not told of one by one"),
            Some(1..) if end => {}
            _ => self.talk.say(line),
        }
    }

    fn tick(&mut self, board: &Board) {
        if board.jobs() > JOB_LINES_MAX && self.told_at.elapsed() >= PROGRESS_INTERVAL {
            self.told_at = Instant::now();
            self.talk.say(progress(board));
        }
    }

    fn end(&mut self, _: Outcome<'_>, _: &Board) {}
}

/// What a run begins with.
pub(super) fn headline(begun: Begun<'_>, jobs: usize) -> String {
    let Begun { run, pipeline, version, up_to_date } = begun;
    let current =
        up_to_date.filter(|count| *count > 0).map(|count| format!(", {count} up to date")).unwrap_or_default();
    format!("run {run} of {pipeline} v{version}: {}{current}", plural(jobs as u64, "job"))
}

/// One line for what happened; none for what only a small run tells of.
pub(super) fn line(notice: Notice<'_>, large: bool) -> Option<String> {
    match notice {
        Notice::Started(..) => None,
        Notice::Deferred { named, cause, wait_ms, .. } => {
            let name = job(named.asset, named.partition_key);
            Some(format!("{}  tried again in {}: {}", one_line(&name), duration_ms(wait_ms), one_line(cause)))
        }
        Notice::Joined { .. } | Notice::Limited { .. } if large => None,
        Notice::Joined { named, joined, .. } => {
            let name = job(named.asset, named.partition_key);
            Some(format!("{}  joined run {joined}", one_line(&name)))
        }
        Notice::Limited { named, cause, .. } => {
            let name = job(named.asset, named.partition_key);
            Some(format!("{}  waits: {}", one_line(&name), one_line(cause)))
        }
        Notice::Ended { end: End { state: "succeeded", .. }, .. } if large => None,
        Notice::Ended { end: End { state: "skipped" | "cancelled", .. }, .. } if large => None,
        Notice::Ended { named, end, .. } => {
            let name = job(named.asset, named.partition_key);
            let state = if end.reused { "reused" } else { end.state };
            let cause = end.cause.map(|cause| format!(": {}", one_line(cause))).unwrap_or_default();
            Some(format!("{}  {state}{cause}", one_line(&name)))
        }
        Notice::Trouble(message) => Some(format!("trouble: {}", one_line(message))),
    }
}

impl Notice<'_> {
    /// Whether it is among what is told of up to a bound.
    pub(super) fn is_trouble(&self) -> bool {
        match self {
            Self::Started(..) | Self::Joined { .. } | Self::Limited { .. } => false,
            Self::Deferred { .. } | Self::Trouble(_) => true,
            Self::Ended { end, .. } => end.state == "failed",
        }
    }
}

fn progress(board: &Board) -> String {
    let total = board.total();
    let mut text = format!("{} of {} jobs ended: {} made", total.ended(), total.jobs, total.made);
    for (count, state) in
        [(total.reused, "reused"), (total.skipped, "skipped"), (total.failed, "failed"), (total.cancelled, "cancelled")]
    {
        if count > 0 {
            text.push_str(&format!(", {count} {state}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{
        super::board::tests::{FAILED, MADE, REUSED, SKIPPED, a_board},
        *,
    };

    #[test]
    fn each_end_is_a_line_that_cannot_be_forged() {
        let (board, ids) = a_board(&[]);
        let told = |end: End<'_>, large| {
            let named = board.find(ids[1]).unwrap();
            line(Notice::Ended { job: ids[1], named, end, materialization: None }, large)
        };
        assert_eq!(told(MADE, false).unwrap(), "monthly[2012-01]  succeeded");
        assert_eq!(told(REUSED, false).unwrap(), "monthly[2012-01]  reused");
        assert_eq!(told(SKIPPED, false).unwrap(), "monthly[2012-01]  skipped: input raw was not made");
        assert_eq!(told(FAILED, false).unwrap(), "monthly[2012-01]  failed: out of fuel␊forged␛");
        assert_eq!([told(MADE, true), told(SKIPPED, true)], [None, None]);
        assert!(told(FAILED, true).is_some());
    }

    #[test]
    fn a_retry_says_when_and_why() {
        let (board, ids) = a_board(&[]);
        let named = board.find(ids[0]).unwrap();
        let notice = Notice::Deferred { job: ids[0], named, cause: "busy\x1b", wait_ms: 1_500 };
        assert_eq!(line(notice, true).unwrap(), "raw  tried again in 1.5 s: busy␛");
    }

    #[test]
    fn a_small_run_tells_which_run_a_job_has_joined() {
        let (board, ids) = a_board(&[]);
        let named = board.find(ids[0]).unwrap();
        let joined = "0193b5a0-1c2d-7abc-8def-0123456789ab".parse().unwrap();
        let notice = Notice::Joined { job: ids[0], named, joined };
        assert_eq!(line(notice, false).unwrap(), "raw  joined run 0193b5a0-1c2d-7abc-8def-0123456789ab");
        assert_eq!(line(notice, true), None);
    }

    #[test]
    fn progress_names_only_what_happened() {
        assert_eq!(progress(&a_board(&[MADE, REUSED]).0), "2 of 4 jobs ended: 1 made, 1 reused");
        assert_eq!(progress(&a_board(&[MADE, FAILED, SKIPPED]).0), "3 of 4 jobs ended: 1 made, 1 skipped, 1 failed");
    }
}
