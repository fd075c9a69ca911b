//! Runs as people name them: an id, the beginning of one, or `latest`.

use anyhow::bail;

use super::{Mistake, figures::instant};
use crate::{
    id::RunId,
    limit::LIST_ROWS_MAX,
    store::{Store, runs::RunRecord},
};

/// The run that is meant.
pub async fn find_run(store: &Store, tenant: &str, typed: &str) -> anyhow::Result<RunRecord> {
    if let Ok(id) = typed.parse::<RunId>() {
        return match store.find_run(tenant, id).await? {
            Some(run) => Ok(run),
            None => bail!(Mistake(format!("there is no run {id}; `flowstone runs` lists them"))),
        };
    }
    let newest = if typed == LATEST { 1 } else { LIST_ROWS_MAX };
    let runs = store.list_runs(tenant, None, newest).await?;
    Ok(choose(typed, runs)?)
}

const LATEST: &str = "latest";

/// Chooses among the newest runs, which come first.
fn choose(typed: &str, runs: Vec<RunRecord>) -> Result<RunRecord, Mistake> {
    let known = runs.len();
    let wanted = typed.to_ascii_lowercase();
    let begins = |run: &RunRecord| typed == LATEST || (!wanted.is_empty() && run.id.to_string().starts_with(&wanted));
    let mut found: Vec<RunRecord> = runs.into_iter().filter(begins).collect();
    match found.len() {
        0 if known == 0 => Err(Mistake("there are no runs yet; `flowstone run PIPELINE` makes one".to_owned())),
        0 => {
            let among = if known >= LIST_ROWS_MAX as usize { format!(" of the newest {known}") } else { String::new() };
            Err(Mistake(format!("the id of no run{among} begins with `{typed}`; `flowstone runs` lists them")))
        }
        1 => Ok(found.swap_remove(0)),
        _ if typed == LATEST => Ok(found.swap_remove(0)),
        several => {
            let shown: Vec<String> =
                found.iter().take(3).map(|run| format!("{} of {}", run.id, instant(run.created_at_ms))).collect();
            Err(Mistake(format!("{several} runs begin with `{typed}`: {}; write more of the id", shown.join(", "))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::status::tests::a_run, *};

    fn runs() -> Vec<RunRecord> {
        let ids = ["0193b5a0-2000-7abc-8def-0123456789ab", "0193b5a0-1000-7abc-8def-0123456789ab"];
        ids.map(|id| RunRecord { id: id.parse().unwrap(), ..a_run() }).to_vec()
    }

    fn chosen(typed: &str) -> Result<String, String> {
        choose(typed, runs()).map(|run| run.id.to_string()).map_err(|mistake| mistake.to_string())
    }

    #[test]
    fn a_unique_beginning_is_enough() {
        assert_eq!(chosen("0193b5a0-1").unwrap(), "0193b5a0-1000-7abc-8def-0123456789ab");
        assert_eq!(chosen("0193B5A0-2000").unwrap(), "0193b5a0-2000-7abc-8def-0123456789ab");
    }

    #[test]
    fn latest_is_the_newest() {
        assert_eq!(chosen("latest").unwrap(), "0193b5a0-2000-7abc-8def-0123456789ab");
    }

    #[test]
    fn an_ambiguous_or_unknown_beginning_is_a_mistake() {
        assert_eq!(
            chosen("0193").unwrap_err(),
            "2 runs begin with `0193`: 0193b5a0-2000-7abc-8def-0123456789ab of 2026-11-23 08:43:11, \
             0193b5a0-1000-7abc-8def-0123456789ab of 2026-11-23 08:43:11; write more of the id"
        );
        assert_eq!(chosen("77").unwrap_err(), "the id of no run begins with `77`; `flowstone runs` lists them");
        assert!(chosen("").is_err());
        let none = choose("latest", Vec::new()).unwrap_err();
        assert_eq!(none.to_string(), "there are no runs yet; `flowstone run PIPELINE` makes one");
    }
}
