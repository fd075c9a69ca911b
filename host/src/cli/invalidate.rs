//! `flowstone invalidate`: outputs that must not be used again.

use super::{Exit, arguments::Invalidate, figures::plural, session::Session};

/// Marks them, and says how many there were. None is no failure: then there was nothing to be used again.
pub(super) async fn run(session: &Session, args: &Invalidate) -> anyhow::Result<Exit> {
    let pipeline = session.load_pipeline(&args.of.pipeline).await?;
    let (asset, partition) = (&args.of.asset, args.of.partition.as_deref());
    let invalidated = session.app.invalidate(&pipeline, asset, partition).await?;
    session.talk.say(format!("{} of `{asset}` invalidated", plural(invalidated, "output")));
    Ok(Exit::Succeeded)
}
