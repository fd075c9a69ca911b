//! `flowstone lineage`: what an output was made from, or what was made from it, as the commits recorded it.

use super::{
    Exit,
    arguments::{Format, Lineage as Args},
    lineage_picture as picture, print,
    session::Session,
};
use crate::store::lineage::Direction;

/// Walks from the newest output of the asset.
pub(super) async fn run(session: &Session, args: &Args) -> anyhow::Result<Exit> {
    let app = &session.app;
    let pipeline = session.load_pipeline(&args.of.pipeline).await?;
    let start = app.find_output(&pipeline, &args.of.asset, args.of.partition.as_deref()).await?;
    let direction = if args.down { Direction::Down } else { Direction::Up };
    let lineage = app.store.walk_lineage(&app.tenant, start.id, direction, args.depth.unwrap_or(i32::MAX)).await?;
    match args.format {
        Format::Tree => print::text(&picture::tree(&lineage, direction))?,
        Format::Mermaid => print::text(&picture::mermaid(&lineage))?,
        Format::Dot => print::text(&picture::dot(&lineage))?,
        Format::Json => print::json(&picture::json(&lineage, direction))?,
    }
    if lineage.truncated {
        session.talk.say(format!("there is more than these {} outputs: bound it with --depth", lineage.nodes.len()));
    }
    Ok(Exit::Succeeded)
}
