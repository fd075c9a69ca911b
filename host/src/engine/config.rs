//! The configuration of wasmtime: two engines that agree on everything that machine code depends on.
//!
//! One compiles, in a child process; the other runs, and has no compiler. Any change here that changes machine code
//! or fuel needs a new [`REVISION`]: it is part of the engine id.

use std::fmt;

use wasmparser::WasmFeatures;
use wasmtime::{
    Config, Enabled, Inlining, InstanceAllocationStrategy, ModuleVersionStrategy, PoolingAllocationConfig,
    WasmBacktraceDetails,
};

use crate::limit::{
    CORE_INSTANCES_MAX, FIBER_STACK_BYTES, INSTANCE_BYTES_MAX, MEMORIES_MAX, MEMORY_BYTES_MAX, MEMORY_KEPT_BYTES,
    PER_MODULE_MAX, STACK_KEPT_BYTES, TABLE_ELEMENTS_MAX, TABLE_KEPT_BYTES, TABLES_MAX, WASM_STACK_BYTES,
};

/// The release of wasmtime that is linked. A test compares it with `Cargo.lock`.
const WASMTIME: &str = "48.0.8";
/// Of this file. Operator costs are wasmtime's own, so they are part of its release.
const REVISION: u32 = 1;

/// What no guest toolchain needs, and where most of wasmtime's advisories were. Inspection refuses the same.
pub const UNSUPPORTED: WasmFeatures = WasmFeatures::THREADS
    .union(WasmFeatures::MEMORY64)
    .union(WasmFeatures::GC)
    .union(WasmFeatures::GC_TYPES)
    .union(WasmFeatures::FUNCTION_REFERENCES)
    .union(WasmFeatures::EXCEPTIONS)
    .union(WasmFeatures::STACK_SWITCHING);

/// What fuel and machine code depend on, for people: recorded with every attempt.
pub fn id() -> String {
    format!("wasmtime-{WASMTIME}+flowstone-{REVISION}-{}", std::env::consts::ARCH)
}

/// The engine of the compiler process.
pub fn compiling() -> wasmtime::Result<Config> {
    common()
}

/// The engine that runs guests, in a pool for so many attempts at once or on demand.
pub fn running(allocation: Allocation) -> wasmtime::Result<Config> {
    let mut config = common()?;
    config.enable_compiler(false);
    if let Allocation::Pooled { guests } = allocation {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(guests)));
    }
    Ok(config)
}

/// Where instances, memories, tables and stacks come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// From address space that was set aside for so many attempts at once.
    Pooled {
        /// Attempts at once.
        guests: usize,
    },
    /// From the system, each time.
    OnDemand,
}

impl fmt::Display for Allocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pooled { guests } => write!(f, "pooled for {guests}"),
            Self::OnDemand => write!(f, "on demand"),
        }
    }
}

fn common() -> wasmtime::Result<Config> {
    let mut config = Config::new();
    // The same bytes on every machine.
    config.cranelift_nan_canonicalization(true);
    config.relaxed_simd_deterministic(true);
    config.consume_fuel(true);
    // Multiple memories and tail calls stay on: composed components and QuickJS need them.
    config.wasm_features(UNSUPPORTED, false);
    config.shared_memory(false);
    config.concurrency_support(false);
    // Stacks: tenants share them, so they are zeroed.
    config.max_wasm_stack(WASM_STACK_BYTES);
    config.async_stack_size(FIBER_STACK_BYTES);
    config.async_stack_zeroing(true);
    // Nothing is read from a guest's debug information, whatever the environment says.
    config.wasm_backtrace_details(WasmBacktraceDetails::Disable);
    config.compiler_inlining(Inlining::No);
    config.memory_init_cow(true);
    config.module_version(ModuleVersionStrategy::Custom(id()))?;
    Ok(config)
}

/// A pool that cannot run out while at most `guests` attempts run, each within its own limits.
fn pool(guests: usize) -> PoolingAllocationConfig {
    // One more, for `describe`.
    let attempts = u32::try_from(guests).unwrap_or(u32::MAX).saturating_add(1);
    let each = |most: usize| attempts.saturating_mul(most as u32);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(attempts);
    pool.total_stacks(attempts);
    pool.total_core_instances(each(CORE_INSTANCES_MAX));
    pool.total_memories(each(MEMORIES_MAX));
    pool.total_tables(each(TABLES_MAX));
    pool.max_core_instances_per_component(CORE_INSTANCES_MAX as u32);
    pool.max_memories_per_component(MEMORIES_MAX as u32);
    pool.max_tables_per_component(TABLES_MAX as u32);
    pool.max_memories_per_module(PER_MODULE_MAX);
    pool.max_tables_per_module(PER_MODULE_MAX);
    pool.max_component_instance_size(INSTANCE_BYTES_MAX);
    pool.max_core_instance_size(INSTANCE_BYTES_MAX);
    pool.max_memory_size(MEMORY_BYTES_MAX as usize);
    pool.table_elements(TABLE_ELEMENTS_MAX);
    pool.linear_memory_keep_resident(MEMORY_KEPT_BYTES);
    pool.table_keep_resident(TABLE_KEPT_BYTES);
    pool.async_stack_keep_resident(STACK_KEPT_BYTES);
    // Of what is kept, only what the guest has touched is zeroed: most of it is a stack of a megabyte that nobody fills.
    pool.pagemap_scan(Enabled::Auto);
    pool
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_id_names_the_wasmtime_that_is_linked() {
        let lock = include_str!("../../../Cargo.lock");
        assert!(lock.contains(&format!("name = \"wasmtime\"\nversion = \"{WASMTIME}\"\n")), "mend WASMTIME");
        assert!(id().contains(WASMTIME));
    }
}
