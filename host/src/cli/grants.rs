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
    pipeline::{asset::Capability, resource::Resource},
};

/// Prints the newest version's grants, in one table.
pub(super) async fn run(session: &Session, args: &Grants) -> anyhow::Result<Exit> {
    let pipeline = session.load_pipeline(&args.pipeline).await?;
    let own = session.app.list_own_resources(&pipeline).await?;
    let registered = session.app.list_registered_resources().await?;
    let lines = lines(&pipeline, &own, &registered);
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

/// Resources by name, of one of the two who may have them.
type Party = BTreeMap<String, Resource>;

fn lines(pipeline: &Pipeline, own: &Party, registered: &Party) -> Vec<Line> {
    let mut lines = Vec::new();
    for asset in &pipeline.assets {
        for grant in &asset.bound.grants {
            let name = grant.resource();
            // As a job finds it: the pipeline's own comes first, and the secrets of a resource are of its party.
            let party = if own.contains_key(name) { own } else { registered };
            let resource = party.get(name);
            let line = |capability: Capability, name: &str, rights: String, trouble: Option<String>| Line {
                asset: asset.bound.definition.name.clone(),
                capability: capability.name(),
                resource: name.to_owned(),
                rights,
                owner: match party.get(name) {
                    None => "nobody",
                    Some(_) if std::ptr::eq(party, own) => "pipeline",
                    Some(_) => "operator",
                },
                trouble: if party.contains_key(name) {
                    trouble
                } else {
                    Some("the resource is not registered".to_owned())
                },
            };
            let excess = resource.and_then(|resource| grant.excess(resource));
            lines.push(line(grant.capability(), name, grant.rights(), excess));
            for (secret, place) in resource.into_iter().flat_map(Resource::secrets_used) {
                lines.push(line(Capability::Secret, secret, format!("use, as {place} of {name}"), None));
            }
        }
    }
    lines
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
