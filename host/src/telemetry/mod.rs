//! Where traces go: to stderr, and only warnings unless asked for more. stdout belongs to data. Metrics and health are
//! asked for, over HTTP on loopback: `metrics` names them, `health` judges, `listener` answers. Spans are sent to a
//! collector by `traces`, where one was named.
//!
//! Fields are named the same everywhere: `run.id`, `job.id`, `asset.name`, `partition`, `attempt`, `worker.id`,
//! `component.digest`. What a guest logs is not here: it is stored with its attempt.

mod health;
mod kept;
mod listener;
mod metrics;
mod traces;

pub use listener::{Listener, Serving};
pub use traces::Exporting;

use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::config::{LogFormat, LogSettings, SettingError};

/// Starts tracing, once in a process. `colors` says whether the writer ends at a terminal that shows them.
pub fn start<W>(log: &LogSettings, colors: bool, writer: W) -> Result<(), SettingError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    tracing::subscriber::set_global_default(subscriber(log, colors, writer)?).expect("tracing is started once");
    Ok(())
}

fn subscriber<W>(
    log: &LogSettings,
    colors: bool,
    writer: W,
) -> Result<Box<dyn tracing::Subscriber + Send + Sync>, SettingError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder()
        .parse(&log.filter)
        .map_err(|source| SettingError::LogFilter { filter: log.filter.clone(), source })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colors).with_writer(writer);
    Ok(match log.format {
        LogFormat::Text => Box::new(lines.finish()),
        LogFormat::Json => Box::new(lines.json().flatten_event(true).finish()),
    })
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(filter: &str, format: LogFormat) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = LogSettings { filter: filter.to_owned(), format };
        let subscriber = subscriber(&log, false, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("quiet");
            tracing::warn!(attempt = 3, "loud");
        });
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn what_the_filter_lets_through_is_written_and_nothing_else() {
        let text = written("warn", LogFormat::Text);
        assert!(text.contains("loud") && text.contains("attempt=3") && !text.contains("quiet"), "{text}");
        assert!(written("info", LogFormat::Text).contains("quiet"));
    }

    #[test]
    fn json_lines_hold_the_fields() {
        let line: serde_json::Value = serde_json::from_str(&written("warn", LogFormat::Json)).unwrap();
        assert_eq!((&line["message"], &line["attempt"]), (&"loud".into(), &3.into()));
    }

    #[test]
    fn a_wrong_filter_is_an_error_that_shows_it() {
        let log = LogSettings { filter: "flowstone=shout".to_owned(), format: LogFormat::Text };
        let error = subscriber(&log, false, io::stderr).err().unwrap();
        assert!(error.to_string().contains("flowstone=shout"), "{error}");
    }
}
