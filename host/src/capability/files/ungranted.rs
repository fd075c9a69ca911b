//! `files` for an asset that was granted no directory: the first call ends the attempt.

use wasmtime::component::Resource;

use crate::{
    bindings::flowstone::asset::files,
    capability::{Abort, Refusal, Ungranted},
    pipeline::asset::Capability,
};

impl files::Host for Ungranted {
    fn open(&mut self, resource: String) -> Result<Resource<files::Directory>, Refusal> {
        Err(self.deny(Capability::Files, &resource, "open"))
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

    fn stat(&mut self, _: Resource<files::Directory>, _: String) -> Result<files::Entry, Refusal> {
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
