//! What an attempt does over HTTP, counted and bounded: shared by both interfaces and by the tasks that wait for the
//! outside, so that no way of asking escapes a bound.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{
    blob::{Digest, DigestWriter},
    capability::{Calls, Denial, Denials, Refusal, Use, Used, Uses, outside::OutsideRead},
    pipeline::{asset::Capability, http::HttpGrant},
};

/// The books of one attempt.
#[derive(Debug)]
pub struct Ledger(Mutex<Book>);

#[derive(Debug)]
struct Book {
    uses: Uses,
    denials: Denials,
    sites: Vec<SiteBook>,
}

/// Of one granted origin.
#[derive(Debug)]
struct SiteBook {
    resource: String,
    requests_max: u32,
    in_flight_max: u32,
    in_flight: u32,
    /// One for each request that went out: the digest of its answer, when the guest got one.
    answers: Vec<Option<Digest>>,
    bytes: u64,
}

impl Ledger {
    /// Empty books for these grants.
    pub fn new<'g>(grants: impl Iterator<Item = &'g HttpGrant>, calls: Option<Calls>) -> Arc<Self> {
        let site = |grant: &HttpGrant| SiteBook {
            resource: grant.resource.clone(),
            requests_max: grant.requests,
            in_flight_max: grant.in_flight,
            in_flight: 0,
            answers: Vec::new(),
            bytes: 0,
        };
        let sites = grants.map(site).collect();
        Arc::new(Self(Mutex::new(Book { uses: Uses::of("http").timed(calls), denials: Denials::default(), sites })))
    }

    /// Room for one more request at once.
    pub fn begin(self: &Arc<Self>, site: usize) -> Result<InFlight, Refusal> {
        let mut book = self.lock();
        let book = &mut book.sites[site];
        if book.in_flight >= book.in_flight_max {
            return Err(Refusal::limit_reached(format!("{} requests at once", book.in_flight_max)));
        }
        book.in_flight += 1;
        Ok(InFlight { ledger: self.clone(), site })
    }

    /// One more request goes out: its number among those of the origin.
    pub fn count_request(&self, site: usize) -> Result<usize, Refusal> {
        let mut book = self.lock();
        let book = &mut book.sites[site];
        if book.answers.len() >= book.requests_max as usize {
            return Err(Refusal::limit_reached(format!("{} requests of an attempt", book.requests_max)));
        }
        book.answers.push(None);
        Ok(book.answers.len() - 1)
    }

    /// The guest got an answer; called again with the rest of it.
    pub fn set_answer(&self, site: usize, number: usize, digest: Digest, more_bytes: u64) {
        let mut book = self.lock();
        let book = &mut book.sites[site];
        book.answers[number] = Some(digest);
        book.bytes = book.bytes.saturating_add(more_bytes);
    }

    /// Counts a use.
    pub fn record(&self, used: Used<'_>) {
        self.lock().uses.record(used);
    }

    /// Remembers a denial.
    pub fn deny(&self, resource: &str, operation: &str, target: &str, remedy: String) {
        self.lock().denials.record("http", resource, operation, target, remedy);
    }

    /// What was asked for and not granted.
    pub fn take_denials(&self) -> Vec<Denial> {
        self.lock().denials.take()
    }

    /// What was done with what was granted.
    pub fn take_uses(&self) -> Vec<Use> {
        self.lock().uses.take()
    }

    /// What came from outside, for the lineage. An origin that never answered is no source.
    pub fn reads(&self) -> Vec<OutsideRead> {
        let read = |book: &SiteBook| {
            let mut digest = DigestWriter::default();
            let answers = book.answers.iter().flatten();
            answers.clone().for_each(|answer| digest.field(&answer.0));
            let items = answers.count() as u64;
            let (resource, digest) = (book.resource.clone(), digest.finish());
            (items > 0).then_some(OutsideRead {
                resource,
                capability: Capability::Http,
                digest,
                items,
                bytes: book.bytes,
            })
        };
        self.lock().sites.iter().filter_map(read).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request on its way or an answer that is open. Dropped, it makes room for another.
#[derive(Debug)]
pub struct InFlight {
    ledger: Arc<Ledger>,
    site: usize,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.ledger.lock().sites[self.site].in_flight -= 1;
    }
}
