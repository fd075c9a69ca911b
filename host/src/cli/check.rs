//! `flowstone check`: everything that is wrong with a manifest and its components, or that nothing is.

use super::{Exit, arguments::Manifest, figures::plural, session::Session};

/// Checks. Mistakes are the error, all of them.
pub(super) async fn run(session: &Session, args: &Manifest) -> anyhow::Result<Exit> {
    let checked = session.app.check(&args.manifest).await?;
    let (assets, components) = (checked.bound.assets.len() as u64, checked.manifest.components.len() as u64);
    let what = format!("{} of {}", plural(assets, "asset"), plural(components, "component"));
    session.talk.say(format!("pipeline `{}` is sound: {what}", checked.manifest.name));
    Ok(Exit::Succeeded)
}
