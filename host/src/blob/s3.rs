//! Blobs in an S3 bucket, of AWS or of anything that speaks its protocol.
//!
//! `s3://<bucket>/<prefix>/<tenant>/<first two digits>/<digest>`. S3 knows no rename, so a blob is spooled to a local
//! file until its digest is known, and then uploaded under its name: whole in one request, or in parts that become one
//! object when the last request says so. An object that is there is written again: it may be damaged, and then making
//! it again is what mends it. Nothing depends on conditional writes; listings and deletions are the collector's.
//!
//! All requests run on the runtime on which the store was opened; their callers wait without holding a thread.

use std::{
    collections::HashSet,
    fmt, fs,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::{Path as FilePath, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use object_store::{
    BackoffConfig, GetOptions, GetRange, ObjectStore as _, ObjectStoreExt as _, PutPayload, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    list::{PaginatedListOptions, PaginatedListStore as _},
    multipart::{MultipartStore as _, PartId},
    path::Path,
};
use tokio::{runtime::Handle, sync::Semaphore, task::JoinSet};
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use super::{
    BlobError, Digest, Listed, Stored,
    spool::Spool,
    wire::{self, Wire},
};
use crate::{
    limit::{
        BLOB_AHEAD_BYTES_MAX, BLOB_AHEAD_BYTES_MIN, BLOB_LOOKUPS_MAX, BLOB_PART_BYTES, BLOB_PARTS_MAX, BLOB_RATE_MIN,
        BLOB_RETRIES_MAX, BLOB_RETRY_BUDGET, BLOB_RETRY_WAIT, BLOB_UPLOAD_BYTES_MAX,
    },
    secret::SecretValue,
};

/// Where a bucket is, and who asks.
#[derive(Clone, Debug)]
pub struct S3Settings {
    /// Its name.
    pub bucket: String,
    /// What all keys begin with, without slashes around it; empty for none.
    pub prefix: String,
    /// Of another service than AWS: where it is. Its bucket is then the first part of each path.
    pub endpoint: Option<Url>,
    /// Who may have signed its certificate, besides those whom browsers trust: certificates in PEM.
    pub authorities: String,
    /// Part of each signature, and with AWS of the address.
    pub region: String,
    /// Who asks.
    pub credentials: S3Credentials,
}

/// Who asks an object store. Never shown.
#[derive(Clone, Debug)]
pub struct S3Credentials {
    /// Names the key.
    pub access_key_id: SecretValue,
    /// Signs with it.
    pub secret_access_key: SecretValue,
    /// Of temporary credentials.
    pub session_token: Option<SecretValue>,
}

/// Why an address is none that an object store may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointMistake {
    /// It is no URL, or of another scheme.
    #[error("it is no URL such as https://s3.example.org")]
    NoUrl,
    /// There is more in it than an address.
    #[error("it may hold a scheme, a host and a port, and nothing else")]
    TooMuch,
    /// Whoever is on the way could read and change what is stored.
    #[error("without TLS only this machine may be asked: use https, or say --blobs-plain-http allow")]
    Plain,
}

impl S3Settings {
    /// An address as the user wrote it.
    pub fn parse_endpoint(text: &str, plain_http: bool) -> Result<Url, EndpointMistake> {
        let url = Url::parse(text).map_err(|_| EndpointMistake::NoUrl)?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(EndpointMistake::NoUrl);
        }
        let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        if !is_bare || !url.username().is_empty() || url.password().is_some() {
            return Err(EndpointMistake::TooMuch);
        }
        let is_here = match url.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        if url.scheme() == "http" && !is_here && !plain_http {
            return Err(EndpointMistake::Plain);
        }
        Ok(url)
    }

    /// Bucket and prefix of what follows `s3://`; nothing when that cannot be.
    pub fn parse_place(text: &str) -> Option<(String, String)> {
        let (bucket, prefix) = text.split_once('/').unwrap_or((text, ""));
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let is_in_bucket = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
        let is_bucket = (3..=63).contains(&bucket.len()) && bucket.bytes().all(is_in_bucket);
        let is_in_part = |b: u8| b.is_ascii_alphanumeric() || b"!_.*'()-=".contains(&b);
        let is_part = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(is_in_part);
        let is_prefix = prefix.is_empty() || (prefix.len() <= PREFIX_BYTES_MAX && prefix.split('/').all(is_part));
        (is_bucket && is_prefix).then(|| (bucket.to_owned(), prefix.to_owned()))
    }
}

