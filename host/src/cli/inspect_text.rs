//! What `flowstone inspect` prints. Pure, and nothing in it is trusted: every name is the component's own.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{
    figures::bytes,
    print::{one_line, table_rows},
};
use crate::{
    engine::{Import, ImportClass, Inspection},
    limit::KEYS_SHOWN_MAX,
    pipeline::asset::{AssetDefinition, Dimension, DimensionKeys, Parameter, Requirement},
};

/// For people.
pub fn render(file: &str, inspection: &Inspection, assets: &[AssetDefinition]) -> String {
    let mut text = String::new();
    let mut line = |line: &str| writeln!(text, "{line}").expect("writing to a string cannot fail");
    line(&format!("component  {}", one_line(file)));
    line(&format!("digest     {}", inspection.digest));
    line(&format!("size       {} ({} bytes)", bytes(inspection.size), inspection.size));
    line("\nexports");
    inspection.exports.iter().for_each(|export| line(&format!("  {}", one_line(export))));
    line("\nimports");
    let imports = inspection.imports.iter().map(|import| [import.name.clone(), class(import).to_owned()]);
    table_rows(imports).iter().for_each(|row| line(&format!("  {row}")));
    if !assets.is_empty() {
        line("\nassets");
        assets.iter().flat_map(asset_lines).for_each(|row| line(&format!("  {row}")));
    }
    let grants = grant_lines(assets);
    if !grants.is_empty() {
        line("\nwhat it needs, as a manifest grants it");
        grants.iter().for_each(|row| line(&format!("  {row}")));
    }
    text
}

fn class(import: &Import) -> &'static str {
    match import.class {
        ImportClass::Ours => "always there",
        ImportClass::Baseline => "always there, with nothing behind it",
        ImportClass::Capability(_) => "only by grant",
    }
}

fn asset_lines(asset: &AssetDefinition) -> Vec<String> {
    let mut lines = vec![format!("{}  {}", one_line(&asset.name), one_line(&asset.media_type)).trim_end().to_owned()];
    let mut add = |text: String| lines.push(format!("  {}", one_line(&text)));
    if !asset.description.is_empty() {
        add(asset.description.clone());
    }
    asset.dimensions.iter().for_each(|dimension| add(format!("partitioned by {}", dimension_text(dimension))));
    for input in &asset.inputs {
        let named = if input.name == input.asset { String::new() } else { format!(" as `{}`", input.name) };
        let optional = if input.optional { ", optional" } else { "" };
        add(format!("reads `{}`{named}, partitions: {}{optional}", input.asset, input.mapping.name()));
    }
    for requirement in &asset.requirements {
        add(format!("needs {} `{}`{}", requirement.capability.name(), requirement.resource_name, reason(requirement)));
    }
    for Parameter { name, kind, default, description } in &asset.parameters {
        let default = default.as_ref().map(|default| format!(", {default} if not said")).unwrap_or_default();
        let purpose = if description.is_empty() { String::new() } else { format!(": {description}") };
        add(format!("takes config.{name}, {}{default}{purpose}", kind.name()));
    }
    lines
}

fn reason(requirement: &Requirement) -> String {
    if requirement.reason.is_empty() { String::new() } else { format!(": {}", requirement.reason) }
}

fn dimension_text(dimension: &Dimension) -> String {
    match &dimension.keys {
        DimensionKeys::Time(time) => {
            let to = time.to.as_deref().unwrap_or("the present");
            format!("`{}`: each {} from {} to {to}, {}", dimension.name, time.unit.name(), time.from, time.time_zone)
        }
        DimensionKeys::Static(keys) => {
            let more = keys.len().saturating_sub(KEYS_SHOWN_MAX);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let shown: Vec<&str> = keys.iter().take(KEYS_SHOWN_MAX).map(String::as_str).collect();
            format!("`{}`: {}{more}", dimension.name, shown.join(", "))
        }
        DimensionKeys::Dynamic => format!("`{}`: keys that are not known yet", dimension.name),
    }
}

/// The lines of a manifest that would grant everything. Names are quoted where they are none, because they are not
/// validated here, and what is copied from a terminal must not hold another line.
fn grant_lines(assets: &[AssetDefinition]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut declared: Vec<&str> = Vec::new();
    for requirement in assets.iter().flat_map(|asset| &asset.requirements) {
        if !declared.contains(&&*requirement.resource_name) {
            declared.push(&requirement.resource_name);
            lines.push(format!("[resources.{}]", key(&requirement.resource_name)));
            lines.push(format!("kind = \"{}\"", requirement.capability.resource_kind()));
            lines.extend(requirement.capability.resource_example().iter().map(|line| (*line).to_owned()));
        }
    }
    for asset in assets.iter().filter(|asset| !asset.requirements.is_empty()) {
        lines.push(format!("[assets.{}]", key(&asset.name)));
        for requirement in &asset.requirements {
            let why = if requirement.reason.is_empty() { String::new() } else { format!("  # {}", requirement.reason) };
            let grant =
                format!("grants.{} = {}", key(&requirement.resource_name), requirement.capability.grant_example());
            lines.push(one_line(&format!("{grant}{why}")).into_owned());
        }
    }
    lines
}

