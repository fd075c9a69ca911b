//! The one transaction that an attempt has in a database, from its first statement to its end.
//!
//! It is begun with everything pinned: read-only or not, one snapshot, the role, the path, the times. A function that a
//! statement calls can change each of them but the first; so after each exchange the session is asked what they are, and
//! a transaction in which one has changed is over and undone. Whether a statement may be sent is decided before.

use std::{
    collections::{HashMap, VecDeque},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use fallible_iterator::FallibleIterator as _;
use postgres_protocol::message::{
    backend::{DataRowBody, Message},
    frontend,
};

use super::{
    PATIENCE,
    pool::{ConnectError, Pool, Taken},
    value::known_type_name,
    wire::{Connection, ServerError, Status, TextRow, UNEXPECTED, WireError, bind, rows_changed, text_row},
};
use crate::{
    id::{AssetId, AttemptId},
    limit::{SQL_BUFFER_BYTES_MAX, SQL_FETCH_ROWS_MAX, SQL_LOCK_TIMEOUT},
    pipeline::{partition::PartitionKey, resource::Access},
};

/// Why something in a transaction did not succeed. All but a refused plan end the transaction.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The exchange did not come to its end.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The session is not as it was: a statement changed this setting.
    #[error("a statement changed {0}, which is pinned")]
    Unpinned(&'static str),
    /// The transaction ended although nobody ended it.
    #[error("a statement ended the transaction")]
    Ended,
    /// More rows wait to be read than the host holds.
    #[error(
        "more than {SQL_BUFFER_BYTES_MAX} bytes of rows wait to be read: read one answer to its end before the next"
    )]
    Unread,
}

/// A statement as the server understands it.
#[derive(Debug)]
pub struct Plan {
    /// The types of its parameters.
    pub parameters: Vec<u32>,
    /// Its columns; none for a statement without rows.
    pub columns: Option<Vec<Column>>,
}

/// A column of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// As the statement names it.
    pub name: String,
    /// By which values are understood.
    pub type_oid: u32,
    type_modifier: i32,
}

/// A row that was fetched, in text.
#[derive(Debug)]
pub struct Row {
    bytes: Vec<u8>,
    fields: Vec<Option<Range<usize>>>,
}

impl Row {
    fn read(body: &DataRowBody) -> Result<Self, WireError> {
        // A copy: the message is a part of a larger read, which it would keep alive.
        Ok(Self { bytes: body.buffer().to_vec(), fields: body.ranges().collect()? })
    }

    /// Its fields, in the order of the columns.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = Option<&[u8]>> {
        self.fields.iter().map(|field| field.as_ref().map(|range| &self.bytes[range.clone()]))
    }

    /// As the server sent it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// About what it takes in memory, also as values.
    pub fn cost(&self) -> usize {
        self.bytes.len() + self.fields.len() * size_of::<Option<Range<usize>>>() + size_of::<Self>()
    }
}

/// An answer whose rows come when they are asked for.
#[derive(Debug)]
pub struct Portal {
    number: u64,
    waiting: VecDeque<Row>,
    /// Whether the server has said that there are no more.
    ended: bool,
    /// Of the rows so far: what decides how many are fetched at a time.
    rows: u64,
    bytes: u64,
}

/// Bytes of rows that one fetch is about: what is under way fits into the buffers of the connection, so that the server
/// never waits, its clock running, for a guest that thinks.
const FETCH_BYTES: u64 = 64 << 10;
/// Rows of the first fetch, of whose size nothing is known.
const FIRST_ROWS: u64 = 16;

impl Portal {
    fn fetch_rows(&self) -> i32 {
        let rows = match self.rows {
            0 => FIRST_ROWS,
            rows => FETCH_BYTES / (self.bytes / rows).max(1),
        };
        rows.clamp(1, SQL_FETCH_ROWS_MAX.into()) as i32
    }

    fn name(&self) -> String {
        format!("r{}", self.number)
    }
}

/// What is pinned, in the order in which the look asks for it. Qualified, so that no path leads elsewhere.
const PINNED: [&str; 26] = [
    "role",
    "session_authorization",
    "search_path",
    "transaction_read_only",
    "transaction_isolation",
    "transaction_deferrable",
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "client_connection_check_interval",
    "DateStyle",
    "TimeZone",
    "IntervalStyle",
    "extra_float_digits",
    "bytea_output",
    "client_encoding",
    "client_min_messages",
    "row_security",
    "session_replication_role",
    "standard_conforming_strings",
    // Without it a server that crashes forgets what was said to be committed.
    "synchronous_commit",
    // By which an operator tells whose session it is.
    "application_name",
    // What a session may take of the server's memory, and of its processors.
    "work_mem",
    "hash_mem_multiplier",
    "temp_buffers",
    "max_parallel_workers_per_gather",
];

