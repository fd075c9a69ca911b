//! Grants against requirements: what is needed must be granted, and what is granted must be needed.
//!
//! Whether a grant stays within its resource is the manifest's own rule. Nothing here is enforced at run time: what is not granted
//! is not linked.

use super::{
    asset::{AssetDefinition, Requirement},
    diagnostic::{Diagnostic, did_you_mean, shown},
    manifest::{AssetSettings, Manifest},
    policy::{Access, DirectoryGrant},
};

/// Whether everything that these grants reach is an input like any other: the same recipe then gives the same bytes.
pub fn is_pure(grants: &[DirectoryGrant]) -> bool {
    grants.iter().all(|grant| grant.access == Access::Read)
}

/// Everything that is wrong between what an asset needs and what it gets.
pub(super) fn grant_mistakes(definition: &AssetDefinition, manifest: &Manifest) -> Vec<Diagnostic> {
    let settings = manifest.assets.get(&definition.name);
    let grants: &[DirectoryGrant] = settings.map_or(&[], |settings| &settings.grants);
    let needed = |grant: &&DirectoryGrant| definition.requirements.iter().any(|r| r.resource_name == grant.resource);
    let granted = |requirement: &&Requirement| grants.iter().any(|g| g.resource == requirement.resource_name);
    let missing = definition.requirements.iter().filter(|requirement| !granted(requirement));
    let idle = grants.iter().filter(|grant| !needed(grant));
    let missing = missing.map(|requirement| ungranted(definition, requirement, settings, manifest));
    missing.chain(idle.map(|grant| unneeded(definition, grant, manifest))).collect()
}

/// A requirement that nothing grants, with the line that would grant it.
fn ungranted(
    definition: &AssetDefinition,
    requirement: &Requirement,
    settings: Option<&AssetSettings>,
    manifest: &Manifest,
) -> Diagnostic {
    let (asset, resource) = (&definition.name, &requirement.resource_name);
    let value = "{ access = \"read\", paths = [\"**\"] }";
    let mut fix = match settings {
        // `grants.x` beside an inline `grants` would be a syntax error.
        Some(settings) if !settings.grants.is_empty() => {
            format!("add to the grants of [assets.{asset}]: {resource} = {value}")
        }
        _ => format!("write in [assets.{asset}]: grants.{resource} = {value}"),
    };
    if !manifest.resources.contains_key(resource) {
        fix += &format!(", and declare [resources.{resource}] with kind = \"directory\" and path = \"...\"");
    }
    let reason = match requirement.reason.is_empty() {
        true => String::new(),
        false => format!(" (\"{}\")", shown(&requirement.reason)),
    };
    Diagnostic {
        file: manifest.file.clone(),
        place: manifest.place(&format!("assets.{asset}")),
        key: format!("assets.{asset}.grants.{resource}"),
        message: format!("the asset needs the directory `{resource}`{reason}, and nothing grants it"),
        fix: Some(fix),
    }
}

/// A grant that the asset does not ask for.
fn unneeded(definition: &AssetDefinition, grant: &DirectoryGrant, manifest: &Manifest) -> Diagnostic {
    let key = format!("assets.{}.grants.{}", definition.name, grant.resource);
    let required = definition.requirements.iter().map(|requirement| &*requirement.resource_name);
    Diagnostic {
        file: manifest.file.clone(),
        place: manifest.place(&key),
        key,
        message: format!("the asset does not ask for `{}`", grant.resource),
        fix: Some(did_you_mean(&grant.resource, required).unwrap_or_else(|| "remove the grant".to_owned())),
    }
}
