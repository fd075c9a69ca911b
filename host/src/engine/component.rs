//! A component that is ready to run: compiled, mapped, and linked for each set of granted capabilities.

use super::{
    linker::{Granted, Linkers, PerGrant},
    sandbox::State,
};
use crate::{bindings::AssetWithAllPre, blob::Digest};

/// A compiled component. What linking it costs is paid once, not in every attempt.
pub struct Component {
    digest: Digest,
    compiled: wasmtime::component::Component,
    linked: PerGrant<AssetWithAllPre<State>>,
}

impl Component {
    /// Of compiled code that was loaded.
    pub(super) fn new(digest: Digest, compiled: wasmtime::component::Component) -> Self {
        Self { digest, compiled, linked: PerGrant::default() }
    }

    /// Of the uploaded bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The component with its imports connected; an error when an import or an export does not fit.
    pub(super) fn linked(&self, linkers: &Linkers, granted: Granted) -> wasmtime::Result<&AssetWithAllPre<State>> {
        self.linked
            .get_or_try_make(granted, || AssetWithAllPre::new(linkers.get(granted)?.instantiate_pre(&self.compiled)?))
    }
}

impl std::fmt::Debug for Component {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Component").field(&self.digest).finish()
    }
}
