//! How many jobs may run at once, whatever worker runs them: what a manifest says of its assets, and the names of the pools
//! in which they are counted. What an operator calls a pool of his has no colon in it, but for that of a resource.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{definition::name_mistake, resource::Grant};

/// What an asset's jobs share with others, resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Concurrency {
    /// Jobs of this asset at once.
    pub of_asset: Option<u32>,
    /// Jobs of its pipeline at once.
    pub of_pipeline: Option<u32>,
    /// Operators' pools by name.
    pub pools: BTreeSet<String>,
}

impl Concurrency {
    /// Without any bound it is not written down, so that a version without one stays what it was.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The pools of which a job of this asset needs a permit, where there are such pools: that of the tenant, of which
    /// every job needs one, is not among them.
    pub fn pool_names(&self, pipeline: &str, asset: &str, grants: &[Grant]) -> BTreeSet<String> {
        let mut names = self.pools.clone();
        names.extend(self.of_asset.map(|_| asset_pool(pipeline, asset)));
        names.extend(self.of_pipeline.map(|_| pipeline_pool(pipeline)));
        names.extend(grants.iter().map(|grant| format!("{RESOURCE_POOL}{}", grant.resource())));
        names
    }

    /// The pools that the manifest itself declares for this asset, with their sizes.
    pub fn declared(&self, pipeline: &str, asset: &str) -> impl Iterator<Item = (String, u32)> {
        let of_asset = self.of_asset.map(|size| (asset_pool(pipeline, asset), size));
        of_asset.into_iter().chain(self.of_pipeline.map(|size| (pipeline_pool(pipeline), size)))
    }
}

/// The pool of all jobs of a tenant. `pools` of a manifest does not name it.
pub const TENANT_POOL: &str = "tenant";

/// Before the name of a resource: the pool of all jobs that it is granted to.
const RESOURCE_POOL: &str = "resource:";

fn asset_pool(pipeline: &str, asset: &str) -> String {
    format!("asset:{pipeline}/{asset}")
}

fn pipeline_pool(pipeline: &str) -> String {
    format!("pipeline:{pipeline}")
}

/// What is wrong with the name of a pool that an operator sets; absent when nothing is.
pub fn operators_pool_mistake(name: &str) -> Option<String> {
    match name.split_once(':') {
        None => name_mistake("a pool", name),
        Some(("resource", resource)) => name_mistake("a resource", resource),
        Some(("pipeline" | "asset", _)) => Some(format!(
            "the size of `{}` is `max_concurrent` in the pipeline's manifest",
            super::diagnostic::shown(name)
        )),
        Some(_) => Some(format!(
            "`{}` is no pool: write a name, `{RESOURCE_POOL}` and the name of a resource, or `{TENANT_POOL}` for all jobs",
            super::diagnostic::shown(name)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::resource::PlainGrant, *};

    #[test]
    fn an_asset_needs_permits_of_what_it_shares() {
        let concurrency = Concurrency { of_asset: Some(2), of_pipeline: Some(5), pools: ["db".to_owned()].into() };
        let grants = [Grant::Clock(PlainGrant { resource: "now".into() })];
        let names: Vec<String> = concurrency.pool_names("p", "a", &grants).into_iter().collect();
        assert_eq!(names, ["asset:p/a", "db", "pipeline:p", "resource:now"]);
        let declared: Vec<(String, u32)> = concurrency.declared("p", "a").collect();
        assert_eq!(declared, [("asset:p/a".to_owned(), 2), ("pipeline:p".to_owned(), 5)]);
        assert!(Concurrency::default().pool_names("p", "a", &[]).is_empty() && Concurrency::default().is_default());
    }

    #[test]
    fn an_operator_sets_pools_of_his_own_of_resources_and_of_the_tenant() {
        for name in ["db", "resource:shop", TENANT_POOL] {
            assert_eq!(operators_pool_mistake(name), None);
        }
        for (name, told) in [
            ("Db", "not a name for a pool"),
            ("resource:", "not a name for a resource"),
            ("pipeline:p", "`max_concurrent` in the pipeline's manifest"),
            ("asset:p/a", "`max_concurrent` in the pipeline's manifest"),
            ("other:\x1b", "is no pool"),
        ] {
            let mistake = operators_pool_mistake(name).unwrap();
            assert!(mistake.contains(told) && !mistake.contains('\x1b'), "{mistake}");
        }
    }
}
