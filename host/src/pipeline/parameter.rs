//! Parameters: what an asset says that it can be configured with, and a manifest's configuration held to it.
//!
//! An asset without parameters takes whatever its manifest says. Otherwise every key is known and of its kind, every
//! value is there, and defaults are filled in: what is stored, and part of the recipe, is the resolved configuration.

use serde_json::{Map, Value};

use super::{
    asset::{AssetDefinition, Parameter, ParameterKind},
    diagnostic::{Diagnostic, did_you_mean, shown},
    manifest::Manifest,
};

impl ParameterKind {
    /// Its name in the contract and in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Json => "json",
        }
    }

    /// As a message says it, with an article where it needs one.
    fn described(self) -> &'static str {
        match self {
            Self::Text => "text in quotes",
            Self::Integer => "a whole number",
            Self::Number => "a number",
            Self::Boolean => "true or false",
            Self::Json => "a value",
        }
    }

    /// How a manifest writes one.
    fn example(self) -> &'static str {
        match self {
            Self::Text => "\"...\"",
            Self::Integer => "1",
            Self::Number => "1.5",
            Self::Boolean => "true",
            Self::Json => "[...]",
        }
    }

    /// Whether a value is of this kind.
    pub(super) fn takes(self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::Integer => value.is_i64(),
            Self::Number => value.is_number(),
            Self::Boolean => value.is_boolean(),
            Self::Json => true,
        }
    }
}

/// Everything that is wrong between an asset's parameters and its configuration.
pub(super) fn configuration_mistakes(definition: &AssetDefinition, manifest: &Manifest) -> Vec<Diagnostic> {
    let parameters = &definition.parameters;
    if parameters.is_empty() {
        return Vec::new();
    }
    let asset = &definition.name;
    let empty = Map::new();
    let config = manifest.assets.get(asset).map_or(&empty, |settings| &settings.config);
    let mistake = |name: &str, place: &str, message: String, fix: String| Diagnostic {
        file: manifest.file.clone(),
        place: manifest.place(&format!("assets.{asset}.config.{name}")).or_else(|| manifest.place(place)),
        key: format!("assets.{asset}.config.{}", shown(name)),
        message,
        fix: Some(fix),
    };
    let section = format!("assets.{asset}");
    let given = config.iter().filter_map(|(name, value)| {
        let Some(parameter) = parameters.iter().find(|parameter| parameter.name == *name) else {
            let names = || parameters.iter().map(|parameter| &*parameter.name);
            let fix = did_you_mean(name, names())
                .unwrap_or_else(|| format!("it has {}", names().collect::<Vec<_>>().join(", ")));
            return Some(mistake(name, &section, format!("the asset has no parameter `{}`", shown(name)), fix));
        };
        let kind = parameter.kind;
        (!kind.takes(value)).then(|| {
            let message = format!("must be {}{}", kind.described(), purpose(parameter));
            mistake(name, &section, message, format!("write {name} = {}", kind.example()))
        })
    });
    let missing = parameters.iter().filter(|known| known.default.is_none() && !config.contains_key(&known.name));
    let missing = missing.map(|parameter| {
        let name = &parameter.name;
        let message = format!("the asset needs a value for `{name}`{}", purpose(parameter));
        mistake(name, &section, message, format!("write in [{section}]: config.{name} = {}", parameter.kind.example()))
    });
    given.chain(missing).collect()
}

/// What it is for, in the words of the code's author.
fn purpose(parameter: &Parameter) -> String {
    match parameter.description.is_empty() {
        true => String::new(),
        false => format!(" (\"{}\")", shown(&parameter.description)),
    }
}

/// A configuration with the defaults of what it leaves out.
pub(super) fn resolved(definition: &AssetDefinition, mut config: Map<String, Value>) -> Map<String, Value> {
    for parameter in &definition.parameters {
        if let (Some(default), false) = (&parameter.default, config.contains_key(&parameter.name)) {
            config.insert(parameter.name.clone(), default.clone());
        }
    }
    config
}
