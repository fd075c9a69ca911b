//! `files` for an asset that was granted no directory, although its component imports the interface.
//!
//! A component may hold several assets, and imports what any of them uses; `describe` runs without grants. So the
//! interface must be there for the component to start, and there is nothing behind it: the first call ends the attempt.

use wasmtime::component::Resource;

use crate::{
    bindings::flowstone::asset::{files, types},
    capability::{Abort, Denial, Denials, Refusal, denial::files_remedy},
};

/// No directories.
#[derive(Debug, Default)]
pub struct Ungranted {
    asset: String,
    denials: Denials,
}

impl Ungranted {
    /// Of this asset.
    pub fn new(asset: String) -> Self {
        Self { asset, denials: Denials::default() }
    }

    /// What it asked for.
    pub fn take_denials(&mut self) -> Vec<Denial> {
        self.denials.take()
    }
}

impl files::Host for Ungranted {
    fn open(&mut self, resource: String) -> Result<Resource<files::Directory>, Refusal> {
        let remedy = files_remedy(&self.asset, &resource, "read", "**");
        self.denials.record("files", &resource, "open", "", remedy);
        Err(Abort::Denied.into())
    }
}

// Without `open` there is no directory to call these on.
impl files::HostDirectory for Ungranted {
    fn entries(
        &mut self,
        _: Resource<files::Directory>,
        _: Option<String>,
        _: u32,
    ) -> Result<Vec<files::Entry>, Refusal> {
        Err(Abort::Denied.into())
    }

    fn read(&mut self, _: Resource<files::Directory>, _: String, _: u64, _: u32) -> Result<Vec<u8>, Refusal> {
        Err(Abort::Denied.into())
    }

    fn append(&mut self, _: Resource<files::Directory>, _: String, _: Vec<u8>) -> Result<(), Refusal> {
        Err(Abort::Denied.into())
    }

    fn remove(&mut self, _: Resource<files::Directory>, _: String) -> Result<(), Refusal> {
        Err(Abort::Denied.into())
    }

    fn drop(&mut self, _: Resource<files::Directory>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl types::Host for Ungranted {
    fn convert_capability_error(&mut self, refusal: Refusal) -> wasmtime::Result<types::CapabilityError> {
        refusal.into_guest()
    }
}

#[cfg(test)]
mod tests {
    use files::Host as _;

    use super::*;

    #[test]
    fn the_first_call_ends_the_attempt_and_names_the_grant() {
        let mut files = Ungranted::new("raw".into());
        assert!(matches!(files.open("station".into()), Err(Refusal::Abort(Abort::Denied))));
        let denials = files.take_denials();
        assert_eq!(denials[0].remedy, r#"[assets.raw] grants = { station = { access = "read", paths = ["**"] } }"#);
    }
}
