//! What an attempt leaves behind: everything that the commit may need, and nothing that is still open.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{
    sandbox::State,
    verdict::{Verdict, spoiled},
};
use crate::{
    blob::{BlobError, Digest},
    capability::{
        Abort, Call, Denial, Masks, Use,
        files::{Files, StagedFile},
        inputs::InputRead,
        key_value::BucketEffects,
        log::Lines,
        output::{Finished, Output},
        outside::OutsideRead,
        sql::Uncommitted,
    },
};

/// The end of one attempt.
#[derive(Clone, Debug)]
pub struct Report {
    /// How it ended.
    pub verdict: Verdict,
    /// One sentence for people; empty where the verdict says it all.
    pub explanation: String,
    /// The output, when it succeeded.
    pub output: Option<Finished>,
    /// The changes of directories to publish after the commit, when it succeeded. Their blobs are stored.
    pub staged: Vec<StagedFile>,
    /// What the guest said.
    pub log: Lines,
    /// What it opened and read of its inputs.
    pub reads: Vec<InputRead>,
    /// An input whose bytes are gone or damaged; the verdict is then that of a host fault.
    pub damaged: Option<Digest>,
    /// What it wrote to a database, when it succeeded; undone unless somebody commits it.
    pub uncommitted: Uncommitted,
    /// What it asked for and was not granted.
    pub denials: Vec<Denial>,
    /// What it did with what it was granted.
    pub uses: Vec<Use>,
    /// When it did, for as many as are kept, if it was asked for.
    pub calls: Vec<Call>,
    /// What it read of the world outside that is no directory.
    pub outside: Vec<OutsideRead>,
    /// What it read in buckets, to be checked by the commit; and what it wants written there, when it succeeded.
    pub buckets: Vec<BucketEffects>,
    /// From after instantiation.
    pub fuel_used: u64,
    /// Summed over all memories.
    pub memory_bytes_peak: u64,
    /// Microseconds until the guest could be called; 0 when it never could.
    pub instantiate_us: u64,
    /// Microseconds of the call.
    pub run_us: u64,
}

/// What an attempt wrote and did not end. Of one that did not succeed it is dropped, and was never there.
pub(super) struct Unfinished {
    output: Output,
    files: Files,
    masks: Masks,
}

/// How long things took.
#[derive(Debug, Default)]
pub(super) struct Timings {
    /// Absent when the guest was never called.
    pub instantiate: Option<Duration>,
    pub total: Duration,
}

impl Report {
    /// Of an attempt in which no guest code ran.
    pub(super) fn empty(verdict: Verdict) -> Self {
        let explanation = match &verdict {
            Verdict::Trapped(why) | Verdict::HostFault(why) => why.clone(),
            _ => String::new(),
        };
        Self {
            verdict,
            explanation,
            output: None,
            staged: vec![],
            log: Lines::default(),
            reads: vec![],
            damaged: None,
            uncommitted: Uncommitted::default(),
            denials: vec![],
            uses: vec![],
            calls: vec![],
            outside: vec![],
            buckets: vec![],
            fuel_used: 0,
            memory_bytes_peak: 0,
            instantiate_us: 0,
            run_us: 0,
        }
    }

    /// Of an attempt that is over, and what is left to end when it succeeded.
    pub(super) fn of(
        mut state: State,
        verdict: Verdict,
        explanation: String,
        fuel_used: u64,
        timings: &Timings,
    ) -> (Self, Unfinished) {
        let instantiate = timings.instantiate.unwrap_or_default();
        let mut denials = state.inputs.take_denials();
        denials.extend(state.files.take_denials());
        denials.extend(state.secrets.take_denials());
        denials.extend(state.sql.take_denials());
        denials.extend(state.ungranted.take_denials());
        let mut uses =
            [state.files.take_uses(), state.clock.take_uses(), state.random.take_uses(), state.secrets.take_uses()]
                .concat();
        uses.extend(state.sql.take_uses());
        let asked = state.sql.take_reads();
        let left = state.sql.finish();
        // Streams that the guest left open hold the ends of lines; dropping them brings these into the log. Answers
        // that it left open are counted when they are dropped.
        drop(state.table);
        denials.extend(state.http.take_denials());
        uses.extend(state.http.take_uses());
        denials.extend(state.key_value.take_denials());
        uses.extend(state.key_value.take_uses());
        // What a guest asks for is text of its own, too.
        for denial in &mut denials {
            for text in [&mut denial.resource, &mut denial.target, &mut denial.remedy] {
                state.masks.apply_to(text);
            }
        }
        uses.iter_mut().for_each(|used| state.masks.apply_to(&mut used.target));
        let mut report = Self {
            explanation,
            denials,
            uses,
            calls: vec![],
            outside: [state.http.reads(), state.key_value.reads(), asked].concat(),
            buckets: state.key_value.finish(verdict == Verdict::Succeeded, &state.masks),
            log: state.log.take(),
            reads: state.inputs.reads(),
            damaged: state.inputs.damaged(),
            fuel_used,
            memory_bytes_peak: state.limiter.bytes_peak(),
            instantiate_us: micros(instantiate),
            run_us: micros(timings.total.saturating_sub(instantiate)),
            ..Self::empty(verdict)
        };
        if let (Verdict::Succeeded, Some(why)) = (&report.verdict, &left.spoiled) {
            (report.verdict, report.explanation) = spoiled(why);
        }
        if report.verdict == Verdict::Succeeded {
            report.uncommitted = left.uncommitted;
        }
        (report, Unfinished { output: state.output, files: state.files, masks: state.masks })
    }

    /// Ends the output and the staged files of an attempt that succeeded.
    pub(super) async fn finish(&mut self, unfinished: Unfinished, cancel: &CancellationToken) {
        let Unfinished { output, files, masks } = unfinished;
        let finish = async { Ok::<_, BlobError>((output.finish().await?, files.finish().await?)) };
        let finished = tokio::select! {
            // What is finished when it is cancelled has succeeded.
            biased;
            finished = finish => finished,
            () = cancel.cancelled() => {
                self.verdict = Verdict::Cancelled;
                return;
            }
        };
        match finished {
            Ok((mut output, staged)) => {
                // Metadata is kept in clear, and shown.
                for field in output.iter_mut().flat_map(|output| &mut output.metadata) {
                    masks.apply_to(&mut field.name);
                    masks.apply_to(&mut field.value);
                }
                (self.output, self.staged) = (output, staged);
            }
            Err(error) => self.fault(Abort::host_fault(&error)),
        }
    }

    fn fault(&mut self, abort: Abort) {
        self.explanation = abort.to_string();
        self.verdict = Verdict::HostFault(abort.to_string());
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
