//! `flowstone:asset/inputs`: what the asset reads. Always there; holds nothing that the asset did not declare.
//!
//! What was opened and how much of it was read is recorded: it is the lineage. Versions are chosen before the
//! attempt; nothing here looks for a newer one.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use wasmtime::component::Resource;

use super::{Denial, Denials, Refusal, context::partition_to_wit, field::fields_to_wit};
use crate::{
    bindings::flowstone::asset::{inputs, types},
    blob::{BlobError, BlobReader, BlobStore, Content, Digest, DigestWriter},
    limit::{BLOB_AHEAD_BYTES_PER_ATTEMPT, BLOB_SLOW, CHUNK_BYTES_MAX, READERS_OPEN_MAX},
    pipeline::{asset::Field, partition::Partition},
};

/// One declared input and what is behind it.
#[derive(Clone, Debug)]
pub struct InputGrant {
    /// The name under which the guest opens it.
    pub name: String,
    /// In partition order; none for an absent optional input.
    pub versions: Vec<InputVersion>,
}

/// One materialization that the guest may read.
#[derive(Clone, Debug)]
pub struct InputVersion {
    /// The asset that it is of.
    pub asset: String,
    /// Of it, this partition.
    pub partition: Partition,
    /// The materialization's id.
    pub materialization: String,
    /// Of its bytes.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// Of its bytes.
    pub media_type: String,
    /// What its producer said about it.
    pub metadata: Vec<Field>,
    /// Its bytes, or that they are in the blob store.
    pub content: Content,
}

/// What an attempt did with one version that it opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputRead {
    /// The input's name.
    pub input: String,
    /// Which of its versions, by position.
    pub index: u32,
    /// The materialization's id.
    pub materialization: String,
    /// How many bytes the guest was given, counted each time they were.
    pub bytes_read: u64,
}

/// The inputs of one attempt.
pub struct Inputs {
    grants: Vec<InputGrant>,
    blobs: BlobStore,
    tenant: String,
    reads: BTreeMap<Place, u64>,
    readers: BTreeMap<u32, OpenReader>,
    next_reader: u32,
    denials: Denials,
    /// Whose bytes in the blob store are gone, or others.
    damaged: Option<Digest>,
    /// Since when the blob store is asked for something.
    asked_at: Option<Instant>,
}

/// An input and one of its versions, by position.
type Place = (usize, usize);

struct OpenReader {
    place: Place,
    offset: u64,
    /// Absent for an inline version.
    blob: Option<BlobReader>,
    /// The digest so far, while the blob is read from its start without gaps.
    digest: Option<DigestWriter>,
}

impl Inputs {
    /// The inputs that an attempt may open.
    pub fn new(grants: Vec<InputGrant>, blobs: BlobStore, tenant: String) -> Self {
        Self {
            grants,
            blobs,
            tenant,
            reads: BTreeMap::new(),
            readers: BTreeMap::new(),
            next_reader: 0,
            denials: Denials::default(),
            damaged: None,
            asked_at: None,
        }
    }

    /// What was opened, in the order of the inputs and their versions.
    pub fn reads(&self) -> Vec<InputRead> {
        let read = |(&(input, index), &bytes_read): (&Place, &u64)| InputRead {
            input: self.grants[input].name.clone(),
            index: index as u32,
            materialization: self.grants[input].versions[index].materialization.clone(),
            bytes_read,
        };
        self.reads.iter().map(read).collect()
    }

    /// An input whose bytes are gone or are not those that were recorded: no other attempt could read them either.
    pub fn damaged(&self) -> Option<Digest> {
        self.damaged
    }

    /// For how long the blob store has not answered, when that is too long to be the guest's concern.
    pub fn wait_for_store(&self) -> Option<Duration> {
        self.asked_at.map(|asked_at| asked_at.elapsed()).filter(|waited| *waited >= BLOB_SLOW)
    }

    /// The inputs that were asked for without having been declared.
    pub fn take_denials(&mut self) -> Vec<Denial> {
        self.denials.take()
    }

    fn find(&mut self, name: &str, operation: &str) -> Result<usize, Refusal> {
        if let Some(position) = self.grants.iter().position(|grant| grant.name == name) {
            return Ok(position);
        }
        let remedy = "declare an input of that name in the asset's definition; the manifest grants no inputs";
        self.denials.record("inputs", name, operation, "", remedy.to_owned());
        Err(types::CapabilityError::Denied.into())
    }

