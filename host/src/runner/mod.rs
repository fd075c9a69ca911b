//! Running what the queue holds: claim -> prepare -> execute -> commit. What an attempt wrote to an
//! operator's database is committed there in between, by `apply`.
//!
//! Each step is a file that consumes one type and produces the next. Claiming, preparing and committing run on the
//! process's runtime; guests run on threads of their own, so that no statement ever waits behind guest code.
//! Reconcilers (`session`, `publish`, `release`, `limits`) take no input: what they do after a crash is what they do always.

mod apply;
mod claim;
mod commit;
mod descriptors;
mod equip;
mod execute;
mod fence;
mod http;
mod key_value;
mod known;
mod lanes;
mod limits;
pub mod meters;
mod prepare;
mod publish;
mod release;
mod resources;
pub mod retry;
mod session;
mod telling;
pub mod trace;

use std::{
    collections::HashMap,
    fmt,
    future::Future,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, broadcast, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    blob::BlobStore,
    capability::{
        files::FingerprintCache,
        http::{Connector, SystemResolver},
        sql::{DatabaseUrls, Databases},
    },
    engine::{Engine, caught},
    id::{ClaimToken, JobId, RunId, WorkerId},
    limit::{BUCKET_READS_MAX, CLAIM_AHEAD, CLAIM_AHEAD_MAX, COMMIT_JOBS_MAX, INPUTS_HELD_MAX, STOP_COMMIT_WAIT},
    secret::SecretSources,
    store::{
        Store, StoreError,
        commit::FinishedJob,
        queue::{Claim, Served},
    },
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
    /// What it takes jobs from.
    pub served: Served,
    /// Where secrets are.
    pub secrets: SecretSources,
    /// Where databases are that a manifest names by variables.
    pub database_urls: DatabaseUrls,
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
    /// A job waits for a live one that makes the same, and takes its end.
    Joined {
        /// The job's run.
        run: RunId,
        /// The job.
        job: JobId,
        /// The run of the live job.
        joined: RunId,
    },
    /// A job waits, because something that it shares with others is used up for now.
    Limited {
        /// The job's run.
        run: RunId,
        /// The job.
        job: JobId,
        /// What that is.
        cause: String,
    },
    /// A job ended, and the database says so.
    Ended(crate::store::commit::EndedJob),
    /// The database or the blob store is in trouble; work goes on when it is over.
    Trouble(String),
}

/// A process's worker.
pub struct Runner {
    shared: Arc<Shared>,
    guests: Option<tokio::runtime::Runtime>,
}

/// A runner as others see it: for metrics and health.
#[derive(Clone)]
pub struct Watched(Arc<Shared>);

impl Watched {
    /// What it has counted.
    pub fn meters(&self) -> &meters::Meters {
        &self.0.meters
    }

    /// Attempts that it runs at once, at most.
    pub fn slots(&self) -> usize {
        self.0.settings.slots
    }

    /// Attempts that it runs now.
    pub fn slots_in_use(&self) -> usize {
        self.slots().saturating_sub(self.0.slots.available_permits())
    }

    /// Whether it takes no more jobs.
    pub fn is_stopping(&self) -> bool {
        self.0.stopping.is_cancelled()
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watched").field(&self.0.worker).finish()
    }
}

