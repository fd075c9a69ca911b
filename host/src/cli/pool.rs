//! `flowstone pool`: how many jobs run at once, whatever worker runs them.

use serde_json::{Value, json};

use super::{
    Exit,
    arguments::PoolCommand,
    figures::plural,
    print::{self, Column},
    session::Session,
};
use crate::store::pools::PoolRecord;

/// Does what was asked for.
pub(super) async fn run(session: &Session, command: &PoolCommand) -> anyhow::Result<Exit> {
    let app = &session.app;
    match command {
        PoolCommand::Set { name, size } => {
            app.set_pool(name, *size).await?;
            session.talk.say(format!("of the pool `{name}` at most {} at once", plural(u64::from(*size), "job")));
        }
        PoolCommand::List { json: true } => {
            print::json(&app.list_pools().await?.iter().map(pool_json).collect::<Vec<_>>())?;
        }
        PoolCommand::List { json: false } => {
            let pools = app.list_pools().await?;
            match pools.is_empty() {
                true => session.talk.say("there are no pools; `flowstone pool set NAME SIZE` makes one"),
                false => print::text(&render(&pools))?,
            }
        }
        PoolCommand::Remove { name } => {
            let jobs = app.remove_pool(name).await?;
            session.talk.say(format!("`{name}` is removed: {} that waited for it can be claimed", plural(jobs, "job")));
        }
    }
    Ok(Exit::Succeeded)
}

fn render(pools: &[PoolRecord]) -> String {
    let columns = [
        Column::Text("pool"),
        Column::Number("size"),
        Column::Number("running"),
        Column::Number("waiting"),
        Column::Text("set by"),
    ];
    let rows = pools.iter().map(|pool| {
        let by =
            pool.pipeline.as_ref().map_or_else(|| "an operator".to_owned(), |name| format!("the manifest of {name}"));
        vec![pool.name.clone(), pool.size.to_string(), pool.running.to_string(), pool.waiting.to_string(), by]
    });
    print::table(&columns, rows, false)
}

fn pool_json(pool: &PoolRecord) -> Value {
    json!({
        "pool": pool.name,
        "size": pool.size,
        "running": pool.running,
        "waiting": pool.waiting,
        "pipeline": pool.pipeline,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_one_line() {
        let pool = |name: &str, size, pipeline: Option<&str>, running, waiting| PoolRecord {
            name: name.into(),
            size,
            pipeline: pipeline.map(Into::into),
            running,
            waiting,
        };
        let pools = [pool("asset:weather/raw", 2, Some("weather"), 2, 1_200), pool("warehouse", 40, None, 3, 0)];
        insta::assert_snapshot!(render(&pools), @"
        pool               size  running  waiting  set by
        asset:weather/raw     2        2     1200  the manifest of weather
        warehouse            40        3        0  an operator
        ");
    }
}
