//! A command that is watched while it runs: its lines with their times, and its memory.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// A command that succeeded.
pub struct Watched {
    /// From before it was started until it had ended.
    pub took: Duration,
    /// The most that was resident, as far as it was seen: what came in its last [`LOOK_INTERVAL`] was not.
    pub peak_bytes: f64,
}

/// Between two looks at the memory of a process.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Runs a command to its end, which must be a success. Each line of its stdout is handed over with the time since the
/// start and the process id.
pub fn watch(mut command: Command, mut line: impl FnMut(&str, Duration, u32)) -> Watched {
    let started = Instant::now();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("the command can be run");
    let pid = child.id();
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let looking = scope.spawn(|| {
            let mut peak = 0.0_f64;
            while !ended.load(Ordering::Relaxed) {
                peak = peak.max(memory_bytes(pid, "VmHWM:").unwrap_or(0.0));
                thread::sleep(LOOK_INTERVAL);
            }
            peak
        });
        let mut stdout = BufReader::new(child.stdout.take().expect("it was piped"));
        let mut text = String::new();
        while stdout.read_line(&mut text).expect("the command writes UTF-8") > 0 {
            line(&text, started.elapsed(), pid);
            text.clear();
        }
        let status = child.wait().expect("it is our child");
        let took = started.elapsed();
        ended.store(true, Ordering::Relaxed);
        assert!(status.success(), "{command:?} ended with {status}");
        Watched { took, peak_bytes: looking.join().expect("looking does not panic") }
    })
}

/// A line of `/proc/<pid>/status` that holds kilobytes; nothing when the process has ended.
pub fn memory_bytes(pid: u32, name: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? * 1024.0)
}

/// How long a command takes that does nothing but start and end.
pub fn spawn(program: &str, arguments: &[&str]) -> Duration {
    let started = Instant::now();
    let status = Command::new(program).args(arguments).status().expect("the program can be run");
    assert!(status.success(), "{program} ended with {status}");
    started.elapsed()
}
