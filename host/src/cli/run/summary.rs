//! What stands when a run is over: a table of the assets, the failures with their causes, and one last line.

use std::fmt::Write as _;

use super::{
    board::{Board, Tally},
    reporter::Outcome,
};
use crate::{
    cli::{
        figures::{duration_ms, job, plural},
        print::{self, Column, one_line},
    },
    id::RunId,
};

/// The summary of a run, for stdout.
pub fn render(run: RunId, pipeline: &str, outcome: Outcome<'_>, board: &Board, terminal: bool) -> String {
    let mut text = String::new();
    if board.jobs() > 0 {
        text.push_str(&table(board, terminal));
        text.push('\n');
    }
    if !board.failures.is_empty() {
        text.push_str("failed:\n");
        for failure in &board.failures {
            let name = job(&failure.asset, &failure.partition_key);
            let more = if failure.count > 1 { format!(" and {} more", failure.count - 1) } else { String::new() };
            line(&mut text, format_args!("  {}{more}: {}", one_line(&name), one_line(&failure.cause)));
        }
        let more = board.total().failed - board.failures.iter().map(|failure| failure.count).sum::<usize>();
        if more > 0 {
            line(&mut text, format_args!("  and {more} more: flowstone status {run}"));
        }
        let mut assets: Vec<&str> = board.failures.iter().map(|failure| &*failure.asset).collect();
        assets.dedup();
        for asset in assets {
            line(&mut text, format_args!("  see: flowstone logs {run} {}", one_line(asset)));
        }
        text.push('\n');
    }
    line(&mut text, format_args!("{}", last_line(run, pipeline, outcome, board)));
    text
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("writing to a string cannot fail");
}

fn table(board: &Board, terminal: bool) -> String {
    let total = board.total();
    let mut columns = vec![
        Column::Text("asset"),
        Column::Number("jobs"),
        Column::Number("made"),
        Column::Number("reused"),
        Column::Number("skipped"),
        Column::Number("failed"),
    ];
    // Rare, and then it matters.
    let with_cancelled = total.cancelled > 0;
    if with_cancelled {
        columns.push(Column::Number("cancelled"));
    }
    let row = |tally: &Tally| {
        let mut row = vec![tally.asset.clone()];
        let cancelled = with_cancelled.then_some(tally.cancelled);
        let counts = [tally.jobs, tally.made, tally.reused, tally.skipped, tally.failed];
        row.extend(counts.into_iter().chain(cancelled).map(|count| count.to_string()));
        row
    };
    let together = (board.assets.len() > 1).then_some(&total);
    print::table(&columns, board.assets.iter().chain(together).map(row), terminal)
}

fn last_line(run: RunId, pipeline: &str, outcome: Outcome<'_>, board: &Board) -> String {
    match outcome {
        Outcome::Interrupted => {
            let left = plural((board.jobs() - board.ended) as u64, "job");
            format!("run {run} was interrupted with {left} left; the same command goes on with what is left")
        }
        Outcome::Left => {
            let left = plural((board.jobs() - board.ended) as u64, "job");
            format!("run {run} goes on with {left} left; `flowstone watch {run}` follows it again")
        }
        Outcome::Finished(_) if board.jobs() == 0 => format!("{pipeline} is up to date"),
        Outcome::Finished(record) => {
            let took = record.finished_at_ms.unwrap_or(record.created_at_ms).abs_diff(record.created_at_ms);
            format!("run {run} {} in {}", record.state, duration_ms(took))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::board::tests::{FAILED, MADE, REUSED, SKIPPED, a_board},
        *,
    };
    use crate::cli::status::tests::a_run;

    fn summary(ends: &[super::super::board::End<'_>], outcome: Outcome<'_>) -> String {
        render(a_run().id, "weather", outcome, &a_board(ends).0, false)
    }

    #[test]
    fn a_failed_run_says_what_failed_and_where_to_look() {
        insta::assert_snapshot!(summary(&[MADE, SKIPPED, FAILED, FAILED], Outcome::Finished(&a_run())), @"
        asset    jobs  made  reused  skipped  failed
        raw         1     1       0        0       0
        monthly     3     0       0        1       2
        all         4     1       0        1       2

        failed:
          monthly[2012-02] and 1 more: out of fuel␊forged␛
          see: flowstone logs 0193b5a0-1c2d-7abc-8def-0123456789ab monthly

        run 0193b5a0-1c2d-7abc-8def-0123456789ab failed in 3.2 s
        ");
    }

    #[test]
    fn a_run_that_went_well_is_a_table_and_a_line() {
        let run = crate::store::runs::RunRecord { state: "succeeded".into(), ..a_run() };
        insta::assert_snapshot!(summary(&[MADE, MADE, MADE, REUSED], Outcome::Finished(&run)), @"
        asset    jobs  made  reused  skipped  failed
        raw         1     1       0        0       0
        monthly     3     2       1        0       0
        all         4     3       1        0       0

        run 0193b5a0-1c2d-7abc-8def-0123456789ab succeeded in 3.2 s
        ");
    }

    #[test]
    fn an_interrupted_run_says_how_to_go_on() {
        let text = summary(&[MADE], Outcome::Interrupted);
        assert!(
            text.ends_with("was interrupted with 3 jobs left; the same command goes on with what is left\n"),
            "{text}"
        );
    }

    #[test]
    fn a_run_without_jobs_has_nothing_to_show() {
        let text = render(a_run().id, "weather", Outcome::Finished(&a_run()), &Board::default(), false);
        assert_eq!(text, "weather is up to date\n");
    }
}
