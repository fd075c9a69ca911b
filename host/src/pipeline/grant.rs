//! Grants against requirements: what is needed must be granted, and what is granted must be needed.
//!
//! Whether a grant stays within its resource is the manifest's own rule. Nothing here is enforced at run time: what
//! is not granted is not linked.

use super::{
    asset::{AssetDefinition, Capability, Requirement},
    diagnostic::{Diagnostic, did_you_mean, shown},
    manifest::{AssetSettings, Manifest},
    resource::Grant,
};

/// Whether everything that these grants reach is an input like any other: the same recipe then gives the same bytes.
pub fn is_pure(grants: &[Grant]) -> bool {
    grants.iter().all(Grant::is_deterministic)
}

/// Whether anybody else may see what is done through these grants before anything of it is committed.
pub fn reaches_out(grants: &[Grant]) -> bool {
    grants.iter().any(|grant| matches!(grant.capability(), Capability::Http | Capability::Sql))
}

/// Everything that is wrong between what an asset needs and what it gets.
pub(super) fn grant_mistakes(definition: &AssetDefinition, manifest: &Manifest) -> Vec<Diagnostic> {
    let settings = manifest.assets.get(&definition.name);
    let grants: &[Grant] = settings.map_or(&[], |settings| &settings.grants);
    let needed = |grant: &&Grant| definition.requirements.iter().any(|r| r.resource_name == grant.resource());
    let missing = definition.requirements.iter().filter_map(|requirement| {
        match grants.iter().find(|grant| grant.resource() == requirement.resource_name) {
            None => Some(ungranted(definition, requirement, settings, manifest)),
            Some(grant) if grant.capability() != requirement.capability => {
                Some(of_another_kind(definition, requirement, grant, manifest))
            }
            Some(_) => None,
        }
    });
    let idle = grants.iter().filter(|grant| !needed(grant));
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
    let (kind, value) = (requirement.capability.resource_kind(), requirement.capability.grant_example());
    let mut fix = match settings {
        // `grants.x` beside an inline `grants` would be a syntax error.
        Some(settings) if !settings.grants.is_empty() => {
            format!("add to the grants of [assets.{asset}]: {resource} = {value}")
        }
        _ => format!("write in [assets.{asset}]: grants.{resource} = {value}"),
    };
    if !manifest.resources.contains_key(resource) {
        fix += &format!(", and declare [resources.{resource}] with kind = \"{kind}\"");
        requirement.capability.resource_example().iter().for_each(|line| fix += &format!(" and {line}"));
    }
    Diagnostic {
        file: manifest.file.clone(),
        place: manifest.place(&format!("assets.{asset}")),
        key: format!("assets.{asset}.grants.{resource}"),
        message: format!("the asset needs the {kind} `{resource}`{}, and nothing grants it", reason(requirement)),
        fix: Some(fix),
    }
}

/// A requirement whose name is that of another kind of resource.
fn of_another_kind(
    definition: &AssetDefinition,
    requirement: &Requirement,
    grant: &Grant,
    manifest: &Manifest,
) -> Diagnostic {
    let key = format!("assets.{}.grants.{}", definition.name, grant.resource());
    let (needs, is) = (requirement.capability.resource_kind(), grant.capability().resource_kind());
    let resource = grant.resource();
    Diagnostic {
        file: manifest.file.clone(),
        place: manifest.place(&key),
        key,
        message: format!("the asset needs the {needs} `{resource}`{}, which is a {is}", reason(requirement)),
        fix: Some(format!("declare another resource of the kind \"{needs}\" under this name")),
    }
}

/// Why, in the words of the code's author.
fn reason(requirement: &Requirement) -> String {
    match requirement.reason.is_empty() {
        true => String::new(),
        false => format!(" (\"{}\")", shown(&requirement.reason)),
    }
}

/// A grant that the asset does not ask for.
fn unneeded(definition: &AssetDefinition, grant: &Grant, manifest: &Manifest) -> Diagnostic {
    let key = format!("assets.{}.grants.{}", definition.name, grant.resource());
    let required = definition.requirements.iter().map(|requirement| &*requirement.resource_name);
    Diagnostic {
        file: manifest.file.clone(),
        place: manifest.place(&key),
        key,
        message: format!("the asset does not ask for `{}`", grant.resource()),
        fix: Some(did_you_mean(grant.resource(), required).unwrap_or_else(|| "remove the grant".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::manifest::parse_manifest, *};

    #[test]
    fn what_is_asked_of_others_is_seen_by_them_before_it_is_committed() {
        for (kind, settings, grant, expected) in [
            ("http", "url = \"https://api.example.com/\"", "methods = [\"GET\"], paths = [\"/\"]", true),
            ("sql", "url_env = \"FLOWSTONE_SQL_SHOP\"", "", true),
            (
                "directory",
                "path = \"data\"\naccess = \"read-write\"",
                "access = \"read-write\", paths = [\"**\"]",
                false,
            ),
            ("key-value", "", "access = \"read-write\", keys = [\"**\"]", false),
            ("clock", "", "", false),
        ] {
            let text = format!(
                "[pipeline]\nname = \"p\"\n[[components]]\npath = \"a.wasm\"\n[resources.it]\nkind = \"{kind}\"\n{settings}\n\
                 [assets.raw]\ngrants.it = {{ {grant} }}\n"
            );
            let manifest = parse_manifest("flowstone.toml", &text, &Default::default()).expect(kind);
            assert_eq!(reaches_out(&manifest.assets["raw"].grants), expected, "{kind}");
        }
    }
}
