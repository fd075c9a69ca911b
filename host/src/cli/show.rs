//! `flowstone show`: the bytes of an output, or the record of it.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::{
    Exit, Mistake,
    arguments::Show,
    figures::{bytes, partition},
    print::{self, Closed, TerminalCheck},
    session::Session,
};
use crate::{app::App, store::materializations::MaterializationRecord};

/// Shows the newest output.
pub(super) async fn run(session: &Session, args: &Show) -> anyhow::Result<Exit> {
    let app = &session.app;
    let pipeline = session.load_pipeline(&args.of.pipeline).await?;
    let record = app.find_output(&pipeline, &args.of.asset, args.of.partition.as_deref()).await?;
    if args.meta {
        print::json(&record_json(&record))?;
    } else if let Some(file) = &args.output {
        write_file(app, &record, file).await?;
        session.talk.say(format!("wrote {} to {}", bytes(record.size_bytes.max(0) as u64), file.display()));
    } else {
        let on_terminal = print::is_terminal() && !args.force;
        let open_line = on_terminal && check_for_terminal(app, &record).await?;
        write_stdout(app, &record).await?;
        if open_line {
            // The next prompt begins a line; the bytes on stdout stay what they are.
            session.talk.say("");
        }
    }
    Ok(Exit::Succeeded)
}

async fn write_stdout(app: &App, record: &MaterializationRecord) -> anyhow::Result<()> {
    let written = app.write_output(record, &mut print::bytes()).await.map_err(anyhow::Error::from);
    written.and_then(|()| print::flushed()).map_err(|error| {
        let gone = |cause: &(dyn std::error::Error + 'static)| {
            cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
        };
        if error.chain().any(gone) { Closed.into() } else { error }
    })
}

/// A terminal obeys what it is shown: an output that is not plain text needs to be asked for. Returns whether the
/// text ends within a line.
async fn check_for_terminal(app: &App, record: &MaterializationRecord) -> anyhow::Result<bool> {
    let mut check = TerminalCheck::default();
    app.write_output(record, &mut check).await?;
    if !check.is_text() {
        bail!(Mistake(format!(
            "the output is {} of {}, not plain text: write it to a file with --output FILE or >, or to this terminal \
             with --force",
            bytes(record.size_bytes.max(0) as u64),
            record.media_type,
        )));
    }
    Ok(check.leaves_a_line_open())
}

/// The file appears whole or not at all.
async fn write_file(app: &App, record: &MaterializationRecord, file: &Path) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", file.display());
    if file.is_dir() {
        bail!(Mistake(format!("{} is a directory: name a file", file.display())));
    }
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut new = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(FILE_MODE))
        .tempfile_in(folder)
        .with_context(cannot)?;
    app.write_output(record, &mut new).await?;
    new.as_file().sync_all().with_context(cannot)?;
    new.persist(file).map_err(|error| error.error).with_context(cannot)?;
    Ok(())
}

/// Like any file that a shell makes; the process' mask still takes from it.
const FILE_MODE: u32 = 0o666;

fn record_json(record: &MaterializationRecord) -> Value {
    let label = partition(&record.partition_key);
    json!({
        "materialization": record.id,
        "asset": record.asset,
        "partition": (!label.is_empty()).then_some(label),
        "partition_key": record.partition_key,
        "run": record.run,
        "job": record.job,
        "attempt": record.attempt,
        "digest": record.digest,
        "size_bytes": record.size_bytes,
        "media_type": record.media_type,
        "metadata": record.metadata,
        "recipe": record.recipe,
        "component": record.component,
        "engine_id": record.engine_id,
        "reused_from": record.reused_from,
        "created_at_ms": record.created_at_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        blob::Digest,
        id::{AttemptId, JobId, MaterializationId, RunId},
    };

    #[test]
    fn the_record_has_the_words_of_the_model() {
        let record = MaterializationRecord {
            id: MaterializationId::new(),
            asset: "monthly".into(),
            partition_key: "month=month:2012-01".into(),
            run: RunId::new(),
            job: JobId::new(),
            attempt: AttemptId::new(),
            digest: Digest::of(b"abc"),
            size_bytes: 3,
            media_type: "text/plain".into(),
            metadata: json!([{ "name": "rows", "value": "3" }]),
            recipe: Digest::of(b"recipe"),
            component: Digest::of(b"component"),
            engine_id: "engine".into(),
            reused_from: None,
            created_at_ms: 1,
            inline: Some(b"abc".to_vec()),
        };
        let value = record_json(&record);
        assert_eq!(value["partition"], "2012-01");
        assert_eq!(value["digest"], Digest::of(b"abc").to_string());
        assert_eq!((&value["size_bytes"], &value["reused_from"]), (&json!(3), &Value::Null));
        // The bytes are what `show` without --meta is for.
        assert_eq!(value.get("inline"), None);
    }
}