    fn reader(&mut self, reader: &Resource<inputs::Reader>) -> Result<&mut OpenReader, Refusal> {
        self.readers.get_mut(&reader.rep()).ok_or_else(|| Refusal::invalid("the reader is closed"))
    }
}

impl inputs::Host for Inputs {
    fn versions(&mut self, name: String) -> Result<Vec<inputs::Version>, Refusal> {
        let position = self.find(&name, "versions")?;
        Ok(self.grants[position].versions.iter().map(version_to_wit).collect())
    }

    fn open(&mut self, name: String, index: u32) -> Result<Resource<inputs::Reader>, Refusal> {
        let place = (self.find(&name, "open")?, index as usize);
        let version = self.grants[place.0].versions.get(place.1).ok_or(types::CapabilityError::NotFound)?;
        if self.readers.len() >= READERS_OPEN_MAX {
            return Err(Refusal::limit_reached(format!("at most {READERS_OPEN_MAX} readers are open at once")));
        }
        let blob = match version.content {
            Content::Inline(_) => None,
            Content::Stored => {
                let blob = self.blobs.read(&self.tenant, version.digest);
                self.damaged = self.damaged.or(damaged(&blob));
                Some(blob.map_err(|error| Refusal::host_fault(&error))?)
            }
        };
        self.reads.entry(place).or_default();
        let digest = blob.is_some().then(DigestWriter::default);
        let rep = self.next_reader;
        self.next_reader += 1;
        self.readers.insert(rep, OpenReader { place, offset: 0, blob, digest });
        Ok(Resource::new_own(rep))
    }
}

impl inputs::HostReader for Inputs {
    async fn read(&mut self, reader: Resource<inputs::Reader>, max: u32) -> Result<Vec<u8>, Refusal> {
        if max == 0 {
            return Err(Refusal::invalid("a read of no bytes would look like the end"));
        }
        let place = self.reader(&reader)?.place;
        let stored = self.readers.values().filter(|reader| reader.blob.is_some()).count();
        let reader = self.readers.get_mut(&reader.rep()).ok_or_else(|| Refusal::invalid("the reader is closed"))?;
        let version = &self.grants[place.0].versions[place.1];
        let left = version.size.saturating_sub(reader.offset);
        let length = u64::from(max).min(CHUNK_BYTES_MAX as u64).min(left) as usize;
        let bytes = match &version.content {
            Content::Inline(bytes) => inline_chunk(bytes, reader.offset, length).map(<[u8]>::to_vec),
            Content::Stored => {
                // Still set when the guest's time is up before there is an answer.
                self.asked_at = Some(Instant::now());
                let chunk = reader.stored_chunk(version, length, BLOB_AHEAD_BYTES_PER_ATTEMPT / stored.max(1)).await;
                self.asked_at = None;
                self.damaged = self.damaged.or(damaged(&chunk));
                chunk
            }
        }
        .map_err(|error| Refusal::host_fault(&error))?;
        reader.offset += bytes.len() as u64;
        *self.reads.entry(place).or_default() += bytes.len() as u64;
        Ok(bytes)
    }

    fn seek(&mut self, reader: Resource<inputs::Reader>, offset: u64) -> Result<(), Refusal> {
        let place = self.reader(&reader)?.place;
        let size = self.grants[place.0].versions[place.1].size;
        if offset > size {
            return Err(Refusal::invalid(format!("offset {offset} is past the end at {size}")));
        }
        self.reader(&reader)?.seek(offset).map_err(|error| Refusal::host_fault(&error))
    }

    fn drop(&mut self, reader: Resource<inputs::Reader>) -> wasmtime::Result<()> {
        self.readers.remove(&reader.rep());
        Ok(())
    }
}

impl types::Host for Inputs {
    fn convert_capability_error(&mut self, refusal: Refusal) -> wasmtime::Result<types::CapabilityError> {
        refusal.into_guest()
    }
}