/// What the steps share.
struct Shared {
    store: Store,
    engine: Arc<Engine>,
    blobs: BlobStore,
    worker: WorkerId,
    meters: meters::Meters,
    /// Who takes spans, if anybody does.
    spans: OnceLock<trace::SpanSink>,
    settings: RunnerSettings,
    events: broadcast::Sender<Event>,
    /// Stops claiming.
    stopping: CancellationToken,
    /// The last claim has been answered.
    claimed_last: CancellationToken,
    /// Stops everything, results of unfinished commits included.
    at_once: CancellationToken,
    /// Wakes the claimer: something became ready.
    wake: Notify,
    /// Wakes the claimer when it waits for room: fewer jobs are pending or uncommitted. Where nothing is ready a job less
    /// changes nothing, and it must not ask again for each.
    room: Notify,
    /// Wakes whoever waits for the last claimed job.
    drained: Notify,
    /// Wakes the publisher: a commit staged files.
    publish: Notify,
    /// Wakes the releaser: a commit left dependents to it, or jobs that had joined others.
    release: Notify,
    /// Claimed or about to be, and not yet handed to the committer.
    pending: AtomicUsize,
    /// Handed to the committer, and not yet in the database.
    uncommitted: AtomicUsize,
    /// The committer has ended: nothing of this process's needs its session any more.
    committed: CancellationToken,
    /// How long an attempt takes, smoothed, in microseconds.
    typical_us: AtomicUsize,
    /// By claim: a job that was lost may be claimed again.
    running: Mutex<HashMap<(JobId, ClaimToken), Running>>,
    /// Room for what claimed jobs read, in inputs.
    input_room: Arc<Semaphore>,
    /// Claims whose answer was lost: the database may hold leases of which nobody here knows, and may come to hold them
    /// yet. With when they were looked up for the first time.
    unanswered: Mutex<Vec<(ClaimToken, Option<Instant>)>>,
    /// Shut when the session could not be renewed in time.
    fence: fence::Fence,
    slots: Arc<Semaphore>,
    tasks: TaskTracker,
    prepared: mpsc::UnboundedSender<known::Prepared>,
    finished: mpsc::UnboundedSender<Finished>,
    assets: known::AssetCache,
    fingerprints: Arc<Mutex<FingerprintCache>>,
    /// Of the process's runtime: guests' threads have no network.
    connector: Connector,
    databases: Databases,
    /// Turns of guests that read buckets.
    bucket_reads: Arc<Semaphore>,
}

/// What a claimed job holds until it is handed to the committer.
struct Running {
    /// Stops it from outside.
    stop: CancellationToken,
    /// Whether its run was cancelled; otherwise the host needs it to stop, and the job goes back to the queue.
    cancelled: bool,
    /// The room that what it reads takes, once it is loaded.
    room: Option<OwnedSemaphorePermit>,
    /// What its attempt says, once it is prepared.
    telling: Option<telling::Telling>,
}

/// A finished job on its way to the committer. What it read goes into its edges, so it keeps the room until they are
/// written.
struct Finished {
    job: FinishedJob,
    room: Option<OwnedSemaphorePermit>,
}

