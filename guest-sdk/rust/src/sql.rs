//! Databases that an operator granted.
//!
//! All that an attempt does in one is one transaction: it sees the database as it was when the attempt first asked, and
//! what it changed is there when the attempt has succeeded, or never. Values are bound to `$1` and so on, never pasted
//! into the statement.
//!
//! ```
//! use flowstone_sdk::prelude::*;
//!
//! #[derive(serde::Deserialize)]
//! struct Order {
//!     id: i64,
//!     total: String,
//! }
//!
//! /// What one customer ordered.
//! #[asset(requires(shop = sql("reads orders")))]
//! fn orders(ctx: &Context) -> Result<String> {
//!     let shop = ctx.database("shop")?;
//!     let mut lines = String::new();
//!     for order in shop.query("select id, total from orders where customer = $1 order by id").bind("Ada").rows()? {
//!         let Order { id, total } = order?.get()?;
//!         lines += &format!("{id}: {total}\n");
//!     }
//!     Ok(lines)
//! }
//!
//! use flowstone_sdk::sql::Value;
//! use flowstone_sdk::testing::{Job, Tables};
//!
//! let shop = Tables::new().rows(
//!     "select id, total from orders where customer = $1 order by id",
//!     ["id", "total"],
//!     [[Value::from(7), Value::Decimal("31.50".into())]],
//! );
//! let finished = Job::new("orders").database("shop", shop).run();
//! assert_eq!(finished.text(), "7: 31.50\n");
//! ```

mod row;
mod value;

use std::collections::VecDeque;
use std::rc::Rc;

use serde::de::DeserializeOwned;

pub use self::row::Row;
pub use self::value::Value;
use crate::error::{Error, Result};
use crate::host;

/// As many rows as one call moves.
const ROWS_PER_CALL: u32 = 1_000;

/// A granted database.
#[derive(Clone)]
pub struct Database {
    name: String,
    granted: Rc<host::Database>,
}

impl Database {
    pub(crate) fn open(name: &str) -> Result<Self> {
        let granted = host::Database::open(name)
            .map_err(|error| Error::from(error).context(format!("opening database `{name}`")))?;
        Ok(Self { name: name.into(), granted: Rc::new(granted) })
    }

    /// A statement, to which values are bound before it runs.
    pub fn query(&self, statement: impl Into<String>) -> Query {
        Query { database: self.clone(), statement: statement.into(), parameters: Vec::new() }
    }
}

/// A statement and the values of its parameters. Nothing happens before one of its last four functions is called.
#[must_use = "a statement that is not run does nothing"]
pub struct Query {
    database: Database,
    statement: String,
    parameters: Vec<Value>,
}

impl Query {
    /// The value of the next parameter: of `$1` first. It must fit the type that the statement gives it there; where it
    /// does not, the statement is the place for a cast, `$1::bigint`.
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        self.parameters.push(value.into());
        self
    }

    /// Its rows, one after the other, as they are asked for.
    pub fn rows(self) -> Result<Rows> {
        let rows =
            self.database.granted.query(&self.statement, &self.parameters).map_err(|error| self.explain(error))?;
        let columns = rows.columns().into_iter().map(|column| column.name).collect();
        Ok(Rows { query: self, rows, columns, page: VecDeque::new(), ended: false })
    }

    /// All its rows, each as a tuple or a structure.
    ///
    /// ```
    /// use flowstone_sdk::prelude::*;
    ///
    /// /// How much each region sold.
    /// #[asset(requires(shop = sql("sums up sales")))]
    /// fn sales(ctx: &Context) -> Result<Json<Vec<(String, i64)>>> {
    ///     Ok(Json(ctx.database("shop")?.query("select region, sum(amount)::bigint from sales group by 1").all()?))
    /// }
    /// # use flowstone_sdk::{sql::Value, testing::{Job, Tables}};
    /// # let statement = "select region, sum(amount)::bigint from sales group by 1";
    /// # let shop = Tables::new().rows(statement, ["region", "sum"], [[Value::from("north"), Value::from(5)]]);
    /// # assert_eq!(Job::new("sales").database("shop", shop).run().text(), r#"[["north",5]]"#);
    /// ```
    pub fn all<T: DeserializeOwned>(self) -> Result<Vec<T>> {
        self.rows()?.map(|row| row?.get()).collect()
    }

    /// Its first row, if it has one.
    pub fn first<T: DeserializeOwned>(self) -> Result<Option<T>> {
        self.rows()?.next().map(|row| row?.get()).transpose()
    }

    /// Runs a statement without rows; returns how many it changed. Needs a grant that may write.
    ///
    /// ```
    /// use flowstone_sdk::prelude::*;
    ///
    /// /// Counts a visit.
    /// #[asset(requires(shop = sql("counts visits")))]
    /// fn visit(ctx: &Context) -> Result<Json<u64>> {
    ///     let counted = ctx.database("shop")?.query("update visits set count = count + $1").bind(1).execute()?;
    ///     Ok(Json(counted))
    /// }
    /// # use flowstone_sdk::testing::{Job, Tables};
    /// # let shop = Tables::new().changes("update visits set count = count + $1", 1);
    /// # assert_eq!(Job::new("visit").database("shop", shop).run().text(), "1");
    /// ```
    pub fn execute(self) -> Result<u64> {
        self.database.granted.execute(&self.statement, &self.parameters).map_err(|error| self.explain(error))
    }

    fn explain(&self, error: impl Into<Error>) -> Error {
        // The beginning says which one it is.
        let shown: String = self.statement.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(60).collect();
        error.into().context(format!("asking database `{}` to `{shown}`", self.database.name))
    }
}

/// The rows of an answer.
pub struct Rows {
    query: Query,
    rows: host::Rows,
    columns: Rc<[String]>,
    page: VecDeque<Vec<Value>>,
    ended: bool,
}

impl Rows {
    /// The names of the columns.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }
}

impl Iterator for Rows {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.is_empty() && !self.ended {
            match self.rows.next(ROWS_PER_CALL) {
                Ok(rows) => self.page.extend(rows),
                Err(error) => {
                    self.ended = true;
                    return Some(Err(self.query.explain(error)));
                }
            }
            self.ended = self.page.is_empty();
        }
        let values = self.page.pop_front()?;
        Some(Ok(Row::new(self.columns.clone(), values)))
    }
}
