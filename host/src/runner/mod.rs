//! Running what the queue holds: claim -> prepare -> execute -> commit.
//!
//! Each step is a file that consumes one type and produces the next. Claiming, preparing and committing run on the
//! process's runtime; guests run on threads of their own, so that no statement ever waits behind guest code.
//! Reconcilers (`session`, `publish`) take no input: what they do after a crash is what they do always.

mod claim;
mod commit;
mod execute;
mod prepare;
mod publish;
pub mod retry;
mod session;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, Semaphore, broadcast, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    blob::BlobStore,
    capability::files::FingerprintCache,
    engine::Engine,
    id::{JobId, RunId, WorkerId},
    limit::{CLAIM_AHEAD, CLAIM_AHEAD_MAX, COMMIT_JOBS_MAX},
    store::{Store, StoreError, commit::FinishedJob},
};

/// How a process works.
#[derive(Clone, Debug)]
pub struct RunnerSettings {
    /// Attempts at once; each has a thread while it computes.
    pub slots: usize,
    /// The machine's name, for people.
    pub host: String,
    /// Whether this process knows itself alone with its database, because it owns the cluster.
    pub alone: bool,
}

/// What a runner tells whoever listens; the database has all of it.
#[derive(Clone, Debug)]
pub enum Event {
    /// An attempt begins.
    Started {
        /// The job's run.
        run: RunId,
        /// The job.
        job: JobId,
    },
    /// A job will be tried again.
    Deferred {
        /// The job's run.
        run: RunId,
        /// The job.
        job: JobId,
        /// Why.
        cause: String,
        /// When, in milliseconds from now.
        wait_ms: u64,
    },
    /// A job ended, and the database says so.
    Ended(crate::store::commit::EndedJob),
    /// The database or the blob store is in trouble; work goes on when it is over.
    Trouble(String),
}

/// A process's worker.
pub struct Runner {
    shared: Arc<Shared>,
    tasks: TaskTracker,
    guests: Option<tokio::runtime::Runtime>,
}

/// What the steps share.
struct Shared {
    store: Store,
    engine: Arc<Engine>,
    blobs: BlobStore,
    worker: WorkerId,
    settings: RunnerSettings,
    events: broadcast::Sender<Event>,
    /// Stops claiming.
    stopping: CancellationToken,
    /// Stops everything, results of unfinished commits included.
    at_once: CancellationToken,
    /// Wakes the claimer: something became ready, or a slot free.
    wake: Notify,
    /// Wakes whoever waits for the last claimed job.
    drained: Notify,
    /// Wakes the publisher: a commit staged files.
    publish: Notify,
    /// Claimed or being claimed, and not yet handed to the committer.
    pending: AtomicUsize,
    /// How long an attempt takes, smoothed, in microseconds.
    typical_us: AtomicUsize,
    /// The stop of each claimed job, and why it was pulled.
    running: Mutex<HashMap<JobId, JobStop>>,
    slots: Semaphore,
    prepared: mpsc::UnboundedSender<prepare::Prepared>,
    finished: mpsc::UnboundedSender<FinishedJob>,
    assets: prepare::AssetCache,
    fingerprints: Arc<Mutex<FingerprintCache>>,
}

/// How a claimed job is stopped from outside.
struct JobStop {
    token: CancellationToken,
    /// Whether its run was cancelled; otherwise the host needs it to stop, and the job goes back to the queue.
    cancelled: bool,
}

