//! Connections to the database, none of which is waited for without end.
//!
//! A server that stands still, and a network that lets nothing through any more, close no connection: a statement would
//! wait for its answer for as long as TCP does, which is hours. So every statement has a time; when that is over it
//! counts as failed, and its connection is closed, not lent again. The same when somebody stops waiting for it: what
//! its answer would be read for is gone. What the server does with such a statement nobody knows.
//!
//! The connection that was used last is lent first: what its server process needs for the next statement is in the
//! processor's caches. Taken in turns, on a system with nothing else to do, each statement takes up to twice as long.
//!
//! Behind a pooler that gives each transaction another session, nothing of a session lasts: every statement is in a
//! transaction, which brings its settings along, and no prepared statement has a name.

use std::{
    future::Future,
    io,
    ops::{Deref, DerefMut},
    time::Instant,
};

use deadpool::managed::{self, Manager, Metrics, Object, PoolError, QueueMode, RecycleResult};
use futures_util::{
    StreamExt as _, TryFutureExt as _, TryStreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use sqlx::{
    Connection as _, Describe, Either, Execute, Executor, PgConnection, Postgres, SqlStr,
    error::BoxDynError,
    postgres::{
        PgArguments, PgConnectOptions, PgListener, PgPoolOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo,
    },
};
use tokio::time::{sleep, timeout};

use super::{SESSION_SETTINGS, Sessions, TRANSACTION_SETTINGS};
use crate::limit::{
    DATABASE_ANSWER_WAIT, DATABASE_CLOSE_POLL, DATABASE_CONNECT_RETRY, DATABASE_CONNECT_TIMEOUT,
    DATABASE_CONNECTION_AGE_MAX, DATABASE_CONNECTIONS_MAX, DATABASE_IDLE_MAX, DATABASE_PING_AFTER, DATABASE_PING_WAIT,
    DATABASE_RETURN_WAIT,
};

/// The connections of one process.
#[derive(Clone, Debug)]
pub(super) struct Pool(managed::Pool<Opener>);

impl Pool {
    /// Opens the first one.
    pub(super) async fn open(options: PgConnectOptions, sessions: Sessions) -> sqlx::Result<Self> {
        let pool = managed::Pool::builder(Opener { options, sessions })
            .max_size(DATABASE_CONNECTIONS_MAX)
            .queue_mode(QueueMode::Lifo)
            .build()
            .map_err(sqlx::Error::config)?;
        let pool = Self(pool);
        pool.lend().await?;
        Ok(pool)
    }

    /// A transaction, which is undone unless it is committed.
    pub(super) async fn begin(&self) -> sqlx::Result<Transaction> {
        self.lend().await?.begin(true).await
    }

    /// One for a single statement, which is a transaction by itself where the session is nobody else's between its
    /// parts: it may be true before it is committed.
    pub(super) async fn begin_single(&self) -> sqlx::Result<Transaction> {
        self.lend().await?.begin(false).await
    }

    async fn lend(&self) -> sqlx::Result<Connection> {
        let now = Instant::now();
        let is_kept = |kept: &Kept, metrics: Metrics| {
            now.saturating_duration_since(kept.returned_at) < DATABASE_IDLE_MAX
                && now.saturating_duration_since(metrics.created) < DATABASE_CONNECTION_AGE_MAX
        };
        drop(self.0.retain(is_kept));
        let lent = timeout(DATABASE_CONNECT_TIMEOUT, self.0.get()).await;
        let lent = lent.map_err(|_| sqlx::Error::PoolTimedOut)?.map_err(|error| match error {
            PoolError::Backend(error) => error,
            PoolError::Closed => sqlx::Error::PoolClosed,
            _ => sqlx::Error::PoolTimedOut,
        })?;
        Ok(Connection {
            lent: Some(lent),
            sessions: self.sessions(),
            is_asking: false,
            is_doubtful: false,
            is_in_transaction: false,
        })
    }

    fn sessions(&self) -> Sessions {
        self.0.manager().sessions
    }

    /// Whether a session is nobody else's, so that something can be listened for.
    pub(super) fn has_own_sessions(&self) -> bool {
        self.sessions() == Sessions::Own
    }

    /// One that hears what is announced, over a connection beside these: it has no end.
    pub(super) async fn listen(&self) -> sqlx::Result<PgListener> {
        let single = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(DATABASE_CONNECT_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None)
            .after_connect(|connection, _| {
                Box::pin(async { connection.execute(sqlx::raw_sql(SESSION_SETTINGS)).await.map(drop) })
            });
        PgListener::connect_with(&single.connect_lazy_with(self.0.manager().options.clone())).await
    }

    /// Those that are open, and of these those that are lent to nobody.
    pub(super) fn count(&self) -> (usize, usize) {
        let status = self.0.status();
        (status.size, status.available)
    }

    /// Lends no more, closes what is idle, and waits for the others.
    pub(super) async fn close(&self) {
        let idle = self.0.retain(|_, _| false).removed;
        self.0.close();
        for kept in idle {
            drop(kept.connection.close().await);
        }
        while self.0.status().size > 0 {
            sleep(DATABASE_CLOSE_POLL).await;
        }
    }
}

/// Opens connections, and looks whether an idle one is still there.
#[derive(Debug)]
struct Opener {
    options: PgConnectOptions,
    sessions: Sessions,
}

/// A connection, idle since then.
#[derive(Debug)]
struct Kept {
    connection: PgConnection,
    returned_at: Instant,
}

impl Manager for Opener {
    type Type = Kept;
    type Error = sqlx::Error;

    /// A server that is starting is waited for, by whoever waits for this.
    async fn create(&self) -> sqlx::Result<Kept> {
        let mut connection = loop {
            match PgConnection::connect_with(&self.options).await {
                Err(error) if is_starting(&error) => sleep(DATABASE_CONNECT_RETRY).await,
                opened => break opened?,
            }
        };
        if self.sessions == Sessions::Own {
            connection.execute(sqlx::raw_sql(SESSION_SETTINGS)).await?;
        }
        Ok(Kept { connection, returned_at: Instant::now() })
    }

    async fn recycle(&self, kept: &mut Kept, _: &Metrics) -> RecycleResult<sqlx::Error> {
        if kept.returned_at.elapsed() < DATABASE_PING_AFTER {
            return Ok(());
        }
        if !matches!(timeout(DATABASE_PING_WAIT, kept.connection.ping()).await, Ok(Ok(()))) {
            // Others that rest are no better: asking them in turn would take longer than anybody waits.
            *kept = self.create().await?;
        }
        Ok(())
    }
}

/// Whether a server is not up yet, or is about to be up again.
fn is_starting(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(error) => error.kind() == io::ErrorKind::ConnectionRefused,
        sqlx::Error::Database(error) => error.is_transient_in_connect_phase(),
        _ => false,
    }
}

