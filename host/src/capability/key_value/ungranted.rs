//! The interfaces of buckets for an asset that was granted none: the first call ends the attempt.

use wasmtime::component::Resource;

use super::wasi::{Comparison, draft, draft2};
use crate::{
    bindings::flowstone::asset::key_value as wit,
    capability::{Abort, Refusal, Ungranted},
    pipeline::asset::Capability,
};

impl wit::Host for Ungranted {
    async fn open(&mut self, resource: String) -> Result<Resource<wit::Bucket>, Refusal> {
        Err(self.deny(Capability::KeyValue, &resource, "open"))
    }
}

// Without `open` there is no bucket to call these on.
impl wit::HostBucket for Ungranted {
    async fn get(&mut self, _: Resource<wit::Bucket>, _: String) -> Result<Option<wit::Versioned>, Refusal> {
        Err(Abort::Denied.into())
    }

    async fn set(&mut self, _: Resource<wit::Bucket>, _: String, _: Vec<u8>) -> Result<(), Refusal> {
        Err(Abort::Denied.into())
    }

    async fn remove(&mut self, _: Resource<wit::Bucket>, _: String) -> Result<(), Refusal> {
        Err(Abort::Denied.into())
    }

    async fn compare_and_set(
        &mut self,
        _: Resource<wit::Bucket>,
        _: String,
        _: Option<u64>,
        _: Vec<u8>,
    ) -> Result<(), Refusal> {
        Err(Abort::Denied.into())
    }

    async fn increment(&mut self, _: Resource<wit::Bucket>, _: String, _: i64) -> Result<(), Refusal> {
        Err(Abort::Denied.into())
    }

    async fn keys(
        &mut self,
        _: Resource<wit::Bucket>,
        _: String,
        _: Option<String>,
        _: u32,
    ) -> Result<Vec<String>, Refusal> {
        Err(Abort::Denied.into())
    }

    async fn drop(&mut self, _: Resource<wit::Bucket>) -> wasmtime::Result<()> {
        Ok(())
    }
}

/// What both drafts of `wasi:keyvalue` have in common.
macro_rules! nothing_behind {
    ($draft:ident, cursor: $cursor:ty, got: $got:ty) => {
        impl $draft::store::Host for Ungranted {
            async fn open(&mut self, identifier: String) -> Result<Resource<$draft::store::Bucket>, Refusal> {
                Err(self.deny(Capability::KeyValue, &identifier, "open"))
            }

            fn convert_error(&mut self, refusal: Refusal) -> wasmtime::Result<$draft::store::Error> {
                $draft::error(refusal)
            }
        }

        // Without `open` there is no bucket to call these on.
        impl $draft::store::HostBucket for Ungranted {
            async fn get(&mut self, _: Resource<$draft::store::Bucket>, _: String) -> Result<Option<Vec<u8>>, Refusal> {
                Err(Abort::Denied.into())
            }

            async fn set(&mut self, _: Resource<$draft::store::Bucket>, _: String, _: Vec<u8>) -> Result<(), Refusal> {
                Err(Abort::Denied.into())
            }

            async fn delete(&mut self, _: Resource<$draft::store::Bucket>, _: String) -> Result<(), Refusal> {
                Err(Abort::Denied.into())
            }

            async fn exists(&mut self, _: Resource<$draft::store::Bucket>, _: String) -> Result<bool, Refusal> {
                Err(Abort::Denied.into())
            }

            async fn list_keys(
                &mut self,
                _: Resource<$draft::store::Bucket>,
                _: Option<$cursor>,
            ) -> Result<$draft::store::KeyResponse, Refusal> {
                Err(Abort::Denied.into())
            }

            async fn drop(&mut self, _: Resource<$draft::store::Bucket>) -> wasmtime::Result<()> {
                Ok(())
            }
        }

        impl $draft::batch::Host for Ungranted {
            async fn get_many(
                &mut self,
                _: Resource<$draft::store::Bucket>,
                _: Vec<String>,
            ) -> Result<Vec<$got>, Refusal> {
                Err(Abort::Denied.into())
            }

            async fn set_many(
                &mut self,
                _: Resource<$draft::store::Bucket>,
                _: Vec<(String, Vec<u8>)>,
            ) -> Result<(), Refusal> {
                Err(Abort::Denied.into())
            }

            async fn delete_many(&mut self, _: Resource<$draft::store::Bucket>, _: Vec<String>) -> Result<(), Refusal> {
                Err(Abort::Denied.into())
            }
        }
    };
}

nothing_behind!(draft, cursor: u64, got: Option<(String, Vec<u8>)>);
nothing_behind!(draft2, cursor: String, got: (String, Option<Vec<u8>>));

impl draft::atomics::Host for Ungranted {
    async fn increment(&mut self, _: Resource<draft::store::Bucket>, _: String, _: u64) -> Result<u64, Refusal> {
        Err(Abort::Denied.into())
    }
}

impl draft2::atomics::Host for Ungranted {
    async fn increment(&mut self, _: Resource<draft2::store::Bucket>, _: String, _: i64) -> Result<i64, Refusal> {
        Err(Abort::Denied.into())
    }

    async fn swap(
        &mut self,
        _: Resource<Comparison>,
        _: Vec<u8>,
    ) -> wasmtime::Result<Result<(), draft2::atomics::CasError>> {
        Err(Abort::Denied.into())
    }
}

impl draft2::atomics::HostCas for Ungranted {
    async fn new(&mut self, _: Resource<draft2::store::Bucket>, _: String) -> Result<Resource<Comparison>, Refusal> {
        Err(Abort::Denied.into())
    }

    async fn current(&mut self, _: Resource<Comparison>) -> Result<Option<Vec<u8>>, Refusal> {
        Err(Abort::Denied.into())
    }

    async fn drop(&mut self, _: Resource<Comparison>) -> wasmtime::Result<()> {
        Ok(())
    }
}
