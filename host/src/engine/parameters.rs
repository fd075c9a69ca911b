//! Asking a component what its assets can be configured with: an export that it need not have.
//!
//! Its types are written out here and not generated, because a generated world would make the export a duty.

use std::collections::HashMap;

use wasmtime::{
    Store,
    component::{ComponentType, Instance, Lift},
};

use super::sandbox::State;
use crate::{
    capability::text::{neutralise, truncate},
    limit::NAME_BYTES_MAX,
    pipeline::asset::{AssetDefinition, Parameter, ParameterKind},
};

/// `configuration.asset-parameters`.
#[derive(Clone, Debug, ComponentType, Lift)]
#[component(record)]
pub(super) struct AssetParameters {
    pub asset: String,
    pub parameters: Vec<DescribedParameter>,
}

/// `configuration.parameter`.
#[derive(Clone, Debug, ComponentType, Lift)]
#[component(record)]
pub(super) struct DescribedParameter {
    pub name: String,
    pub kind: DescribedKind,
    pub default: Option<String>,
    pub description: String,
}

/// `configuration.kind`.
#[derive(Clone, Copy, Debug, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "only a guest makes one")]
pub(super) enum DescribedKind {
    #[component(name = "text")]
    Text,
    #[component(name = "integer")]
    Integer,
    #[component(name = "number")]
    Number,
    #[component(name = "boolean")]
    Boolean,
    #[component(name = "json")]
    Json,
}

const CONFIGURATION: &str = "flowstone:asset/configuration@0.1.0";

/// What the component says, or nothing when it does not export the interface. An export of another type is an error.
pub(super) async fn describe(store: &mut Store<State>, instance: &Instance) -> wasmtime::Result<Vec<AssetParameters>> {
    let Some(interface) = instance.get_export_index(&mut *store, None, CONFIGURATION) else { return Ok(Vec::new()) };
    let Some(function) = instance.get_export_index(&mut *store, Some(&interface), "describe-parameters") else {
        return Err(wasmtime::Error::msg("its export `configuration` has no function `describe-parameters`"));
    };
    let function = instance.get_typed_func::<(), (Vec<AssetParameters>,)>(&mut *store, function)?;
    let (described,) = function.call_async(&mut *store, ()).await?;
    Ok(described)
}

/// Gives each asset its parameters; or says which cannot be given. Everything is within bounds by now.
pub(super) fn assign(described: Vec<AssetParameters>, assets: &mut [AssetDefinition]) -> Result<(), Vec<String>> {
    let mut by_name: HashMap<String, &mut AssetDefinition> =
        assets.iter_mut().map(|asset| (asset.name.clone(), asset)).collect();
    let mut problems = Vec::new();
    for AssetParameters { asset, parameters } in described {
        let shown = neutralise(truncate(&asset, NAME_BYTES_MAX));
        // Taken out, so that a second list of the same asset finds none.
        let Some(definition) = by_name.remove(&asset) else {
            problems.push(format!("it lists parameters of `{shown}`, which it does not describe, or lists them twice"));
            continue;
        };
        for parameter in parameters {
            match read(parameter) {
                Ok(parameter) => definition.parameters.push(parameter),
                Err(name) => problems.push(format!("the default of the parameter `{name}` of `{shown}` is not JSON")),
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn read(described: DescribedParameter) -> Result<Parameter, String> {
    let DescribedParameter { name, kind, default, description } = described;
    let kind = match kind {
        DescribedKind::Text => ParameterKind::Text,
        DescribedKind::Integer => ParameterKind::Integer,
        DescribedKind::Number => ParameterKind::Number,
        DescribedKind::Boolean => ParameterKind::Boolean,
        DescribedKind::Json => ParameterKind::Json,
    };
    let default = default.map(|text| serde_json::from_str(&text)).transpose();
    let default = default.map_err(|_| neutralise(truncate(&name, NAME_BYTES_MAX)))?;
    Ok(Parameter { name, kind, default, description })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::asset::AssetKind;

    fn asset(name: &str) -> AssetDefinition {
        AssetDefinition {
            name: name.into(),
            description: String::new(),
            kind: AssetKind::Plain,
            inputs: vec![],
            dimensions: vec![],
            requirements: vec![],
            media_type: "text/plain".into(),
            checks: vec![],
            tags: vec![],
            parameters: vec![],
        }
    }

    fn parameters(asset: &str, default: &str) -> AssetParameters {
        let parameter = DescribedParameter {
            name: "days".into(),
            kind: DescribedKind::Integer,
            default: Some(default.into()),
            description: "how many".into(),
        };
        AssetParameters { asset: asset.into(), parameters: vec![parameter] }
    }

    #[test]
    fn each_asset_gets_its_own_parameters() {
        let mut assets = [asset("a"), asset("b")];
        assign(vec![parameters("b", "30")], &mut assets).unwrap();
        assert!(assets[0].parameters.is_empty());
        assert_eq!(
            (assets[1].parameters[0].kind, &assets[1].parameters[0].default),
            (ParameterKind::Integer, &Some(30.into()))
        );
    }

    #[test]
    fn parameters_of_nobody_twice_or_without_json_are_refused() {
        let said = |described| assign(described, &mut [asset("a")]).unwrap_err().join("; ");
        assert!(said(vec![parameters("c\u{1b}", "1")]).contains("which it does not describe"));
        assert!(!said(vec![parameters("c\u{1b}", "1")]).contains('\u{1b}'));
        assert!(said(vec![parameters("a", "1"), parameters("a", "1")]).contains("lists them twice"));
        assert!(said(vec![parameters("a", "{")]).contains("the default of the parameter `days` of `a` is not JSON"));
    }
}