/// Keys have at most 1,024 bytes, of which a tenant and a digest take 200.
const PREFIX_BYTES_MAX: usize = 512;

/// One bucket of blobs.
pub struct S3 {
    client: AmazonS3,
    settings: S3Settings,
    spool: PathBuf,
    runtime: Handle,
    /// Of what uploads hold in memory, in parts of the usual size.
    room: Arc<Semaphore>,
}

/// Of the client not a word: it knows the credentials.
impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3").field("settings", &self.settings).field("spool", &self.spool).finish_non_exhaustive()
    }
}

/// Whole bytes that are to be uploaded.
#[derive(Clone)]
pub enum Source {
    /// In memory already.
    Memory(Bytes),
    /// In a file of the spool.
    File(Arc<fs::File>),
}

impl S3 {
    /// Opens a bucket on the current runtime, and proves that it can be written.
    pub async fn open(settings: &S3Settings, spool: &FilePath) -> Result<Self, BlobError> {
        let open = |source| BlobError::Open { path: spool.to_owned(), source };
        fs::create_dir_all(spool).map_err(open)?;
        let s3 = Self {
            client: client(settings).map_err(|error| BlobError::ObjectStore {
                doing: "use",
                place: format!("s3://{}", settings.bucket),
                // Of what was given by an operator: nothing of it was signed yet.
                why: error.to_string(),
            })?,
            settings: settings.clone(),
            spool: spool.to_owned(),
            runtime: Handle::current(),
            room: Arc::new(Semaphore::new(BLOB_UPLOAD_BYTES_MAX / BLOB_PART_BYTES)),
        };
        s3.check_writable().await?;
        Ok(s3)
    }

    /// Proves that the bucket can be written now, by an object that is no blob.
    pub async fn check_writable(&self) -> Result<(), BlobError> {
        let probe = self.key([WRITE_PROBE]);
        let written = self.client.put(&probe, PutPayload::from_static(b"flowstone can write here\n"));
        self.in_time("write", &probe, 0, written).await?;
        Ok(())
    }

    /// Where the bytes of a blob go while it is written.
    pub fn spool(&self) -> Spool {
        Spool::nameless(&self.spool)
    }

    /// Opens a blob, which need not be there.
    pub fn read(self: &Arc<Self>, tenant: &str, digest: Digest) -> ObjectReader {
        ObjectReader {
            s3: self.clone(),
            key: self.blob_key(tenant, digest),
            digest,
            ahead: Bytes::new(),
            offset: 0,
            fetch_bytes: BLOB_AHEAD_BYTES_MIN,
            ahead_max: BLOB_AHEAD_BYTES_MAX,
        }
    }

    /// Makes bytes appear under their digest.
    pub async fn upload(self: &Arc<Self>, tenant: &str, stored: Stored, source: Source) -> Result<(), BlobError> {
        let (s3, key) = (self.clone(), self.blob_key(tenant, stored.digest));
        self.run(async move {
            if stored.size <= BLOB_PART_BYTES as u64 {
                let part = s3.part(source, 0..stored.size).await?;
                let put = s3.client.put(&key, part.bytes.into());
                return s3.in_time("write", &key, stored.size, put).await.map(drop);
            }
            s3.upload_in_parts(&key, stored.size, source).await
        })
        .await
    }

    /// Those that are not there, asked for one by one: what is wanted is a part of what there is.
    pub async fn find_missing(
        self: &Arc<Self>,
        tenant: &str,
        digests: Vec<Digest>,
    ) -> Result<HashSet<Digest>, BlobError> {
        let (s3, tenant) = (self.clone(), tenant.to_owned());
        self.run(async move {
            let (mut missing, mut asked, mut left) = (HashSet::new(), JoinSet::new(), digests.into_iter());
            loop {
                while asked.len() < BLOB_LOOKUPS_MAX
                    && let Some(digest) = left.next()
                {
                    let (s3, key) = (s3.clone(), s3.blob_key(&tenant, digest));
                    asked.spawn(async move { s3.is_there(&key).await.map(|there| (digest, there)) });
                }
                let Some(answer) = asked.join_next().await else { return Ok(missing) };
                let (digest, there) = answer.unwrap_or(Err(BlobError::Stopped))?;
                if !there {
                    missing.insert(digest);
                }
            }
        })
        .await
    }

