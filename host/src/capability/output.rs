//! `flowstone:asset/output`: what the asset makes. Always there.
//!
//! Bytes are hashed as they come and held in memory while they are few, then in a temporary file: nothing exists
//! under a name before [`Output::finish`], and dropping an output leaves nothing.

use super::{Refusal, field::checked_fields};
use crate::{
    bindings::flowstone::asset::{output, types},
    blob::{BlobError, BlobStore, BlobWriter, Content, Stored},
    limit::{CHUNK_BYTES_MAX, MEDIA_TYPE_BYTES_MAX},
    pipeline::asset::Field,
};

/// The finished output of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Digest and size of the bytes.
    pub stored: Stored,
    /// The bytes, or that they are in the blob store.
    pub content: Content,
    /// Of the bytes.
    pub media_type: String,
    /// What the guest said about them.
    pub metadata: Vec<Field>,
}

/// The output of one attempt while it runs.
pub struct Output {
    /// Absent once the output has grown too large.
    writer: Option<BlobWriter>,
    bytes_max: u64,
    media_type: String,
    metadata: Vec<Field>,
}

impl Output {
    /// An empty output with the media type that the asset declares.
    pub fn new(blobs: &BlobStore, tenant: &str, bytes_max: u64, media_type: String) -> Self {
        Self { writer: Some(blobs.writer(tenant)), bytes_max, media_type, metadata: vec![] }
    }

    /// Whether the guest wrote more than its limit.
    pub fn is_too_large(&self) -> bool {
        self.writer.is_none()
    }

    /// Ends the output; `None` when it is too large.
    pub async fn finish(self) -> Result<Option<Finished>, BlobError> {
        let Some(writer) = self.writer else { return Ok(None) };
        let (stored, content) = writer.finish().await?;
        Ok(Some(Finished { stored, content, media_type: self.media_type, metadata: self.metadata }))
    }

    fn too_large(&self) -> Refusal {
        Refusal::limit_reached(format!("the asset's output limit of {} bytes", self.bytes_max))
    }
}

impl output::Host for Output {
    fn write(&mut self, bytes: Vec<u8>) -> Result<(), Refusal> {
        if bytes.len() > CHUNK_BYTES_MAX {
            return Err(Refusal::invalid(format!("{} bytes in one call, more than {CHUNK_BYTES_MAX}", bytes.len())));
        }
        let Some(writer) = &mut self.writer else { return Err(self.too_large()) };
        if bytes.len() as u64 > self.bytes_max.saturating_sub(writer.size()) {
            // What was written so far can never become an output: its file goes now.
            self.writer = None;
            return Err(self.too_large());
        }
        writer.write(&bytes).map_err(|error| Refusal::host_fault(&error))
    }

    fn set_media_type(&mut self, media_type: String) -> Result<(), Refusal> {
        if !is_media_type(&media_type) {
            return Err(Refusal::invalid("a media type is like `text/csv` or `text/csv; charset=utf-8`"));
        }
        self.media_type = media_type;
        Ok(())
    }

    fn set_metadata(&mut self, metadata: Vec<types::Field>) -> Result<(), Refusal> {
        self.metadata = checked_fields(metadata).map_err(Refusal::invalid)?;
        Ok(())
    }
}

impl types::Host for Output {
    fn convert_capability_error(&mut self, refusal: Refusal) -> wasmtime::Result<types::CapabilityError> {
        refusal.into_guest()
    }
}

/// Whether this is a media type as RFC 9110 writes it, of bounded length: a type, a subtype, and parameters.
pub fn is_media_type(text: &str) -> bool {
    let mut parts = text.split(';');
    let essence = parts.next().unwrap_or_default();
    let kinds = essence.trim_end_matches(' ').split_once('/');
    text.len() <= MEDIA_TYPE_BYTES_MAX
        && kinds.is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
        && parts.all(is_parameter)
}

