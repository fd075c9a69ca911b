//! Bytes by their digest: outputs too large for a row, and components.
//!
//! A blob is written to a temporary file while it is hashed, synced, and renamed to its digest; so a name that exists
//! holds all of its bytes, and writing the same bytes twice is one file. Each tenant has a folder of its own: whether
//! another tenant stored the same bytes cannot be found out. Deleting is the garbage collector's business, which
//! follows what commits name; nothing here deletes what was finished.

mod digest;
mod local;

pub use digest::{Digest, DigestWriter, ParseDigestError};
pub use local::{BlobError, BlobReader, BlobStore, BlobWriter, Content, Stored};
