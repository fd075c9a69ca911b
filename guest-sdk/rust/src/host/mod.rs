//! The calls into the host, in one shape for both builds: a component calls its imports, a native build the memory of
//! the test that runs. Which one it is is decided when the crate is compiled, never while it runs.

#[cfg(target_arch = "wasm32")]
mod component;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod memory;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) mod memory_http;

#[cfg(target_arch = "wasm32")]
pub(crate) use component::{
    Client, Database, Directory, Reader, Response, Rows, current_job, list_versions, reveal_secret, set_media_type,
    set_metadata, write_log, write_output,
};
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use memory::{
    Database, Directory, Reader, Rows, current_job, list_versions, reveal_secret, set_media_type, set_metadata,
    write_log, write_output,
};

#[cfg(not(target_arch = "wasm32"))]
pub(crate) use memory_http::{Client, Response};

use crate::error::CapabilityError;
use crate::partition::Partition;

/// How a call into the host ends.
pub(crate) type HostResult<T> = Result<T, CapabilityError>;

/// No call moves more bytes than this, in either direction: the contract's bound.
pub(crate) const CALL_BYTES_MAX: usize = 1 << 20;

/// Where the call stands.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    pub run_id: String,
    pub asset: String,
    pub partition: Partition,
    pub attempt: u32,
    pub logical_time_ms: u64,
    /// A JSON object.
    pub config: String,
}

/// One materialization behind an input.
#[derive(Clone, Debug)]
pub(crate) struct VersionRecord {
    pub asset: String,
    pub partition: Partition,
    pub materialization: String,
    pub digest: String,
    pub size: u64,
    pub media_type: String,
    pub metadata: Vec<(String, String)>,
}

/// A file of a granted directory.
#[derive(Clone, Debug)]
pub(crate) struct EntryRecord {
    pub path: String,
    pub size: u64,
}

/// A request to a granted HTTP origin.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestRecord {
    pub method: String,
    pub path: String,
    pub query: Vec<(String, String)>,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub idempotency_key: Option<String>,
}

/// A column of an answer.
#[derive(Clone, Debug)]
pub(crate) struct ColumnRecord {
    pub name: String,
}
