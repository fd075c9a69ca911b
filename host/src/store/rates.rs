//! Rates that hold for all workers together: who reserves a permit is told how long to wait for it.

use std::time::Duration;

use uuid::Uuid;

use super::{Store, StoreError, error::Doing as _};
use crate::{id::AssetId, pipeline::http::Rate};

impl Store {
    /// Reserves the next permit of a resource of the asset's pipeline, or of an operator's, if it comes within this time;
    /// returns how long to wait for it. The database's clock counts, so that the workers' need not agree.
    ///
    /// A permit that is reserved and not used is lost: the rate is then lower than allowed, never higher.
    pub async fn reserve_permit(
        &self,
        tenant: &str,
        asset: AssetId,
        resource: &str,
        registered: bool,
        rate: Rate,
        within: Duration,
    ) -> Result<Option<Duration>, StoreError> {
        // Between two permits.
        let step_us = (rate.period_ms as f64) * 1_000.0 / f64::from(rate.permits.max(1));
        // After a pause, so many come at once.
        let ahead_us = step_us * f64::from(rate.burst.max(1));
        let wait_us = sqlx::query_scalar!(
            r#"insert into rate_limit as r (tenant_id, owner_id, resource, due_at)
               select a.tenant_id, case when $7 then $8 else a.pipeline_id end, $3, clock_timestamp() + $4 * interval '1 microsecond'
               from asset a where a.tenant_id = $1 and a.asset_id = $2
               on conflict (tenant_id, owner_id, resource) do update
               set due_at = greatest(r.due_at, clock_timestamp()) + $4 * interval '1 microsecond'
               where greatest(r.due_at, clock_timestamp()) + $4 * interval '1 microsecond'
                     <= clock_timestamp() + ($5::float8 + $6::float8) * interval '1 microsecond'
               returning (extract(epoch from r.due_at - clock_timestamp()) * 1000000)::float8 - $5::float8 as "wait_us!""#,
            tenant,
            asset.0,
            resource,
            step_us,
            ahead_us,
            within.as_micros() as f64,
            registered,
            Uuid::nil(),
        )
        .fetch_optional(&self.pool)
        .await
        .doing("reserving a permit")?;
        Ok(wait_us.map(|wait_us| Duration::from_micros(wait_us.max(0.0) as u64)))
    }
}
