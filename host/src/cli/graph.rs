//! `flowstone graph`: the assets of a pipeline and what they read.

use std::path::Path;

use super::{
    Exit, Mistake,
    arguments::{Format, Graph as Args},
    print,
    session::{Session, is_path},
};
use crate::pipeline::{asset::AssetDefinition, graph::Graph};

/// Draws a manifest as it stands, without deploying it, or a deployed pipeline.
pub(super) async fn run(session: &Session, args: &Args) -> anyhow::Result<Exit> {
    let definitions: Vec<AssetDefinition> = if is_path(&args.pipeline) {
        let checked = session.app.check(Path::new(&args.pipeline)).await?;
        checked.bound.assets.into_iter().map(|asset| asset.definition).collect()
    } else {
        let pipeline = session.load_pipeline(&args.pipeline).await?;
        pipeline.assets.into_iter().map(|asset| asset.bound.definition).collect()
    };
    print::text(&render(&definitions, args.format)?)?;
    Ok(Exit::Succeeded)
}

fn render(definitions: &[AssetDefinition], format: Format) -> Result<String, Mistake> {
    let graph = Graph::new(definitions).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Mistake(lines.join("\n"))
    })?;
    Ok(match format {
        Format::Tree => graph.tree(),
        Format::Mermaid => graph.mermaid(),
        Format::Dot => graph.dot(),
        Format::Json => graph.json(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::asset::{AssetKind, Input, Mapping};

    fn asset(name: &str, inputs: &[&str]) -> AssetDefinition {
        let input = |asset: &&str| {
            let name = (*asset).to_owned();
            Input { asset: name.clone(), name, optional: false, mapping: Mapping::Same }
        };
        AssetDefinition {
            name: name.into(),
            description: String::new(),
            kind: AssetKind::Plain,
            inputs: inputs.iter().map(input).collect(),
            dimensions: vec![],
            requirements: vec![],
            media_type: "text/plain".into(),
            checks: vec![],
            tags: vec![],
            parameters: vec![],
        }
    }

    #[test]
    fn scenario_32_every_format_names_every_asset() {
        let definitions =
            [asset("greeting", &[]), asset("numbers", &[]), asset("doubled", &["numbers"]), asset("sum", &["doubled"])];
        for format in [Format::Tree, Format::Mermaid, Format::Dot, Format::Json] {
            let picture = render(&definitions, format).unwrap();
            for name in ["greeting", "numbers", "doubled", "sum"] {
                assert!(picture.contains(name), "{format:?}: {picture}");
            }
        }
        assert!(render(&definitions, Format::Mermaid).unwrap().starts_with("graph TD\n"));
    }

    #[test]
    fn what_is_no_graph_is_a_mistake() {
        let mistake = render(&[asset("a", &["b"]), asset("b", &["a"])], Format::Tree).unwrap_err();
        assert!(mistake.to_string().contains("a -> b -> a"), "{mistake}");
    }
}