/// A connection that the pool has lent.
#[derive(Debug)]
pub(super) struct Connection {
    /// Until it is given back.
    lent: Option<Object<Opener>>,
    sessions: Sessions,
    /// A statement is on its way, or its answer.
    is_asking: bool,
    /// A statement has failed: it may be gone.
    is_doubtful: bool,
    /// It must be undone before anybody else has the connection.
    is_in_transaction: bool,
}

impl Connection {
    /// For one statement, which ends within its time.
    fn ask(&mut self) -> &mut PgConnection {
        self.is_asking = true;
        &mut self.lent.as_mut().expect("it is given back when it is dropped").connection
    }

    async fn begin(mut self, of_several: bool) -> sqlx::Result<Transaction> {
        let text = match self.sessions {
            Sessions::Own if !of_several => return Ok(Transaction(self)),
            Sessions::Own => "BEGIN",
            Sessions::Shared => TRANSACTION_SETTINGS,
        };
        self.is_in_transaction = true;
        (&mut self).execute(text).await?;
        Ok(Transaction(self))
    }

    fn statement<E>(&self, query: E) -> Prepared<E> {
        Prepared { query, is_named: self.sessions == Sessions::Own }
    }

    fn answered<T>(&mut self, answer: Option<sqlx::Result<T>>) -> sqlx::Result<T> {
        match answer {
            Some(answer) => {
                self.is_asking = false;
                self.is_doubtful |= answer.is_err();
                answer
            }
            None => Err(sqlx::Error::Io(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {} s", DATABASE_ANSWER_WAIT.as_secs()),
            ))),
        }
    }
}

/// None when it was not there in time.
async fn in_time<T>(answer: impl Future<Output = T>) -> Option<T> {
    timeout(DATABASE_ANSWER_WAIT, answer).await.ok()
}

impl Drop for Connection {
    fn drop(&mut self) {
        let Some(mut lent) = self.lent.take() else { return };
        lent.returned_at = Instant::now();
        let is_in_transaction = self.is_in_transaction;
        match tokio::runtime::Handle::try_current() {
            // The server ends what it was doing when it notices.
            _ if self.is_asking => drop(Object::take(lent)),
            _ if !is_in_transaction && !self.is_doubtful => drop(lent),
            Err(_) => drop(Object::take(lent)),
            Ok(runtime) => drop(runtime.spawn(async move {
                let mut broken = Broken(Some(lent));
                let connection = &mut broken.0.as_mut().expect("it is taken when it is mended").connection;
                let mended = timeout(DATABASE_RETURN_WAIT, async {
                    match is_in_transaction {
                        true => connection.execute("ROLLBACK").await.map(drop),
                        false => connection.ping().await,
                    }
                });
                if matches!(mended.await, Ok(Ok(()))) {
                    drop(broken.0.take());
                }
            })),
        }
    }
}

