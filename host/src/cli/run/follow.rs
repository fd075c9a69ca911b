//! Following a run: the worker's events as they come, the run's row for the truth, the jobs' rows for what was missed.

use std::pin::pin;

use anyhow::bail;
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{
    super::signals::Signals,
    board::{Board, End},
    reporter::{Notice, Reporter},
};
use crate::{
    app::App,
    id::{JobId, MaterializationId, RunId},
    limit::{LIST_ROWS_MAX, PROGRESS_TICK, RUN_POLL},
    runner::Event,
    store::{StoreError, runs::RunRecord},
};

/// Why nothing more is followed.
#[derive(Debug)]
pub enum Over {
    /// The run's row says that it is over.
    Finished(RunRecord),
    /// This process was asked to stop.
    Interrupted,
    /// Nobody watches any more; the run goes on.
    Left,
}

/// One run, followed.
pub struct Follow<'a> {
    app: &'a App,
    /// Which.
    pub run: RunId,
    /// What is known of it.
    pub board: Board,
    /// Who tells of it.
    pub reporter: Box<dyn Reporter>,
    /// What this process' own worker tells; none when only others work.
    events: Option<Receiver<Event>>,
    /// Events were missed: rows have to be read.
    missed: bool,
    /// How many ends the board had when the row last had more.
    behind_at: Option<usize>,
    /// All jobs up to this one have ended.
    ended_through: Option<JobId>,
    /// The database is away, and that was told.
    troubled: bool,
}

impl<'a> Follow<'a> {
    /// Events must have been subscribed to before the run was submitted.
    pub fn new(
        app: &'a App,
        run: RunId,
        board: Board,
        reporter: Box<dyn Reporter>,
        events: Option<Receiver<Event>>,
    ) -> Self {
        let (missed, behind_at, ended_through, troubled) = (false, None, None, false);
        Self { app, run, board, reporter, events, missed, behind_at, ended_through, troubled }
    }

    /// Follows until the run is over, or a signal comes.
    pub async fn until_over(&mut self, signals: &mut Signals) -> anyhow::Result<Over> {
        let mut tick = interval(PROGRESS_TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut poll = pin!(sleep_until(Instant::now()));
        loop {
            tokio::select! {
                () = signals.next() => return Ok(self.stopped()),
                () = &mut poll => {
                    if let Some(record) = self.look().await? {
                        return Ok(Over::Finished(record));
                    }
                    poll.as_mut().reset(Instant::now() + RUN_POLL);
                }
                () = self.listen() => {
                    // Nothing more will come: the row is written, or about to be.
                    if self.board.ended == self.board.jobs() {
                        poll.as_mut().reset(Instant::now());
                    }
                }
                _ = tick.tick() => self.reporter.tick(&self.board),
            }
        }
    }

    /// A run goes on without those that only watch it.
    fn stopped(&self) -> Over {
        if self.events.is_some() { Over::Interrupted } else { Over::Left }
    }

    /// Takes the next event of this run, whenever it comes. Safe to drop and call again.
    pub async fn listen(&mut self) {
        let Some(events) = &mut self.events else { return std::future::pending().await };
        match events.recv().await {
            Ok(event) => self.take(event),
            Err(RecvError::Lagged(_)) => self.missed = true,
            // The worker has ended: there will never be another.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Started { run, job } if run == self.run => {
                if let Some(named) = self.board.find(job) {
                    self.reporter.note(Notice::Started(job, named), &self.board);
                }
            }
            Event::Deferred { run, job, cause, wait_ms } if run == self.run => {
                if let Some(named) = self.board.find(job) {
                    self.reporter.note(Notice::Deferred { job, named, cause: &cause, wait_ms }, &self.board);
                }
            }
            Event::Joined { run, job, joined } if run == self.run => {
                if let Some(named) = self.board.find(job) {
                    self.reporter.note(Notice::Joined { job, named, joined }, &self.board);
                }
            }
            Event::Limited { run, job, cause } if run == self.run => {
                if let Some(named) = self.board.find(job) {
                    self.reporter.note(Notice::Limited { job, named, cause: &cause }, &self.board);
                }
            }
            Event::Ended(ended) if ended.run == self.run => {
                let end = End { state: ended.state, cause: ended.cause.as_deref(), reused: ended.reused };
                self.end(ended.job, end, ended.materialization);
            }
            Event::Trouble(message) => self.reporter.note(Notice::Trouble(&message), &self.board),
            Event::Started { .. }
            | Event::Deferred { .. }
            | Event::Joined { .. }
            | Event::Limited { .. }
            | Event::Ended(_) => {}
        }
    }

    fn end(&mut self, job: JobId, end: End<'_>, materialization: Option<MaterializationId>) {
        if self.board.end(job, end)
            && let Some(named) = self.board.find(job)
        {
            self.reporter.note(Notice::Ended { job, named, end, materialization }, &self.board);
        }
    }

    /// The same, reading the jobs' rows whatever the events told.
    pub async fn look_closely(&mut self) -> anyhow::Result<Option<RunRecord>> {
        self.missed = true;
        self.look().await
    }

    /// Looks whether the run is over. While the database is away it may be, or not.
    pub async fn look(&mut self) -> anyhow::Result<Option<RunRecord>> {
        match self.read().await {
            Ok(over) => {
                self.troubled = false;
                Ok(over)
            }
            Err(error) => match error.downcast_ref::<StoreError>() {
                Some(store) if store.is_transient() => {
                    if !std::mem::replace(&mut self.troubled, true) {
                        self.reporter.note(Notice::Trouble(&format!("{store}; the run waits for it")), &self.board);
                    }
                    Ok(None)
                }
                _ => Err(error),
            },
        }
    }

    async fn read(&mut self) -> anyhow::Result<Option<RunRecord>> {
        let Some(record) = self.app.store.find_run(&self.app.tenant, self.run).await? else {
            bail!("run {} has disappeared from the database", self.run);
        };
        let over = record.state != "running";
        let ended = (record.succeeded + record.skipped + record.failed + record.cancelled) as usize;
        let behind = ended > self.board.ended;
        // Events are often a moment behind the row; twice without any in between, they will not come.
        let late = over || self.events.is_none() || self.behind_at == Some(self.board.ended);
        if self.missed || (behind && late) {
            self.catch_up().await?;
            self.missed = false;
        }
        self.behind_at = behind.then_some(self.board.ended);
        Ok(over.then_some(record))
    }

    /// Reads the ends that no event told of: missed ones, and those of other workers.
    async fn catch_up(&mut self) -> Result<(), StoreError> {
        let (mut after, mut all_ended) = (self.ended_through, true);
        loop {
            let page = self.app.store.list_jobs(&self.app.tenant, self.run, after, LIST_ROWS_MAX).await?;
            for job in &page {
                let ended = matches!(&*job.state, "succeeded" | "skipped" | "failed" | "cancelled");
                all_ended &= ended;
                if all_ended {
                    self.ended_through = Some(job.id);
                }
                if ended {
                    let end = End { state: &job.state, cause: job.cause.as_deref(), reused: job.reused };
                    self.end(job.id, end, job.materialization);
                }
            }
            after = page.last().map(|job| job.id).or(after);
            if (page.len() as i64) < LIST_ROWS_MAX {
                return Ok(());
            }
        }
    }
}