/// The name of the asset's statement: the unnamed one is the host's own.
const STATEMENT: &str = "s";

/// Each in one statement with all the others; the role first, so that it sets the others as itself.
const PIN: &str = "select pg_catalog.set_config('role', $1, true),
    pg_catalog.set_config('search_path', $2, true),
    pg_catalog.set_config('statement_timeout', $3, true),
    pg_catalog.set_config('lock_timeout', $4, true),
    pg_catalog.set_config('row_security', 'on', true)";

/// What the session is now; with the table of the record (its object id), also what this transaction wrote to it. No
/// operator is used, because a statement may just have put another schema's in front.
fn look(record: Option<&str>) -> String {
    let settings = PINNED.map(|name| format!("pg_catalog.current_setting('{name}')"));
    let writes = record.into_iter().flat_map(|table| {
        ["inserted", "updated", "deleted"].map(|what| format!("pg_catalog.pg_stat_get_xact_tuples_{what}({table})"))
    });
    format!("select {}", settings.into_iter().chain(writes).collect::<Vec<_>>().join(", "))
}

/// The transaction of one attempt in one database.
pub struct Transaction {
    taken: Taken,
    pool: Arc<Pool>,
    look: String,
    pinned: TextRow,
    /// The answer of which rows are under way, by its number: the exchange is its.
    streaming: Option<u64>,
    next: u64,
    /// Answers that nobody needs any more, to be closed with the next exchange.
    closing: Vec<u64>,
    /// Bytes of rows that wait, over all answers.
    waiting_bytes: usize,
    /// Bytes of rows that were fetched and that nobody took, since somebody asked.
    discarded_bytes: u64,
    statement_timeout: Duration,
    type_names: HashMap<(u32, i32), String>,
}

impl Transaction {
    /// Begins one: at one snapshot, and for reading only unless asked otherwise.
    pub async fn begin(pool: Arc<Pool>, access: Access, statement_timeout: Duration) -> Result<Self, Failure> {
        loop {
            let mut taken = pool.take().await?;
            let fresh = taken.is_fresh();
            match begin_on(taken.connection(), &pool, access, statement_timeout).await {
                Ok((look, pinned)) => {
                    return Ok(Self {
                        taken,
                        pool,
                        look,
                        pinned,
                        streaming: None,
                        next: 0,
                        closing: Vec::new(),
                        waiting_bytes: 0,
                        discarded_bytes: 0,
                        statement_timeout,
                        type_names: HashMap::new(),
                    });
                }
                // The server closed it while it was idle: another one, and in the end a new one.
                Err(Failure::Wire(WireError::Io(_))) if !fresh => {}
                Err(failure) => return Err(failure),
            }
        }
    }

    fn connection(&mut self) -> &mut Connection {
        self.taken.connection()
    }

