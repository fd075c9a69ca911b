//! `flowstone:asset/sql`: granted Postgres databases. Only by grant.
//!
//! | what an asset must not do | is held by |
//! |---|---|
//! | send two statements, or one of another kind than its grant allows | the protocol, and the first word: `statement` |
//! | leave its transaction or make a read-only one write | the first word, and the snapshot taken before its first call |
//! | keep another role, path or time limit than its own | the look at the session after each statement: `transaction` |
//! | say itself what was applied | the count of what its transaction wrote to that table: `transaction` |
//! | use another role, other files or other servers within one statement | the login, which can do no such thing: `pool` |
//! | cost the host memory or time | a bound of each message, of rows, bytes, statements and time, here and in `wire` |
//! | leave anything behind | rollback and `discard all`, or the end of the connection: `pool` |
//!
//! What its role may read and change within one transaction is the database's own business.

mod answer;
mod pool;
mod statement;
mod transaction;
mod ungranted;
mod value;
mod wire;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use wasmtime::component::Resource;

use self::{
    answer::{Remedy, tell, too_slow},
    statement::{Kind, kind_of},
    transaction::{Column, Portal, Row, Transaction},
    value::{decode, digest, encode, size_of},
};
pub use self::{
    pool::{ConnectError, DatabaseUrls, Databases, Pool},
    transaction::{ApplyError, Failure, Record, find_applied},
    wire::{ServerError, WireError},
};
use super::{
    Denial, Denials, Interrupt, Refusal, Use, Used, Uses, denial::remedy, outside::OutsideRead, text::truncate,
};
use crate::{
    bindings::flowstone::asset::{sql, types},
    blob::{Digest, DigestWriter},
    limit::{
        CHUNK_BYTES_MAX, SQL_CONNECT_TIMEOUT, SQL_PARAMETERS_MAX, SQL_ROWS_OPEN_MAX, SQL_ROWS_PER_CALL_MAX,
        SQL_STATEMENT_BYTES_MAX, SQL_TARGET_BYTES,
    },
    pipeline::{asset::Capability, resource::Access, sql::SqlGrant},
};
use types::CapabilityError;

/// A database that the attempt may use.
#[derive(Debug)]
pub struct Database {
    /// Its connections.
    pub pool: Arc<Pool>,
    /// What may be done with it, and under which name.
    pub grant: SqlGrant,
}

/// The databases of one attempt.
pub struct Sql {
    asset: String,
    granted: Vec<Granted>,
    /// By handle.
    answers: Vec<Option<Answer>>,
    interrupt: Interrupt,
    denials: Denials,
    uses: Uses,
}

struct Granted {
    database: Database,
    session: Session,
    statements: u64,
    rows: u64,
    bytes: u64,
    read: DigestWriter,
    /// Of the values of rows.
    bytes_read: u64,
}

/// Where the attempt's transaction in a database is.
enum Session {
    /// No statement was sent.
    New,
    /// It goes on.
    Open(Box<Transaction>),
    /// It is undone, and why: every further call says so.
    Over(CapabilityError),
}

/// The answer to a query.
struct Answer {
    database: usize,
    /// The number of its statement among those of its database.
    statement: u64,
    portal: Portal,
    columns: Vec<Column>,
    type_names: Vec<String>,
    target: String,
}

/// What an attempt wrote, if it did, and that nobody has committed yet. Dropped, it is undone.
#[derive(Clone, Default)]
pub struct Uncommitted(Arc<Mutex<Option<Transaction>>>);

impl Uncommitted {
    /// The transaction, which is committed once.
    fn take(&self) -> Option<Transaction> {
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Transaction>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is anything to commit.
    pub fn is_some(&self) -> bool {
        self.lock().is_some()
    }

    /// Runs what was put off until the commit, within the time that a statement has. Undone when that fails.
    pub async fn finish(&self) -> Result<(), ApplyError> {
        let Some(mut transaction) = self.take() else { return Ok(()) };
        transaction.finish().await?;
        *self.lock() = Some(transaction);
        Ok(())
    }

    /// Commits it together with a record of the attempt, within a bounded time.
    pub async fn apply(self, record: &Record, within: Duration) -> Result<(), ApplyError> {
        let Some(transaction) = self.take() else { return Ok(()) };
        let applied = tokio::time::timeout(within, transaction.apply(record)).await;
        applied.unwrap_or_else(|_| Err(ApplyError::Unknown("it took too long".to_owned())))
    }

    /// Undoes it.
    pub fn undo(self) {
        drop(self.take());
    }
}

impl fmt::Debug for Uncommitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uncommitted({})", self.is_some())
    }
}

