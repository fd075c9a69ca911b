//! `flowstone cancel`: asks for the end of a run.

use super::{Exit, arguments::Cancel, run_id, session::Session};

/// What waits is cancelled at once; whoever runs the rest stops it.
pub(super) async fn run(session: &Session, args: &Cancel) -> anyhow::Result<Exit> {
    let app = &session.app;
    let run = run_id::find_run(&app.store, &app.tenant, &args.run).await?;
    app.cancel(run.id).await?;
    session.talk.say(format!("run {} is cancelled; what still runs is stopped by its worker", run.id));
    Ok(Exit::Succeeded)
}