    /// What the server makes of a statement. `others` may have an answer whose rows are still under way.
    pub async fn plan(&mut self, statement: &str, others: &mut [&mut Portal]) -> Result<Plan, Failure> {
        self.settle(others).await?;
        let closing = std::mem::take(&mut self.closing);
        let connection = self.connection();
        connection.queue(|out| {
            for number in closing {
                frontend::close(b'P', &format!("r{number}"), out)?;
            }
            frontend::close(b'S', STATEMENT, out)?;
            frontend::parse(STATEMENT, statement, None, out)?;
            frontend::describe(b'S', STATEMENT, out)
        })?;
        connection.send().await?;
        let mut plan = Plan { parameters: Vec::new(), columns: None };
        loop {
            match connection.answer().await? {
                Message::ParameterDescription(body) => {
                    plan.parameters = body.parameters().collect().map_err(WireError::from)?
                }
                Message::RowDescription(body) => {
                    let column = |field: postgres_protocol::message::backend::Field<'_>| {
                        let (type_oid, type_modifier) = (field.type_oid(), field.type_modifier());
                        Ok(Column { name: field.name().to_owned(), type_oid, type_modifier })
                    };
                    plan.columns = Some(body.fields().map(column).collect().map_err(WireError::from)?);
                }
                Message::ReadyForQuery(body) => {
                    connection.ready(body.status())?;
                    break;
                }
                _ => {}
            }
        }
        self.check_status()?;
        Ok(plan)
    }

    /// The names of the columns' types. Asks for those that are not everybody's.
    pub async fn name_types(&mut self, columns: &[Column]) -> Result<Vec<String>, Failure> {
        let mut names = Vec::with_capacity(columns.len());
        for column in columns {
            if let Some(name) = known_type_name(column.type_oid) {
                names.push(name.to_owned());
                continue;
            }
            let key = (column.type_oid, column.type_modifier);
            if !self.type_names.contains_key(&key) {
                let [oid, modifier] = [key.0.to_string(), key.1.to_string()];
                let ask = "select pg_catalog.format_type($1::pg_catalog.oid, $2::pg_catalog.int4)";
                let (row, _) = self.connection().run(ask, &[Some(&oid), Some(&modifier)]).await?;
                let name = row.into_iter().flatten().next().flatten().unwrap_or_default();
                self.type_names.insert(key, name);
            }
            names.push(self.type_names[&key].clone());
        }
        Ok(names)
    }

    /// Runs the planned statement, which has rows, until its first rows come: whatever it writes is written then.
    pub async fn open(&mut self, parameters: &[Option<Vec<u8>>]) -> Result<Portal, Failure> {
        let number = self.next;
        self.next += 1;
        let mut portal = Portal { number, waiting: VecDeque::new(), ended: false, rows: 0, bytes: 0 };
        let name = portal.name();
        self.begin_fetch(&portal, |out| bind_values(&name, parameters, out)).await?;
        if let Some(row) = self.stream(&mut portal).await? {
            self.put_back(&mut portal, row);
        }
        Ok(portal)
    }

    /// Runs the planned statement, which has no rows; how many it changed.
    pub async fn execute(&mut self, parameters: &[Option<Vec<u8>>]) -> Result<u64, Failure> {
        let look = self.look.clone();
        let connection = self.connection();
        connection.queue(|out| {
            bind_values("", parameters, out)?;
            frontend::execute("", 0, out)
        })?;
        connection.queue_statement(&look, &[])?;
        connection.send().await?;
        let changed = loop {
            match connection.answer().await? {
                Message::CommandComplete(body) => break rows_changed(body.tag().map_err(WireError::from)?),
                Message::BindComplete | Message::EmptyQueryResponse => {}
                _ => return Err(UNEXPECTED.into()),
            }
        };
        self.end_exchange().await?;
        Ok(changed)
    }

    /// The next row of an answer; nothing at its end.
    pub async fn next(&mut self, portal: &mut Portal, others: &mut [&mut Portal]) -> Result<Option<Row>, Failure> {
        if let Some(row) = portal.waiting.pop_front() {
            self.waiting_bytes = self.waiting_bytes.saturating_sub(row.cost());
            return Ok(Some(row));
        }
        loop {
            if self.streaming == Some(portal.number)
                && let Some(row) = self.stream(portal).await?
            {
                return Ok(Some(row));
            }
            if portal.ended {
                return Ok(None);
            }
            self.settle(others).await?;
            self.begin_fetch(portal, |_| Ok(())).await?;
        }
    }

    /// Forgets an answer.
    pub fn forget(&mut self, portal: &Portal) {
        self.waiting_bytes = self.waiting_bytes.saturating_sub(portal.waiting.iter().map(Row::cost).sum());
        self.discarded_bytes += portal.waiting.iter().map(|row| row.bytes.len() as u64).sum::<u64>();
        self.closing.push(portal.number);
    }

    /// Bytes of rows that came for nobody since this was asked last: they were moved all the same.
    pub fn take_discarded_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.discarded_bytes)
    }

    async fn begin_fetch(
        &mut self,
        portal: &Portal,
        before: impl FnOnce(&mut BytesMut) -> std::io::Result<()>,
    ) -> Result<(), Failure> {
        let look = self.look.clone();
        let (name, rows) = (portal.name(), portal.fetch_rows());
        let connection = self.connection();
        connection.queue(|out| {
            before(out)?;
            frontend::execute(&name, rows, out)
        })?;
        connection.queue_statement(&look, &[])?;
        connection.send().await?;
        self.streaming = Some(portal.number);
        Ok(())
    }

    /// The next row that is under way for this answer; nothing when the exchange is over.
    async fn stream(&mut self, portal: &mut Portal) -> Result<Option<Row>, Failure> {
        let connection = self.connection();
        loop {
            match connection.answer().await? {
                Message::DataRow(body) => {
                    let row = Row::read(&body)?;
                    portal.rows += 1;
                    portal.bytes += row.bytes.len() as u64;
                    return Ok(Some(row));
                }
                Message::PortalSuspended => break,
                Message::CommandComplete(_) | Message::EmptyQueryResponse => {
                    portal.ended = true;
                    break;
                }
                Message::BindComplete => {}
                _ => return Err(UNEXPECTED.into()),
            }
        }
        self.streaming = None;
        self.end_exchange().await?;
        Ok(None)
    }

    fn put_back(&mut self, portal: &mut Portal, row: Row) {
        self.waiting_bytes += row.cost();
        portal.waiting.push_back(row);
    }

    /// Brings what is under way for another answer in, so that a new exchange can begin.
    async fn settle(&mut self, others: &mut [&mut Portal]) -> Result<(), Failure> {
        let Some(number) = self.streaming else { return Ok(()) };
        match others.iter_mut().find(|portal| portal.number == number) {
            Some(portal) => {
                while let Some(row) = self.stream(portal).await? {
                    self.put_back(portal, row);
                    if self.waiting_bytes > SQL_BUFFER_BYTES_MAX {
                        return Err(Failure::Unread);
                    }
                }
            }
            // Nobody waits for them any more.
            None => {
                let mut unread = Portal { number, waiting: VecDeque::new(), ended: false, rows: 0, bytes: 0 };
                while let Some(row) = self.stream(&mut unread).await? {
                    self.discarded_bytes += row.bytes.len() as u64;
                }
            }
        }
        Ok(())
    }

    /// Reads the look that follows a statement, and the end of the exchange.
    async fn end_exchange(&mut self) -> Result<(), Failure> {
        let connection = self.connection();
        let mut seen = None;
        loop {
            match connection.answer().await? {
                Message::DataRow(body) => seen = Some(text_row(&body)?),
                Message::ReadyForQuery(body) => {
                    connection.ready(body.status())?;
                    break;
                }
                _ => {}
            }
        }
        self.check_status()?;
        let seen = seen.ok_or(UNEXPECTED)?;
        check_pinned(&self.pinned, &seen)
    }

    fn check_status(&mut self) -> Result<(), Failure> {
        match self.connection().status() {
            Status::Open => Ok(()),
            Status::Idle | Status::Failed => Err(Failure::Ended),
        }
    }

    /// Runs what the asset's statements have put off until the commit: constraints, and triggers of the database's owner.
    /// Now, because a statement's time limit holds for this, and not for a commit.
    pub async fn finish(&mut self) -> Result<(), ApplyError> {
        let longest = self.statement_timeout + PATIENCE;
        let finished = async {
            // An answer that nobody read to its end has run all the same where it writes.
            self.settle(&mut []).await?;
            let look = self.look.clone();
            let connection = self.connection();
            connection.queue_statement("set constraints all immediate", &[])?;
            connection.queue_statement(&look, &[])?;
            connection.send().await?;
            self.end_exchange().await
        };
        tokio::time::timeout(longest, finished).await.map_err(|_| ApplyError::Slow)?.map_err(ApplyError::of)
    }

    /// Commits, together with the record that this attempt has been applied in place of the one that was expected. As
    /// the login, who alone may write that record.
    ///
    /// When the answer to the commit itself is lost, nobody knows what became of it: [`ApplyError::Unknown`].
    pub async fn apply(mut self, record: &Record) -> Result<(), ApplyError> {
        let [asset, attempt] = [record.asset.0.to_string(), record.attempt.0.to_string()];
        let partition = record.partition.as_str();
        let expected = record.expected.map(|attempt| attempt.0.to_string());
        let role = self.pool.resource().role.clone();
        let connection = self.connection();
        let become_role = "select pg_catalog.set_config('role', $1, true)";
        connection.run(become_role, &[Some("none")]).await.map_err(ApplyError::of)?;
        let recorded = match &expected {
            None => {
                connection
                    .run(
                        "insert into public.flowstone_applied (asset_id, partition_key, attempt_id)
                         values ($1::pg_catalog.uuid, $2::pg_catalog.text, $3::pg_catalog.uuid) on conflict do nothing",
                        &[Some(&asset), Some(partition), Some(&attempt)],
                    )
                    .await
            }
            Some(expected) => {
                connection
                    .run(
                        "update public.flowstone_applied
                         set attempt_id = $3::pg_catalog.uuid, applied_at = pg_catalog.now()
                         where asset_id = $1::pg_catalog.uuid and partition_key = $2::pg_catalog.text
                           and attempt_id = $4::pg_catalog.uuid",
                        &[Some(&asset), Some(partition), Some(&attempt), Some(expected)],
                    )
                    .await
            }
        };
        let (_, rows) = recorded.map_err(ApplyError::of_record)?;
        if rows != 1 {
            return Err(ApplyError::Overtaken);
        }
        // Whatever waits for the commit all the same runs as the asset's role, not as the login.
        connection.run(become_role, &[role.as_deref().or(Some("none"))]).await.map_err(ApplyError::of)?;
        if connection.status() != Status::Open {
            return Err(ApplyError::Overtaken);
        }
        match connection.run("commit", &[]).await {
            Ok(_) if connection.status() == Status::Idle => Ok(()),
            Ok(_) => Err(ApplyError::Unknown("the server did not end the transaction".to_owned())),
            // It was ready again after it: a server that goes would have closed the connection.
            Err(WireError::Server(error)) => Err(ApplyError::Refused(error)),
            Err(error) => Err(ApplyError::Unknown(error.to_string())),
        }
    }

    /// Closes the connection at once, and has the server cancel what it does.
    pub fn abandon(self) {
        self.taken.close();
    }
}