/// What an attempt that is over leaves in its databases.
#[derive(Debug, Default)]
pub struct Left {
    /// What it wrote.
    pub uncommitted: Uncommitted,
    /// Why what it wrote cannot be committed, when it cannot.
    pub spoiled: Option<CapabilityError>,
}

impl Sql {
    /// The databases that an attempt of this asset may use.
    pub fn new(asset: String, databases: Vec<Database>, interrupt: Interrupt) -> Self {
        let granted = |database| Granted {
            database,
            session: Session::New,
            statements: 0,
            rows: 0,
            bytes: 0,
            read: DigestWriter::default(),
            bytes_read: 0,
        };
        let granted = databases.into_iter().map(granted).collect();
        let uses = Uses::of("sql").timed(interrupt.calls());
        Self { asset, granted, answers: Vec::new(), interrupt, denials: Denials::default(), uses }
    }

    /// What was asked for and not granted.
    pub fn take_denials(&mut self) -> Vec<Denial> {
        self.denials.take()
    }

    /// What was done with what was granted.
    pub fn take_uses(&mut self) -> Vec<Use> {
        self.uses.take()
    }

    /// What was read: of each database that was asked, over statements, parameters and the rows that were taken.
    pub fn take_reads(&mut self) -> Vec<OutsideRead> {
        let asked = self.granted.iter_mut().filter(|granted| granted.statements > 0);
        let read = |granted: &mut Granted| OutsideRead {
            resource: granted.database.grant.resource.clone(),
            capability: Capability::Sql,
            digest: std::mem::take(&mut granted.read).finish(),
            items: granted.rows,
            bytes: granted.bytes_read,
        };
        asked.map(read).collect()
    }

    /// Ends what only reads, and hands on what was written.
    pub fn finish(self) -> Left {
        let mut left = Left::default();
        let writing = self.granted.into_iter().filter(|granted| granted.database.grant.access == Access::ReadWrite);
        for granted in writing {
            match granted.session {
                Session::New => {}
                // A manifest cannot grant two.
                Session::Open(transaction) => left.uncommitted = Uncommitted(Arc::new(Mutex::new(Some(*transaction)))),
                Session::Over(why) => left.spoiled = Some(why),
            }
        }
        left
    }

    fn position(&self, database: &Resource<sql::Database>) -> Result<usize, Refusal> {
        let position = database.rep() as usize;
        if position < self.granted.len() { Ok(position) } else { Err(Refusal::invalid("the database is closed")) }
    }

    /// Everything that can be said of a statement before it is sent. Counts it.
    fn admit(&mut self, at: usize, operation: &str, call: &Call) -> Result<(), Refusal> {
        let Call { statement, parameters, target } = call;
        if statement.len() > SQL_STATEMENT_BYTES_MAX {
            let size = statement.len();
            return Err(Refusal::invalid(format!("a statement of {size} bytes, more than {SQL_STATEMENT_BYTES_MAX}")));
        }
        if parameters.len() > SQL_PARAMETERS_MAX {
            let count = parameters.len();
            return Err(Refusal::invalid(format!("{count} parameters, more than {SQL_PARAMETERS_MAX}")));
        }
        if statement.contains('\0') {
            return Err(Refusal::invalid("the statement holds a NUL"));
        }
        let grant = &self.granted[at].database.grant;
        let writes = grant.access == Access::ReadWrite;
        match kind_of(statement) {
            Err(word) => {
                let why = format!("none: a statement that begins with `{}` is never sent", truncate(&word, 32));
                return Err(self.deny(at, operation, target, Remedy::Words(why)));
            }
            Ok(Kind::Write) if !writes => return Err(self.deny(at, operation, target, Remedy::ReadWrite)),
            Ok(_) if operation == "execute" && !writes => {
                return Err(self.deny(at, operation, target, Remedy::ReadWrite));
            }
            Ok(_) => {}
        }
        let granted = &mut self.granted[at];
        if let Session::Over(why) = &granted.session {
            return Err(why.clone().into());
        }
        let statements = granted.database.grant.statements;
        if granted.statements >= statements {
            return Err(Refusal::limit_reached(format!("{statements} statements of one attempt")));
        }
        granted.statements += 1;
        granted.spend_bytes(parameters.iter().map(size_of).sum::<u64>() + statement.len() as u64)?;
        granted.read.field(b"statement");
        granted.read.field(statement.as_bytes());
        granted.read.field(&parameters.len().to_le_bytes());
        parameters.iter().for_each(|parameter| digest(parameter, &mut granted.read));
        Ok(())
    }