    /// A page of a tenant's blobs, and the token of the next one; what is no blob is passed over.
    pub async fn list(
        self: &Arc<Self>,
        tenant: &str,
        token: Option<String>,
    ) -> Result<(Vec<Listed>, Option<String>), BlobError> {
        let (s3, folder) = (self.clone(), self.key([tenant]));
        self.run(async move {
            let prefix = format!("{folder}/");
            let options = PaginatedListOptions { page_token: token, ..PaginatedListOptions::default() };
            let page = s3.client.list_paginated(Some(&prefix), options);
            let Some(page) = s3.in_time_or_absent("list", &folder, 0, page).await? else {
                return Ok((Vec::new(), None));
            };
            let now = SystemTime::now();
            let listed = page.result.objects.iter().filter_map(|object| {
                let digest = object.location.filename()?.parse().ok()?;
                let age = now.duration_since(object.last_modified.into()).unwrap_or_default();
                Some(Listed { digest, size: object.size, age })
            });
            Ok((listed.collect(), page.page_token))
        })
        .await
    }

    /// Removes a blob, if it is there.
    pub async fn delete(self: &Arc<Self>, tenant: &str, digest: Digest) -> Result<(), BlobError> {
        let (s3, key) = (self.clone(), self.blob_key(tenant, digest));
        self.run(async move {
            let deleted = s3.client.delete(&key);
            s3.in_time_or_absent("delete", &key, 0, deleted).await.map(drop)
        })
        .await
    }

    async fn is_there(&self, key: &Path) -> Result<bool, BlobError> {
        let options = GetOptions { head: true, ..GetOptions::default() };
        match self.in_time_or_absent("look for", key, 0, self.client.get_opts(key, options)).await {
            Ok(found) => Ok(found.is_some()),
            Err(error) => Err(error),
        }
    }

    async fn upload_in_parts(self: &Arc<Self>, key: &Path, size: u64, source: Source) -> Result<(), BlobError> {
        let id = self.in_time("write", key, 0, self.client.create_multipart(key)).await?;
        let mut unfinished = Unfinished { s3: self.clone(), key: key.clone(), id: id.clone(), is_complete: false };
        let part_bytes = part_bytes(size);
        let (mut sent, mut parts) = (JoinSet::new(), Vec::new());
        for (number, from) in (0..size).step_by(part_bytes as usize).enumerate() {
            // Waits for room, so that not all of a large blob is in memory at once.
            let part = self.part(source.clone(), from..size.min(from + part_bytes)).await?;
            let (s3, key, id) = (self.clone(), key.clone(), id.clone());
            sent.spawn(async move {
                let Part { bytes, room } = part;
                let length = bytes.len() as u64;
                let part = s3.in_time("write", &key, length, s3.client.put_part(&key, &id, number, bytes.into())).await;
                drop(room);
                part.map(|part| (number, part))
            });
            while let Some(done) = sent.try_join_next() {
                parts.push(done.unwrap_or(Err(BlobError::Stopped))?);
            }
        }
        while let Some(done) = sent.join_next().await {
            parts.push(done.unwrap_or(Err(BlobError::Stopped))?);
        }
        parts.sort_by_key(|(number, _)| *number);
        let parts: Vec<PartId> = parts.into_iter().map(|(_, part)| part).collect();
        // The other side puts the parts together before it answers.
        self.in_time("write", key, size, self.client.complete_multipart(key, &id, parts)).await?;
        unfinished.is_complete = true;
        Ok(())
    }

