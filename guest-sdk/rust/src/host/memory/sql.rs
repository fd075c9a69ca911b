//! Databases of a native test: statements with the answers that the test gave, and no SQL.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::with;
use crate::error::CapabilityError;
use crate::host::{ColumnRecord, HostResult};
use crate::sql::Value;

/// Columns and rows.
pub(crate) type Table = (Vec<String>, Vec<Vec<Value>>);

/// A database: what it answers to which statement, and what it was asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answered {
    pub rows: BTreeMap<String, Table>,
    pub changes: BTreeMap<String, u64>,
    pub asked: Vec<(String, Vec<Value>)>,
}

/// Blanks do not make another statement.
pub(crate) fn one_line(statement: &str) -> String {
    statement.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A granted database, by its name.
pub(crate) struct Database(String);

/// An answer, and how far it has been read.
pub(crate) struct Rows {
    columns: Vec<String>,
    rows: RefCell<std::vec::IntoIter<Vec<Value>>>,
}

impl Database {
    pub(crate) fn open(resource_name: &str) -> HostResult<Self> {
        let granted = with(|memory| memory.databases.contains_key(resource_name));
        granted.then(|| Self(resource_name.into())).ok_or(CapabilityError::Denied)
    }

    pub(crate) fn query(&self, statement: &str, parameters: &[Value]) -> HostResult<Rows> {
        let (columns, rows) = self.ask(statement, parameters, |database, line| database.rows.get(line).cloned())?;
        Ok(Rows { columns, rows: RefCell::new(rows.into_iter()) })
    }

    pub(crate) fn execute(&self, statement: &str, parameters: &[Value]) -> HostResult<u64> {
        self.ask(statement, parameters, |database, line| database.changes.get(line).copied())
    }

    fn ask<T>(
        &self,
        statement: &str,
        parameters: &[Value],
        answer: impl FnOnce(&Answered, &str) -> Option<T>,
    ) -> HostResult<T> {
        let line = one_line(statement);
        with(|memory| {
            let database = memory.databases.get_mut(&self.0).expect("it was there when it was opened");
            database.asked.push((line.clone(), parameters.to_vec()));
            let none = || CapabilityError::Invalid(format!("the test gives no answer to `{line}`"));
            answer(database, &line).ok_or_else(none)
        })
    }
}

impl Rows {
    pub(crate) fn columns(&self) -> Vec<ColumnRecord> {
        self.columns.iter().map(|name| ColumnRecord { name: name.clone() }).collect()
    }

    pub(crate) fn next(&self, max: u32) -> HostResult<Vec<Vec<Value>>> {
        Ok(self.rows.borrow_mut().by_ref().take(max as usize).collect())
    }
}
