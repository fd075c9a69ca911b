//! A component that is ready to run: compiled, mapped, and linked for each set of granted capabilities.

use std::sync::OnceLock;

use wasmtime::component::Linker;

use super::{linker::Granted, sandbox::State};
use crate::{bindings::AssetWithFilesPre, blob::Digest};

/// A compiled component. What linking it costs is paid once, not in every attempt.
pub struct Component {
    digest: Digest,
    compiled: wasmtime::component::Component,
    linked: [OnceLock<AssetWithFilesPre<State>>; Granted::ALL.len()],
}

impl Component {
    /// Of compiled code that was loaded.
    pub(super) fn new(digest: Digest, compiled: wasmtime::component::Component) -> Self {
        Self { digest, compiled, linked: Default::default() }
    }

    /// Of the uploaded bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The component with its imports connected; an error when an import or an export does not fit.
    pub(super) fn linked(
        &self,
        linkers: &[Linker<State>; Granted::ALL.len()],
        granted: Granted,
    ) -> wasmtime::Result<&AssetWithFilesPre<State>> {
        let slot = &self.linked[granted.index()];
        if let Some(linked) = slot.get() {
            return Ok(linked);
        }
        let linked = AssetWithFilesPre::new(linkers[granted.index()].instantiate_pre(&self.compiled)?)?;
        // Another attempt may have been faster; both made the same.
        Ok(slot.get_or_init(|| linked))
    }
}

impl std::fmt::Debug for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Component").field(&self.digest).finish()
    }
}