fn key(name: &str) -> String {
    if crate::pipeline::definition::is_name(name) { name.to_owned() } else { Value::from(&*one_line(name)).to_string() }
}

/// For programs.
pub fn json(file: &str, inspection: &Inspection, assets: &[AssetDefinition]) -> Value {
    let import = |import: &Import| {
        let (class, capability) = match import.class {
            ImportClass::Ours => ("always", None),
            ImportClass::Baseline => ("baseline", None),
            ImportClass::Capability(capability) => ("by-grant", Some(capability.name())),
        };
        json!({ "name": import.name, "class": class, "capability": capability })
    };
    json!({
        "component": file,
        "digest": inspection.digest,
        "size_bytes": inspection.size,
        "exports": inspection.exports,
        "imports": inspection.imports.iter().map(import).collect::<Vec<_>>(),
        "assets": assets,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        blob::Digest,
        pipeline::asset::{AssetKind, Capability, Input, Mapping, ParameterKind, TimeKeys, TimeUnit},
    };

    fn an_inspection() -> Inspection {
        let import = |name: &str, class| Import { name: name.into(), class };
        Inspection {
            digest: Digest::of(b"component"),
            size: 1_536_000,
            imports: vec![
                import("flowstone:asset/inputs@0.1.0", ImportClass::Ours),
                import("wasi:cli/environment@0.2.6", ImportClass::Baseline),
                import("flowstone:asset/files@0.1.0", ImportClass::Capability(Capability::Files)),
            ],
            exports: vec!["flowstone:asset/definitions@0.1.0".into(), "flowstone:asset/materializer@0.1.0".into()],
            capabilities: [Capability::Files].into(),
        }
    }

    fn an_asset() -> AssetDefinition {
        let months = TimeKeys {
            unit: TimeUnit::Month,
            from: "2012-01".into(),
            to: Some("2015-12".into()),
            time_zone: "UTC".into(),
        };
        AssetDefinition {
            name: "monthly".into(),
            description: "One row a month.\x1b[2J".into(),
            kind: AssetKind::Plain,
            inputs: vec![Input { name: "days".into(), asset: "clean".into(), optional: true, mapping: Mapping::All }],
            dimensions: vec![
                Dimension { name: "month".into(), keys: DimensionKeys::Time(months) },
                Dimension {
                    name: "region".into(),
                    keys: DimensionKeys::Static((0..KEYS_SHOWN_MAX + 2).map(|n| format!("r{n}")).collect()),
                },
            ],
            requirements: vec![Requirement {
                resource_name: "station".into(),
                capability: Capability::Files,
                reason: "reads the measurements\n[evil]".into(),
            }],
            media_type: "text/csv".into(),
            checks: vec![],
            tags: vec![],
            parameters: vec![Parameter {
                name: "city".into(),
                kind: ParameterKind::Text,
                default: Some("Seattle".into()),
                description: "where the station stands".into(),
            }],
        }
    }

    #[test]
    fn a_component_is_shown_with_what_it_needs() {
        insta::assert_snapshot!(render("weather.wasm", &an_inspection(), &[an_asset()]), @r#"
        component  weather.wasm
        digest     6985ca1f4daa5a584a28eae043a239cb96689af1337ea13afb63e00c2bf512fa
        size       1.5 MiB (1536000 bytes)

        exports
          flowstone:asset/definitions@0.1.0
          flowstone:asset/materializer@0.1.0

        imports
          flowstone:asset/inputs@0.1.0  always there
          wasi:cli/environment@0.2.6    always there, with nothing behind it
          flowstone:asset/files@0.1.0   only by grant

        assets
          monthly  text/csv
            One row a month.␛[2J
            partitioned by `month`: each month from 2012-01 to 2015-12, UTC
            partitioned by `region`: r0, r1, r2, r3, r4, r5, r6, r7 and 2 more
            reads `clean` as `days`, partitions: all, optional
            needs files `station`: reads the measurements␊[evil]
            takes config.city, text, "Seattle" if not said: where the station stands

        what it needs, as a manifest grants it
          [resources.station]
          kind = "directory"
          path = "..."
          [assets.monthly]
          grants.station = { access = "read", paths = ["**"] }  # reads the measurements␊[evil]
        "#);
    }

    #[test]
    fn the_lines_that_grant_are_sound_toml_whatever_the_names() {
        let mut asset = an_asset();
        asset.name = "no \"name\"\n[evil]".into();
        let text = grant_lines(&[an_asset(), asset]).join("\n");
        let manifest: toml_edit::DocumentMut = text.parse().unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!(manifest["assets"]["monthly"]["grants"]["station"]["access"].as_str(), Some("read"));
        assert!(manifest.get("evil").is_none());
    }

    #[test]
    fn json_classifies_the_imports() {
        let value = json("weather.wasm", &an_inspection(), &[an_asset()]);
        assert_eq!(
            value["imports"][2],
            json!({
                "name": "flowstone:asset/files@0.1.0", "class": "by-grant", "capability": "files",
            })
        );
        assert_eq!(
            (&value["imports"][0]["class"], &value["imports"][1]["class"]),
            (&json!("always"), &json!("baseline"))
        );
        assert_eq!(value["assets"][0]["name"], "monthly");
    }
}
