//! What a command works with: the database, the blobs and the engine, opened once and closed at the end.
//!
//! With an embedded cluster, commands that work own it; commands that look or ask attach to whoever does, and own it
//! for a moment when nobody does.

use std::{fs, io::Read as _, path::Path, sync::Arc};

use anyhow::Context as _;

use super::{Mistake, print::Talk};
use crate::{
    app::{App, AppError, MANIFEST_NAME, Pipeline},
    blob::BlobStore,
    capability::sql::DatabaseUrls,
    config::{Database, SecretSettings, Settings},
    embedded::{self, Cluster, Reached},
    engine::{Engine, EngineSettings},
    limit::{CLOSE_GRACE, MANIFEST_BYTES_MAX},
    pipeline::manifest::parse_name,
    store::{Sessions, Store},
};

/// How a command stands to others that use the same state directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It works: alone in the cluster.
    Alone,
    /// It looks or asks: beside whoever works.
    Beside,
}

/// An open database, blob store and engine.
pub struct Session {
    /// The verbs.
    pub app: App,
    /// For what goes on.
    pub talk: Talk,
    /// Where secrets are.
    pub secrets: SecretSettings,
    /// Where databases are that manifests name by variables.
    pub database_urls: DatabaseUrls,
    cluster: Option<Reached>,
}

impl Session {
    /// Opens what the settings name, for this many guests at once.
    pub async fn open(settings: &Settings, talk: Talk, access: Access, guests: usize) -> anyhow::Result<Self> {
        let (options, sessions, cluster) = match &settings.database {
            Database::Server(options, sessions) => (options.clone(), *sessions, None),
            Database::Embedded => {
                let reached = match access {
                    Access::Alone => Reached::Owned(Cluster::own(&settings.state_dir).await?),
                    Access::Beside => embedded::reach(&settings.state_dir).await?,
                };
                (reached.options(), Sessions::Own, Some(reached))
            }
        };
        let opened = async {
            let store = Store::connect_over(options, sessions).await?;
            let blobs = BlobStore::open_place(&settings.blobs, &settings.state_dir.join("spool")).await?;
            let engine = open_engine(settings, guests)?;
            let manifest_resources = settings.manifest_resources;
            anyhow::Ok(App { store, blobs, engine, tenant: TENANT.to_owned(), manifest_resources })
        };
        match opened.await {
            Ok(app) => {
                let (secrets, database_urls) = (settings.secrets.clone(), settings.database_urls.clone());
                Ok(Self { app, talk, cluster, secrets, database_urls })
            }
            Err(error) => {
                stop(cluster).await;
                Err(error)
            }
        }
    }

    /// Whether nobody else can be at work with this database.
    pub fn is_alone(&self) -> bool {
        matches!(self.cluster, Some(Reached::Owned(_)))
    }

    /// Closes connections, and stops the cluster if it is ours.
    pub async fn close(self) {
        self.app.store.close(CLOSE_GRACE).await;
        stop(self.cluster).await;
    }

    /// The newest version of a pipeline that is only looked at: a manifest names it, and is not deployed.
    pub async fn load_pipeline(&self, pipeline: &str) -> anyhow::Result<Pipeline> {
        let name = if is_path(pipeline) { name_in_manifest(Path::new(pipeline))? } else { pipeline.to_owned() };
        Ok(self.app.load_pipeline(&name).await?)
    }
}

/// Whose pipelines a local command works with.
pub const TENANT: &str = "default";

/// The engine compiles in a child, which is this program.
pub fn open_engine(settings: &Settings, guests: usize) -> anyhow::Result<Arc<Engine>> {
    let compiler = std::env::current_exe().context("cannot find this program, which compiles components")?;
    let cache = settings.state_dir.join("compiled");
    Ok(Arc::new(Engine::new(EngineSettings { compiler, cache, guests })?))
}

/// What was asked for is done, or its error is told: a cluster that does not stop well is no reason to hide that.
async fn stop(cluster: Option<Reached>) {
    if let Some(cluster) = cluster
        && let Err(error) = cluster.stop().await
    {
        tracing::warn!(error = &error as &dyn std::error::Error, "the cluster did not stop well");
    }
}

/// A name holds neither slash nor dot.
pub fn is_path(pipeline: &str) -> bool {
    pipeline.contains(['/', '.'])
}

fn name_in_manifest(path: &Path) -> anyhow::Result<String> {
    let path = if path.is_dir() { path.join(MANIFEST_NAME) } else { path.to_owned() };
    let file = path.display().to_string();
    let mut text = String::new();
    fs::File::open(&path)
        .and_then(|manifest| manifest.take(MANIFEST_BYTES_MAX as u64 + 1).read_to_string(&mut text))
        .map_err(|error| Mistake(format!("cannot read the manifest {file}: {error}")))?;
    Ok(parse_name(&file, &text).map_err(AppError::Invalid)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_names_its_pipeline() {
        let folder = tempfile::tempdir().unwrap();
        let text = "[pipeline]\nname = \"weather\"\n[[components]]\npath = \"weather.wasm\"\n";
        fs::write(folder.path().join(MANIFEST_NAME), text).unwrap();
        assert_eq!(name_in_manifest(folder.path()).unwrap(), "weather");
        assert_eq!(name_in_manifest(&folder.path().join(MANIFEST_NAME)).unwrap(), "weather");
        assert!(name_in_manifest(&folder.path().join("other.toml")).unwrap_err().is::<Mistake>());
    }

    #[test]
    fn a_name_is_not_a_path() {
        assert!(is_path("examples/weather") && is_path(".") && is_path("flowstone.toml"));
        assert!(!is_path("weather"));
    }
}
