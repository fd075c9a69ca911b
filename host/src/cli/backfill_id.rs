//! Backfills as people name them: an id, the beginning of one, or `latest`.

use super::Mistake;
use crate::{
    id::BackfillId,
    limit::LIST_ROWS_MAX,
    store::{Store, backfills::BackfillRecord},
};

const LATEST: &str = "latest";

/// The backfill that is meant.
pub async fn find_backfill(store: &Store, tenant: &str, typed: &str) -> anyhow::Result<BackfillId> {
    if let Ok(id) = typed.parse::<BackfillId>() {
        return Ok(id);
    }
    let newest = if typed == LATEST { 1 } else { LIST_ROWS_MAX };
    Ok(choose(typed, &store.list_backfills(tenant, None, newest).await?)?)
}

/// Chooses among the newest, which come first.
fn choose(typed: &str, backfills: &[BackfillRecord]) -> Result<BackfillId, Mistake> {
    let wanted = typed.to_ascii_lowercase();
    let begins = |id: &BackfillId| typed == LATEST || (!wanted.is_empty() && id.to_string().starts_with(&wanted));
    let found: Vec<BackfillId> = backfills.iter().map(|backfill| backfill.id).filter(begins).collect();
    match found[..] {
        [] if backfills.is_empty() => {
            Err(Mistake("there are no backfills yet; `flowstone backfill start PIPELINE ASSET` makes one".to_owned()))
        }
        [] => {
            Err(Mistake(format!("the id of no backfill begins with `{typed}`; `flowstone backfill list` lists them")))
        }
        [id] => Ok(id),
        [id, ..] if typed == LATEST => Ok(id),
        [first, second, ..] => Err(Mistake(format!(
            "{} backfills begin with `{typed}`, such as {first} and {second}; write more of the id",
            found.len()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::backfill_status::tests::a_backfill, *};

    fn chosen(typed: &str) -> Result<String, String> {
        let ids = ["0193b5a0-2000-7abc-8def-0123456789ab", "0193b5a0-1000-7abc-8def-0123456789ab"];
        let backfills = ids.map(|id| BackfillRecord { id: id.parse().unwrap(), ..a_backfill().record });
        choose(typed, &backfills).map(|id| id.to_string()).map_err(|mistake| mistake.to_string())
    }

    #[test]
    fn a_unique_beginning_is_enough_and_latest_is_the_newest() {
        assert_eq!(chosen("0193B5A0-1").unwrap(), "0193b5a0-1000-7abc-8def-0123456789ab");
        assert_eq!(chosen("latest").unwrap(), "0193b5a0-2000-7abc-8def-0123456789ab");
    }

    #[test]
    fn an_ambiguous_or_unknown_beginning_is_a_mistake() {
        assert!(chosen("0193").unwrap_err().starts_with("2 backfills begin with `0193`, such as 0193b5a0-2000-"));
        assert_eq!(
            chosen("77").unwrap_err(),
            "the id of no backfill begins with `77`; `flowstone backfill list` lists them"
        );
        assert!(chosen("").is_err());
        assert!(choose("latest", &[]).unwrap_err().to_string().starts_with("there are no backfills yet"));
    }
}