impl Runner {
    /// Registers the worker and starts its tasks.
    pub async fn start(
        store: Store,
        engine: Arc<Engine>,
        blobs: BlobStore,
        settings: RunnerSettings,
    ) -> Result<Self, StoreError> {
        descriptors::make_room(settings.slots);
        let worker = WorkerId::new();
        if settings.alone {
            store.expire_all_sessions().await?;
        }
        let fence = fence::Fence::new(Instant::now());
        store.register_worker(worker, &settings.host, &settings.served).await?;
        let meters = meters::Meters::default();
        loop {
            match store.rescue_lost_jobs().await?.jobs {
                0 => break,
                jobs => meters.count_rescued(jobs),
            }
        }
        store.end_abandoned_runs().await?;

        let (prepared, prepared_queue) = mpsc::unbounded_channel();
        let (finished, finished_queue) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            store,
            engine,
            blobs,
            worker,
            meters,
            spans: OnceLock::new(),
            events: broadcast::channel(EVENTS_KEPT).0,
            stopping: CancellationToken::new(),
            claimed_last: CancellationToken::new(),
            at_once: CancellationToken::new(),
            wake: Notify::new(),
            room: Notify::new(),
            drained: Notify::new(),
            publish: Notify::new(),
            release: Notify::new(),
            pending: AtomicUsize::new(0),
            uncommitted: AtomicUsize::new(0),
            committed: CancellationToken::new(),
            typical_us: AtomicUsize::new(INITIAL_TYPICAL_US),
            running: Mutex::default(),
            input_room: Arc::new(Semaphore::new(INPUTS_HELD_MAX)),
            unanswered: Mutex::default(),
            fence,
            slots: Arc::new(Semaphore::new(settings.slots)),
            tasks: TaskTracker::new(),
            prepared,
            finished,
            assets: known::AssetCache::default(),
            fingerprints: Arc::default(),
            connector: Connector::new(tokio::runtime::Handle::current(), Arc::new(SystemResolver)),
            databases: Databases::new(settings.database_urls.clone(), tokio::runtime::Handle::current()),
            bucket_reads: Arc::new(Semaphore::new(BUCKET_READS_MAX)),
            settings,
        });
        let guests = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(guest_threads(shared.settings.slots))
            .thread_name("guest")
            .enable_time()
            .build()
            .expect("threads can be started when the process itself could");
        let tasks = &shared.tasks;
        tasks.spawn(vital(claim::claim_while_running(shared.clone())));
        let process = tokio::runtime::Handle::current();
        let executing = vital(execute::execute_prepared(shared.clone(), prepared_queue, process));
        tasks.spawn_on(executing, guests.handle());
        tasks.spawn(vital(commit::commit_finished(shared.clone(), finished_queue)));
        tasks.spawn(vital(session::keep_session(shared.clone())));
        tasks.spawn(vital(fence::keep_fence(shared.clone())));
        tasks.spawn(vital(session::rescue_others(shared.clone())));
        tasks.spawn(vital(session::watch_for_cancels(shared.clone())));
        tasks.spawn(vital(telling::tell_what_is_said(shared.clone())));
        tasks.spawn(vital(session::promote_deferred(shared.clone())));
        tasks.spawn(vital(session::hear_of_ready_jobs(shared.clone())));
        tasks.spawn(vital(publish::publish_staged(shared.clone())));
        tasks.spawn(vital(release::release_put_off(shared.clone())));
        tasks.spawn(vital(limits::wake_limited(shared.clone())));
        Ok(Self { shared, guests: Some(guests) })
    }

    /// This process's worker id.
    pub fn worker(&self) -> WorkerId {
        self.shared.worker
    }

    /// For metrics and health.
    pub fn watched(&self) -> Watched {
        Watched(self.shared.clone())
    }

    /// From now on spans go there; said once.
    pub fn trace_to(&self, spans: trace::SpanSink) {
        if self.shared.spans.set(spans).is_err() {
            tracing::error!("spans go somewhere already");
        }
    }

    /// What happens from now on. A slow listener misses events; the database has them.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// Says that there is work, instead of leaving it to the next poll.
    pub fn wake(&self) {
        self.shared.wake.notify_one();
    }

    /// The same, for whoever submits work from another task.
    pub fn waker(&self) -> impl Fn() + Send + Sync + 'static {
        let shared = self.shared.clone();
        move || shared.wake.notify_one()
    }

    /// Stops claiming, before it returns; then waits the grace for guests, stops those that go on, gives their jobs
    /// back, and ends the session. When `at_once` resolves meanwhile, the rest is that of [`Runner::stop_at_once`].
    pub fn stop(self, grace: Duration, at_once: impl Future<Output = ()>) -> impl Future<Output = ()> {
        self.shared.stopping.cancel();
        self.wait_and_stop(grace, at_once)
    }

    async fn wait_and_stop(mut self, grace: Duration, at_once: impl Future<Output = ()>) {
        let shared = self.shared.clone();
        let gracefully = async {
            if tokio::time::timeout(grace, shared.drained_after_stop()).await.is_err() {
                shared.stop_guests();
            }
            self.finish().await;
        };
        tokio::select! {
            () = gracefully => return,
            () = at_once => {}
        }
        self.stop_at_once().await;
    }

    /// Stops guests without waiting, and gives their jobs back if the database answers soon.
    pub async fn stop_at_once(mut self) {
        self.shared.stopping.cancel();
        self.shared.stop_guests();
        self.shared.at_once.cancel();
        self.finish().await;
    }

    /// Waits for the last commit; a database that does not answer any more is not waited for without end.
    async fn finish(&mut self) {
        self.shared.tasks.close();
        if tokio::time::timeout(STOP_COMMIT_WAIT, self.shared.tasks.wait()).await.is_err() {
            tracing::warn!("the last results could not be recorded in time; their jobs will run again");
            self.shared.at_once.cancel();
            self.shared.tasks.wait().await;
        }
        if let Some(guests) = self.guests.take() {
            guests.shutdown_background();
        }
        if let Err(error) = self.shared.store.deregister_worker(self.shared.worker).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "the session could not be ended");
        }
    }
}

