//! Tells of jobs that wait for a worker which is not there, and how to start one.

use serde_json::{Value, json};

use super::{figures::plural, session::Session};
use crate::{
    id::RunId,
    limit::{CAUSES_SHOWN_MAX, QUEUE_DEFAULT},
    store::unserved::UnservedJobs,
};

/// Tells whoever has submitted or watches a run that it would wait for ever as it is. The run is no worse for it when that
/// cannot be known.
pub(super) async fn warn(session: &Session, run: RunId) {
    match session.app.store.list_unserved_jobs(&session.app.tenant, run).await {
        Ok(unserved) => lines(&unserved).into_iter().for_each(|line| session.talk.say(line)),
        Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "who serves the run is not known"),
    }
}

/// A line for each queue and tags.
pub(super) fn lines(unserved: &[UnservedJobs]) -> Vec<String> {
    let mut lines: Vec<String> = unserved.iter().take(CAUSES_SHOWN_MAX).map(line).collect();
    if let Some(more) = unserved.len().checked_sub(CAUSES_SHOWN_MAX).filter(|more| *more > 0) {
        lines.push(format!("and so for {more} more queues and tags"));
    }
    lines
}

fn line(unserved: &UnservedJobs) -> String {
    let UnservedJobs { queue, tags, jobs } = unserved;
    let verb = if *jobs == 1 { "waits" } else { "wait" };
    let mut route = format!("queue {queue:?}");
    // A worker that is told nothing serves all queues.
    let mut command = "flowstone work".to_owned();
    if queue != QUEUE_DEFAULT {
        command.push_str(&format!(" --queue {queue}"));
    }
    if !tags.is_empty() {
        route.push_str(&format!(", tags {tags:?}"));
        command.push_str(&format!(" --tag {}", tags.join(",")));
    }
    format!(
        "{} {verb} for a worker: {route} (no live worker serves them; start one with `{command}`)",
        plural(jobs.unsigned_abs(), "job")
    )
}

/// The same for programs.
pub(super) fn json(unserved: &[UnservedJobs]) -> Value {
    unserved.iter().map(|one| json!({ "queue": one.queue, "tags": one.tags, "jobs": one.jobs })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unserved(queue: &str, tags: &[&str], jobs: i64) -> UnservedJobs {
        UnservedJobs { queue: queue.into(), tags: tags.iter().map(ToString::to_string).collect(), jobs }
    }

    #[test]
    fn each_line_has_the_command_that_helps() {
        let all = [unserved("default", &[], 1), unserved("default", &["big", "gpu"], 2), unserved("slow", &["gpu"], 3)];
        insta::assert_snapshot!(lines(&all).join("\n"), @r#"
        1 job waits for a worker: queue "default" (no live worker serves them; start one with `flowstone work`)
        2 jobs wait for a worker: queue "default", tags ["big", "gpu"] (no live worker serves them; start one with `flowstone work --tag big,gpu`)
        3 jobs wait for a worker: queue "slow", tags ["gpu"] (no live worker serves them; start one with `flowstone work --queue slow --tag gpu`)
        "#);
    }

    #[test]
    fn many_are_cut() {
        let many: Vec<UnservedJobs> = (0..CAUSES_SHOWN_MAX + 2).map(|n| unserved(&format!("q{n}"), &[], 1)).collect();
        let lines = lines(&many);
        assert_eq!(
            (lines.len(), &*lines[CAUSES_SHOWN_MAX]),
            (CAUSES_SHOWN_MAX + 1, "and so for 2 more queues and tags")
        );
    }
}