/// That an attempt has been applied to one partition of an asset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Of which asset.
    pub asset: AssetId,
    /// Which partition of it.
    pub partition: PartitionKey,
    /// The attempt.
    pub attempt: AttemptId,
    /// The attempt that the record named when this one began.
    pub expected: Option<AttemptId>,
}

/// Why an attempt's writes were not committed, or may not have been.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Another attempt of the partition was applied meanwhile.
    #[error("another attempt was applied meanwhile")]
    Overtaken,
    /// The database refused what was written: for a deferred constraint, or because of what others wrote.
    #[error("{0}")]
    Refused(ServerError),
    /// A statement had changed what is pinned, or ended the transaction.
    #[error("{0}")]
    Unpinned(Failure),
    /// What was put off until the commit takes longer than a statement may: nothing was applied.
    #[error("what was put off until the commit took longer than a statement may")]
    Slow,
    /// The connection failed before the commit: nothing was applied.
    #[error("the connection failed before the commit: {0}")]
    Lost(String),
    /// Whether it was applied cannot be said.
    #[error("the answer to the commit was lost: {0}")]
    Unknown(String),
}

impl ApplyError {
    fn of(failure: impl Into<Failure>) -> Self {
        match failure.into() {
            Failure::Wire(WireError::Server(error)) => Self::Refused(error),
            failure @ (Failure::Unpinned(_) | Failure::Ended) => Self::Unpinned(failure),
            failure => Self::Lost(failure.to_string()),
        }
    }

