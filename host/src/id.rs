//! Typed ids: one type for each thing that has a row, so that a run's id cannot be passed for a job's.
//!
//! All are UUIDv7: they sort by the millisecond they were made in, which keeps indexes dense and lets history
//! be partitioned by day on the id itself. They are names, not secrets: nothing is granted by knowing one.

macro_rules! typed_ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
            serde::Serialize, serde::Deserialize, sqlx::Type,
        )]
        #[serde(transparent)]
        #[sqlx(transparent)]
        pub struct $name(pub uuid::Uuid);

        impl $name {
            /// A new id, later than every earlier one of this process.
            #[expect(clippy::new_without_default, reason = "a default that differs each time would surprise")]
            pub fn new() -> Self {
                Self(uuid::Uuid::now_v7())
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    )+};
}

typed_ids! {
    /// A pipeline, whatever its version.
    PipelineId,
    /// One immutable deploy of a pipeline.
    PipelineVersionId,
    /// An asset, whatever the pipeline's version.
    AssetId,
    /// An asset as one pipeline version binds it.
    AssetVersionId,
    /// A schedule of a pipeline, whatever the version.
    ScheduleId,
    /// A backfill of a pipeline.
    BackfillId,
    /// One request to materialize a selection.
    RunId,
    /// One asset and partition of a run.
    JobId,
    /// One execution of a job.
    AttemptId,
    /// The record that an attempt produced an output.
    MaterializationId,
    /// A worker process.
    WorkerId,
    /// The random token that fences one claim of a job.
    ClaimToken,
}

impl ClaimToken {
    /// A token that nobody can guess or meet again: 122 random bits, not a time.
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_ids_sort_after_earlier_ones() {
        let ids: Vec<JobId> = (0..1_000).map(|_| JobId::new()).collect();
        assert!(ids.is_sorted());
    }

    #[test]
    fn whoever_knows_an_id_cannot_guess_the_next() {
        // After the time and a counter come 32 bits that the system draws anew for each id.
        let drawn: Vec<u32> = (0..1_000).map(|_| RunId::new().0.as_u128() as u32).collect();
        for bit in 0..32 {
            let set = drawn.iter().filter(|drawn| *drawn >> bit & 1 == 1).count();
            assert!((350..650).contains(&set), "bit {bit} is set in {set} of 1000");
        }
        let followed = drawn.windows(2).filter(|pair| pair[1].wrapping_sub(pair[0]) < 1 << 16).count();
        assert!(followed < 5, "{followed} ids are close after the one before");
    }

    #[test]
    fn an_id_round_trips_through_text() {
        let id = RunId::new();
        assert_eq!(id.to_string().parse::<RunId>().unwrap(), id);
        assert!("run-1".parse::<RunId>().is_err());
    }
}
