//! `wasi:clocks`, logical: the wall clock stands at the job's instant; the monotonic clock starts at 0 and advances by
//! a fixed step each time it is read, and by what the guest sleeps. Sleeping takes no time.
//!
//! So the same guest reads the same times in every run, and cannot measure anything. The real clock is a grant of
//! its own, and not here.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use wasmtime::component::{Resource, ResourceTable};
use wasmtime_wasi::{
    async_trait,
    p2::{
        DynPollable, Pollable,
        bindings::clocks::{monotonic_clock, wall_clock},
        subscribe,
    },
};

use crate::limit::CLOCK_STEP_NANOS;

/// The clocks of one attempt.
#[derive(Clone, Debug)]
pub struct Clock {
    wall: Duration,
    elapsed_nanos: Arc<AtomicU64>,
}

impl Clock {
    /// Clocks at an instant in ms since 1970 UTC.
    pub fn at(logical_time_ms: u64) -> Self {
        Self { wall: Duration::from_millis(logical_time_ms), elapsed_nanos: Arc::default() }
    }

    fn tick(&self) -> u64 {
        // The guest is the only one who reads and writes it; it is atomic because pollables hold it too.
        self.elapsed_nanos.fetch_add(CLOCK_STEP_NANOS, Ordering::Relaxed)
    }
}

/// The clocks and where the guest's pollables are.
pub struct ClockView<'a> {
    /// The clocks.
    pub clock: &'a mut Clock,
    /// Of the store.
    pub table: &'a mut ResourceTable,
}

impl ClockView<'_> {
    fn timer(&mut self, due_nanos: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let timer = Timer { elapsed_nanos: Arc::clone(&self.clock.elapsed_nanos), due_nanos };
        let timer = self.table.push(timer)?;
        subscribe(self.table, timer)
    }
}

impl wall_clock::Host for ClockView<'_> {
    fn now(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        let wall = self.clock.wall;
        Ok(wall_clock::Datetime { seconds: wall.as_secs(), nanoseconds: wall.subsec_nanos() })
    }

    fn resolution(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        Ok(wall_clock::Datetime { seconds: 0, nanoseconds: 1_000_000 })
    }
}

impl monotonic_clock::Host for ClockView<'_> {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(self.clock.tick())
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(CLOCK_STEP_NANOS)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.timer(when)
    }

    fn subscribe_duration(&mut self, nanos: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let now = self.clock.elapsed_nanos.load(Ordering::Relaxed);
        self.timer(now.saturating_add(nanos))
    }
}

/// A sleep: waiting for it makes it due.
struct Timer {
    elapsed_nanos: Arc<AtomicU64>,
    due_nanos: u64,
}

#[async_trait]
impl Pollable for Timer {
    async fn ready(&mut self) {
        if self.elapsed_nanos.load(Ordering::Relaxed) >= self.due_nanos {
            return;
        }
        // Whatever else the guest waits for is asked first: time passes only when nothing else happens.
        tokio::task::yield_now().await;
        self.elapsed_nanos.fetch_max(self.due_nanos, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use monotonic_clock::Host as _;
    use wasmtime_wasi_io::bindings::wasi::io::poll::{Host as _, HostPollable as _};

    use super::*;

    #[test]
    fn clocks_read_the_same_in_every_attempt() {
        let read = || {
            let (mut clock, mut table) = (Clock::at(1_704_067_200_123), ResourceTable::new());
            let mut view = ClockView { clock: &mut clock, table: &mut table };
            let wall = wall_clock::Host::now(&mut view).unwrap();
            (wall.seconds, wall.nanoseconds, view.now().unwrap(), view.now().unwrap())
        };
        assert_eq!(read(), (1_704_067_200, 123_000_000, 0, CLOCK_STEP_NANOS));
        assert_eq!(read(), read());
    }

    #[tokio::test]
    async fn sleeping_takes_no_time_and_advances_the_clock() {
        let (mut clock, mut table) = (Clock::at(0), ResourceTable::new());
        let hour = 3_600_000_000_000;
        let timer = ClockView { clock: &mut clock, table: &mut table }.subscribe_duration(hour).unwrap();
        let asleep = tokio::time::timeout(Duration::from_secs(10), table.block(Resource::new_borrow(timer.rep())));
        asleep.await.expect("a logical sleep does not wait").unwrap();
        assert_eq!(ClockView { clock: &mut clock, table: &mut table }.now().unwrap(), hour);
        table.drop(timer).unwrap();
        assert!(table.is_empty());
    }

    #[tokio::test]
    async fn a_timer_fires_only_when_nothing_else_is_ready() {
        let (mut clock, mut table) = (Clock::at(0), ResourceTable::new());
        let mut view = ClockView { clock: &mut clock, table: &mut table };
        let later = view.subscribe_duration(1_000_000).unwrap();
        let due = view.subscribe_instant(0).unwrap();
        assert_eq!(table.poll(vec![later, due]).await.unwrap(), [1]);
        assert_eq!(clock.tick(), 0, "no time passed");
    }
}
