//! `flowstone grants`: which asset may do what, and whose the resource is. The question of whoever answers for it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{
    Exit,
    arguments::Grants,
    print::{self, Column},
    session::Session,
};
use crate::{
    app::Pipeline,
    pipeline::{
        asset::Capability,
        http::CredentialPlace,
        resource::{Grant, Resource},
        sql::{SqlResource, UrlSource},
    },
};

/// Prints the newest version's grants, in one table.
pub(super) async fn run(session: &Session, args: &Grants) -> anyhow::Result<Exit> {
    let pipeline = session.load_pipeline(&args.pipeline).await?;
    let registered = session.app.list_registered_resources().await?;
    let resources = session.app.list_resources_of(&pipeline).await?;
    let lines = lines(&pipeline, &resources, &registered.into_keys().collect());
    if args.json {
        print::json(&lines.iter().map(Line::json).collect::<Vec<_>>())?;
    } else if lines.is_empty() {
        session.talk.say(format!("no asset of {} may do anything outside the sandbox", pipeline.name));
    } else {
        print::text(&render(&lines, print::is_terminal()))?;
    }
    Ok(Exit::Succeeded)
}

/// One grant, or the use of a secret that comes with one.
struct Line {
    asset: String,
    capability: &'static str,
    resource: String,
    rights: String,
    /// `operator`, `pipeline`, or `nobody` when what it names is gone.
    owner: &'static str,
    /// What keeps it from being used as it stands.
    trouble: Option<String>,
}

fn lines(pipeline: &Pipeline, resources: &BTreeMap<String, Resource>, registered: &BTreeSet<String>) -> Vec<Line> {
    let grants = pipeline.assets.iter().flat_map(|asset| {
        let name = &asset.bound.definition.name;
        asset.bound.grants.iter().map(move |grant| (name, grant))
    });
    let line = |asset: &str, capability: Capability, name: &str, rights: String, grant: Option<&Grant>| {
        let resource = resources.get(name);
        Line {
            asset: asset.to_owned(),
            capability: capability.name(),
            resource: name.to_owned(),
            rights,
            owner: match resource {
                None => "nobody",
                Some(_) if registered.contains(name) => "operator",
                Some(_) => "pipeline",
            },
            trouble: match resource {
                None => Some("the resource is not registered".to_owned()),
                Some(resource) => grant.and_then(|grant| grant.excess(resource)),
            },
        }
    };
    let lines = grants.flat_map(|(asset, grant)| {
        let used = resources.get(grant.resource()).map(secrets_used).unwrap_or_default();
        let used = used.into_iter().map(|(secret, place)| {
            let rights = format!("use, as {place} of {}", grant.resource());
            line(asset, Capability::Secret, secret, rights, None)
        });
        let own = line(asset, grant.capability(), grant.resource(), grant.rights(), Some(grant));
        std::iter::once(own).chain(used).collect::<Vec<_>>()
    });
    lines.collect()
}

/// Secrets that the host uses for whoever was granted a resource, without showing them, and where it puts each.
fn secrets_used(resource: &Resource) -> Vec<(&str, String)> {
    match resource {
        Resource::Http(http) => {
            let place = |place: &CredentialPlace| match place {
                CredentialPlace::Header { name, .. } => format!("the header {name}"),
                CredentialPlace::Query { name } => format!("the parameter {name}"),
            };
            http.credentials.iter().map(|credential| (&*credential.secret, place(&credential.place))).collect()
        }
        Resource::Sql(SqlResource { url: UrlSource::Secret(secret), .. }) => vec![(secret, "the URL".to_owned())],
        Resource::Sql(_)
        | Resource::Directory { .. }
        | Resource::Clock
        | Resource::Random
        | Resource::Secret { .. }
        | Resource::KeyValue(_) => Vec::new(),
    }
}

fn render(lines: &[Line], terminal: bool) -> String {
    let columns = [
        Column::Text("asset"),
        Column::Text("may use"),
        Column::Text("resource"),
        Column::Text("how"),
        Column::Text("whose"),
    ];
    let rows = lines.iter().map(|line| {
        let how = match &line.trouble {
            Some(trouble) => format!("{} (cannot be used: {trouble})", line.rights),
            None => line.rights.clone(),
        };
        vec![line.asset.clone(), line.capability.to_owned(), line.resource.clone(), how, line.owner.to_owned()]
    });
    print::table(&columns, rows, terminal)
}

impl Line {
    fn json(&self) -> Value {
        json!({
            "asset": self.asset,
            "capability": self.capability,
            "resource": self.resource,
            "rights": self.rights,
            "owner": self.owner,
            "trouble": self.trouble,
        })
    }
}

/// The grants that one version has and another has not, as lines `asset: capability resource, rights`, sorted.
pub(super) fn missing_in(pipeline: &Pipeline, other: Option<&Pipeline>) -> Vec<String> {
    let said = |pipeline: &Pipeline| -> BTreeSet<String> {
        let grants = pipeline.assets.iter().flat_map(|asset| {
            let name = &asset.bound.definition.name;
            asset.bound.grants.iter().map(move |grant| {
                format!("{name}: {} `{}`, {}", grant.capability().name(), grant.resource(), grant.rights())
            })
        });
        grants.collect()
    };
    let there = other.map(said).unwrap_or_default();
    said(pipeline).difference(&there).cloned().collect()
}