fn is_parameter(text: &str) -> bool {
    let Some((name, value)) = text.trim_matches(' ').split_once('=') else { return false };
    let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    let is_plain = |value: &str| value.bytes().all(|b| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\');
    is_token(name) && quoted.map_or_else(|| is_token(value), is_plain)
}

fn is_token(text: &str) -> bool {
    let is_token_byte = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(is_token_byte)
}

#[cfg(test)]
mod tests {
    use output::Host as _;

    use super::*;
    use crate::blob::Digest;

    fn output(bytes_max: u64) -> (tempfile::TempDir, Output) {
        let folder = tempfile::tempdir().unwrap();
        let blobs = BlobStore::open(folder.path()).unwrap();
        (folder, Output::new(&blobs, "t", bytes_max, "text/plain".into()))
    }

    #[tokio::test]
    async fn what_was_written_becomes_the_output() {
        let (_folder, mut output) = output(100);
        output.write(b"hello ".to_vec()).unwrap();
        output.write(b"world".to_vec()).unwrap();
        output.set_media_type("text/csv".into()).unwrap();
        output.set_metadata(vec![types::Field { name: "rows".into(), value: "1".into() }]).unwrap();
        let finished = output.finish().await.unwrap().unwrap();
        assert_eq!(finished.stored, Stored { digest: Digest::of(b"hello world"), size: 11 });
        assert_eq!(finished.content, Content::Inline(b"hello world".to_vec()));
        assert_eq!(finished.media_type, "text/csv");
        assert_eq!(finished.metadata, [Field { name: "rows".into(), value: "1".into() }]);
    }

    #[tokio::test]
    async fn nothing_written_is_an_empty_output_with_the_declared_media_type() {
        let (_folder, output) = output(100);
        let finished = output.finish().await.unwrap().unwrap();
        assert_eq!((finished.stored.size, finished.media_type.as_str()), (0, "text/plain"));
    }

    #[tokio::test]
    async fn the_limit_is_exact_and_final() {
        let (folder, mut output) = output(3_000_000);
        for _ in 0..3 {
            output.write(vec![7; 1_000_000]).unwrap();
        }
        assert!(!output.is_too_large());
        let refused = output.write(vec![7]);
        assert!(matches!(refused, Err(Refusal::Guest(types::CapabilityError::LimitReached(_)))));
        assert!(output.is_too_large());
        assert_eq!(std::fs::read_dir(folder.path().join("tmp")).unwrap().count(), 0, "the file is gone at once");
        assert!(output.write(vec![]).is_err());
        assert!(output.finish().await.unwrap().is_none());
    }

    #[test]
    fn a_call_moves_a_bounded_number_of_bytes() {
        let (_folder, mut output) = output(u64::MAX);
        let refused = output.write(vec![0; CHUNK_BYTES_MAX + 1]);
        assert!(matches!(refused, Err(Refusal::Guest(types::CapabilityError::Invalid(_)))));
        output.write(vec![0; CHUNK_BYTES_MAX]).unwrap();
    }

    #[test]
    fn a_full_disk_is_a_host_fault() {
        let (folder, mut output) = output(u64::MAX);
        std::fs::remove_dir_all(folder.path()).unwrap();
        let failed = output.write(vec![0; CHUNK_BYTES_MAX]);
        assert!(matches!(failed, Err(Refusal::Abort(crate::capability::Abort::HostFault(_)))), "{failed:?}");
    }

    #[tokio::test]
    async fn bad_metadata_and_media_types_are_refused_and_change_nothing() {
        let (_folder, mut output) = output(10);
        let twice = vec![types::Field { name: "a".into(), value: String::new() }; 2];
        assert!(matches!(output.set_metadata(twice), Err(Refusal::Guest(types::CapabilityError::Invalid(_)))));
        assert!(output.set_media_type("nonsense".into()).is_err());
        let finished = output.finish().await.unwrap().unwrap();
        assert_eq!((finished.media_type.as_str(), finished.metadata.len()), ("text/plain", 0));
    }

    #[test]
    fn media_types_are_told_from_other_text() {
        for good in ["text/csv", "application/vnd.apache.arrow.file", "text/plain; charset=utf-8", "a/b;c=\"d e\""] {
            assert!(is_media_type(good), "{good}");
        }
        let long = format!("text/{}", "x".repeat(MEDIA_TYPE_BYTES_MAX));
        for bad in ["", "text", "text/", "/csv", "text/csv\n", "text /csv", "text/csv; x", "a/b;c=\"\u{1b}\"", &long] {
            assert!(!is_media_type(bad), "{bad}");
        }
    }
}
