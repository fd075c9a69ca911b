//! `sql` for an asset that was granted no database: the first call ends the attempt.

use wasmtime::component::Resource;

use crate::{
    bindings::flowstone::asset::sql,
    capability::{Abort, Refusal, Ungranted},
    pipeline::asset::Capability,
};

impl sql::Host for Ungranted {
    async fn open(&mut self, resource: String) -> Result<Resource<sql::Database>, Refusal> {
        Err(self.deny(Capability::Sql, &resource, "open"))
    }
}

// Without `open` there is no database to call these on, and without that no rows.
impl sql::HostDatabase for Ungranted {
    async fn query(
        &mut self,
        _: Resource<sql::Database>,
        _: String,
        _: Vec<sql::Value>,
    ) -> Result<Resource<sql::Rows>, Refusal> {
        Err(Abort::Denied.into())
    }

    async fn execute(&mut self, _: Resource<sql::Database>, _: String, _: Vec<sql::Value>) -> Result<u64, Refusal> {
        Err(Abort::Denied.into())
    }

    async fn drop(&mut self, _: Resource<sql::Database>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl sql::HostRows for Ungranted {
    async fn columns(&mut self, _: Resource<sql::Rows>) -> wasmtime::Result<Vec<sql::Column>> {
        Err(Abort::Denied.into())
    }

    async fn next(&mut self, _: Resource<sql::Rows>, _: u32) -> Result<Vec<Vec<sql::Value>>, Refusal> {
        Err(Abort::Denied.into())
    }

    async fn drop(&mut self, _: Resource<sql::Rows>) -> wasmtime::Result<()> {
        Ok(())
    }
}
