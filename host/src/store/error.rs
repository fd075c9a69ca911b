//! What can go wrong with the database. `sqlx::Error` stops here.

/// A statement or the connection failed: a host fault, never a job's.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The server cannot be reached, went away, or cannot do it for now: worth trying again.
    #[error("the database is unavailable while {doing}")]
    Unavailable {
        /// What was being done.
        doing: &'static str,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// The database's tables are not those of this program.
    #[error("the database does not fit this version of flowstone: {0}")]
    Version(String),
    /// This worker's session has ended: others may have taken its jobs.
    #[error("this worker's session has ended")]
    SessionLost,
    /// Another process collects: this one was away for too long.
    #[error("another process has taken over collecting")]
    CollectorReplaced,
    /// Bytes that were stored were condemned as garbage before anything named them.
    #[error("stored bytes were collected as garbage before they were recorded; try again")]
    Collected,
    /// Inputs of a plan have expired since it was made.
    #[error("results that the plan reads were let go by retention since it was made; plan it again")]
    Expired,
    /// A statement was refused: a defect of this program, or a value that no check caught.
    #[error("the database refused a statement while {doing}")]
    Refused {
        /// What was being done.
        doing: &'static str,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// A row holds what this program cannot read.
    #[error("the database holds {what} that this version cannot read")]
    Unreadable {
        /// Which value.
        what: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StoreError {
    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Expired)
    }

    pub(super) fn unreadable(
        what: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Unreadable { what: what.into(), source: source.into() }
    }
}

/// Says what was being done when a statement failed.
pub(super) trait Doing<T> {
    /// `doing` continues the words "while ...".
    fn doing(self, doing: &'static str) -> Result<T, StoreError>;
}

impl<T> Doing<T> for Result<T, sqlx::Error> {
    fn doing(self, doing: &'static str) -> Result<T, StoreError> {
        self.map_err(|source| {
            if constraint_of(&source) == Some("job_lease_worker_id_fkey") {
                StoreError::SessionLost
            } else if is_unavailable(&source) {
                StoreError::Unavailable { doing, source }
            } else {
                StoreError::Refused { doing, source }
            }
        })
    }
}

fn constraint_of(error: &sqlx::Error) -> Option<&str> {
    error.as_database_error().and_then(|error| error.constraint())
}

/// Everything but what the values themselves are refused for: SQLSTATE classes 22 (data), 23 (constraints) and 54
/// (limits of Postgres), and what cannot even be sent. A disk that fails, a server that is read-only after a failover,
/// a privilege that was taken away: all of them pass, or are mended, and no job may pay for them.
fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            !error.code().is_some_and(|code| ["22", "23", "54"].iter().any(|class| code.starts_with(class)))
        }
        sqlx::Error::Encode(_) | sqlx::Error::Decode(_) | sqlx::Error::ColumnDecode { .. } => false,
        sqlx::Error::RowNotFound | sqlx::Error::TypeNotFound { .. } | sqlx::Error::ColumnNotFound(_) => false,
        _ => true,
    }
}
