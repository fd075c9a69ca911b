//! Who tells of a run while it goes on: bars on a terminal, lines elsewhere, events for programs.

use super::board::{Board, End, Named};
use crate::{
    id::{JobId, MaterializationId, RunId},
    store::runs::RunRecord,
};

/// Something that happened in the run.
#[derive(Clone, Copy, Debug)]
pub enum Notice<'a> {
    /// An attempt begins.
    Started(JobId, Named<'a>),
    /// A job will be tried again.
    Deferred {
        /// Which.
        job: JobId,
        /// Its name.
        named: Named<'a>,
        /// Why.
        cause: &'a str,
        /// In how long.
        wait_ms: u64,
    },
    /// A job waits for the same job of another run.
    Joined {
        /// Which.
        job: JobId,
        /// Its name.
        named: Named<'a>,
        /// The other run.
        joined: RunId,
    },
    /// A job waits, because something that it shares with others is used up for now.
    Limited {
        /// Which.
        job: JobId,
        /// Its name.
        named: Named<'a>,
        /// What that is.
        cause: &'a str,
    },
    /// A job ended; the board has counted it.
    Ended {
        /// Which.
        job: JobId,
        /// Its name.
        named: Named<'a>,
        /// How.
        end: End<'a>,
        /// What it made or found.
        materialization: Option<MaterializationId>,
    },
    /// The host is in trouble, and the run waits for its end.
    Trouble(&'a str),
}

/// What a run is, when it begins.
#[derive(Clone, Copy, Debug)]
pub struct Begun<'a> {
    /// Its id.
    pub run: RunId,
    /// Of which pipeline.
    pub pipeline: &'a str,
    /// Of which version.
    pub version: i32,
    /// Partitions of the wanted assets that need nothing; whoever only watches does not know.
    pub up_to_date: Option<u64>,
}

/// How it went.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// The run is over, as its row says.
    Finished(&'a RunRecord),
    /// This process was asked to stop; what is left is left.
    Interrupted,
    /// It was watched, and nobody does any more.
    Left,
}

/// Tells of one run.
pub trait Reporter: Send {
    /// Before anything else.
    fn begin(&mut self, begun: Begun<'_>, board: &Board);
    /// Whenever something happens.
    fn note(&mut self, notice: Notice<'_>, board: &Board);
    /// From time to time.
    fn tick(&mut self, board: &Board);
    /// After everything else.
    fn end(&mut self, outcome: Outcome<'_>, board: &Board);
}