impl Runner {
    /// Registers the worker and starts its tasks.
    pub async fn start(
        store: Store,
        engine: Arc<Engine>,
        blobs: BlobStore,
        settings: RunnerSettings,
    ) -> Result<Self, StoreError> {
        let worker = WorkerId::new();
        if settings.alone {
            store.expire_all_sessions().await?;
        }
        store.register_worker(worker, &settings.host).await?;
        while store.rescue_lost_jobs().await?.jobs > 0 {}

        let (prepared, prepared_queue) = mpsc::unbounded_channel();
        let (finished, finished_queue) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            store,
            engine,
            blobs,
            worker,
            events: broadcast::channel(EVENTS_KEPT).0,
            stopping: CancellationToken::new(),
            at_once: CancellationToken::new(),
            wake: Notify::new(),
            drained: Notify::new(),
            publish: Notify::new(),
            pending: AtomicUsize::new(0),
            typical_us: AtomicUsize::new(INITIAL_TYPICAL_US),
            running: Mutex::default(),
            slots: Semaphore::new(settings.slots),
            prepared,
            finished,
            assets: prepare::AssetCache::default(),
            fingerprints: Arc::default(),
            settings,
        });
        let guests = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(shared.settings.slots)
            .thread_name("guest")
            .enable_time()
            .build()
            .expect("threads can be started when the process itself could");
        let tasks = TaskTracker::new();
        tasks.spawn(claim::claim_while_running(shared.clone()));
        tasks.spawn(execute::execute_prepared(shared.clone(), prepared_queue, guests.handle().clone()));
        tasks.spawn(commit::commit_finished(shared.clone(), finished_queue));
        tasks.spawn(session::keep_session(shared.clone()));
        tasks.spawn(session::watch_for_cancels(shared.clone()));
        tasks.spawn(session::promote_deferred(shared.clone()));
        tasks.spawn(publish::publish_staged(shared.clone()));
        tasks.close();
        Ok(Self { shared, tasks, guests: Some(guests) })
    }

    /// This process's worker id.
    pub fn worker(&self) -> WorkerId {
        self.shared.worker
    }

    /// What happens from now on. A slow listener misses events; the database has them.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// Says that there is work, instead of leaving it to the next poll.
    pub fn wake(&self) {
        self.shared.wake.notify_one();
    }

    /// Stops claiming, waits the grace for guests, stops those that go on, gives their jobs back, and ends the session.
    pub async fn stop(mut self, grace: Duration) {
        self.shared.stopping.cancel();
        if tokio::time::timeout(grace, self.shared.drained_after_stop()).await.is_err() {
            self.shared.stop_guests();
        }
        self.finish().await;
    }

    /// Stops guests without waiting, and gives their jobs back if the database answers soon.
    pub async fn stop_at_once(mut self) {
        self.shared.stopping.cancel();
        self.shared.stop_guests();
        self.shared.at_once.cancel();
        self.finish().await;
    }

    async fn finish(&mut self) {
        self.tasks.wait().await;
        if let Some(guests) = self.guests.take() {
            guests.shutdown_background();
        }
        if let Err(error) = self.shared.store.deregister_worker(self.shared.worker).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "the session could not be ended");
        }
    }
}

/// Events that a slow listener may lag behind.
const EVENTS_KEPT: usize = 16_384;
/// Before the first attempt is measured, jobs count as slow: nothing is claimed ahead.
const INITIAL_TYPICAL_US: usize = 50_000;

impl Shared {
    fn tell(&self, event: Event) {
        // Nobody listens: the database has it.
        let _nobody = self.events.send(event);
    }

    /// Stops every guest for the host's sake.
    fn stop_guests(&self) {
        for stop in self.lock_running().values() {
            stop.token.cancel();
        }
    }

    fn lock_running(&self) -> std::sync::MutexGuard<'_, HashMap<JobId, JobStop>> {
        self.running.lock().expect("nothing that holds this lock can panic")
    }

    /// How many jobs to hold at once: one for each slot, and ahead of that what short jobs use up in [`CLAIM_AHEAD`].
    fn jobs_wanted(&self) -> usize {
        let slots = self.settings.slots;
        let typical_us = self.typical_us.load(Ordering::Relaxed).max(1);
        let ahead = slots * (CLAIM_AHEAD.as_micros() as usize) / typical_us;
        slots + ahead.saturating_sub(slots).min(CLAIM_AHEAD_MAX)
    }

    /// Hands a job to the committer; from here on it is no longer pending.
    fn finish(&self, job: FinishedJob) {
        self.lock_running().remove(&job.claim.job);
        if self.finished.send(job).is_err() {
            tracing::error!("a finished job came after the committer had ended; its lease will expire");
        }
        self.no_longer_pending();
        self.wake.notify_one();
    }

    /// Counts one down; the last one tells whoever waits for it.
    fn no_longer_pending(&self) {
        if self.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.drained.notify_waiters();
        }
    }

    fn measure(&self, took: Duration) {
        let old = self.typical_us.load(Ordering::Relaxed);
        let new = (old * 7 + took.as_micros() as usize) / 8;
        self.typical_us.store(new.max(1), Ordering::Relaxed);
    }

    /// Waits, unless the runner stops first.
    async fn pause(&self, wait: Duration) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.stopping.cancelled() => {}
        }
    }
}

const _: () = assert!(COMMIT_JOBS_MAX <= CLAIM_AHEAD_MAX, "a commit never waits for more than is claimed ahead");
