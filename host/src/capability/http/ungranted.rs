//! Both interfaces for an asset that was granted no HTTP origin: the first call that would reach one ends the attempt.
//!
//! `wasi:http/types` makes values and reaches nothing, so it is the same with and without a grant.

use wasmtime::component::{Resource, ResourceTable};
use wasmtime_wasi_http::p2::{
    bindings::http::types::ErrorCode,
    types::{HostFutureIncomingResponse, HostOutgoingRequest},
};

use crate::{
    bindings::flowstone::asset::http as wit,
    capability::{Abort, Refusal, Ungranted},
    pipeline::asset::Capability,
};

impl wit::Host for Ungranted {
    fn open(&mut self, resource: String) -> Result<Resource<wit::Client>, Refusal> {
        Err(self.deny(Capability::Http, &resource, "open"))
    }
}

// Without `open` there is no client to call these on, and without a client no answer.
impl wit::HostClient for Ungranted {
    async fn send(&mut self, _: Resource<wit::Client>, _: wit::Request) -> Result<Resource<wit::Response>, Refusal> {
        Err(Abort::Denied.into())
    }

    fn drop(&mut self, _: Resource<wit::Client>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl wit::HostResponse for Ungranted {
    fn status(&mut self, _: Resource<wit::Response>) -> wasmtime::Result<u16> {
        Err(Abort::Denied.into())
    }

    fn headers(
        &mut self,
        _: Resource<wit::Response>,
    ) -> wasmtime::Result<Vec<crate::bindings::flowstone::asset::types::Field>> {
        Err(Abort::Denied.into())
    }

    async fn read(&mut self, _: Resource<wit::Response>, _: u32) -> Result<Vec<u8>, Refusal> {
        Err(Abort::Denied.into())
    }

    fn drop(&mut self, _: Resource<wit::Response>) -> wasmtime::Result<()> {
        Ok(())
    }
}

/// The only function of `wasi:http/outgoing-handler`, with nothing behind it.
pub fn deny_handle(
    ungranted: &mut Ungranted,
    table: &mut ResourceTable,
    request: Resource<HostOutgoingRequest>,
) -> wasmtime::Result<Answered> {
    let authority = table.delete(request)?.authority.unwrap_or_default();
    drop(ungranted.deny(Capability::Http, &authority, "handle"));
    Err(Abort::Denied.into())
}

/// What it would return.
pub type Answered = Result<Resource<HostFutureIncomingResponse>, ErrorCode>;
