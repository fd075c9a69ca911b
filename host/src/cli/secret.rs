//! `flowstone secret`: secrets that the database keeps sealed. None is ever shown.

use std::io::{IsTerminal as _, Read as _};

use anyhow::Context as _;
use serde_json::json;
use zeroize::Zeroizing;

use super::{
    Exit, Mistake,
    arguments::SecretCommand,
    figures::instant,
    print::{self, Column},
    session::Session,
};
use crate::{limit::SECRET_BYTES_MAX, secret::SecretValue};

/// Does what was asked for.
pub(super) async fn run(session: &Session, command: &SecretCommand) -> anyhow::Result<Exit> {
    let (app, talk) = (&session.app, &session.talk);
    match command {
        SecretCommand::Set { name } => {
            if std::io::stdin().is_terminal() {
                talk.say("type the secret, then end of file (Ctrl-D); it is shown while you type");
            }
            let value = tokio::task::spawn_blocking(read_secret).await.context("cannot read stdin")??;
            let key = session.secrets.seal_key()?;
            app.set_secret(name, &value, &key).await?;
            talk.say(format!("`{name}` is set, sealed under the key {}", key.id()));
        }
        SecretCommand::List { json } => {
            let secrets = app.store.list_sealed_secrets(&app.tenant).await?;
            if *json {
                let secrets = secrets
                    .iter()
                    .map(|secret| json!({ "name": secret.name, "key": secret.key_id, "set_at_ms": secret.set_at_ms }));
                print::json(&secrets.collect::<Vec<_>>())?;
            } else if secrets.is_empty() {
                talk.say("no secrets are kept; `flowstone secret set NAME` seals what stdin holds");
            } else {
                let columns = [Column::Text("secret"), Column::Text("key"), Column::Text("set (UTC)")];
                let rows = secrets
                    .iter()
                    .map(|secret| vec![secret.name.clone(), secret.key_id.clone(), instant(secret.set_at_ms)]);
                print::text(&print::table(&columns, rows, print::is_terminal()))?;
            }
        }
        SecretCommand::Remove { name } => {
            if !app.store.remove_sealed_secret(&app.tenant, name).await? {
                return Err(Mistake(format!("no secret `{name}` is kept; `flowstone secret list` lists them")).into());
            }
            talk.say(format!("`{name}` is removed"));
        }
    }
    Ok(Exit::Succeeded)
}

/// All of stdin, without the line feed that a shell ends it with.
fn read_secret() -> anyhow::Result<SecretValue> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX + 2));
    // One more than fits, so that a secret that is too long is seen to be.
    std::io::stdin().lock().take(SECRET_BYTES_MAX as u64 + 2).read_to_end(&mut bytes).context("cannot read stdin")?;
    let kept = bytes.strip_suffix(b"\n").unwrap_or(&bytes).len();
    Ok(SecretValue::new(bytes[..kept].to_vec()))
}
