//! What can be typed: every command, argument and flag with its help. Nothing is done here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::{
    app::IdempotencyKey,
    config::{GlobalFlags, KeepFlags, WorkerFlags},
    limit::{
        BACKFILL_CONCURRENCY_DEFAULT, BACKFILL_CONCURRENCY_MAX, BACKFILLS_LISTED_DEFAULT, FIRE_TIMES_LISTED_DEFAULT,
        FIRE_TIMES_LISTED_MAX, RUNS_LISTED_DEFAULT,
    },
};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "flowstone",
    version,
    about = "Runs assets whose code nobody has to trust, and records where every byte came from",
    after_help = "Stdout is data, stderr is talk. Exit status: 0 all succeeded, 1 something failed or was cancelled, \
                  2 a mistake in what was asked for, 3 trouble of the host (database, disk, or in use).",
    propagate_version = false,
    disable_help_subcommand = true
)]
pub struct CommandLine {
    /// For every command.
    #[command(flatten)]
    pub global: GlobalFlags,
    /// Tell nothing on stderr but errors
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// One command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check a manifest and its components, and list everything that is wrong
    ///
    /// Nothing is written. Each mistake is told with its file, line, key and fix.
    ///
    /// Example: flowstone check examples/weather
    #[command(verbatim_doc_comment)]
    Check(Manifest),
    /// Make a manifest the newest version of its pipeline
    ///
    /// A deploy that changes nothing makes no version.
    ///
    /// Example: flowstone deploy examples/weather/flowstone.toml
    #[command(verbatim_doc_comment)]
    Deploy(Manifest),
    /// Print what a run would do, and why
    ///
    /// No run is made. Where PIPELINE is a manifest it is deployed first, as `run` does.
    ///
    /// Examples:
    ///   flowstone plan examples/weather
    ///   flowstone plan weather weather_report --jobs
    #[command(verbatim_doc_comment)]
    Plan(Plan),
    /// Make assets: run what is missing or stale, and what that needs
    ///
    /// Progress goes to stderr, a summary to stdout. An interrupted run loses
    /// nothing that was made: the same command goes on where it stopped.
    /// Interrupt once to let what runs finish, twice to stop at once.
    /// With --detach the run is left to the workers of the database, and its id
    /// is printed.
    ///
    /// Examples:
    ///   flowstone run examples/weather
    ///   flowstone run weather monthly_weather --partition 2012-01 --partition 2012-02
    ///   flowstone watch $(flowstone run weather --detach)
    ///   flowstone run weather --json | jq 'select(.event == "job.ended")'
    #[command(verbatim_doc_comment)]
    Run(Run),
    /// Take jobs of any run until asked to stop
    ///
    /// Any number of workers on any number of machines share a database
    /// (DATABASE_URL) and a place for outputs (FLOWSTONE_BLOBS). Without
    /// DATABASE_URL this is the worker of the embedded database.
    /// Interrupt once to let what runs finish, twice to stop at once.
    ///
    /// Example: flowstone work --concurrency 8
    #[command(verbatim_doc_comment)]
    Work(Work),
    /// Take jobs of any run, fire schedules, release backfills and collect what is old
    ///
    /// Any number of processes may be up at once: each fire of a schedule has one
    /// run, and so has each window of a backfill; one process collects at a time.
    /// What is said of `work` holds here too. Interrupt it to stop.
    ///
    /// Example: flowstone up
    #[command(verbatim_doc_comment)]
    Up(Up),
    /// Follow a run that others work on until it is over
    ///
    /// Ends as the run does. Interrupting it ends only the watching.
    ///
    /// Examples:
    ///   flowstone watch latest
    ///   flowstone watch 0193b5a0 --json
    #[command(verbatim_doc_comment)]
    Watch(Watch),
    /// Run what an earlier run left unmade: what failed, was skipped for it, or was cancelled
    ///
    /// It is planned anew with the newest version of the pipeline; what was made
    /// meanwhile is not made again, unless the earlier run was forced to.
    ///
    /// Example: flowstone retry latest
    #[command(verbatim_doc_comment)]
    Retry(Retry),
    /// Write the newest output of an asset to stdout
    ///
    /// Examples:
    ///   flowstone show weather weather_report > report.html
    ///   flowstone show weather monthly_weather --partition 2012-01
    ///   flowstone show weather weather_report --meta
    #[command(verbatim_doc_comment)]
    Show(Show),
    /// Show the state of a run: its jobs by state, and what failed and why
    ///
    /// Example: flowstone status latest
    #[command(verbatim_doc_comment)]
    Status(Status),
    /// List runs, the newest first
    ///
    /// Example: flowstone runs weather --limit 5
    #[command(verbatim_doc_comment)]
    Runs(Runs),
    /// Show the attempts of a run: verdict, fuel, memory, time, what was denied, and what was logged
    ///
    /// Examples:
    ///   flowstone logs
    ///   flowstone logs 0193b5a0 monthly_weather --partition 2012-01
    ///   flowstone logs latest --follow
    #[command(verbatim_doc_comment)]
    Logs(Logs),
    /// Show what the newest output of an asset was made from, or what was made from it
    ///
    /// Examples:
    ///   flowstone lineage weather weather_report
    ///   flowstone lineage weather raw_weather --down --depth 2
    ///   flowstone lineage weather weather_report --format dot | dot -Tsvg > lineage.svg
    #[command(verbatim_doc_comment)]
    Lineage(Lineage),
    /// Draw the assets of a pipeline and what they read
    ///
    /// Example: flowstone graph examples/weather --format mermaid
    #[command(verbatim_doc_comment)]
    Graph(Graph),
    /// Show what a component is: exports, imports, assets, and what it would need to be granted
    ///
    /// The component's code runs only to describe itself, with nothing granted
    /// and under small limits.
    ///
    /// Example: flowstone inspect weather.wasm
    #[command(verbatim_doc_comment)]
    Inspect(Inspect),
    /// End a run: what waits is cancelled now, what runs is stopped
    ///
    /// Example: flowstone cancel latest
    #[command(verbatim_doc_comment)]
    Cancel(Cancel),
    /// Let a pipeline or one of its assets wait
    ///
    /// What runs goes on to its end; what becomes ready waits, whatever run it
    /// belongs to, until it is resumed. No attempt is charged for it.
    ///
    /// Examples:
    ///   flowstone pause weather
    ///   flowstone pause weather monthly_weather
    #[command(verbatim_doc_comment)]
    Pause(Pause),
    /// End a pause: what waited for it can be claimed again
    ///
    /// Example: flowstone resume weather monthly_weather
    #[command(verbatim_doc_comment)]
    Resume(Pause),
    /// List what is paused, and how many jobs wait for it
    ///
    /// Example: flowstone pauses --json
    #[command(verbatim_doc_comment)]
    Pauses(Pauses),
    /// Mark outputs as not to be used again, so that the next run makes them anew
    ///
    /// The record of them stays, and so does their lineage.
    ///
    /// Example: flowstone invalidate weather monthly_weather --partition 2012-01
    #[command(verbatim_doc_comment)]
    Invalidate(Invalidate),
    /// Remove history that is old, and outputs that nothing names
    ///
    /// Whole days of runs that have ended go, with their jobs, attempts and logs;
    /// what was made stays. Bytes go that no result names. Safe beside workers;
    /// processes that are `up` do the same every hour.
    ///
    /// Examples:
    ///   flowstone gc --dry-run
    ///   flowstone gc --keep-history 90d --keep-audit 400d
    #[command(verbatim_doc_comment)]
    Gc(Gc),
    /// Say which asset of a pipeline may do what, and whose the resource is
    ///
    /// Example: flowstone grants weather
    #[command(verbatim_doc_comment)]
    Grants(Grants),
    /// What an operator registered for pipelines to grant: add, list, remove
    ///
    /// Registered resources are as they are now: what is narrowed or removed
    /// is so for the next attempt of every pipeline.
    ///
    /// Examples:
    ///   flowstone resource add operator.toml
    ///   flowstone resource add operator.toml station
    ///   flowstone resource remove station
    #[command(subcommand, verbatim_doc_comment)]
    Resource(ResourceCommand),
    /// Secrets that the database keeps sealed: set, list, remove
    ///
    /// A resource of the kind `secret` with `sealed = true` is the secret of
    /// its own name. No command shows one.
    ///
    /// Example: flowstone secret set api_token < token.txt
    #[command(subcommand, verbatim_doc_comment)]
    Secret(SecretCommand),
    /// Quotas: how much fuel, or how many bytes of output, attempts may use in a period: set, list, remove
    ///
    /// Periods are of UTC. What is used up lets further jobs wait for the next
    /// period; the attempt that crosses the line is not stopped.
    ///
    /// Examples:
    ///   flowstone quota set fuel 10T --per day
    ///   flowstone quota set bytes 500GiB --per month
    #[command(subcommand, verbatim_doc_comment)]
    Quota(QuotaCommand),
    /// Components whose attempts keep ending with their workers: list, lift
    ///
    /// A component that six workers died with, one after the other, is
    /// quarantined: its jobs fail at once instead of taking more workers along.
    /// Lift it when it is mended, or when it was not its fault.
    ///
    /// Example: flowstone quarantine list
    #[command(subcommand, verbatim_doc_comment)]
    Quarantine(QuarantineCommand),
    /// Pools: how many jobs run at once, whatever worker runs them: set, list, remove
    ///
    /// NAME is a name of your own, which assets name with `pools`; or
    /// resource:NAME, for all jobs that a resource is granted to; or tenant, for
    /// all jobs. What is over the size waits, without a worker, and is not
    /// charged for it. `max_concurrent` in a manifest makes pools of its own.
    ///
    /// Examples:
    ///   flowstone pool set warehouse 4
    ///   flowstone pool set resource:shop 2
    ///   flowstone pool list
    #[command(subcommand, verbatim_doc_comment)]
    Pool(PoolCommand),
    /// List schedules: when each fired last, what came of it, and when it fires next
    ///
    /// A pipeline's manifest declares them; whether one is enabled is decided
    /// with `schedule`.
    ///
    /// Example: flowstone schedules weather
    #[command(verbatim_doc_comment)]
    Schedules(Schedules),
    /// One schedule of a pipeline: enable it, disable it, run it now, or list when it fires next
    ///
    /// A disabled schedule does not fire, and what it would have done meanwhile
    /// is not made up for. A deploy leaves it disabled.
    ///
    /// Examples:
    ///   flowstone schedule disable weather nightly
    ///   flowstone schedule run-now weather nightly
    ///   flowstone schedule next weather nightly -n 3
    #[command(subcommand, verbatim_doc_comment)]
    Schedule(ScheduleCommand),
    /// Make many partitions in windows: start a backfill, watch it, pause it, try again what failed
    ///
    /// A backfill is tracked by the database and released by the processes that
    /// are `up`, as many of its partitions at a time as --concurrency says. What
    /// is up to date is not made again.
    ///
    /// Examples:
    ///   flowstone backfill start weather monthly_weather -p 2012-01..2015-12
    ///   flowstone backfill start weather monthly_weather --newest-first --halt-after 3
    ///   flowstone backfill start weather monthly_weather --dry-run
    ///   flowstone backfill status latest
    ///   flowstone backfill retry latest
    #[command(subcommand, verbatim_doc_comment)]
    Backfill(BackfillCommand),
    /// Print the completions of a shell
    ///
    /// Example: flowstone completions bash > /etc/bash_completion.d/flowstone
    #[command(verbatim_doc_comment)]
    Completions {
        /// Which shell
        shell: Shell,
    },
}

