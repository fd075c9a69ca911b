//! Connections to the database, none of which is waited for without end.
//!
//! A server that stands still, and a network that lets nothing through any more, close no connection: a statement would
//! wait for its answer for as long as TCP does, which is hours. So every statement has a time; when that is over it
//! counts as failed, and its connection is closed, not lent again. The same when somebody stops waiting for it: what
//! its answer would be read for is gone. What the server does with such a statement nobody knows.
//!
//! Behind a pooler that gives each transaction another session, nothing of a session lasts: every statement is in a
//! transaction, which brings its settings along, and no prepared statement has a name.

use std::{
    future::Future,
    io,
    ops::{Deref, DerefMut},
};

use futures_util::{
    StreamExt as _, TryFutureExt as _, TryStreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use sqlx::{
    Connection as _, Describe, Either, Execute, Executor, PgConnection, PgPool, Postgres, SqlStr,
    error::BoxDynError,
    pool::PoolConnection,
    postgres::{PgArguments, PgConnectOptions, PgPoolOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};
use tokio::time::timeout;

use super::{SESSION_SETTINGS, Sessions, TRANSACTION_SETTINGS};
use crate::limit::{
    DATABASE_ANSWER_WAIT, DATABASE_CONNECT_TIMEOUT, DATABASE_CONNECTIONS_MAX, DATABASE_PING_AFTER, DATABASE_PING_WAIT,
    DATABASE_RETURN_WAIT,
};

/// The connections of one process.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    pool: PgPool,
    sessions: Sessions,
}

impl Pool {
    /// Opens the first one.
    pub(super) async fn open(options: PgConnectOptions, sessions: Sessions) -> sqlx::Result<Self> {
        let pool = PgPoolOptions::new()
            .max_connections(DATABASE_CONNECTIONS_MAX)
            .acquire_timeout(DATABASE_CONNECT_TIMEOUT)
            // The pool's own test waits as long as whoever asks; this one leaves time for another connection. It is not
            // made at all while the test at the last return is fresh.
            .test_before_acquire(false)
            .before_acquire(|connection, last| {
                Box::pin(async move {
                    let is_fresh = last.idle_for < DATABASE_PING_AFTER;
                    Ok(is_fresh || matches!(timeout(DATABASE_PING_WAIT, connection.ping()).await, Ok(Ok(()))))
                })
            })
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    match sessions {
                        Sessions::Own => connection.execute(sqlx::raw_sql(SESSION_SETTINGS)).await.map(drop),
                        Sessions::Shared => Ok(()),
                    }
                })
            })
            .connect_with(options)
            .await?;
        Ok(Self { pool, sessions })
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
        let lent = Some(self.pool.acquire().await?);
        Ok(Connection { lent, sessions: self.sessions, is_asking: false, is_in_transaction: false })
    }

    /// Whether a session is nobody else's, so that something can be listened for.
    pub(super) fn has_own_sessions(&self) -> bool {
        self.sessions == Sessions::Own
    }

    /// For what listens: a statement that has no end.
    pub(super) fn unbounded(&self) -> &PgPool {
        &self.pool
    }
}

/// A connection that the pool has lent.
#[derive(Debug)]
pub(super) struct Connection {
    /// Until it is given back.
    lent: Option<PoolConnection<Postgres>>,
    sessions: Sessions,
    /// A statement is on its way, or its answer.
    is_asking: bool,
    /// It must be undone before anybody else has the connection.
    is_in_transaction: bool,
}

impl Connection {
    /// For one statement, which ends within its time.
    fn ask(&mut self) -> &mut PgConnection {
        self.is_asking = true;
        self.lent.as_mut().expect("it is given back when it is dropped")
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
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            drop(lent.detach());
            return;
        };
        if self.is_asking {
            // The server ends what it was doing when it notices.
            drop(lent.detach());
            return;
        }
        let is_in_transaction = self.is_in_transaction;
        runtime.spawn(async move {
            if is_in_transaction {
                let undone = timeout(DATABASE_RETURN_WAIT, lent.execute("ROLLBACK")).await;
                if !matches!(undone, Ok(Ok(_))) {
                    drop(lent.detach());
                    return;
                }
            }
            // It is tested on the way; when that takes too long, it is closed.
            drop(timeout(DATABASE_RETURN_WAIT, lent.return_to_pool()).await);
        });
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