impl OpenReader {
    /// The next `length` bytes of a stored version, which has them. At its end the digest must be the recorded one.
    async fn stored_chunk(
        &mut self,
        version: &InputVersion,
        length: usize,
        ahead_max: usize,
    ) -> Result<Vec<u8>, BlobError> {
        let corrupt = BlobError::Corrupt { digest: version.digest };
        let Some(blob) = &mut self.blob else { unreachable!("a stored version was opened with its blob") };
        blob.set_ahead_max(ahead_max);
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match blob.read(&mut bytes[filled..]).await? {
                0 => return Err(corrupt),
                count => filled += count,
            }
        }
        if let Some(digest) = &mut self.digest {
            digest.update(&bytes);
        }
        if self.offset + length as u64 == version.size
            && let Some(digest) = self.digest.take()
            && digest.finish() != version.digest
        {
            return Err(corrupt);
        }
        Ok(bytes)
    }

    fn seek(&mut self, offset: u64) -> Result<(), BlobError> {
        if offset == self.offset {
            return Ok(());
        }
        if let Some(blob) = &mut self.blob {
            blob.seek(offset)?;
            self.digest = (offset == 0).then(DigestWriter::default);
        }
        self.offset = offset;
        Ok(())
    }
}

/// Which blob it is, when there is no use in asking for it again.
fn damaged<T>(asked: &Result<T, BlobError>) -> Option<Digest> {
    match asked {
        Err(BlobError::Missing { digest } | BlobError::Corrupt { digest }) => Some(*digest),
        _ => None,
    }
}

fn inline_chunk(bytes: &[u8], offset: u64, length: usize) -> Result<&[u8], BlobError> {
    let from = offset as usize;
    bytes.get(from..from + length).ok_or_else(|| BlobError::Corrupt { digest: Digest::of(bytes) })
}

fn version_to_wit(version: &InputVersion) -> inputs::Version {
    inputs::Version {
        asset: version.asset.clone(),
        partition: partition_to_wit(&version.partition),
        materialization: version.materialization.clone(),
        digest: version.digest.to_string(),
        size: version.size,
        media_type: version.media_type.clone(),
        metadata: fields_to_wit(&version.metadata),
    }
}

#[cfg(test)]
mod tests {
    use inputs::{Host as _, HostReader as _};

    use super::*;
    use crate::capability::Abort;

    fn version(content: Content, digest: Digest, size: usize) -> InputVersion {
        InputVersion {
            asset: "raw".into(),
            partition: vec![],
            materialization: "m1".into(),
            digest,
            size: size as u64,
            media_type: "text/csv".into(),
            metadata: vec![Field { name: "rows".into(), value: "3".into() }],
            content,
        }
    }

    /// `small` is inline, `large` is stored, `absent` is declared and has no version.
    async fn inputs(large: &[u8]) -> (tempfile::TempDir, Inputs) {
        let folder = tempfile::tempdir().unwrap();
        let blobs = BlobStore::open(folder.path()).unwrap();
        let stored = blobs.put("t", large.to_vec()).await.unwrap();
        let small = b"0123456789".to_vec();
        let grants = vec![
            InputGrant {
                name: "small".into(),
                versions: vec![version(Content::Inline(small.clone()), Digest::of(&small), small.len())],
            },
            InputGrant { name: "large".into(), versions: vec![version(Content::Stored, stored.digest, large.len())] },
            InputGrant { name: "absent".into(), versions: vec![] },
        ];
        (folder, Inputs::new(grants, blobs, "t".into()))
    }

    fn again(reader: &Resource<inputs::Reader>) -> Resource<inputs::Reader> {
        Resource::new_borrow(reader.rep())
    }

    fn bytes_of(length: usize) -> Vec<u8> {
        (0..length).map(|n| (n * 31 % 251) as u8).collect()
    }

    async fn read_to_end(inputs: &mut Inputs, reader: &Resource<inputs::Reader>, max: u32) -> Vec<u8> {
        let mut all = vec![];
        loop {
            let chunk = inputs.read(again(reader), max).await.unwrap();
            if chunk.is_empty() {
                return all;
            }
            assert!(chunk.len() <= CHUNK_BYTES_MAX.min(max as usize));
            all.extend(chunk);
        }
    }

