//! Progress on a terminal: a bar for each asset, and lines above them for what fails or waits.

use std::fmt::Write;

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};

use super::{
    board::{Board, Tally},
    lines::{headline, line},
    reporter::{Begun, Notice, Outcome, Reporter},
};
use crate::{
    cli::print::{Talk, one_line},
    limit::{ASSET_BARS_MAX, TROUBLE_LINES_MAX},
};

/// Bars on stderr.
pub struct Bars {
    talk: Talk,
    multi: MultiProgress,
    bars: Vec<ProgressBar>,
    troubles: usize,
}

impl Bars {
    /// `multi` draws, `talk` writes above what it draws.
    pub fn new(talk: Talk, multi: MultiProgress) -> Self {
        Self { talk, multi, bars: Vec::new(), troubles: 0 }
    }

    /// The bar that shows an asset: its own, or the last one, which stands for all that have none.
    fn update(&self, board: &Board, place: usize) {
        let Some(last) = self.bars.len().checked_sub(1) else { return };
        let tally = if place < last || board.assets.len() == self.bars.len() {
            board.assets[place].clone()
        } else {
            together(&board.assets[last..])
        };
        let bar = &self.bars[place.min(last)];
        bar.set_message(remark(&tally));
        bar.set_position(tally.ended() as u64);
        if tally.ended() == tally.jobs {
            bar.abandon();
        }
    }
}

impl Reporter for Bars {
    fn begin(&mut self, begun: Begun<'_>, board: &Board) {
        self.talk.say(headline(begun, board.jobs()));
        let mut shown: Vec<Tally> = board.assets.clone();
        if shown.len() > ASSET_BARS_MAX {
            let rest = together(&shown[ASSET_BARS_MAX - 1..]);
            shown.truncate(ASSET_BARS_MAX - 1);
            shown.push(rest);
        }
        let width = shown.iter().map(|tally| tally.asset.chars().count()).max().unwrap_or(0);
        for tally in &shown {
            let name = one_line(&tally.asset).into_owned();
            let bar = ProgressBar::new(tally.jobs as u64).with_style(style()).with_prefix(format!("{name:<width$}"));
            self.bars.push(self.multi.add(bar));
        }
        self.bars.iter().for_each(ProgressBar::tick);
    }

    fn note(&mut self, notice: Notice<'_>, board: &Board) {
        if let Notice::Ended { named, .. } = notice {
            self.update(board, named.place);
        }
        if notice.is_trouble() {
            self.troubles += 1;
            match self.troubles {
                1..=TROUBLE_LINES_MAX => line(notice, true).iter().for_each(|line| self.talk.say(line)),
                n if n == TROUBLE_LINES_MAX + 1 => self.talk.say("further failures and retries are only counted"),
                _ => {}
            }
        }
    }

    fn tick(&mut self, _: &Board) {
        self.bars.iter().filter(|bar| !bar.is_finished()).for_each(ProgressBar::tick);
    }

    fn end(&mut self, _: Outcome<'_>, _: &Board) {
        // The table says it all, and stays when it is read again.
        self.bars.iter().for_each(ProgressBar::finish_and_clear);
        self.bars.clear();
    }
}

/// Name, bar, done and total, rate, time left, and what is not simply made.
fn style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix}  {bar:28}  {human_pos:>7}/{human_len:<7} {rate:>8}  {eta:>4}  {msg}")
        .expect("the template is sound")
        .with_key("rate", |state: &ProgressState, text: &mut dyn Write| {
            // No more digits than can be read while they change.
            let (rate, decimals) = (state.per_sec(), if state.per_sec() < 10.0 { 1 } else { 0 });
            write!(text, "{rate:.decimals$}/s").expect("writing to a string cannot fail");
        })
        .progress_chars("━╸─")
}

fn remark(tally: &Tally) -> String {
    let counts = [(tally.reused, "reused"), (tally.skipped, "skipped"), (tally.failed, "failed")];
    let present = counts.into_iter().filter(|(count, _)| *count > 0);
    present.map(|(count, state)| format!("{count} {state}")).collect::<Vec<_>>().join(", ")
}

fn together(tallies: &[Tally]) -> Tally {
    Tally::together(&format!("{} more", tallies.len()), tallies)
}

#[cfg(test)]
mod tests {
    use indicatif::ProgressDrawTarget;

    use super::{
        super::board::tests::{FAILED, MADE, REUSED, a_board},
        *,
    };
    use crate::{cli::status::tests::a_job, id::RunId};

    fn bars() -> Bars {
        Bars::new(Talk::new(true), MultiProgress::with_draw_target(ProgressDrawTarget::hidden()))
    }

    const RUN: &str = "0193b5a0-1c2d-7abc-8def-0123456789ab";

    fn begin(bars: &mut Bars, board: &Board) {
        let run: RunId = RUN.parse().unwrap();
        bars.begin(Begun { run, pipeline: "weather", version: 1, up_to_date: Some(0) }, board);
    }

    #[test]
    fn each_asset_has_a_bar_that_follows_its_tally() {
        let (mut bars, (mut board, ids)) = (bars(), a_board(&[]));
        begin(&mut bars, &board);
        for (id, end) in ids.iter().zip([MADE, REUSED, FAILED]) {
            assert!(board.end(*id, end));
            let named = board.find(*id).unwrap();
            bars.note(Notice::Ended { job: *id, named, end, materialization: None }, &board);
        }
        let [raw, monthly] = &bars.bars[..] else { panic!("two assets, two bars") };
        assert_eq!((raw.position(), raw.length(), raw.is_finished()), (1, Some(1), true));
        assert_eq!((monthly.position(), monthly.length(), monthly.is_finished()), (2, Some(3), false));
        assert_eq!((raw.prefix().as_str(), monthly.message().as_str()), ("raw    ", "1 reused, 1 failed"));
    }

    #[test]
    fn many_assets_share_the_last_bar() {
        let jobs: Vec<_> = (0..ASSET_BARS_MAX + 5).map(|n| a_job(&format!("a{n}"), "none", "ready", None)).collect();
        let (mut bars, mut board) = (bars(), Board::new(&jobs));
        begin(&mut bars, &board);
        assert_eq!(bars.bars.len(), ASSET_BARS_MAX);
        let last = bars.bars[ASSET_BARS_MAX - 1].clone();
        assert_eq!((last.prefix().as_str(), last.length()), ("6 more", Some(6)));
        for job in &jobs[ASSET_BARS_MAX + 2..] {
            assert!(board.end(job.id, MADE));
            let named = board.find(job.id).unwrap();
            bars.note(Notice::Ended { job: job.id, named, end: MADE, materialization: None }, &board);
        }
        assert_eq!((last.position(), last.is_finished()), (3, false));
    }
}
