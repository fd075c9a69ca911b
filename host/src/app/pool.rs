//! Pools that an operator sets, and those that a manifest names and nobody has set.

use super::{App, AppError};
use crate::{
    limit::POOL_SIZE_MAX,
    pipeline::{
        concurrency::operators_pool_mistake,
        diagnostic::{Diagnostic, did_you_mean},
        manifest::Manifest,
    },
    store::pools::PoolRecord,
};

impl App {
    /// Makes a pool, or gives it another size: so many of its jobs run at once from now on, whatever worker runs them.
    pub async fn set_pool(&self, name: &str, size: u32) -> Result<(), AppError> {
        if let Some(mistake) = operators_pool_mistake(name) {
            return Err(AppError::Usage(mistake));
        }
        if !(1..=POOL_SIZE_MAX).contains(&size) {
            let fix = "to let its jobs wait, `flowstone pause` a pipeline, an asset or a queue";
            return Err(AppError::Usage(format!("a pool has a size from 1 to {POOL_SIZE_MAX}; {fix}")));
        }
        Ok(self.store.set_pool(&self.tenant, name, size as i32).await?)
    }

    /// Removes a pool, and with it the bound; returns how many jobs waited for it.
    pub async fn remove_pool(&self, name: &str) -> Result<u64, AppError> {
        if let Some(ready) = self.store.remove_pool(&self.tenant, name).await? {
            return Ok(ready);
        }
        if let Some(mistake) = operators_pool_mistake(name) {
            return Err(AppError::Usage(mistake));
        }
        let known = self.list_pools().await?;
        let hint = did_you_mean(name, known.iter().map(|pool| pool.name.as_str()));
        let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
        Err(AppError::Usage(format!("there is no pool `{name}`{hint}; `flowstone pool list` lists them")))
    }

    /// Every pool, by name.
    pub async fn list_pools(&self) -> Result<Vec<PoolRecord>, AppError> {
        Ok(self.store.list_pools(&self.tenant).await?)
    }

    /// A mistake for each asset that names pools which nobody has set: it would run without the bound that it counts on.
    pub(super) async fn unknown_pools(&self, manifest: &Manifest) -> Result<Vec<Diagnostic>, AppError> {
        let named: Vec<String> = manifest.assets.values().flat_map(|asset| &asset.concurrency.pools).cloned().collect();
        if named.is_empty() {
            return Ok(Vec::new());
        }
        let known = self.store.find_pools(&self.tenant, &named).await?;
        let mistakes = manifest.assets.iter().filter_map(|(name, asset)| {
            let unknown = asset.concurrency.pools.iter().find(|pool| !known.contains(pool))?;
            let key = format!("assets.{name}.pools");
            Some(Diagnostic {
                file: manifest.file.clone(),
                place: manifest.place(&key),
                key,
                message: format!("there is no pool `{unknown}`"),
                fix: Some(format!("make it with `flowstone pool set {unknown} SIZE`")),
            })
        });
        Ok(mistakes.collect())
    }
}
