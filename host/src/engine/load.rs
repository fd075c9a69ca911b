//! From a digest to a component that is ready to run: in memory, on disk, or compiled now.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::OnceCell;

use super::{
    CacheError, Component, Engine,
    cache::is_as_written,
    compile::CompileError,
    compile::compile,
    deserialize::{deserialize, deserialize_compiled},
    meters::Compiled,
};
use crate::{
    blob::{BlobError, Digest},
    engine::linker::Granted,
    limit::COMPONENTS_READY_MAX,
};

/// Why a component is not ready.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The component's fault: trying again would end the same way.
    #[error("component {}: {why}", digest.short())]
    Refused {
        /// The component.
        digest: Digest,
        /// One sentence.
        why: String,
    },
    /// Its bytes cannot be had.
    #[error("cannot read component {}", digest.short())]
    Bytes {
        /// The component.
        digest: Digest,
        /// Why.
        #[source]
        source: BlobError,
    },
    /// The compiled cache cannot be used.
    #[error("cannot keep component {} compiled", digest.short())]
    Cache {
        /// The component.
        digest: Digest,
        /// Why.
        #[source]
        source: CacheError,
    },
    /// The compiler process did not do its work.
    #[error("cannot compile component {}: {why}", digest.short())]
    Compiler {
        /// The component.
        digest: Digest,
        /// The chain of causes.
        why: String,
    },
}

impl LoadError {
    /// Whether it is the component's fault, and not the machine's.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

/// The components that are ready in memory: the most recently used ones. One load for each tenant's digest at a time.
#[derive(Debug, Default)]
pub(super) struct ReadyComponents(Mutex<Slots>);

/// Whose it is, and which.
type Name = (String, Digest);

#[derive(Debug, Default)]
struct Slots {
    by_name: HashMap<Name, Slot>,
    uses: u64,
}

#[derive(Debug)]
struct Slot {
    component: Arc<OnceCell<Arc<Component>>>,
    last_use: u64,
}

impl ReadyComponents {
    /// The component, loading it if nobody has: whoever comes while it loads waits for that, and takes over if it fails.
    pub async fn get_or_load<F, Fut>(&self, name: Name, load: F) -> Result<Arc<Component>, LoadError>
    where
        F: FnOnce() -> Fut,
        Fut: Future<Output = Result<Arc<Component>, LoadError>>,
    {
        let slot = self.slot(name);
        slot.get_or_try_init(load).await.cloned()
    }

    fn slot(&self, name: Name) -> Arc<OnceCell<Arc<Component>>> {
        // Nothing that can panic happens under the lock.
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slots.uses += 1;
        let last_use = slots.uses;
        let slot = slots.by_name.entry(name).or_insert_with(|| Slot { component: Arc::default(), last_use });
        slot.last_use = last_use;
        let component = Arc::clone(&slot.component);
        if slots.by_name.len() > COMPONENTS_READY_MAX {
            let oldest = slots.by_name.iter().min_by_key(|(_, slot)| slot.last_use).map(|(name, _)| name.clone());
            oldest.and_then(|oldest| slots.by_name.remove(&oldest));
        }
        component
    }
}

/// Loads a component from the compiled cache, or compiles it.
pub(super) async fn load<F, Fut>(
    engine: &Engine,
    tenant: &str,
    digest: Digest,
    bytes: F,
) -> Result<Arc<Component>, LoadError>
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = Result<Vec<u8>, BlobError>>,
{
    let cache = |source| LoadError::Cache { digest, source };
    if let Some(path) = engine.compiled.find(tenant, digest).map_err(cache)? {
        match map(engine, path.clone()).await {
            Ok(compiled) => {
                engine.meters.disk_hits.inc();
                return ready(engine, digest, compiled);
            }
            Err(error) => {
                // Written by another configuration or for another processor, or damaged: our own compiler makes it anew.
                tracing::warn!(component = %digest, reason = format!("{error:#}"), "compiled code does not load; compiling again");
                engine.compiled.remove(&path).map_err(cache)?;
            }
        }
    }
    engine.meters.misses.inc();
    let bytes = bytes().await.map_err(|source| LoadError::Bytes { digest, source })?;
    if Digest::of(&bytes) != digest {
        return Err(LoadError::Bytes { digest, source: BlobError::Corrupt { digest } });
    }
    let code = compile_now(engine, digest, &bytes).await?;
    let compiled = match engine.compiled.place(&code, tenant, digest) {
        Ok(path) => map(engine, path).await,
        // A disk that is full keeps nobody from working: whoever loads it next compiles it, too.
        Err(error) => {
            tracing::warn!(component = %digest, error = &error as &dyn std::error::Error, "a compiled component cannot be kept; it is compiled again when it is loaded next");
            take(engine, code).await
        }
    };
    let refused = |error: wasmtime::Error| LoadError::Refused { digest, why: format!("{error:#}") };
    ready(engine, digest, compiled.map_err(refused)?)
}

/// A component that loads but cannot be linked is refused now, not in an attempt.
fn ready(
    engine: &Engine,
    digest: Digest,
    compiled: wasmtime::component::Component,
) -> Result<Arc<Component>, LoadError> {
    let component = Component::new(digest, compiled);
    match component.linked(engine.linkers(), Granted::default()) {
        Ok(_) => {}
        Err(error) => return Err(LoadError::Refused { digest, why: super::verdict::link_problem(&error) }),
    }
    Ok(Arc::new(component))
}

async fn compile_now(engine: &Engine, digest: Digest, bytes: &[u8]) -> Result<Vec<u8>, LoadError> {
    let failed = |why: String| LoadError::Compiler { digest, why };
    let _permit = engine.compiles.acquire().await.map_err(|error| failed(error.to_string()))?;
    let compiled = compile(&engine.compiler, bytes).await;
    engine.meters.count_compilation(match &compiled {
        Ok(_) => Compiled::Succeeded,
        Err(CompileError::Refused(_)) => Compiled::Refused,
        Err(_) => Compiled::Failed,
    });
    compiled.map_err(|error| match error {
        CompileError::Refused(why) => LoadError::Refused { digest, why },
        error => failed(crate::capability::Abort::host_fault(&error).to_string()),
    })
}

/// Mapping checks and links the code: tens of milliseconds for the largest components, so not on the caller's thread.
async fn map(engine: &Engine, path: PathBuf) -> wasmtime::Result<wasmtime::component::Component> {
    let running = engine.running().clone();
    tokio::task::spawn_blocking(move || {
        if !is_as_written(&path)? {
            wasmtime::bail!("its bytes are not those that were compiled");
        }
        deserialize(&running, &path)
    })
    .await?
}

/// The same of code that is in no file.
async fn take(engine: &Engine, code: Vec<u8>) -> wasmtime::Result<wasmtime::component::Component> {
    let running = engine.running().clone();
    tokio::task::spawn_blocking(move || deserialize_compiled(&running, &code)).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_recently_used_component_makes_room() {
        let ready = ReadyComponents::default();
        let name = |n: usize| ("t".to_owned(), Digest::of(&n.to_le_bytes()));
        for n in 0..COMPONENTS_READY_MAX {
            ready.slot(name(n));
        }
        ready.slot(name(0));
        ready.slot(name(COMPONENTS_READY_MAX));
        let slots = ready.0.lock().unwrap();
        assert_eq!(slots.by_name.len(), COMPONENTS_READY_MAX);
        assert!(slots.by_name.contains_key(&name(0)) && !slots.by_name.contains_key(&name(1)));
    }
}