    /// Of the statement that writes the record.
    fn of_record(error: WireError) -> Self {
        match &error {
            // Serialization: somebody else wrote the same record since this transaction began.
            WireError::Server(error) if error.code == "40001" => Self::Overtaken,
            _ => Self::of(error),
        }
    }
}

/// The attempt that a database says was applied last to a partition of an asset.
pub async fn find_applied(
    pool: &Arc<Pool>,
    asset: AssetId,
    partition: &PartitionKey,
) -> Result<Option<AttemptId>, Failure> {
    loop {
        let mut taken = pool.take().await?;
        let fresh = taken.is_fresh();
        let ask = "select attempt_id::pg_catalog.text from public.flowstone_applied
            where asset_id = $1::pg_catalog.uuid and partition_key = $2::pg_catalog.text";
        let asset = asset.0.to_string();
        let asked = taken.connection().run(ask, &[Some(&asset), Some(partition.as_str())]).await;
        match asked {
            Ok((row, _)) => {
                let text = row.into_iter().flatten().next().flatten();
                let attempt = text.map(|text| text.parse().map(AttemptId)).transpose();
                return attempt.map_err(|_| WireError::Protocol("the record of what was applied is not a UUID").into());
            }
            Err(WireError::Io(_)) if !fresh => {}
            Err(error) => return Err(error.into()),
        }
    }
}