    /// A piece of what is uploaded, in memory, and the room that it takes there.
    async fn part(&self, source: Source, range: Range<u64>) -> Result<Part, BlobError> {
        let length = (range.end - range.start) as usize;
        let permits = length.div_ceil(BLOB_PART_BYTES).clamp(1, BLOB_UPLOAD_BYTES_MAX / BLOB_PART_BYTES);
        let room = self.room.clone().acquire_many_owned(u32::try_from(permits).unwrap_or(1)).await;
        let room = room.map_err(|_| BlobError::Stopped)?;
        let file = match source {
            Source::Memory(bytes) => {
                return Ok(Part { bytes: bytes.slice(range.start as usize..range.end as usize), room });
            }
            Source::File(file) => file,
        };
        let spool = self.spool.clone();
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; length];
            let read = file.read_exact_at(&mut bytes, range.start);
            read.map(|()| bytes).map_err(|source| BlobError::ReadBack { path: spool, source })
        });
        Ok(Part { bytes: read.await.unwrap_or(Err(BlobError::Stopped))?.into(), room })
    }

    /// Does it where there is network IO. Dropped, it stops there too.
    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, BlobError>> + Send + 'static,
    ) -> Result<T, BlobError> {
        AbortOnDropHandle::new(self.runtime.spawn(work)).await.unwrap_or(Err(BlobError::Stopped))
    }

    async fn in_time<T>(
        &self,
        doing: &'static str,
        key: &Path,
        bytes: u64,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<T, BlobError> {
        let found = self.in_time_or_absent(doing, key, bytes, request).await?;
        found.ok_or_else(|| self.trouble(doing, key, "it is not there".to_owned()))
    }

    /// Waits for an answer within bounds; nothing when the object is not there.
    async fn in_time_or_absent<T>(
        &self,
        doing: &'static str,
        key: &Path,
        bytes: u64,
        request: impl Future<Output = object_store::Result<T>>,
    ) -> Result<Option<T>, BlobError> {
        let allowed = BLOB_RETRY_BUDGET + wire::PATIENCE + Duration::from_secs(bytes / BLOB_RATE_MIN);
        match tokio::time::timeout(allowed, request).await {
            Ok(Ok(answer)) => Ok(Some(answer)),
            Ok(Err(error)) => match explain(&error, &self.settings) {
                Some(why) => Err(self.trouble(doing, key, why)),
                None => Ok(None),
            },
            Err(_) => Err(self.trouble(doing, key, format!("no answer within {} s", allowed.as_secs()))),
        }
    }

    fn trouble(&self, doing: &'static str, key: &Path, why: String) -> BlobError {
        BlobError::ObjectStore { doing, place: format!("s3://{}/{key}", self.settings.bucket), why }
    }

    fn blob_key(&self, tenant: &str, digest: Digest) -> Path {
        let name = digest.to_string();
        self.key([tenant, &name[..2], &name])
    }

    fn key<const N: usize>(&self, parts: [&str; N]) -> Path {
        Path::from_iter(self.settings.prefix.split('/').filter(|part| !part.is_empty()).chain(parts))
    }
}

/// Written whenever a store is opened. No tenant has a dot in its name.
const WRITE_PROBE: &str = "write.probe";

/// Bytes on their way to the other side.
struct Part {
    bytes: Bytes,
    room: tokio::sync::OwnedSemaphorePermit,
}

/// The usual size, or a larger one where the number of parts would not do.
fn part_bytes(size: u64) -> u64 {
    size.div_ceil(BLOB_PARTS_MAX).next_multiple_of(1 << 20).max(BLOB_PART_BYTES as u64)
}

/// Parts that are no object yet. Dropped, they are given up, if the other side hears of it.
struct Unfinished {
    s3: Arc<S3>,
    key: Path,
    id: String,
    is_complete: bool,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.is_complete {
            return;
        }
        let (s3, key, id) = (self.s3.clone(), self.key.clone(), std::mem::take(&mut self.id));
        self.s3.runtime.spawn(async move {
            if let Err(error) = s3.in_time("give up", &key, 0, s3.client.abort_multipart(&key, &id)).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "parts of an upload stay in the bucket");
            }
        });
    }
}

/// A blob that is read by ranges: small ones first, then larger ones while it is read in order.
#[derive(Debug)]
pub struct ObjectReader {
    s3: Arc<S3>,
    key: Path,
    digest: Digest,
    /// What was fetched and not read yet.
    ahead: Bytes,
    /// Of what is read next.
    offset: u64,
    fetch_bytes: usize,
    ahead_max: usize,
}

impl ObjectReader {
    /// Up to `buffer.len()` bytes from where the last read ended; 0 at the end.
    pub async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, BlobError> {
        if self.ahead.is_empty() && !buffer.is_empty() {
            let length = self.fetch_bytes.min(self.ahead_max).max(buffer.len());
            self.ahead = self.fetch(length as u64).await?;
            self.fetch_bytes = (self.fetch_bytes * 2).min(BLOB_AHEAD_BYTES_MAX);
        }
        let count = buffer.len().min(self.ahead.len());
        buffer[..count].copy_from_slice(&self.ahead.split_to(count));
        self.offset += count as u64;
        Ok(count)
    }