    fn deny(&mut self, at: usize, operation: &str, target: &str, what: Remedy) -> Refusal {
        let resource = &self.granted[at].database.grant.resource;
        let words = match what {
            Remedy::ReadWrite => remedy(&self.asset, resource, r#"{ access = "read-write" }"#),
            Remedy::Words(words) => words,
        };
        self.denials.record("sql", resource, operation, target, words);
        CapabilityError::Denied.into()
    }

    /// Ends the transaction for a failure in it, and tells it.
    fn fail(&mut self, at: usize, operation: &str, target: &str, failure: &Failure) -> Refusal {
        let told = tell(failure, self.granted[at].database.grant.statement_timeout_ms);
        self.end(at, told.guest.clone());
        match told.denial {
            Some(what) => self.deny(at, operation, target, what),
            None => told.guest.into(),
        }
    }

    /// Undoes the transaction: every further call says why.
    fn end(&mut self, at: usize, why: CapabilityError) {
        self.granted[at].session = Session::Over(why);
    }

    /// Runs the statement; within its time, whatever the server does.
    async fn run(&mut self, at: usize, operation: &'static str, call: &Call) -> Result<Ran, Refusal> {
        self.admit(at, operation, call)?;
        self.begin(at, operation, call).await?;
        let longest = self.longest(at);
        match tokio::time::timeout(longest + PATIENCE, self.exchange(at, operation, call)).await {
            Ok(Ok(ran)) => Ok(ran),
            Ok(Err(Unrun::Refused(refusal))) => Err(refusal),
            Ok(Err(Unrun::Failed(failure))) => Err(self.fail(at, operation, &call.target, &failure)),
            Err(_) => Err(self.late(at)),
        }
    }

    /// How long a statement may take now.
    fn longest(&self, at: usize) -> Duration {
        let granted = Duration::from_millis(self.granted[at].database.grant.statement_timeout_ms);
        granted.min(self.interrupt.deadline().saturating_duration_since(Instant::now()))
    }

    /// The server did not end the statement in its time: a function may have told it not to.
    fn late(&mut self, at: usize) -> Refusal {
        let why = too_slow(self.granted[at].database.grant.statement_timeout_ms);
        self.end(at, why.clone());
        why.into()
    }

    /// Opens the transaction, unless it is open.
    async fn begin(&mut self, at: usize, operation: &str, call: &Call) -> Result<(), Refusal> {
        let (longest, granted) = (self.longest(at), &mut self.granted[at]);
        if !matches!(granted.session, Session::New) {
            return Ok(());
        }
        let Database { pool, grant } = &granted.database;
        let begun = Transaction::begin(pool.clone(), grant.access, longest);
        let failure = match tokio::time::timeout(2 * SQL_CONNECT_TIMEOUT, begun).await {
            Ok(Ok(transaction)) => {
                granted.session = Session::Open(Box::new(transaction));
                return Ok(());
            }
            Ok(Err(failure)) => failure,
            Err(_) => ConnectError::Slow.into(),
        };
        Err(self.fail(at, operation, &call.target, &failure))
    }

    async fn exchange(&mut self, at: usize, operation: &str, call: &Call) -> Result<Ran, Unrun> {
        let transaction = self.granted[at].transaction();
        let (_, mut others) = split(&mut self.answers, at, None);
        let plan = transaction.plan(&call.statement, &mut others).await?;
        let discarded = transaction.take_discarded_bytes();
        self.granted[at].spend_bytes(discarded).map_err(Unrun::Refused)?;
        let transaction = self.granted[at].transaction();
        let parameters = encode_all(&call.parameters, &plan.parameters)?;
        match (plan.columns, operation) {
            (Some(columns), "query") => {
                let type_names = transaction.name_types(&columns).await?;
                let portal = transaction.open(&parameters).await?;
                Ok(Ran::Answered { portal, columns, type_names })
            }
            (None, "execute") => Ok(Ran::Changed(transaction.execute(&parameters).await?)),
            (None, _) => Err(Unrun::Refused(Refusal::invalid("the statement has no rows: use execute"))),
            (Some(_), _) => Err(Unrun::Refused(Refusal::invalid("the statement has rows: use query"))),
        }
    }

    /// A free handle for an answer.
    fn free(&mut self) -> Result<usize, Refusal> {
        if let Some(free) = self.answers.iter().position(Option::is_none) {
            return Ok(free);
        }
        if self.answers.len() >= SQL_ROWS_OPEN_MAX {
            return Err(Refusal::limit_reached(format!("{SQL_ROWS_OPEN_MAX} answers are open: drop one")));
        }
        self.answers.push(None);
        Ok(self.answers.len() - 1)
    }

    async fn query_rows(&mut self, at: usize, call: Call) -> Result<Resource<sql::Rows>, Refusal> {
        let free = self.free()?;
        let ran = self.run(at, "query", &call).await?;
        let Ran::Answered { portal, columns, type_names } = ran else { unreachable!("it has rows") };
        let statement = self.granted[at].statements;
        let answer = Answer { database: at, statement, portal, columns, type_names, target: call.target };
        self.answers[free] = Some(answer);
        Ok(Resource::new_own(free as u32))
    }

    async fn next_rows(&mut self, handle: usize, max: u32) -> Result<Vec<Vec<sql::Value>>, Refusal> {
        if max == 0 {
            return Err(Refusal::invalid("no rows would look like the end"));
        }
        let Some(answer) = self.answers.get(handle).and_then(Option::as_ref) else {
            return Err(Refusal::invalid("the rows are closed"));
        };
        let at = answer.database;
        let longest = self.longest(at);
        match tokio::time::timeout(longest + PATIENCE, self.gather(handle, at, max as usize)).await {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(Unrun::Refused(refusal))) => Err(refusal),
            Ok(Err(Unrun::Failed(failure))) => {
                let target = self.answers[handle].as_ref().map(|answer| answer.target.clone()).unwrap_or_default();
                Err(self.fail(at, "next", &target, &failure))
            }
            Err(_) => Err(self.late(at)),
        }
    }