async fn begin_on(
    connection: &mut Connection,
    pool: &Pool,
    access: Access,
    statement_timeout: Duration,
) -> Result<(String, TextRow), Failure> {
    let begin = match access {
        Access::Read => "begin isolation level repeatable read, read only",
        Access::ReadWrite => "begin isolation level repeatable read, read write",
    };
    connection.run(begin, &[]).await?;
    let record = match access {
        Access::Read => None,
        // As the login: the role need not see where it is.
        Access::ReadWrite => {
            let find = "select 'public.flowstone_applied'::pg_catalog.regclass::pg_catalog.oid";
            let (row, _) = connection.run(find, &[]).await?;
            let table = row.into_iter().flatten().next().flatten();
            Some(table.filter(|table| table.parse::<u32>().is_ok()).ok_or(UNEXPECTED)?)
        }
    };
    let resource = pool.resource();
    let milliseconds = |duration: Duration| format!("{}ms", duration.as_millis().max(1));
    let [statement, lock] = [milliseconds(statement_timeout), milliseconds(SQL_LOCK_TIMEOUT)];
    let role = resource.role.as_deref().unwrap_or("none");
    // A query, and with it the snapshot: from here on the transaction cannot become one that writes.
    connection
        .run(PIN, &[Some(role), Some(&search_path(&resource.search_path)), Some(&statement), Some(&lock)])
        .await?;
    let look = look(record.as_deref());
    let (row, _) = connection.run(&look, &[]).await?;
    let pinned = row.ok_or(UNEXPECTED)?;
    let of = |name: &str| PINNED.iter().position(|pinned| *pinned == name).and_then(|at| pinned[at].as_deref());
    let read_only = if access == Access::Read { "on" } else { "off" };
    if of("role") != Some(role) || of("transaction_read_only") != Some(read_only) || connection.status() != Status::Open
    {
        return Err(Failure::Unpinned("what it should have begun with"));
    }
    Ok((look, pinned))
}

/// The schemas after `pg_catalog`, and the temporary one last: nobody's table or function stands before the server's.
fn search_path(schemas: &[String]) -> String {
    let quoted = schemas.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\"")));
    let path: Vec<String> = ["pg_catalog".to_owned()].into_iter().chain(quoted).chain(["pg_temp".to_owned()]).collect();
    path.join(", ")
}

fn check_pinned(pinned: &TextRow, seen: &TextRow) -> Result<(), Failure> {
    let changed = (0..PINNED.len().max(pinned.len())).find(|at| seen.get(*at) != pinned.get(*at));
    let name = |at: usize| *PINNED.get(at).unwrap_or(&"the record of what was applied");
    changed.map_or(Ok(()), |at| Err(Failure::Unpinned(name(at))))
}

fn bind_values(portal: &str, parameters: &[Option<Vec<u8>>], out: &mut BytesMut) -> std::io::Result<()> {
    let write = |value: &Option<Vec<u8>>, out: &mut BytesMut| match value {
        Some(bytes) => {
            out.extend_from_slice(bytes);
            Ok(postgres_protocol::IsNull::No)
        }
        None => Ok(postgres_protocol::IsNull::Yes),
    };
    bind(portal, STATEMENT, parameters, write, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_cannot_break_out_of_the_path() {
        assert_eq!(search_path(&[]), "pg_catalog, pg_temp");
        assert_eq!(search_path(&["a\", \"b".into(), "public".into()]), r#"pg_catalog, "a"", ""b", "public", pg_temp"#);
    }

    #[test]
    fn each_setting_that_changes_is_named() {
        let pinned: TextRow = PINNED.iter().map(|name| Some((*name).to_owned())).collect();
        assert!(check_pinned(&pinned, &pinned).is_ok());
        for (at, name) in PINNED.iter().enumerate() {
            let mut seen = pinned.clone();
            seen[at] = Some("other".to_owned());
            assert!(matches!(check_pinned(&pinned, &seen), Err(Failure::Unpinned(changed)) if changed == *name));
        }
        let counting = [&pinned[..], &[Some("0".to_owned())]].concat();
        let wrote = [&pinned[..], &[Some("1".to_owned())]].concat();
        assert!(check_pinned(&counting, &counting).is_ok());
        let changed = check_pinned(&counting, &wrote);
        assert!(matches!(changed, Err(Failure::Unpinned("the record of what was applied"))));
        assert!(check_pinned(&counting, &pinned).is_err());
        assert!(check_pinned(&pinned, &vec![]).is_err());
    }

    #[test]
    fn the_more_a_row_holds_the_fewer_are_fetched() {
        let portal = |rows, bytes| Portal { number: 0, waiting: VecDeque::new(), ended: false, rows, bytes };
        assert_eq!(portal(0, 0).fetch_rows(), 16);
        assert_eq!(portal(10, 100).fetch_rows(), 256);
        assert_eq!(portal(2, 2 << 10).fetch_rows(), 64);
        assert_eq!(portal(1, 4 << 20).fetch_rows(), 1);
    }
}
