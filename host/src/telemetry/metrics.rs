//! The names of all metrics, and what each is read from. docs/operations.md explains them; a test compares.
//!
//! Labels have few values, all known beforehand: states, verdicts, causes. Assets, runs and partitions are never labels:
//! tenants make them up, there may be millions, and each would be a series of its own in every process that ever met it.
//! What is asked of one of them is in the database: `flowstone status`, `flowstone logs`.
//!
//! Counters and histograms are the runner's and the engine's own, registered once. Gauges are what is so now: read when
//! somebody asks, those of the queue from the database, at most once in [`QUEUE_DEPTH_KEPT`]. What cannot be read is left
//! out; a value of before would be a lie.

use std::{fmt, sync::Arc};

use prometheus_client::{
    encoding::prometheus_text,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::Registry,
};
use tokio::time::timeout;

use super::kept::Kept;
use crate::{
    engine::Engine,
    limit::{QUEUE_DEPTH_KEPT, WATCH_DATABASE_WAIT},
    runner::Watched,
    store::{Store, watch::QueueDepth},
};

pub(super) use prometheus_text::CONTENT_TYPE;

/// What all names begin with.
const PREFIX: &str = "flowstone";

/// The metrics of one process.
#[derive(Debug)]
pub(super) struct Metrics {
    runner: Watched,
    store: Store,
    engine: Arc<Engine>,
    counted: Registry,
    queue_read_failures: Counter,
    /// Nothing when the database did not answer.
    queue: Kept<Option<QueueDepth>>,
}

/// A gauge for each value of one label.
type States = Family<[(&'static str, &'static str); 1], Gauge>;

impl Metrics {
    pub(super) fn new(runner: Watched, store: Store, engine: Arc<Engine>) -> Self {
        let queue_read_failures = Counter::default();
        let counted = counted(&runner, &engine, &queue_read_failures);
        Self { runner, store, engine, counted, queue_read_failures, queue: Kept::new(QUEUE_DEPTH_KEPT) }
    }

    /// All of them, in Prometheus' text format.
    pub(super) async fn render(&self) -> Result<String, fmt::Error> {
        let queue = self.queue().await;
        let mut text = String::with_capacity(16 << 10);
        prometheus_text::encode(&mut text, &self.counted)?;
        prometheus_text::encode(&mut text, &self.measured(queue))?;
        Ok(text)
    }

