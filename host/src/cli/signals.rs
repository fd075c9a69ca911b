//! What asks a command to stop: SIGINT, as Ctrl-C sends it, and SIGTERM, as supervisors do. Both mean the same.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Both signals, from now on no longer deadly.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes them over for the rest of the process.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Resolves when one comes. Safe to drop and call again.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn each_signal_is_told_and_kills_nothing() {
        let mut signals = Signals::listen().unwrap();
        for signal in [Signal::INT, Signal::TERM] {
            kill_process(getpid(), signal).unwrap();
            signals.next().await;
        }
    }
}
