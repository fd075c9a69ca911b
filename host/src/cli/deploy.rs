//! `flowstone deploy`: a manifest becomes the newest version of its pipeline.

use super::{Exit, arguments::Manifest, print::Talk, session::Session};
use crate::app::Deployed;

/// Checks and deploys.
pub(super) async fn run(session: &Session, args: &Manifest) -> anyhow::Result<Exit> {
    let checked = session.app.check(&args.manifest).await?;
    tell(&session.talk, &session.app.deploy(&checked).await?);
    Ok(Exit::Succeeded)
}

/// Says which version there is now.
pub(super) fn tell(talk: &Talk, deployed: &Deployed) {
    let Deployed { name, number, new } = deployed;
    talk.say(if *new { format!("deployed {name} v{number}") } else { format!("{name} v{number} is unchanged") });
}