    /// Goes to an offset from the start.
    pub fn seek(&mut self, offset: u64) {
        match offset.checked_sub(self.offset) {
            Some(forward) if forward < self.ahead.len() as u64 => drop(self.ahead.split_to(forward as usize)),
            _ => {
                self.ahead = Bytes::new();
                self.fetch_bytes = BLOB_AHEAD_BYTES_MIN;
            }
        }
        self.offset = offset;
    }

    /// How much may be fetched ahead of what was asked for.
    pub fn set_ahead_max(&mut self, bytes: usize) {
        self.ahead_max = bytes;
    }

    async fn fetch(&self, length: u64) -> Result<Bytes, BlobError> {
        let (s3, key, digest) = (self.s3.clone(), self.key.clone(), self.digest);
        let range = self.offset..self.offset.saturating_add(length);
        self.s3
            .run(async move {
                let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
                let fetch = async {
                    match s3.client.get_opts(&key, options).await {
                        Ok(found) => found.bytes().await,
                        // There is nothing at and after the offset.
                        Err(error) if status(&error) == Some(416) => Ok(Bytes::new()),
                        Err(error) => Err(error),
                    }
                };
                let found = s3.in_time_or_absent("read", &key, length, fetch).await?;
                found.ok_or(BlobError::Missing { digest })
            })
            .await
    }
}

fn client(settings: &S3Settings) -> object_store::Result<AmazonS3> {
    let text = |secret: &SecretValue| String::from_utf8_lossy(secret.expose()).into_owned();
    let S3Credentials { access_key_id, secret_access_key, session_token } = &settings.credentials;
    let retry = RetryConfig {
        backoff: BackoffConfig { init_backoff: BLOB_RETRY_WAIT, ..BackoffConfig::default() },
        max_retries: BLOB_RETRIES_MAX,
        retry_timeout: BLOB_RETRY_BUDGET,
    };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&settings.bucket)
        .with_region(&settings.region)
        .with_access_key_id(text(access_key_id))
        .with_secret_access_key(text(secret_access_key))
        .with_retry(retry)
        // One request for each object: not all services know the other one.
        .with_disable_bulk_delete(true)
        .with_http_connector(Wire::connector(&settings.authorities));
    if let Some(token) = session_token {
        builder = builder.with_token(text(token));
    }
    builder = match &settings.endpoint {
        // Whether it may be plain was decided when the settings were read.
        Some(endpoint) => builder.with_endpoint(endpoint.as_str().trim_end_matches('/')).with_allow_http(true),
        // A name with dots is none that the certificate of AWS would cover.
        None => builder.with_virtual_hosted_style_request(!settings.bucket.contains('.')),
    };
    builder.build()
}

/// Why it did not work, in one sentence; nothing when the object is not there. Of an answer only its code is kept.
fn explain(error: &object_store::Error, settings: &S3Settings) -> Option<String> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(found) = cause {
        if let Some(trouble) = found.downcast_ref::<wire::Trouble>() {
            let fix = if settings.endpoint.is_some() { "; is AWS_ENDPOINT_URL right, and the service up?" } else { "" };
            return Some(format!("{trouble}{fix}"));
        }
        cause = found.source();
    }
    let (bucket, code) = (&settings.bucket, code(error));
    // One that does not say where to is told in other words.
    let status = status(error).or_else(|| error.to_string().contains("redirect without LOCATION").then_some(301));
    let why = match (status, code.as_deref()) {
        (_, Some("NoSuchBucket")) => format!("there is no bucket `{bucket}`; make it, or name another one"),
        (Some(404), _) => return None,
        (_, Some("InvalidAccessKeyId")) => "the access key is not known there; look at AWS_ACCESS_KEY_ID".to_owned(),
        (_, Some("SignatureDoesNotMatch")) => {
            "the signature is not accepted; look at AWS_SECRET_ACCESS_KEY and AWS_REGION".to_owned()
        }
        (_, Some(code @ ("ExpiredToken" | "InvalidToken"))) => {
            format!("the credentials are not valid any more ({code}); look at AWS_SESSION_TOKEN")
        }
        (_, Some("RequestTimeTooSkewed")) => "the clock of this machine is wrong".to_owned(),
        (Some(403), code) => format!(
            "access is denied ({}); the credentials need s3:GetObject, s3:PutObject and s3:AbortMultipartUpload in \
             `{bucket}`, s3:ListBucket to tell what is missing from what is forbidden, and s3:DeleteObject to collect",
            code.unwrap_or("403")
        ),
        (Some(status @ 300..400), _) => {
            format!("the bucket is somewhere else ({status}); look at AWS_REGION and AWS_ENDPOINT_URL")
        }
        (Some(status), Some(code)) => format!("the answer was {status} {code}"),
        (Some(status), None) => format!("the answer was {status}"),
        (None, _) => "the answer makes no sense; is AWS_ENDPOINT_URL that of an S3 service?".to_owned(),
    };
    Some(why)
}