/// Of `check` and `deploy`.
#[derive(Debug, Args)]
pub struct Manifest {
    /// The manifest, or the folder that holds flowstone.toml
    #[arg(value_name = "MANIFEST", default_value = ".")]
    pub manifest: PathBuf,
}

/// What a plan or a run is to cover.
#[derive(Clone, Debug, Args)]
pub struct Selection {
    /// A manifest, a folder that holds flowstone.toml, or the name of a deployed pipeline
    #[arg(value_name = "PIPELINE")]
    pub pipeline: String,
    /// The assets that are wanted [default: all]
    #[arg(value_name = "ASSET")]
    pub assets: Vec<String>,
    /// A partition that is wanted, such as 2012-01 or month=2012-01,region=eu; may be repeated [default: all]
    #[arg(long = "partition", short, value_name = "KEY")]
    pub partitions: Vec<String>,
    /// Leave what the wanted assets need as it is, and fail where it is not there
    #[arg(long)]
    pub no_inputs: bool,
    /// Make the wanted assets anew even where they are up to date
    #[arg(long, conflicts_with = "force_all")]
    pub force: bool,
    /// Make the wanted assets and all that they need anew
    #[arg(long)]
    pub force_all: bool,
}

/// Of `plan`.
#[derive(Debug, Args)]
pub struct Plan {
    /// What it is to cover.
    #[command(flatten)]
    pub selection: Selection,
    /// List every job, however many there are
    #[arg(long, conflicts_with = "json")]
    pub jobs: bool,
    /// Print the plan as JSON
    #[arg(long)]
    pub json: bool,
}