    #[tokio::test]
    async fn declared_inputs_are_read_in_chunks_and_recorded() {
        let large = bytes_of(CHUNK_BYTES_MAX * 2 + 5);
        let (_folder, mut inputs) = inputs(&large).await;
        let listed = inputs.versions("large".into()).unwrap();
        assert_eq!((listed[0].size, listed[0].digest.as_str()), (large.len() as u64, &*Digest::of(&large).to_string()));
        assert!(inputs.versions("absent".into()).unwrap().is_empty());

        let reader = inputs.open("large".into(), 0).unwrap();
        assert_eq!(read_to_end(&mut inputs, &reader, u32::MAX).await, large);
        let reader = inputs.open("small".into(), 0).unwrap();
        assert_eq!(read_to_end(&mut inputs, &reader, 3).await, b"0123456789");
        inputs.seek(again(&reader), 8).unwrap();
        assert_eq!(inputs.read(again(&reader), 100).await.unwrap(), b"89");

        let reads = inputs.reads();
        let read = |input: &str, bytes_read: usize| InputRead {
            input: input.into(),
            index: 0,
            materialization: "m1".into(),
            bytes_read: bytes_read as u64,
        };
        assert_eq!(reads, [read("small", 12), read("large", large.len())]);
        assert!(inputs.take_denials().is_empty());
    }

    #[tokio::test]
    async fn an_undeclared_input_is_denied_and_the_operator_learns_it() {
        let (_folder, mut inputs) = inputs(b"").await;
        assert!(matches!(inputs.versions("secret".into()), Err(Refusal::Guest(types::CapabilityError::Denied))));
        assert!(matches!(inputs.open("secret".into(), 0), Err(Refusal::Guest(types::CapabilityError::Denied))));
        let denials = inputs.take_denials();
        assert_eq!(
            denials.iter().map(|d| (&*d.resource, &*d.operation)).collect::<Vec<_>>(),
            [("secret", "versions"), ("secret", "open")]
        );
        assert!(denials[0].remedy.contains("declare an input"));
        assert!(inputs.reads().is_empty());
    }

    #[tokio::test]
    async fn what_is_not_there_is_not_found_and_nonsense_is_invalid() {
        let (_folder, mut inputs) = inputs(b"abc").await;
        assert!(matches!(inputs.open("absent".into(), 0), Err(Refusal::Guest(types::CapabilityError::NotFound))));
        assert!(matches!(inputs.open("small".into(), 1), Err(Refusal::Guest(types::CapabilityError::NotFound))));
        let reader = inputs.open("small".into(), 0).unwrap();
        assert!(matches!(
            inputs.read(again(&reader), 0).await,
            Err(Refusal::Guest(types::CapabilityError::Invalid(_)))
        ));
        assert!(matches!(inputs.seek(again(&reader), 11), Err(Refusal::Guest(types::CapabilityError::Invalid(_)))));
        inputs.seek(again(&reader), 10).unwrap();
        assert!(inputs.read(again(&reader), 1).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn open_readers_are_bounded_and_closing_one_makes_room() {
        let (_folder, mut inputs) = inputs(b"abc").await;
        let readers: Vec<_> = (0..READERS_OPEN_MAX).map(|_| inputs.open("large".into(), 0).unwrap()).collect();
        let refused = inputs.open("small".into(), 0);
        assert!(matches!(refused, Err(Refusal::Guest(types::CapabilityError::LimitReached(_)))));
        inputs.drop(again(&readers[7])).unwrap();
        let reader = inputs.open("small".into(), 0).unwrap();
        assert!(readers.iter().enumerate().all(|(n, open)| n == 7 || open.rep() != reader.rep()));
    }

    #[tokio::test]
    async fn corrupt_bytes_end_the_attempt_before_the_last_chunk_is_given() {
        for damage in [|bytes: &mut Vec<u8>| bytes[7] ^= 1, |bytes: &mut Vec<u8>| bytes.truncate(100)] {
            let mut bytes = bytes_of(1_000);
            let (folder, mut inputs) = inputs(&bytes).await;
            let name = Digest::of(&bytes).to_string();
            damage(&mut bytes);
            std::fs::write(folder.path().join("t").join(&name[..2]).join(&name), &bytes).unwrap();

            let reader = inputs.open("large".into(), 0).unwrap();
            inputs.read(again(&reader), 50).await.unwrap();
            let end = inputs.read(again(&reader), 1_000).await;
            let Err(Refusal::Abort(Abort::HostFault(why))) = end else { panic!("{end:?}") };
            assert!(why.contains("corrupt") && why.contains(&name), "{why}");
        }
    }

    #[tokio::test]
    async fn a_missing_blob_is_a_host_fault() {
        let (folder, mut inputs) = inputs(b"abc").await;
        std::fs::remove_dir_all(folder.path().join("t")).unwrap();
        assert!(matches!(inputs.open("large".into(), 0), Err(Refusal::Abort(Abort::HostFault(_)))));
    }
}
