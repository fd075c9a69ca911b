//! What this process takes of the machine: memory, threads, descriptors; and what its compilers took.

use std::{
    fs,
    time::{Duration, Instant},
};

/// What it has now.
#[derive(Clone, Copy, Debug)]
pub struct Footprint {
    pub resident_bytes: u64,
    pub threads: usize,
    pub descriptors: usize,
}

impl Footprint {
    /// After what was freed went back to the system.
    pub fn now() -> Self {
        give_back();
        Self {
            resident_bytes: status("VmRSS:"),
            threads: fs::read_dir("/proc/self/task").unwrap().count(),
            // One of them is what this reads.
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count() - 1,
        }
    }

    /// Waits until there are no more threads and descriptors than before; what was given to the runtime to be closed is
    /// closed soon. Returns what is there when they are, or when it takes too long.
    pub fn settled(before: Self) -> Self {
        const SOON: Duration = Duration::from_secs(5);
        let started = Instant::now();
        loop {
            let now = Self::now();
            let is_settled = now.threads <= before.threads && now.descriptors <= before.descriptors;
            if is_settled || started.elapsed() > SOON {
                return now;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// From now on [`peak_bytes`] is of what follows.
pub fn forget_peak() {
    fs::write("/proc/self/clear_refs", "5").unwrap();
}

/// The most that was resident since the last [`forget_peak`].
pub fn peak_bytes() -> u64 {
    status("VmHWM:")
}

/// A line of the kernel's, in bytes.
fn status(line: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let value = status.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    value.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// What the allocator keeps for later is no leak.
fn give_back() {
    #[expect(unsafe_code, reason = "a function of the C library without preconditions")]
    // SAFETY: malloc_trim may be called at any time, by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
