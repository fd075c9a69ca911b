//! Metrics and health of the commands that work, while they do.

use anyhow::Context as _;

use super::{print::Talk, session::Session};
use crate::{
    config::WorkerFlags,
    runner::Runner,
    telemetry::{Listener, Serving},
};

/// Takes the address that was asked for, if one was. Whoever asks there waits until it is [served](serve).
pub(super) async fn listen(talk: &Talk, flags: &WorkerFlags) -> anyhow::Result<Option<Listener>> {
    let Some(address) = flags.metrics else { return Ok(None) };
    let listener = Listener::bind(address)
        .await
        .with_context(|| format!("cannot serve metrics at {address}: choose another address with --metrics"))?;
    talk.say(format!("metrics and health: http://{}/metrics", listener.address()));
    Ok(Some(listener))
}

/// Answers, until what is returned is dropped.
pub(super) fn serve(session: &Session, listener: Listener, runner: &Runner) -> Serving {
    let app = &session.app;
    listener.serve(runner.watched(), app.store.clone(), app.blobs.clone(), app.engine.clone())
}