/// Of `run`.
#[derive(Debug, Args)]
pub struct Run {
    /// What it is to cover.
    #[command(flatten)]
    pub selection: Selection,
    /// Submit it once under this key: the same command again gives the run that the first one made
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<IdempotencyKey>,
    /// How.
    #[command(flatten)]
    pub how: How,
}

/// Of the commands that submit a run.
#[derive(Debug, Args)]
pub struct How {
    /// Print one event a line as JSON instead of progress and a summary
    #[arg(long)]
    pub json: bool,
    /// Leave the run to the workers of the database, and print its id
    #[arg(long, short)]
    pub detach: bool,
    /// How many of them at a time.
    #[command(flatten)]
    pub worker: WorkerFlags,
}

/// Of `work` and `up`.
#[derive(Debug, Args)]
pub struct Work {
    /// How many jobs at a time.
    #[command(flatten)]
    pub worker: WorkerFlags,
}

/// Of `up`.
#[derive(Debug, Args)]
pub struct Up {
    /// As a worker.
    #[command(flatten)]
    pub work: Work,
    /// What it collects.
    #[command(flatten)]
    pub keep: KeepFlags,
}

/// Of `gc`.
#[derive(Debug, Args)]
pub struct Gc {
    /// Print what would be removed, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
    /// What is kept.
    #[command(flatten)]
    pub keep: KeepFlags,
}