    async fn gather(&mut self, handle: usize, at: usize, max: usize) -> Result<Vec<Vec<sql::Value>>, Unrun> {
        let max = max.min(SQL_ROWS_PER_CALL_MAX);
        let granted = &mut self.granted[at];
        let (answer, mut others) = split(&mut self.answers, at, Some(handle));
        let Some(answer) = answer else { unreachable!("it is open") };
        let (mut rows, mut cost) = (Vec::new(), 0);
        while rows.len() < max && cost < CHUNK_BYTES_MAX {
            let transaction = match &mut granted.session {
                Session::Open(transaction) => transaction,
                Session::Over(why) => return Err(Unrun::Refused(why.clone().into())),
                Session::New => unreachable!("an answer has a transaction"),
            };
            let Some(row) = transaction.next(&mut answer.portal, &mut others).await? else { break };
            cost += row.cost();
            if let Err(refusal) = granted.spend_row(&row) {
                // The rest is not wanted: the connection is closed with it.
                if let Session::Open(transaction) =
                    std::mem::replace(&mut granted.session, Session::Over(told(&refusal)))
                {
                    transaction.abandon();
                }
                return Err(Unrun::Refused(refusal));
            }
            granted.read.field(&answer.statement.to_le_bytes());
            granted.read.field(row.bytes());
            rows.push(values(&row, &answer.columns)?);
        }
        Ok(rows)
    }