/// A connection that nobody may have as it is: it is closed, unless it is taken out of here.
struct Broken(Option<Object<Opener>>);

impl Drop for Broken {
    fn drop(&mut self) {
        drop(self.0.take().map(Object::take));
    }
}

/// Statements that become true together.
#[derive(Debug)]
pub(super) struct Transaction(Connection);

impl Transaction {
    /// An error may come after it has become true: the answer was lost, and not what it answers.
    pub(super) async fn commit(self) -> sqlx::Result<()> {
        self.end().await.map(drop)
    }

    /// The same, and then another one over the same connection, as [`Pool::begin_single`] does.
    pub(super) async fn commit_and_begin_single(self) -> sqlx::Result<Self> {
        self.end().await?.begin(false).await
    }

    async fn end(self) -> sqlx::Result<Connection> {
        let mut connection = self.0;
        if connection.is_in_transaction {
            (&mut connection).execute("COMMIT").await?;
            connection.is_in_transaction = false;
        }
        Ok(connection)
    }
}

impl Deref for Transaction {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.0
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.0
    }
}

/// A statement as it is prepared: under a name, for the next time, where there is one in this session.
struct Prepared<E> {
    query: E,
    is_named: bool,
}

impl<'q, E: Execute<'q, Postgres>> Execute<'q, Postgres> for Prepared<E> {
    fn sql(self) -> SqlStr {
        self.query.sql()
    }

    fn statement(&self) -> Option<&PgStatement> {
        self.query.statement()
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, BoxDynError> {
        self.query.take_arguments()
    }

    fn persistent(&self) -> bool {
        self.is_named && self.query.persistent()
    }
}

/// What a statement answers: rows, and where they end.
type Answer = Either<PgQueryResult, PgRow>;

impl<'c> Executor<'c> for &'c mut Connection {
    type Database = Postgres;

    fn execute<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<PgQueryResult>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        Box::pin(async move {
            let query = self.statement(query);
            let answer = in_time(self.ask().execute(query)).await;
            self.answered(answer)
        })
    }

    /// Whole: nobody reads rows while they come.
    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, sqlx::Result<Answer>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let answers = async move {
            let query = self.statement(query);
            let answer = in_time(self.ask().fetch_many(query).try_collect::<Vec<Answer>>()).await;
            Ok(stream::iter(self.answered(answer)?).map(Ok))
        };
        answers.try_flatten_stream().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<PgRow>>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        Box::pin(async move {
            let query = self.statement(query);
            let answer = in_time(self.ask().fetch_optional(query)).await;
            self.answered(answer)
        })
    }

    fn prepare_with<'e>(self, sql: SqlStr, parameters: &'e [PgTypeInfo]) -> BoxFuture<'e, sqlx::Result<PgStatement>>
    where
        'c: 'e,
    {
        Box::pin(async move {
            let answer = in_time(self.ask().prepare_with(sql, parameters)).await;
            self.answered(answer)
        })
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, sqlx::Result<Describe<Postgres>>>
    where
        'c: 'e,
    {
        Box::pin(async move {
            let answer = in_time(self.ask().describe(sql)).await;
            self.answered(answer)
        })
    }
}

impl<'p> Executor<'p> for &'p Pool {
    type Database = Postgres;

    fn execute<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<PgQueryResult>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        Box::pin(async move {
            let mut transaction = self.begin_single().await?;
            let answer = transaction.execute(query).await?;
            transaction.commit().await?;
            Ok(answer)
        })
    }

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, sqlx::Result<Answer>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let answers = async move {
            let mut transaction = self.begin_single().await?;
            let answers: Vec<Answer> = transaction.fetch_many(query).try_collect().await?;
            transaction.commit().await?;
            Ok(stream::iter(answers).map(Ok))
        };
        answers.try_flatten_stream().boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, sqlx::Result<Option<PgRow>>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        Box::pin(async move {
            let mut transaction = self.begin_single().await?;
            let answer = transaction.fetch_optional(query).await?;
            transaction.commit().await?;
            Ok(answer)
        })
    }

    fn prepare_with<'e>(self, sql: SqlStr, parameters: &'e [PgTypeInfo]) -> BoxFuture<'e, sqlx::Result<PgStatement>>
    where
        'p: 'e,
    {
        Box::pin(async move { self.lend().await?.prepare_with(sql, parameters).await })
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, sqlx::Result<Describe<Postgres>>>
    where
        'p: 'e,
    {
        Box::pin(async move { self.lend().await?.describe(sql).await })
    }
}