/// A step without which the others would wait for ever: when it panics, the process ends, and the next one takes its
/// jobs over. A guest cannot get here; a defect of ours can.
fn vital(step: impl Future<Output = ()>) -> impl Future<Output = ()> {
    caught(step).map(|ended| {
        if let Err(panic) = ended {
            tracing::error!(panic, "a step of the runner panicked; the process ends");
            std::process::exit(PANICKED);
        }
    })
}

/// A guest yields, and what it waits for is done elsewhere: more threads than cores would only take turns.
fn guest_threads(slots: usize) -> usize {
    std::thread::available_parallelism().map_or(slots, |cores| slots.min(cores.get()))
}

/// The exit status of a host fault.
const PANICKED: i32 = 3;

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
        for running in self.lock_running().values() {
            running.stop.cancel();
        }
    }

    fn lock_running(&self) -> std::sync::MutexGuard<'_, HashMap<(JobId, ClaimToken), Running>> {
        self.running.lock().expect("nothing that holds this lock can panic")
    }

    /// How many jobs to hold at once: one for each slot, and ahead of that what short jobs use up in [`CLAIM_AHEAD`].
    fn jobs_wanted(&self) -> usize {
        let slots = self.settings.slots;
        let typical_us = self.typical_us.load(Ordering::Relaxed).max(1);
        let ahead = slots * (CLAIM_AHEAD.as_micros() as usize) / typical_us;
        slots + ahead.saturating_sub(slots).min(CLAIM_AHEAD_MAX)
    }

    /// A claim of which the database may know more than this process.
    fn remember_unanswered(&self, token: ClaimToken) {
        self.lock_unanswered().push((token, None));
    }

    fn lock_unanswered(&self) -> std::sync::MutexGuard<'_, Vec<(ClaimToken, Option<Instant>)>> {
        self.unanswered.lock().expect("nothing that holds this lock can panic")
    }

    /// Hands a job to the committer; from here on it is no longer pending.
    fn finish(&self, mut job: FinishedJob) {
        let running = self.lock_running().remove(&job.claim.key());
        job.has_told =
            running.as_ref().and_then(|running| running.telling.as_ref()).is_some_and(telling::Telling::has_told);
        self.uncommitted.fetch_add(1, Ordering::AcqRel);
        if self.finished.send(Finished { job, room: running.and_then(|running| running.room) }).is_err() {
            tracing::error!("a finished job came after the committer had ended; its lease will expire");
        }
        self.release_pending(1);
    }

    /// A claimed job that is not this worker's any more, and needs no commit.
    fn let_go(&self, claim: &Claim) {
        drop(self.lock_running().remove(&claim.key()));
        self.release_pending(1);
    }

    /// That many jobs fewer are pending.
    fn release_pending(&self, jobs: usize) {
        if self.pending.fetch_sub(jobs, Ordering::AcqRel) == jobs {
            self.drained.notify_waiters();
        }
        self.tell_of_room();
    }

    /// How many more jobs can be claimed. None when they are too few: a claim for each job that ends would be a statement
    /// for each. No slot is idle for that: what is held is at least a job for each of them.
    fn room_for_jobs(&self) -> Option<usize> {
        let wanted = self.jobs_wanted();
        if self.uncommitted.load(Ordering::Acquire) > wanted + 2 * COMMIT_JOBS_MAX {
            return None;
        }
        let free = wanted.saturating_sub(self.pending.load(Ordering::Acquire));
        let least = (wanted / 2).min(wanted - self.settings.slots).max(1);
        (free >= least).then_some(free)
    }

    /// Wakes the claimer when there is something for it to do: it lives on other threads than guests.
    fn tell_of_room(&self) {
        if self.room_for_jobs().is_some() {
            self.room.notify_one();
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