    async fn queue(&self) -> Option<QueueDepth> {
        let (store, failures) = (self.store.clone(), self.queue_read_failures.clone());
        let reading = async move {
            let queue = match timeout(WATCH_DATABASE_WAIT, store.queue_depth()).await {
                Ok(Ok(queue)) => Some(queue),
                Ok(Err(error)) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "the queue cannot be looked at for now");
                    None
                }
                Err(_) => None,
            };
            failures.inc_by(u64::from(queue.is_none()));
            queue
        };
        self.queue.get(reading).await?
    }

    /// What is so now.
    fn measured(&self, queue: Option<QueueDepth>) -> Registry {
        let mut registry = Registry::with_prefix(PREFIX);
        if let Some(queue) = queue {
            register_queue(&mut registry, &queue);
        }
        let connections = self.store.connections();
        let states = States::default();
        set(&states, "state", "in_use", connections.in_use as i64);
        set(&states, "state", "idle", connections.idle as i64);
        registry.register("database_connections", "Connections of this process to the database", states);
        let slots = self.runner.slots() as u64;
        registry.register("slots", "Attempts that this process runs at once, at most", ConstGauge::new(slots));
        let in_use = self.runner.slots_in_use() as u64;
        registry.register("slots_in_use", "Attempts that this process runs now", ConstGauge::new(in_use));
        if let Some(age) = self.runner.meters().session.age() {
            registry.register(
                "heartbeat_age_seconds",
                "Since this worker's session was renewed; past 15 guests are stopped, past 20 others take their jobs",
                ConstGauge::new(age.as_secs_f64()),
            );
        }
        if let Some(pool) = self.engine.pool_use() {
            let kinds = States::default();
            set(&kinds, "kind", "component_instance", pool.component_instances as i64);
            set(&kinds, "kind", "core_instance", pool.core_instances as i64);
            set(&kinds, "kind", "memory", pool.memories as i64);
            set(&kinds, "kind", "table", pool.tables as i64);
            set(&kinds, "kind", "stack", pool.stacks as i64);
            registry.register("engine_pool_in_use", "Places of the pool of guests that are taken, by kind", kinds);
            registry.register(
                "engine_pool_unused_resident_bytes",
                "Memory that no guest uses and that stays resident for the next one",
                ConstGauge::new(pool.unused_resident_bytes),
            );
        }
        let build = Family::<[(&'static str, String); 3], Gauge>::default();
        let labels = [
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("engine", self.engine.id().to_owned()),
            ("arch", std::env::consts::ARCH.to_owned()),
        ];
        build.get_or_create_owned(&labels).set(1);
        registry.register("build_info", "This program: always 1", build);
        registry
    }
}

fn register_queue(registry: &mut Registry, queue: &QueueDepth) {
    let (jobs, estimated) = (States::default(), States::default());
    let states = [
        ("ready", queue.ready),
        ("deferred", queue.deferred),
        ("running", queue.running),
        ("blocked", queue.blocked),
        ("paused", queue.paused),
        ("joined", queue.joined),
        ("limited", queue.limited),
    ];
    for (state, depth) in states {
        set(&jobs, "state", state, i64::try_from(depth.jobs).unwrap_or(i64::MAX));
        set(&estimated, "state", state, i64::from(depth.is_estimate));
    }
    registry.register(
        "queue_jobs",
        "Jobs in the database, of all workers; past 10000 an estimate, see flowstone_queue_jobs_is_estimate",
        jobs,
    );
    registry.register(
        "queue_jobs_is_estimate",
        "Whether flowstone_queue_jobs is the database's estimate rather than a count",
        estimated,
    );
    registry.register(
        "queue_oldest_ready_age_seconds",
        "How long the oldest ready job has been ready; 0 when there is none",
        ConstGauge::new(queue.oldest_ready_seconds),
    );
    registry.register(
        "queue_unserved_jobs",
        "Ready jobs that no live worker takes, for their queue or their tags; 10000 at most",
        ConstGauge::new(queue.unserved),
    );
}

fn set(states: &States, label: &'static str, value: &'static str, number: i64) {
    states.get_or_create_owned(&[(label, value)]).set(number);
}

/// What the runner and the engine count. The encoder adds `_total` to the names of counters.
fn counted(runner: &Watched, engine: &Engine, queue_read_failures: &Counter) -> Registry {
    let mut registry = Registry::with_prefix(PREFIX);
    let meters = runner.meters();
    registry.register("claim_statements", "Statements that asked for jobs", meters.claim_statements.clone());
    registry.register("claimed_jobs", "Jobs that this worker claimed", meters.claimed_jobs.clone());
    registry.register("commits", "Transactions that committed finished jobs", meters.commits.clone());
    registry.register("committed_jobs", "Jobs that this worker committed", meters.committed_jobs.clone());
    registry.register("commit_batch_jobs", "Jobs in one commit", meters.commit_batch_jobs.clone());
    registry.register(
        "attempts",
        "Attempts that were recorded, by verdict, and whether they count against the asset's attempts",
        meters.attempts.clone(),
    );
    registry.register("fuel", "Units of fuel that attempts used", meters.fuel.clone());
    registry.register(
        "attempt_memory_peak_bytes",
        "The most linear memory that an attempt had",
        meters.attempt_memory_peak_bytes.clone(),
    );
    registry.register(
        "attempt_duration_seconds",
        "From an attempt's start to its verdict",
        meters.attempt_duration_seconds.clone(),
    );
    registry.register(
        "lease_losses",
        "Times that this worker lost what it had claimed, or stopped its guests because it may have",
        meters.lease_losses.clone(),
    );
    registry.register(
        "rescued_jobs",
        "Jobs of dead workers that this one made ready again",
        meters.rescued_jobs.clone(),
    );
    registry.register(
        "spans_dropped",
        "Spans that were not sent: the collector did not answer, or there were too many",
        meters.spans_dropped.clone(),
    );
    registry.register(
        "queue_read_failures",
        "Times that the queue could not be read for metrics",
        queue_read_failures.clone(),
    );
    let meters = engine.meters();
    let hits = "Components whose machine code was there, in memory or on disk";
    let tiers = registry.sub_registry_with_prefix("compiled_cache");
    tiers.register("memory_hits", hits, meters.memory_hits.clone());
    tiers.register("disk_hits", hits, meters.disk_hits.clone());
    tiers.register("misses", "Components that had to be compiled", meters.misses.clone());
    registry.register("compilations", "Compiler processes that ended, by result", meters.compilations.clone());
    registry
}
