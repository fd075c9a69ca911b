//! `flowstone resource`: what an operator registered for pipelines to grant.

use serde_json::json;

use super::{
    Exit, Mistake,
    arguments::ResourceCommand,
    print::{self, Column},
    session::Session,
};
use crate::pipeline::{diagnostic::did_you_mean, resource::Resource};

/// Does what was asked for.
pub(super) async fn run(session: &Session, command: &ResourceCommand) -> anyhow::Result<Exit> {
    let app = &session.app;
    match command {
        ResourceCommand::Add { file, names } => {
            for name in app.register_resources(file, names).await? {
                session.talk.say(format!("`{name}` is registered"));
            }
        }
        ResourceCommand::List { json: true } => print::json(&app.list_registered_resources().await?)?,
        ResourceCommand::List { json: false } => {
            let resources = app.list_registered_resources().await?;
            if resources.is_empty() {
                session.talk.say("no resources are registered; `flowstone resource add FILE` registers some");
                return Ok(Exit::Succeeded);
            }
            let columns = [Column::Text("resource"), Column::Text("kind"), Column::Text("what it is")];
            let rows = resources.iter().map(|(name, resource)| {
                vec![name.clone(), resource.capability().resource_kind().to_owned(), summary(resource)]
            });
            print::text(&print::table(&columns, rows, print::is_terminal()))?;
        }
        ResourceCommand::Remove { name } => {
            if !app.store.remove_registered_resource(&app.tenant, name).await? {
                let known = app.list_registered_resources().await?;
                let hint = did_you_mean(name, known.keys().map(String::as_str));
                let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
                return Err(Mistake(format!("no resource `{name}` is registered{hint}")).into());
            }
            session.talk.say(format!("`{name}` is removed: what begins from now on cannot use it"));
        }
    }
    Ok(Exit::Succeeded)
}

/// The settings in one line, as they are stored.
fn summary(resource: &Resource) -> String {
    let settings = json!(resource);
    let settings = settings.as_object().into_iter().flatten().filter(|(key, _)| *key != "kind");
    let said = settings.map(|(key, value)| match value.as_str() {
        Some(text) => format!("{key} {text}"),
        None => format!("{key} {value}"),
    });
    said.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::resource::{Access, SecretSource};

    #[test]
    fn a_resource_is_one_line() {
        let station = Resource::Directory { path: "/data".into(), access: Access::Read };
        assert_eq!(summary(&station), "access read, path /data");
        assert_eq!(summary(&Resource::Secret { source: SecretSource::Sealed }), "source sealed");
        assert_eq!(summary(&Resource::Clock), "");
    }
}
