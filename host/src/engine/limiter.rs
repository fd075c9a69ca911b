//! The bound on what a guest allocates inside the sandbox: one for all its memories and tables together.
//!
//! wasmtime's own limits hold for each memory alone, and a component has several. What the limiter does not see is
//! bounded elsewhere: handles, host resources, and what capabilities buffer.

use wasmtime::ResourceLimiter;

use crate::{
    capability::Abort,
    limit::{CORE_INSTANCES_MAX, MEMORIES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX},
};

/// What a guest could not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exhausted {
    /// Bytes of memory.
    Memory,
    /// Elements of a table.
    Table,
}

/// Counts the bytes of all memories of one store.
#[derive(Debug)]
pub struct Limiter {
    bytes_max: usize,
    bytes: usize,
    exhausted: Option<Exhausted>,
}

impl Limiter {
    /// No memory yet, and at most so much.
    pub fn new(bytes_max: u64) -> Self {
        Self { bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX), bytes: 0, exhausted: None }
    }

    /// The most that was in use. Memories never shrink, so it is what is in use now.
    pub fn bytes_peak(&self) -> u64 {
        self.bytes as u64
    }

    /// What the guest was refused first, if anything: a guest that fails afterwards failed for lack of it.
    pub fn exhausted(&self) -> Option<Exhausted> {
        self.exhausted
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            // Past what the memory itself declares: wasmtime refuses it, and it takes no bytes.
            return Ok(true);
        }
        let bytes = (self.bytes - current.min(self.bytes)).saturating_add(desired);
        if bytes > self.bytes_max {
            self.exhausted.get_or_insert(Exhausted::Memory);
            return Ok(false);
        }
        self.bytes = bytes;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        match error.downcast_ref::<std::io::Error>() {
            // The machine is out of memory: what the guest would do then is not for it to decide.
            Some(error) => Err(Abort::host_fault(error).into()),
            None => Ok(()),
        }
    }

    fn table_growing(&mut self, _current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            // wasmtime also gives its pool's bound as a maximum, which is ours.
            if desired > TABLE_ELEMENTS_MAX {
                self.exhausted.get_or_insert(Exhausted::Table);
            }
            return Ok(false);
        }
        if desired > TABLE_ELEMENTS_MAX {
            self.exhausted.get_or_insert(Exhausted::Table);
            return Ok(false);
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        CORE_INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_summed_over_all_memories() {
        let mut limiter = Limiter::new(100);
        assert!(limiter.memory_growing(0, 40, None).unwrap());
        assert!(limiter.memory_growing(0, 40, None).unwrap());
        assert!(limiter.memory_growing(40, 60, None).unwrap(), "exactly the limit");
        assert_eq!(limiter.exhausted(), None);
        assert!(!limiter.memory_growing(40, 41, None).unwrap());
        assert_eq!((limiter.exhausted(), limiter.bytes_peak()), (Some(Exhausted::Memory), 100));
    }

    #[test]
    fn a_growth_past_a_memorys_own_maximum_costs_nothing() {
        let mut limiter = Limiter::new(100);
        limiter.memory_growing(0, 50, Some(60)).unwrap();
        for _ in 0..10 {
            assert!(limiter.memory_growing(50, 90, Some(60)).unwrap(), "wasmtime refuses it");
            limiter.memory_grow_failed(wasmtime::Error::msg("Memory maximum size exceeded")).unwrap();
        }
        assert_eq!((limiter.exhausted(), limiter.bytes_peak()), (None, 50));
        assert!(limiter.memory_growing(50, 100, None).unwrap());
    }

    #[test]
    fn a_machine_without_memory_is_our_fault() {
        let error = std::io::Error::from(std::io::ErrorKind::OutOfMemory);
        let ended = Limiter::new(100).memory_grow_failed(error.into()).unwrap_err();
        assert!(matches!(ended.downcast_ref::<Abort>(), Some(Abort::HostFault(_))));
    }

    #[test]
    fn tables_have_a_bound_each() {
        let mut limiter = Limiter::new(100);
        assert!(limiter.table_growing(0, TABLE_ELEMENTS_MAX, None).unwrap());
        assert_eq!(limiter.exhausted(), None);
        assert!(!limiter.table_growing(0, 10, Some(5)).unwrap());
        assert_eq!(limiter.exhausted(), None, "its own maximum");
        assert!(!limiter.table_growing(0, TABLE_ELEMENTS_MAX + 1, Some(TABLE_ELEMENTS_MAX)).unwrap());
        assert_eq!(limiter.exhausted(), Some(Exhausted::Table));
    }
}
