//! `flowstone inspect`: what a component is and wants, before anybody deploys it. Needs no database.

use std::{fs, io::Read as _, path::Path};

use anyhow::{Context as _, bail};

use super::{
    Exit, Mistake,
    arguments::Inspect,
    inspect_text, print,
    print::Talk,
    session::{TENANT, open_engine},
};
use crate::{
    config::Settings,
    engine::{DescribeFailure, Engine, Inspection},
    limit::COMPONENT_BYTES_MAX,
    pipeline::{asset::AssetDefinition, definition::definition_mistakes, diagnostic::shown},
};

/// Inspects, describes and prints. What can be told is told even when the component cannot describe itself.
pub(super) async fn run(settings: &Settings, talk: &Talk, args: &Inspect) -> anyhow::Result<Exit> {
    let file = args.component.display().to_string();
    let bytes = read_component(&args.component)?;
    let engine = open_engine(settings, 1)?;
    let inspection = engine.inspect(&bytes).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(|problem| format!("{file}: {problem}")).collect();
        Mistake(lines.join("\n"))
    })?;
    let described = describe(&engine, talk, &inspection, bytes).await;
    let assets = described.as_deref().unwrap_or_default();
    if args.json {
        print::json(&inspect_text::json(&file, &inspection, assets))?;
    } else {
        print::text(&inspect_text::render(&file, &inspection, assets))?;
    }
    let assets = described.map_err(|error| error.context(file.clone()))?;
    let mistakes: Vec<String> = assets
        .iter()
        .flat_map(|asset| {
            let name = shown(&asset.name);
            let file = &file;
            definition_mistakes(asset).into_iter().map(move |mistake| format!("{file}: asset `{name}`: {mistake}"))
        })
        .collect();
    if !mistakes.is_empty() {
        bail!(Mistake(mistakes.join("\n")));
    }
    Ok(Exit::Succeeded)
}

fn read_component(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One more than allowed, so that the inspection sees that it is too much.
    fs::File::open(path)
        .and_then(|file| file.take(COMPONENT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| Mistake(format!("cannot read {}: {error}", path.display())))?;
    Ok(bytes)
}

async fn describe(
    engine: &Engine,
    talk: &Talk,
    inspection: &Inspection,
    bytes: Vec<u8>,
) -> anyhow::Result<Vec<AssetDefinition>> {
    let component = match engine.load(TENANT, inspection.digest, async move || Ok(bytes)).await {
        Err(error) if error.is_refused() => bail!(Mistake(error.to_string())),
        loaded => loaded.context("cannot compile the component")?,
    };
    engine.describe(&component).await.map_err(|failure| match &failure {
        DescribeFailure::Host(_) => failure.into(),
        DescribeFailure::OutOfBounds(_) => Mistake(failure.to_string()).into(),
        DescribeFailure::Ended { log, .. } => {
            // What it printed is most often the reason.
            log.lines.iter().for_each(|line| talk.say(format!("describe said: {}", line.message)));
            Mistake(failure.to_string()).into()
        }
    })
}
