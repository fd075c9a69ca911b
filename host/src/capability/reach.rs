//! What an attempt can reach: everything that its grants opened for it, by value.

use super::{files::Directory, http::HttpReach, key_value::GrantedBucket, secrets::GrantedSecret, sql::Database};
use crate::pipeline::asset::Capability;

/// The open ends of an attempt's grants. Empty reaches nothing.
#[derive(Debug, Default)]
pub struct Reach {
    /// Granted directories.
    pub directories: Vec<Directory>,
    /// Secrets that may be revealed.
    pub secrets: Vec<GrantedSecret>,
    /// The granted clock, by its name: the real time instead of the job's.
    pub clock: Option<String>,
    /// Granted randomness, by its name. The numbers themselves come with the attempt's seed.
    pub random: Option<String>,
    /// Granted HTTP origins.
    pub http: Option<HttpReach>,
    /// Granted databases.
    pub databases: Vec<Database>,
    /// Granted buckets.
    pub buckets: Vec<GrantedBucket>,
    /// Whether it is noted when the guest calls any of these.
    pub is_timed: bool,
}

impl Reach {
    /// The capabilities whose interfaces have something behind them.
    pub fn capabilities(&self) -> impl Iterator<Item = Capability> {
        let directories = (!self.directories.is_empty()).then_some(Capability::Files);
        let clock = self.clock.as_ref().map(|_| Capability::Clock);
        let random = self.random.as_ref().map(|_| Capability::Random);
        let secrets = (!self.secrets.is_empty()).then_some(Capability::Secret);
        let http = self.http.as_ref().map(|_| Capability::Http);
        let databases = (!self.databases.is_empty()).then_some(Capability::Sql);
        let buckets = (!self.buckets.is_empty()).then_some(Capability::KeyValue);
        [directories, clock, random, secrets, http, databases, buckets].into_iter().flatten()
    }
}
