//! Whether this process lives, and whether it can work: two questions, so that a supervisor that restarts what is dead
//! does not restart what only waits for its database.
//!
//! Live: the loops turn. Nothing outside the process is asked, because a restart would mend nothing there. Ready: what the
//! next job needs is there now. Each answer names all its checks, and says of each why it fails.

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value, json};
use tokio::{sync::Mutex, time::timeout};

use super::kept::Kept;
use crate::{
    blob::BlobStore,
    limit::{LOOP_TURN_MAX, READINESS_BLOB_WAIT, READINESS_KEPT, SESSION_FENCE, WATCH_DATABASE_WAIT},
    pipeline::diagnostic::chain,
    runner::Watched,
    store::Store,
};

/// What is asked about one process.
#[derive(Debug)]
pub(super) struct Health {
    runner: Watched,
    sources: Sources,
    outside: Kept<Outside>,
}

/// What is asked outside the process.
#[derive(Clone, Debug)]
struct Sources {
    store: Store,
    blobs: BlobStore,
    /// Taken while the blob store is written: of calls that hang there is one.
    writing: Arc<Mutex<()>>,
}

/// Why not, for each; nothing when all is well.
#[derive(Clone, Debug)]
struct Outside {
    database: Option<String>,
    migrations: Option<String>,
    blobs: Option<String>,
}

/// The answer: each check by its name, and why it fails.
#[derive(Debug)]
pub(super) struct Report {
    /// `live` or `ready`.
    what: &'static str,
    checks: Vec<(&'static str, Option<String>)>,
}

impl Report {
    pub(super) fn is_ok(&self) -> bool {
        self.checks.iter().all(|(_, why)| why.is_none())
    }

    pub(super) fn to_json(&self) -> Value {
        let checks: Map<String, Value> = self
            .checks
            .iter()
            .map(|(name, why)| {
                let check = match why {
                    None => json!({"ok": true}),
                    Some(why) => json!({"ok": false, "why": why}),
                };
                ((*name).to_owned(), check)
            })
            .collect();
        json!({self.what: self.is_ok(), "checks": checks})
    }
}

impl Health {
    pub(super) fn new(runner: Watched, store: Store, blobs: BlobStore) -> Self {
        let sources = Sources { store, blobs, writing: Arc::default() };
        Self { runner, sources, outside: Kept::new(READINESS_KEPT) }
    }

    /// Whether the loops of this process turn.
    pub(super) fn live(&self) -> Report {
        let meters = self.runner.meters();
        let checks = vec![
            ("claim_loop", stuck(meters.claim_loop.age())),
            ("heartbeat_loop", stuck(meters.heartbeat_loop.age())),
        ];
        Report { what: "live", checks }
    }

    /// Whether the next job can be run and recorded.
    pub(super) async fn ready(&self) -> Report {
        let sources = self.sources.clone();
        let looked = self.outside.get(async move { sources.look().await }).await;
        let outside = looked.unwrap_or_else(|| Outside::unknown("it could not be looked at"));
        let checks = vec![
            ("accepting", self.runner.is_stopping().then(|| "it was asked to stop, and takes no more jobs".to_owned())),
            ("heartbeat", self.runner.meters().session.age().and_then(late)),
            ("database", outside.database),
            ("migrations", outside.migrations),
            ("blobs", outside.blobs),
        ];
        Report { what: "ready", checks }
    }
}

impl Outside {
    fn unknown(why: &str) -> Self {
        let why = Some(why.to_owned());
        Self { database: why.clone(), migrations: why.clone(), blobs: why }
    }
}

impl Sources {
    async fn look(&self) -> Outside {
        let (database, migrations, blobs) = tokio::join!(self.database(), self.migrations(), self.blob_store());
        Outside { database, migrations, blobs }
    }

    async fn database(&self) -> Option<String> {
        match answered(self.store.check_writable()).await {
            Ok(Ok(())) => None,
            Ok(Err(refusal)) => Some(refusal.to_string()),
            Err(why) => Some(why),
        }
    }

    async fn migrations(&self) -> Option<String> {
        match answered(self.store.find_missing_migration()).await {
            Ok(None) => None,
            Ok(Some(missing)) => {
                Some(format!("migration {missing} is missing: start a command of this version, which applies it"))
            }
            Err(why) => Some(why),
        }
    }

    async fn blob_store(&self) -> Option<String> {
        let Ok(turn) = self.writing.clone().try_lock_owned() else {
            return Some("an earlier write has not ended yet".to_owned());
        };
        let blobs = self.blobs.clone();
        // A task of its own: a disk that hangs goes on hanging after the answer, and keeps the turn.
        let write = tokio::spawn(async move {
            let _turn = turn;
            blobs.check_writable().await
        });
        match timeout(READINESS_BLOB_WAIT, write).await {
            Ok(Ok(Ok(()))) => None,
            Ok(Ok(Err(error))) => Some(chain(&error)),
            Ok(Err(panic)) => Some(panic.to_string()),
            Err(_) => Some(format!("a small file took more than {READINESS_BLOB_WAIT:?}")),
        }
    }
}

/// What the database says, if it says it soon.
async fn answered<T, E: std::error::Error>(question: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match timeout(WATCH_DATABASE_WAIT, question).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(chain(&error)),
        Err(_) => Err(format!("it did not answer within {WATCH_DATABASE_WAIT:?}")),
    }
}

/// Of a loop that turned so long ago; none of one that rests.
fn stuck(age: Option<Duration>) -> Option<String> {
    let age = age.filter(|age| *age > LOOP_TURN_MAX)?;
    Some(format!("it turned last {} s ago, and should every {} s", age.as_secs(), LOOP_TURN_MAX.as_secs()))
}

fn late(age: Duration) -> Option<String> {
    (age >= SESSION_FENCE).then(|| {
        format!(
            "the session was renewed last {} s ago: past {} s guests are stopped, because others may take their jobs",
            age.as_secs(),
            SESSION_FENCE.as_secs()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_each_check_and_why_it_fails() {
        let checks = vec![("database", None), ("blobs", Some("the disk is full".to_owned()))];
        let report = Report { what: "ready", checks };
        assert!(!report.is_ok());
        let expected = json!({
            "ready": false,
            "checks": {"database": {"ok": true}, "blobs": {"ok": false, "why": "the disk is full"}},
        });
        assert_eq!(report.to_json(), expected);
        assert!(Report { what: "live", checks: vec![("claim_loop", None)] }.is_ok());
    }

    #[test]
    fn a_loop_is_stuck_when_it_has_not_turned_for_long_and_does_not_rest() {
        assert_eq!(stuck(None), None);
        assert_eq!(stuck(Some(LOOP_TURN_MAX)), None);
        assert!(stuck(Some(LOOP_TURN_MAX + Duration::from_secs(1))).unwrap().contains("turned last 61 s ago"));
    }

    #[test]
    fn a_heartbeat_is_late_when_guests_would_be_stopped() {
        assert_eq!(late(SESSION_FENCE - Duration::from_millis(1)), None);
        assert!(late(SESSION_FENCE).unwrap().contains("guests are stopped"));
    }

    #[test]
    fn causes_are_told_in_one_line() {
        let disk = std::io::Error::other("the disk is full");
        let error = crate::blob::BlobError::Write { path: "/blobs".into(), source: disk };
        assert_eq!(chain(&error), "cannot write a blob to /blobs: the disk is full");
    }
}
