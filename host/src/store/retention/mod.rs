//! Retention: what goes when it is old, or when nothing names it, and the lease of whoever collects it.
//!
//! Each step is a transaction that first renews the lease: who has lost it removes nothing more. What is going to be
//! removed is written down before it is, so that a collection which dies half-way is finished by the next one. How old is
//! said by the database's clock.

mod blobs;
mod history;
mod materializations;
mod records;
mod requests;

use uuid::Uuid;

pub(super) use blobs::find_collected;
pub use blobs::{Condemned, Unnamed};
pub use history::HistoryDay;
pub use materializations::PartitionPlace;
pub(super) use materializations::{hold_unexpired, is_any_expired};

use super::{Store, StoreError, Transaction, error::Doing as _};
use crate::limit::COLLECTOR_LEASE;

/// The right to collect, which one process has at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Collector(Uuid);

/// How many rows, and about how many bytes they have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Rows, days or blobs.
    pub count: u64,
    /// Theirs.
    pub bytes: u64,
}

impl Amount {
    fn of(count: i64, bytes: i64) -> Self {
        Self { count: count.max(0) as u64, bytes: bytes.max(0) as u64 }
    }
}

impl std::ops::AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.count += other.count;
        self.bytes += other.bytes;
    }
}

impl Store {
    /// Takes the right to collect, if nobody has it.
    pub async fn begin_collecting(&self) -> Result<Option<Collector>, StoreError> {
        let collector = Uuid::now_v7();
        let taken = sqlx::query!(
            "update retention set held_by = $1, held_until = now() + make_interval(secs => $2) where held_until < now()",
            collector,
            COLLECTOR_LEASE.as_secs_f64(),
        )
        .execute(&self.pool)
        .await
        .doing("beginning to collect")?;
        Ok((taken.rows_affected() == 1).then_some(Collector(collector)))
    }

    /// Keeps the right to collect.
    pub async fn renew_collecting(&self, collector: Collector) -> Result<(), StoreError> {
        self.collect_in_transaction(collector).await?.commit().await.doing("collecting")
    }

    /// Gives the right to collect back.
    pub async fn end_collecting(&self, collector: Collector) -> Result<(), StoreError> {
        sqlx::query!("update retention set held_by = null, held_until = '-infinity' where held_by = $1", collector.0)
            .execute(&self.pool)
            .await
            .doing("ending a collection")?;
        Ok(())
    }

    /// A transaction of whoever may collect: nobody else can begin one before it ends. It reads whole tables, which the
    /// settings of a session keep others from.
    async fn collect_in_transaction(&self, collector: Collector) -> Result<Transaction, StoreError> {
        const DOING: &str = "collecting";
        let mut transaction = self.pool.begin().await.doing(DOING)?;
        sqlx::query!("select set_config('enable_seqscan', 'on', true)")
            .fetch_one(&mut *transaction)
            .await
            .doing(DOING)?;
        let renewed = sqlx::query!(
            "update retention set held_until = clock_timestamp() + make_interval(secs => $2) where held_by = $1",
            collector.0,
            COLLECTOR_LEASE.as_secs_f64(),
        )
        .execute(&mut *transaction)
        .await
        .doing(DOING)?;
        if renewed.rows_affected() == 0 {
            return Err(StoreError::CollectorReplaced);
        }
        Ok(transaction)
    }

    /// A transaction that only looks, and reads whole tables.
    async fn look_in_transaction(&self) -> Result<Transaction, StoreError> {
        const DOING: &str = "looking for what can be collected";
        let mut transaction = self.pool.begin().await.doing(DOING)?;
        sqlx::query!("select set_config('enable_seqscan', 'on', true)")
            .fetch_one(&mut *transaction)
            .await
            .doing(DOING)?;
        sqlx::query!("select set_config('transaction_read_only', 'on', true)")
            .fetch_one(&mut *transaction)
            .await
            .doing(DOING)?;
        Ok(transaction)
    }
}