    /// Counts a use, however it ended.
    fn count<T>(&mut self, at: usize, operation: &'static str, target: &str, bytes: u64, result: &Result<T, Refusal>) {
        let resource = &self.granted[at].database.grant.resource;
        let result = result.as_ref().err().map_or("ok", Refusal::word);
        self.uses.record(Used { resource, operation, target, result, bytes });
    }
}

impl Granted {
    /// The transaction, for a statement that was admitted.
    fn transaction(&mut self) -> &mut Transaction {
        match &mut self.session {
            Session::Open(transaction) => transaction,
            Session::New | Session::Over(_) => unreachable!("it was admitted, and is open"),
        }
    }

    fn spend_bytes(&mut self, bytes: u64) -> Result<(), Refusal> {
        self.bytes = self.bytes.saturating_add(bytes);
        let most = self.database.grant.bytes;
        if self.bytes > most {
            return Err(Refusal::limit_reached(format!("{most} bytes of one attempt")));
        }
        Ok(())
    }

    fn spend_row(&mut self, row: &Row) -> Result<(), Refusal> {
        let most = self.database.grant.rows;
        if self.rows >= most {
            return Err(Refusal::limit_reached(format!("{most} rows of one attempt")));
        }
        self.rows += 1;
        self.bytes_read += row.bytes().len() as u64;
        self.spend_bytes(row.bytes().len() as u64)
    }
}

/// How much longer the host waits than the server may take, so that it is the server who ends a slow statement.
const PATIENCE: Duration = Duration::from_millis(500);

/// A statement as the guest calls it.
struct Call {
    statement: String,
    parameters: Vec<sql::Value>,
    /// What a record of it shows: never a parameter.
    target: String,
}

impl Call {
    fn new(statement: String, parameters: Vec<sql::Value>) -> Self {
        let head = truncate(&statement, SQL_TARGET_BYTES);
        let words: Vec<&str> = head.split_whitespace().collect();
        let target = format!("{} {}", Digest::of(statement.as_bytes()).short(), words.join(" "));
        Self { statement, parameters, target }
    }
}

/// What came of a statement.
enum Ran {
    Answered { portal: Portal, columns: Vec<Column>, type_names: Vec<String> },
    Changed(u64),
}

/// Why a statement was not run to its end.
enum Unrun {
    /// The call makes no sense, and the transaction goes on.
    Refused(Refusal),
    /// The transaction is over.
    Failed(Failure),
}