/// Of `watch`.
#[derive(Debug, Args)]
pub struct Watch {
    /// The run: its id, the beginning of it, or latest
    #[arg(value_name = "RUN", default_value = "latest")]
    pub run: String,
    /// Print one event a line as JSON instead of progress and a summary
    #[arg(long)]
    pub json: bool,
}

/// Of `retry`.
#[derive(Debug, Args)]
pub struct Retry {
    /// The run: its id, the beginning of it, or latest
    #[arg(value_name = "RUN")]
    pub run: String,
    /// How.
    #[command(flatten)]
    pub how: How,
}

/// One partition of one asset.
#[derive(Clone, Debug, Args)]
pub struct OneOutput {
    /// The name of a deployed pipeline, or its manifest
    #[arg(value_name = "PIPELINE")]
    pub pipeline: String,
    /// The asset
    #[arg(value_name = "ASSET")]
    pub asset: String,
    /// Which of its partitions, such as 2012-01 or month=2012-01,region=eu
    #[arg(long, short, value_name = "KEY")]
    pub partition: Option<String>,
}

/// Of `show`.
#[derive(Debug, Args)]
pub struct Show {
    /// Of what.
    #[command(flatten)]
    pub of: OneOutput,
    /// Write to this file instead of stdout; it appears only when it is whole
    #[arg(long, short, value_name = "FILE", conflicts_with = "meta")]
    pub output: Option<PathBuf>,
    /// Print the record of the output as JSON instead of its bytes
    #[arg(long)]
    pub meta: bool,
    /// Write bytes that are not plain text to a terminal all the same
    #[arg(long)]
    pub force: bool,
}

/// Of `status`.
#[derive(Debug, Args)]
pub struct Status {
    /// The run: its id, the beginning of it, or latest
    #[arg(value_name = "RUN", default_value = "latest")]
    pub run: String,
    /// Print the run and all its jobs as JSON
    #[arg(long)]
    pub json: bool,
}

/// Of `runs`.
#[derive(Debug, Args)]
pub struct Runs {
    /// Only those of this pipeline
    #[arg(value_name = "PIPELINE")]
    pub pipeline: Option<String>,
    /// How many at most
    #[arg(long, short = 'n', value_name = "N", default_value_t = RUNS_LISTED_DEFAULT, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub limit: u16,
    /// Print them as JSON
    #[arg(long)]
    pub json: bool,
}

