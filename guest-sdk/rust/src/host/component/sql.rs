//! The imports of `flowstone:asset/sql`.

use super::bindings::flowstone::asset::sql;
use crate::host::{ColumnRecord, HostResult};
use crate::sql::Value;

/// A granted database.
pub(crate) struct Database(sql::Database);

/// An answer.
pub(crate) struct Rows(sql::Rows);

impl Database {
    pub(crate) fn open(resource_name: &str) -> HostResult<Self> {
        Ok(Self(sql::open(resource_name)?))
    }

    pub(crate) fn query(&self, statement: &str, parameters: &[Value]) -> HostResult<Rows> {
        Ok(Rows(self.0.query(statement, &to_host(parameters))?))
    }

    pub(crate) fn execute(&self, statement: &str, parameters: &[Value]) -> HostResult<u64> {
        Ok(self.0.execute(statement, &to_host(parameters))?)
    }
}

impl Rows {
    pub(crate) fn columns(&self) -> Vec<ColumnRecord> {
        self.0.columns().into_iter().map(|column| ColumnRecord { name: column.name }).collect()
    }

    pub(crate) fn next(&self, max: u32) -> HostResult<Vec<Vec<Value>>> {
        let rows = self.0.next(max)?;
        Ok(rows.into_iter().map(|row| row.into_iter().map(Value::from).collect()).collect())
    }
}

fn to_host(parameters: &[Value]) -> Vec<sql::Value> {
    parameters.iter().cloned().map(sql::Value::from).collect()
}

impl From<Value> for sql::Value {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Boolean(value) => Self::Boolean(value),
            Value::Integer(value) => Self::Integer(value),
            Value::Float(value) => Self::Float(value),
            Value::Decimal(text) => Self::Decimal(text),
            Value::Text(text) => Self::Text(text),
            Value::Bytes(bytes) => Self::Bytes(bytes),
            Value::Timestamp(text) => Self::Timestamp(text),
            Value::Date(text) => Self::Date(text),
            Value::Uuid(text) => Self::Uuid(text),
            Value::Json(text) => Self::Json(text),
        }
    }
}

impl From<sql::Value> for Value {
    fn from(value: sql::Value) -> Self {
        match value {
            sql::Value::Null => Self::Null,
            sql::Value::Boolean(value) => Self::Boolean(value),
            sql::Value::Integer(value) => Self::Integer(value),
            sql::Value::Float(value) => Self::Float(value),
            sql::Value::Decimal(text) => Self::Decimal(text),
            sql::Value::Text(text) => Self::Text(text),
            sql::Value::Bytes(bytes) => Self::Bytes(bytes),
            sql::Value::Timestamp(text) => Self::Timestamp(text),
            sql::Value::Date(text) => Self::Date(text),
            sql::Value::Uuid(text) => Self::Uuid(text),
            sql::Value::Json(text) => Self::Json(text),
        }
    }
}
