//! Reading what was made, and saying that it must not be used again.

use std::io::Write;

use super::{App, AppError, Pipeline, PipelineAsset};
use crate::{
    blob::{BlobError, Digest, DigestWriter},
    limit::COPY_BUFFER_BYTES,
    pipeline::{diagnostic::did_you_mean, keyspace::KeySpace, partition::PartitionKey, selection::parse_selection},
    store::materializations::MaterializationRecord,
};

impl App {
    /// The latest materialization of an asset's partition, as the user typed it.
    pub async fn find_output(
        &self,
        pipeline: &Pipeline,
        asset: &str,
        partition: Option<&str>,
    ) -> Result<MaterializationRecord, AppError> {
        let found = pipeline.find(asset)?;
        let key = one_partition(found, partition)?;
        let record = self.store.find_latest(&self.tenant, &pipeline.name, asset, key.as_str()).await?;
        record.ok_or_else(|| {
            let which = if key == PartitionKey::unpartitioned() { String::new() } else { format!("[{}]", key.label()) };
            let typed = partition.map(|text| format!(" --partition {text}")).unwrap_or_default();
            AppError::Usage(format!(
                "`{asset}`{which} has not been materialized; `flowstone run {} {asset}{typed}` does it",
                pipeline.name
            ))
        })
    }

    /// Writes the bytes of a materialization, and proves that they have its digest.
    pub async fn write_output(
        &self,
        record: &MaterializationRecord,
        to: &mut (dyn Write + Send),
    ) -> Result<(), AppError> {
        let cannot_write = |error| AppError::host("write the output", error);
        if let Some(bytes) = &record.inline {
            if Digest::of(bytes) != record.digest {
                return Err(BlobError::Corrupt { digest: record.digest }.into());
            }
            return to.write_all(bytes).map_err(|error: std::io::Error| cannot_write(error));
        }
        let mut reader = self.blobs.read(&self.tenant, record.digest)?;
        let mut digest = DigestWriter::default();
        let mut buffer = vec![0; COPY_BUFFER_BYTES];
        loop {
            let read = reader.read(&mut buffer).await?;
            if read == 0 {
                break;
            }
            digest.update(&buffer[..read]);
            to.write_all(&buffer[..read]).map_err(cannot_write)?;
        }
        if digest.finish() != record.digest {
            return Err(BlobError::Corrupt { digest: record.digest }.into());
        }
        Ok(())
    }

    /// Marks what is valid of an asset, in one partition or in all, as not to be used again; returns how many.
    pub async fn invalidate(&self, pipeline: &Pipeline, asset: &str, partition: Option<&str>) -> Result<u64, AppError> {
        let found = pipeline.find(asset)?;
        let key = partition.map(|_| one_partition(found, partition)).transpose()?;
        let key = key.as_ref().map(PartitionKey::as_str);
        Ok(self.store.invalidate(&self.tenant, &pipeline.name, asset, key).await?)
    }
}

impl Pipeline {
    /// The asset of this name.
    pub fn find(&self, asset: &str) -> Result<&PipelineAsset, AppError> {
        let names = || self.assets.iter().map(|asset| asset.bound.definition.name.as_str());
        self.assets.iter().find(|known| known.bound.definition.name == asset).ok_or_else(|| {
            let hint = did_you_mean(asset, names()).map(|hint| format!("; {hint}")).unwrap_or_default();
            let listed = names().take(NAMES_LISTED).collect::<Vec<_>>().join(", ");
            AppError::Usage(format!("pipeline `{}` has no asset `{asset}`{hint}; it has {listed}", self.name))
        })
    }
}

/// Names that one message lists.
const NAMES_LISTED: usize = 20;

/// The one partition that the user means.
fn one_partition(asset: &PipelineAsset, typed: Option<&str>) -> Result<PartitionKey, AppError> {
    let definition = &asset.bound.definition;
    let keys = KeySpace::new(&definition.dimensions, jiff::Timestamp::now())
        .map_err(|error| AppError::host(format!("list the partitions of `{}`", definition.name), error))?;
    let Some(text) = typed else {
        if definition.dimensions.is_empty() {
            return Ok(PartitionKey::unpartitioned());
        }
        let extent = keys.extent();
        return Err(AppError::Usage(format!(
            "`{}` is partitioned: say which partition with --partition ({extent})",
            definition.name
        )));
    };
    let selected =
        parse_selection(&definition.name, text, &keys).map_err(|error| AppError::Usage(error.to_string()))?;
    let mut indexes = selected.iter();
    match (indexes.next(), indexes.next()) {
        (Some(index), None) => Ok(keys.key(index)),
        _ => Err(AppError::Usage(format!("`{text}` is more than one partition of `{}`; name one", definition.name))),
    }
}
