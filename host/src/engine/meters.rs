//! What the engine counts: where components came from, and what the pool of guests holds. How these are called outside is
//! in `telemetry`.

use prometheus_client::metrics::{counter::Counter, family::Family};
use wasmtime::PoolingAllocatorMetrics;

/// Everything that is counted.
#[derive(Debug)]
pub struct Meters {
    /// Components that were ready in memory, or that somebody else made ready meanwhile.
    pub memory_hits: Counter,
    /// Components whose code was compiled before.
    pub disk_hits: Counter,
    /// Components that had to be compiled.
    pub misses: Counter,
    /// Compiler processes that ended, by how.
    pub compilations: Family<[(&'static str, &'static str); 1], Counter>,
    compilations_of: [Counter; COMPILED.len()],
}

/// How a compilation ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Compiled {
    Succeeded,
    /// The component's fault.
    Refused,
    /// The machine's fault.
    Failed,
}

const COMPILED: [&str; 3] = ["succeeded", "refused", "failed"];

impl Default for Meters {
    fn default() -> Self {
        let compilations = Family::<[(&'static str, &'static str); 1], Counter>::default();
        let compilations_of = COMPILED.map(|result| compilations.get_or_create_owned(&[("result", result)]));
        Self {
            memory_hits: Counter::default(),
            disk_hits: Counter::default(),
            misses: Counter::default(),
            compilations,
            compilations_of,
        }
    }
}

impl Meters {
    pub(super) fn count_compilation(&self, result: Compiled) {
        self.compilations_of[result as usize].inc();
    }
}

/// What the pool holds: of `describe` and of attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolUse {
    /// Components that are instantiated.
    pub component_instances: u64,
    /// Core modules of theirs.
    pub core_instances: u64,
    /// Linear memories of theirs.
    pub memories: u64,
    /// Tables of theirs.
    pub tables: u64,
    /// Stacks that calls run on.
    pub stacks: u64,
    /// Bytes of memories, tables and stacks that nobody uses and that stay resident for the next.
    pub unused_resident_bytes: u64,
}

impl PoolUse {
    pub(super) fn of(pool: &PoolingAllocatorMetrics) -> Self {
        let unused = pool.unused_memory_bytes_resident()
            + pool.unused_table_bytes_resident()
            + pool.unused_stack_bytes_resident().unwrap_or_default();
        Self {
            component_instances: pool.component_instances(),
            core_instances: pool.core_instances(),
            memories: pool.memories() as u64,
            tables: pool.tables() as u64,
            stacks: pool.stacks() as u64,
            unused_resident_bytes: unused as u64,
        }
    }
}