/// The status of an answer that was none. The library keeps it to itself, except in what it says.
fn status(error: &object_store::Error) -> Option<u16> {
    if let object_store::Error::NotFound { .. } = error {
        return Some(404);
    }
    let said = error.to_string();
    let (_, after) = said.split_once("status code: ")?;
    after.get(..3)?.parse().ok()
}

/// The code in the XML of such an answer: letters only, so that nothing else of it gets through.
fn code(error: &object_store::Error) -> Option<String> {
    let said = error.to_string();
    let (_, after) = said.split_once("<Code>")?;
    let (code, _) = after.split_once("</Code>")?;
    (code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric())).then(|| code.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_bucket_and_perhaps_a_prefix() {
        fn place(text: &str) -> Option<(String, String)> {
            S3Settings::parse_place(text)
        }
        let some = |bucket: &str, prefix: &str| Some((bucket.to_owned(), prefix.to_owned()));
        assert_eq!(place("data"), some("data", ""));
        assert_eq!(place("data/"), some("data", ""));
        assert_eq!(place("my-data.eu/flow/stone"), some("my-data.eu", "flow/stone"));
        assert_eq!(place("data/a/"), some("data", "a"));
        for bad in ["", "/a", "ab", "Data", "data//a", "data/../a", "data/a b", "data/a?b", "d@ta", &"x".repeat(64)] {
            assert_eq!(place(bad), None, "{bad}");
        }
        assert_eq!(place(&format!("data/{}", "x".repeat(PREFIX_BYTES_MAX + 1))), None);
    }

    #[test]
    fn without_tls_only_this_machine_is_asked_unless_it_is_allowed() {
        fn plain(text: &str, allowed: bool) -> Result<(), EndpointMistake> {
            S3Settings::parse_endpoint(text, allowed).map(drop)
        }
        for here in ["http://localhost:9000", "http://127.0.0.1:1", "http://127.1.2.3", "http://[::1]:9000/"] {
            assert_eq!(plain(here, false), Ok(()), "{here}");
        }
        for there in
            ["http://s3.example.org", "http://10.0.0.1:9000", "http://[fd00::1]", "http://localhost.example.org"]
        {
            assert_eq!(plain(there, false), Err(EndpointMistake::Plain), "{there}");
            assert_eq!(plain(there, true), Ok(()), "{there}");
            assert_eq!(plain(&there.replace("http:", "https:"), false), Ok(()), "{there}");
        }
        for (bad, mistake) in [
            ("", EndpointMistake::NoUrl),
            ("s3.example.org", EndpointMistake::NoUrl),
            ("ftp://example.org", EndpointMistake::NoUrl),
            ("https://me:hunter2@example.org", EndpointMistake::TooMuch),
            ("https://example.org/bucket", EndpointMistake::TooMuch),
            ("https://example.org/?x", EndpointMistake::TooMuch),
        ] {
            assert_eq!(plain(bad, true), Err(mistake), "{bad}");
        }
    }

    #[test]
    fn the_largest_blob_fits_into_the_parts_that_there_may_be() {
        for size in [BLOB_PART_BYTES as u64 + 1, 100 << 30, crate::limit::OUTPUT_BYTES_MAX] {
            assert!(size.div_ceil(part_bytes(size)) <= BLOB_PARTS_MAX, "{size}");
        }
        assert_eq!(part_bytes(1 << 30), BLOB_PART_BYTES as u64);
    }
}