impl From<Failure> for Unrun {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// What the guest is told by a refusal.
fn told(refusal: &Refusal) -> CapabilityError {
    match refusal {
        Refusal::Guest(error) => error.clone(),
        Refusal::Abort(_) => CapabilityError::Denied,
    }
}

/// One answer, and what the other answers of a database have fetched.
fn split(
    answers: &mut [Option<Answer>],
    database: usize,
    one: Option<usize>,
) -> (Option<&mut Answer>, Vec<&mut Portal>) {
    let (mut found, mut others) = (None, Vec::new());
    for (at, answer) in answers.iter_mut().enumerate() {
        let Some(answer) = answer else { continue };
        if Some(at) == one {
            found = Some(answer);
        } else if answer.database == database {
            others.push(&mut answer.portal);
        }
    }
    (found, others)
}

fn encode_all(parameters: &[sql::Value], types: &[u32]) -> Result<Vec<Option<Vec<u8>>>, Unrun> {
    if parameters.len() != types.len() {
        let (given, taken) = (parameters.len(), types.len());
        let why = format!("the statement takes {taken} parameters, and {given} are given");
        return Err(Unrun::Refused(Refusal::invalid(why)));
    }
    let encoded = parameters.iter().zip(types).zip(1..).map(|((value, type_oid), number)| {
        encode(value, *type_oid).map_err(|why| Unrun::Refused(Refusal::invalid(format!("parameter {number} {why}"))))
    });
    encoded.collect()
}

/// A row as the guest sees it.
fn values(row: &Row, columns: &[Column]) -> Result<Vec<sql::Value>, Unrun> {
    let fields = row.fields();
    if fields.len() != columns.len() {
        return Err(Failure::Wire(wire::UNEXPECTED).into());
    }
    let value = |(field, column): (Option<&[u8]>, &Column)| decode(column.type_oid, field);
    let values: Option<Vec<sql::Value>> = fields.zip(columns).map(value).collect();
    // The settings by which text is read are looked at after the rows: one of them was another meanwhile.
    values.ok_or_else(|| Failure::Unpinned("how values are written").into())
}

impl sql::Host for Sql {
    async fn open(&mut self, resource: String) -> Result<Resource<sql::Database>, Refusal> {
        if let Some(position) = self.granted.iter().position(|granted| granted.database.grant.resource == resource) {
            // A database has no state of its own, so its position is its handle, however often it is opened.
            return Ok(Resource::new_own(position as u32));
        }
        let line = remedy(&self.asset, &resource, Capability::Sql.grant_example());
        self.denials.record("sql", &resource, "open", "", line);
        Err(CapabilityError::Denied.into())
    }
}

impl sql::HostDatabase for Sql {
    async fn query(
        &mut self,
        database: Resource<sql::Database>,
        statement: String,
        parameters: Vec<sql::Value>,
    ) -> Result<Resource<sql::Rows>, Refusal> {
        let at = self.position(&database)?;
        let call = Call::new(statement, parameters);
        let (target, bytes) = (call.target.clone(), call.parameters.iter().map(size_of).sum());
        let rows = self.query_rows(at, call).await;
        self.count(at, "query", &target, bytes, &rows);
        rows
    }

    async fn execute(
        &mut self,
        database: Resource<sql::Database>,
        statement: String,
        parameters: Vec<sql::Value>,
    ) -> Result<u64, Refusal> {
        let at = self.position(&database)?;
        let call = Call::new(statement, parameters);
        let bytes = call.parameters.iter().map(size_of).sum();
        let changed = self.run(at, "execute", &call).await.map(|ran| match ran {
            Ran::Changed(rows) => rows,
            Ran::Answered { .. } => unreachable!("it has no rows"),
        });
        self.count(at, "execute", &call.target, bytes, &changed);
        changed
    }

    async fn drop(&mut self, _database: Resource<sql::Database>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl sql::HostRows for Sql {
    async fn columns(&mut self, rows: Resource<sql::Rows>) -> wasmtime::Result<Vec<sql::Column>> {
        let Some(answer) = self.answers.get(rows.rep() as usize).and_then(Option::as_ref) else { return Ok(vec![]) };
        let named = answer.columns.iter().zip(&answer.type_names);
        Ok(named
            .map(|(column, type_name)| sql::Column { name: column.name.clone(), type_name: type_name.clone() })
            .collect())
    }

    async fn next(&mut self, rows: Resource<sql::Rows>, max: u32) -> Result<Vec<Vec<sql::Value>>, Refusal> {
        let handle = rows.rep() as usize;
        let open = self.answers.get(handle).and_then(Option::as_ref);
        let known = open.map(|answer| (answer.database, answer.target.clone()));
        let Some((at, target)) = known else { return Err(Refusal::invalid("the rows are closed")) };
        let before = self.granted[at].bytes_read;
        let gathered = self.next_rows(handle, max).await;
        let bytes = self.granted[at].bytes_read - before;
        self.count(at, "next", &target, bytes, &gathered);
        gathered
    }

    async fn drop(&mut self, rows: Resource<sql::Rows>) -> wasmtime::Result<()> {
        let answer = self.answers.get_mut(rows.rep() as usize).and_then(Option::take);
        if let Some(answer) = answer
            && let Session::Open(transaction) = &mut self.granted[answer.database].session
        {
            transaction.forget(&answer.portal);
        }
        Ok(())
    }
}

impl types::Host for Sql {
    fn convert_capability_error(&mut self, refusal: Refusal) -> wasmtime::Result<types::CapabilityError> {
        refusal.into_guest()
    }
}