/// Of `logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// The run: its id, the beginning of it, or latest
    #[arg(value_name = "RUN", default_value = "latest")]
    pub run: String,
    /// Only the attempts of this asset
    #[arg(value_name = "ASSET")]
    pub asset: Option<String>,
    /// Only those of this partition
    #[arg(long, short, value_name = "KEY", requires = "asset")]
    pub partition: Option<String>,
    /// Go on with what attempts say and with each that ends, until the run is over
    #[arg(long, short)]
    pub follow: bool,
    /// Print the attempts as JSON, when they are followed one a line; one that still runs has no verdict, and the lines that are new
    #[arg(long)]
    pub json: bool,
}

/// Of `lineage`.
#[derive(Debug, Args)]
pub struct Lineage {
    /// Of what.
    #[command(flatten)]
    pub of: OneOutput,
    /// What it was made from; this is the default
    #[arg(long, conflicts_with = "down")]
    pub up: bool,
    /// What was made from it
    #[arg(long)]
    pub down: bool,
    /// Steps to go [default: all]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    pub depth: Option<i32>,
    /// How to print it
    #[arg(long, short, value_enum, default_value_t = Format::Tree)]
    pub format: Format,
}

/// Of `graph`.
#[derive(Debug, Args)]
pub struct Graph {
    /// A manifest, a folder that holds flowstone.toml, or the name of a deployed pipeline
    #[arg(value_name = "PIPELINE")]
    pub pipeline: String,
    /// How to print it
    #[arg(long, short, value_enum, default_value_t = Format::Tree)]
    pub format: Format,
}

/// How a graph is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For a terminal
    Tree,
    /// For Markdown
    Mermaid,
    /// For Graphviz
    Dot,
    /// For programs
    Json,
}

/// Of `inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// The component: a .wasm file
    #[arg(value_name = "COMPONENT")]
    pub component: PathBuf,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

/// Of `cancel`.
#[derive(Debug, Args)]
pub struct Cancel {
    /// The run: its id, the beginning of it, or latest
    #[arg(value_name = "RUN")]
    pub run: String,
}

/// Of `pause` and `resume`.
#[derive(Debug, Args)]
pub struct Pause {
    /// The name of a deployed pipeline, or its manifest
    #[arg(value_name = "PIPELINE", required_unless_present = "queue", conflicts_with = "queue")]
    pub pipeline: Option<String>,
    /// Only this asset [default: all]
    #[arg(value_name = "ASSET", requires = "pipeline")]
    pub asset: Option<String>,
    /// A queue, for all pipelines
    #[arg(long, value_name = "QUEUE")]
    pub queue: Option<String>,
}

/// Of `pauses`.
#[derive(Debug, Args)]
pub struct Pauses {
    /// Print them as JSON
    #[arg(long)]
    pub json: bool,
}

/// Of `invalidate`.
#[derive(Debug, Args)]
pub struct Invalidate {
    /// Of what; without a partition, of all.
    #[command(flatten)]
    pub of: OneOutput,
}

