//! `wasi:clocks`: the job's time, or by grant the real one.
//!
//! Logical: the wall clock stands at the job's instant; the monotonic clock starts at 0 and advances by a fixed step
//! each time it is read, and by what the guest sleeps. Sleeping takes no time. So the same guest reads the same times in
//! every run, and cannot measure anything.
//!
//! Real: the machine's clocks, the monotonic one from the start of the attempt. A guest that sleeps keeps no thread, and
//! is stopped at its deadline like any other.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
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

use super::{Use, Used, Uses};
use crate::limit::CLOCK_STEP_NANOS;

/// The clocks of one attempt.
#[derive(Debug)]
pub enum Clock {
    /// The job's time.
    Logical(Logical),
    /// The machine's.
    Real(Real),
}

/// Clocks that stand still unless they are looked at.
#[derive(Clone, Debug)]
pub struct Logical {
    wall: Duration,
    elapsed_nanos: Arc<AtomicU64>,
}

/// The machine's clocks, and who may read them.
#[derive(Debug)]
pub struct Real {
    resource: String,
    started: Instant,
    uses: Uses,
}

impl Clock {
    /// Clocks at an instant in ms since 1970 UTC.
    pub fn at(logical_time_ms: u64) -> Self {
        Self::Logical(Logical { wall: Duration::from_millis(logical_time_ms), elapsed_nanos: Arc::default() })
    }

    /// The machine's clocks, granted under this name. The monotonic one starts now.
    pub fn real(resource: String) -> Self {
        Self::Real(Real { resource, started: Instant::now(), uses: Uses::of("clock") })
    }

    /// How often the real clock was read or waited for.
    pub fn take_uses(&mut self) -> Vec<Use> {
        match self {
            Self::Logical(_) => Vec::new(),
            Self::Real(real) => real.uses.take(),
        }
    }
}

impl Logical {
    fn tick(&self) -> u64 {
        // The guest is the only one who reads and writes it; it is atomic because pollables hold it too.
        self.elapsed_nanos.fetch_add(CLOCK_STEP_NANOS, Ordering::Relaxed)
    }
}

impl Real {
    fn elapsed_nanos(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn count(&mut self, operation: &'static str) {
        self.uses.record(Used { resource: &self.resource, operation, target: "", result: "ok", bytes: 0 });
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
        match self.clock {
            Clock::Logical(logical) => {
                let timer = Timer { elapsed_nanos: Arc::clone(&logical.elapsed_nanos), due_nanos };
                let timer = self.table.push(timer)?;
                subscribe(self.table, timer)
            }
            Clock::Real(real) => {
                real.count("wait");
                // An instant that the machine cannot express is later than any deadline.
                let timer = Alarm { due: real.started.checked_add(Duration::from_nanos(due_nanos)) };
                let timer = self.table.push(timer)?;
                subscribe(self.table, timer)
            }
        }
    }
}

impl wall_clock::Host for ClockView<'_> {
    fn now(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        let wall = match self.clock {
            Clock::Logical(logical) => logical.wall,
            Clock::Real(real) => {
                real.count("wall");
                // A clock before 1970 is not set; a guest cannot do better with it than with 1970.
                SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
            }
        };
        Ok(wall_clock::Datetime { seconds: wall.as_secs(), nanoseconds: wall.subsec_nanos() })
    }

    fn resolution(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        let nanoseconds = if matches!(self.clock, Clock::Logical(_)) { 1_000_000 } else { 1 };
        Ok(wall_clock::Datetime { seconds: 0, nanoseconds })
    }
}

impl monotonic_clock::Host for ClockView<'_> {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(match self.clock {
            Clock::Logical(logical) => logical.tick(),
            Clock::Real(real) => {
                real.count("monotonic");
                real.elapsed_nanos()
            }
        })
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(if matches!(self.clock, Clock::Logical(_)) { CLOCK_STEP_NANOS } else { 1 })
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.timer(when)
    }

    fn subscribe_duration(&mut self, nanos: u64) -> wasmtime::Result<Resource<DynPollable>> {
        let now = match self.clock {
            Clock::Logical(logical) => logical.elapsed_nanos.load(Ordering::Relaxed),
            Clock::Real(real) => real.elapsed_nanos(),
        };
        self.timer(now.saturating_add(nanos))
    }
}

/// A real sleep. Nothing holds a thread while it lasts.
struct Alarm {
    /// None for an instant that never comes.
    due: Option<Instant>,
}

#[async_trait]
impl Pollable for Alarm {
    async fn ready(&mut self) {
        match self.due {
            Some(due) => tokio::time::sleep_until(due.into()).await,
            None => std::future::pending().await,
        }
    }
}

/// A logical sleep: waiting for it makes it due.
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
        assert_eq!(ClockView { clock: &mut clock, table: &mut table }.now().unwrap(), 0, "no time passed");
    }

    #[tokio::test]
    async fn granted_clocks_are_the_machines_and_each_look_at_them_is_recorded() {
        let (mut clock, mut table) = (Clock::real("wall".into()), ResourceTable::new());
        let mut view = ClockView { clock: &mut clock, table: &mut table };
        let before = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        assert!(wall_clock::Host::now(&mut view).unwrap().seconds >= before);
        let asleep = view.subscribe_duration(20_000_000).unwrap();
        let slept_from = view.now().unwrap();
        table.block(Resource::new_borrow(asleep.rep())).await.unwrap();
        let slept_to = ClockView { clock: &mut clock, table: &mut table }.now().unwrap();
        assert!(slept_to >= 20_000_000 && slept_to > slept_from, "{slept_from} to {slept_to}");
        let uses: Vec<_> =
            clock.take_uses().into_iter().map(|used| (used.resource, used.operation, used.calls)).collect();
        let wall = |operation: &str, calls| ("wall".to_owned(), operation.to_owned(), calls);
        assert_eq!(uses, [wall("wall", 1), wall("wait", 1), wall("monotonic", 2)]);
    }

    #[tokio::test]
    async fn a_sleep_without_end_is_no_overflow() {
        let (mut clock, mut table) = (Clock::real("wall".into()), ResourceTable::new());
        let for_ever = ClockView { clock: &mut clock, table: &mut table }.subscribe_duration(u64::MAX).unwrap();
        let asleep = table.block(Resource::new_borrow(for_ever.rep()));
        assert!(tokio::time::timeout(Duration::from_millis(20), asleep).await.is_err());
    }
}
