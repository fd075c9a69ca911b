//! Metrics, health and traces of the commands that work, while they do.

use anyhow::Context as _;

use super::{print::Talk, session::Session};
use crate::{
    config::{Collector, WorkerFlags},
    runner::Runner,
    telemetry::{Exporting, Listener, Serving},
};

/// What was asked for, before there is a runner.
pub(super) struct Monitor {
    listener: Option<Listener>,
    collector: Option<Collector>,
}

/// What goes on beside a runner. Dropped, it ends without a word more.
pub(super) struct Monitoring {
    _serving: Option<Serving>,
    exporting: Option<Exporting>,
}

impl Monitor {
    /// Takes the address of metrics, if there is to be one: whoever asks there waits until it [begins](Self::begin).
    pub(super) async fn prepare(talk: &Talk, flags: &WorkerFlags) -> anyhow::Result<Self> {
        let collector = flags.otlp.clone();
        let Some(address) = flags.metrics else { return Ok(Self { listener: None, collector }) };
        let listener = Listener::bind(address)
            .await
            .with_context(|| format!("cannot serve metrics at {address}: choose another address with --metrics"))?;
        talk.say(format!("metrics and health: http://{}/metrics", listener.address()));
        Ok(Self { listener: Some(listener), collector })
    }

    /// Monitors this runner from now on.
    pub(super) fn begin(self, session: &Session, runner: &Runner) -> Monitoring {
        let app = &session.app;
        let serve = |listener: Listener| {
            listener.serve(runner.watched(), app.store.clone(), app.blobs.clone(), app.engine.clone())
        };
        Monitoring {
            exporting: self.collector.map(|collector| Exporting::start(collector, runner)),
            _serving: self.listener.map(serve),
        }
    }
}

impl Monitoring {
    /// After the runner has stopped: sends the last spans.
    pub(super) async fn end(self) {
        if let Some(exporting) = self.exporting {
            exporting.finish().await;
        }
    }
}