/// Arguments of `grants`.
#[derive(Debug, Args)]
pub struct Grants {
    /// A manifest, or the name of a deployed pipeline
    pub pipeline: String,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// Of `schedules`.
#[derive(Debug, Args)]
pub struct Schedules {
    /// Only those of this pipeline: its name, or its manifest
    #[arg(value_name = "PIPELINE")]
    pub pipeline: Option<String>,
    /// Print them as JSON
    #[arg(long)]
    pub json: bool,
}

/// One schedule.
#[derive(Clone, Debug, Args)]
pub struct OneSchedule {
    /// The name of a deployed pipeline, or its manifest
    #[arg(value_name = "PIPELINE")]
    pub pipeline: String,
    /// The schedule
    #[arg(value_name = "NAME")]
    pub name: String,
}

/// What can be done with a schedule.
#[derive(Debug, Subcommand)]
pub enum ScheduleCommand {
    /// Let it fire, from its next fire time on
    Enable(OneSchedule),
    /// Keep it from firing
    Disable(OneSchedule),
    /// Submit a run of it as if it fired at this moment, also where it is disabled
    RunNow(OneSchedule),
    /// List when it fires next, or would if it were enabled
    Next {
        /// Of which.
        #[command(flatten)]
        of: OneSchedule,
        /// How many times at most
        #[arg(long, short = 'n', value_name = "N", default_value_t = FIRE_TIMES_LISTED_DEFAULT, value_parser = clap::value_parser!(u16).range(1..=i64::from(FIRE_TIMES_LISTED_MAX)))]
        limit: u16,
        /// Print them as JSON
        #[arg(long)]
        json: bool,
    },
}

/// What can be done with backfills.
#[derive(Debug, Subcommand)]
pub enum BackfillCommand {
    /// Start one, and print its id
    Start(BackfillStart),
    /// Show how one stands: its partitions by what became of them, and which failed and why
    Status(OneBackfill),
    /// List them, the newest first
    List(Backfills),
    /// Follow one until nothing of it is in flight and nothing more is released
    Watch(OneBackfill),
    /// Release nothing more of one for now; what is in flight goes on
    Pause(NamedBackfill),
    /// Let one that is paused or halted go on
    Resume(NamedBackfill),
    /// Release what failed of one once more, with the newest version of the pipeline
    Retry(NamedBackfill),
    /// End one: nothing more is released, and its runs are cancelled
    Cancel(NamedBackfill),
}

/// One backfill to do something to.
#[derive(Debug, Args)]
pub struct NamedBackfill {
    /// The backfill: its id, the beginning of it, or latest
    #[arg(value_name = "BACKFILL")]
    pub backfill: String,
}

/// Of `backfill start`.
#[derive(Clone, Debug, Args)]
pub struct BackfillStart {
    /// A manifest, a folder that holds flowstone.toml, or the name of a deployed pipeline
    #[arg(value_name = "PIPELINE")]
    pub pipeline: String,
    /// The assets that are wanted; they must have the same partitions [default: all that are partitioned]
    #[arg(value_name = "ASSET")]
    pub assets: Vec<String>,
    /// A partition that is wanted, or a range such as 2012-01..2012-06; may be repeated [default: all]
    #[arg(long = "partition", short, value_name = "KEY")]
    pub partitions: Vec<String>,
    /// Begin with the last partitions [default: with the first]
    #[arg(long)]
    pub newest_first: bool,
    /// How many partitions may be in flight
    #[arg(long, short, value_name = "N", default_value_t = BACKFILL_CONCURRENCY_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=i64::from(BACKFILL_CONCURRENCY_MAX)))]
    pub concurrency: u32,
    /// Release nothing more once this many partitions have failed [default: go on]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub halt_after: Option<u32>,
    /// Leave what the assets need as it is, and halt where it is not there
    #[arg(long)]
    pub no_inputs: bool,
    /// Make the partitions anew even where they are up to date
    #[arg(long)]
    pub force: bool,
    /// Start nothing: print what would be made, and why
    #[arg(long)]
    pub dry_run: bool,
    /// Print what would be made as JSON
    #[arg(long, requires = "dry_run")]
    pub json: bool,
}

/// One backfill to look at.
#[derive(Debug, Args)]
pub struct OneBackfill {
    /// The backfill: its id, the beginning of it, or latest
    #[arg(value_name = "BACKFILL", default_value = "latest")]
    pub backfill: String,
    /// Print it as JSON
    #[arg(long)]
    pub json: bool,
}

/// Of `backfill list`.
#[derive(Debug, Args)]
pub struct Backfills {
    /// Only those of this pipeline: its name, or its manifest
    #[arg(value_name = "PIPELINE")]
    pub pipeline: Option<String>,
    /// How many at most
    #[arg(long, short = 'n', value_name = "N", default_value_t = BACKFILLS_LISTED_DEFAULT, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub limit: u16,
    /// Print them as JSON
    #[arg(long)]
    pub json: bool,
}

/// What can be done with registered resources.
#[derive(Debug, Subcommand)]
pub enum ResourceCommand {
    /// Register the resources that a file declares, in place of what had the same names
    Add {
        /// A manifest, or a file that declares nothing but resources
        file: PathBuf,
        /// Only these [default: all]
        names: Vec<String>,
    },
    /// List what is registered
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Forget a resource
    Remove {
        /// Its name
        name: String,
    },
}

/// What can be done with quotas.
#[derive(Debug, Subcommand)]
pub enum QuotaCommand {
    /// Make a quota, or change it; what was used in a period of the same length stays used
    Set {
        /// Of what
        measure: Measure,
        /// How much: 10T of fuel, 500GiB
        amount: String,
        /// In which time
        #[arg(long, value_name = "PERIOD")]
        per: Period,
    },
    /// List quotas: how much is used, and who waits
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a quota
    Remove {
        /// Of what
        measure: Measure,
    },
}

/// What a quota is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Measure {
    /// Units of fuel
    Fuel,
    /// Bytes of outputs
    Bytes,
}

impl Measure {
    /// As it is stored.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fuel => "fuel",
            Self::Bytes => "bytes",
        }
    }
}

/// Of a quota, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Period {
    /// From one full hour to the next
    Hour,
    /// From midnight to midnight
    Day,
    /// From the first of a month to the next
    Month,
}

impl Period {
    /// As it is stored.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }
}

/// What can be done with quarantined components.
#[derive(Debug, Subcommand)]
pub enum QuarantineCommand {
    /// List them: their assets, and how many workers were lost
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Let one run again
    Lift {
        /// Its digest, or the beginning of it
        component: String,
    },
}

/// What can be done with pools.
#[derive(Debug, Subcommand)]
pub enum PoolCommand {
    /// Let so many of its jobs run at once from now on; what runs already goes on to its end
    Set {
        /// A name, resource:NAME, or tenant
        name: String,
        /// Jobs at once
        size: u32,
    },
    /// List pools: their sizes, who runs and who waits
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a pool: what named it runs without its bound
    Remove {
        /// Its name
        name: String,
    },
}

/// What can be done with sealed secrets.
#[derive(Debug, Subcommand)]
pub enum SecretCommand {
    /// Seal what stdin holds, in place of an earlier secret of the name
    Set {
        /// Its name, that of the resource
        name: String,
    },
    /// List their names
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Forget a secret
    Remove {
        /// Its name
        name: String,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        CommandLine::try_parse_from(line.split_whitespace()).map(|line| line.command)
    }

    #[test]
    fn verify_cli() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn assets_and_partitions_may_be_repeated() {
        let Command::Run(run) = parse("flowstone run weather a b -p 2012-01 --partition 2012-02 --force").unwrap()
        else {
            panic!("another command was parsed")
        };
        assert_eq!(run.selection.pipeline, "weather");
        assert_eq!(run.selection.assets, ["a", "b"]);
        assert_eq!(run.selection.partitions, ["2012-01", "2012-02"]);
        assert!(run.selection.force && !run.selection.no_inputs && !run.how.json);
    }

    #[test]
    fn flags_of_every_command_stand_anywhere() {
        for line in ["flowstone --state /s runs", "flowstone runs --state /s"] {
            let parsed = CommandLine::try_parse_from(line.split_whitespace()).unwrap();
            assert_eq!(parsed.global.state, std::path::Path::new("/s"), "{line}");
        }
    }

    #[track_caller]
    fn check_refused(line: &str, expected: &str) {
        let error = parse(line).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line}");
        assert!(error.to_string().contains(expected), "{error}");
    }

    #[test]
    fn mistakes_are_refused() {
        check_refused("flowstone", "Usage");
        check_refused("flowstone rnu weather", "run");
        check_refused("flowstone run", "<PIPELINE>");
        check_refused("flowstone run weather --force --force-all", "cannot be used with");
        check_refused("flowstone run weather --concurrency 0", "--concurrency");
        check_refused("flowstone lineage weather a --up --down", "cannot be used with");
        check_refused("flowstone lineage weather a --depth=-1", "--depth");
        check_refused("flowstone logs latest --partition 2012", "<ASSET>");
        check_refused("flowstone runs --limit 1001", "1..=1000");
        check_refused("flowstone cancel", "<RUN>");
        check_refused("flowstone schedule enable weather", "<NAME>");
        check_refused("flowstone schedule next weather nightly -n 0", "1..=1000");
        check_refused("flowstone backfill start", "<PIPELINE>");
        check_refused("flowstone backfill start weather --concurrency 0", "1..=10000");
        check_refused("flowstone backfill start weather --halt-after 0", "1..=1000000");
        check_refused("flowstone backfill cancel", "<BACKFILL>");
        check_refused("flowstone graph weather --format png", "mermaid");
    }

    #[test]
    fn every_command_says_what_it_does_in_one_line_and_shows_an_example() {
        for command in CommandLine::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let name = command.get_name();
            let about = command.get_about().unwrap_or_else(|| panic!("{name} says nothing")).to_string();
            assert!(!about.contains('\n') && !about.ends_with('.'), "{name}: {about}");
            let long = command.get_long_about().map(ToString::to_string).unwrap_or_default();
            assert!(long.contains(&format!("flowstone {name}")), "{name} has no example");
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{name} does not explain {}", argument.get_id());
            }
        }
    }
}
