//! Every bound, with the reason for its value.
//!
//! What a guest or a client controls has a bound here: each list, string, size, count and duration. Bounds that an
//! operator sets per asset are in [`crate::pipeline::manifest`]; their defaults and ceilings are here.

use std::time::Duration;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

// ---- blob ----

/// Outputs up to this size are written in the commit itself: a row costs less than a file with its two syncs, and
/// Postgres moves values past 2 KiB out of the row, so that larger ones do not slow scans down.
pub const INLINE_OUTPUT_BYTES_MAX: usize = 16 << 10;

/// How much moves through a file at a time while hashing: large enough that the hash, not the call, takes the time.
pub const COPY_BUFFER_BYTES: usize = 256 << 10;

/// Blobs up to this size are one request to an object store, larger ones so many of this size: S3 wants at least 5 MiB,
/// and at 16 the time goes into bytes, not into requests.
pub const BLOB_PART_BYTES: usize = 16 << 20;
/// Parts of one object: what S3 allows. Of a blob that would need more of them, parts are larger.
pub const BLOB_PARTS_MAX: u64 = 10_000;
/// Bytes of uploads that a process holds in memory, and so how many parts are under way at once.
pub const BLOB_UPLOAD_BYTES_MAX: usize = 8 * BLOB_PART_BYTES;
/// What the first read of an object fetches at least: less costs as much time.
pub const BLOB_AHEAD_BYTES_MIN: usize = 64 << 10;
/// What a read in order fetches at a time, once it has gone on for a while.
pub const BLOB_AHEAD_BYTES_MAX: usize = 1 << 20;
/// What the readers of one attempt may have fetched ahead together, more or less: eight inputs that are merged are read
/// at full speed, and 256 open readers cost no quarter of a gigabyte.
pub const BLOB_AHEAD_BYTES_PER_ATTEMPT: usize = 8 << 20;
/// Objects that are looked for at once: a plan asks for thousands.
pub const BLOB_LOOKUPS_MAX: usize = 64;
/// Connections to one object store that wait for a request.
pub const BLOB_CONNECTIONS_KEPT_MAX: usize = 32;
/// Until a connection to an object store is there: on another continent it takes half a second.
pub const BLOB_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long nothing may move on a connection to an object store: none that works is silent for as long.
pub const BLOB_PATIENCE: Duration = Duration::from_secs(20);
/// A request that failed is tried again so often...
pub const BLOB_RETRIES_MAX: usize = 5;
/// ...first after about this...
pub const BLOB_RETRY_WAIT: Duration = Duration::from_millis(100);
/// ...and not when so much time is gone: then it is the job that is tried again.
pub const BLOB_RETRY_BUDGET: Duration = Duration::from_secs(20);
/// Bytes a second at least, beyond what waiting and trying again may take: a slower line is as good as none.
pub const BLOB_RATE_MIN: u64 = 64 << 10;
/// An attempt that has waited for the object store for so long when its time is up is not blamed for it: one that works
/// answers within a tenth.
pub const BLOB_SLOW: Duration = Duration::from_secs(5);

// ---- names and definitions (what `describe` may return) ----

/// Assets that one component may describe: more would not fit a picture, or a person.
pub const ASSETS_PER_COMPONENT_MAX: usize = 1_024;
/// Assets in one pipeline.
pub const ASSETS_PER_PIPELINE_MAX: usize = 10_000;
/// Bytes of a name of an asset, an input, a dimension or a resource: fits a file name and a table cell.
pub const NAME_BYTES_MAX: usize = 64;
/// Bytes of an asset's description.
pub const DESCRIPTION_BYTES_MAX: usize = 4 << 10;
/// Bytes of a requirement's reason: one sentence.
pub const REASON_BYTES_MAX: usize = 512;
/// Parameters of one asset: more would not fit a section of a manifest.
pub const PARAMETERS_PER_ASSET_MAX: usize = 64;
/// Bytes of a media type: twice what RFC 6838 allows for a type and a subtype, less the names nobody uses.
pub const MEDIA_TYPE_BYTES_MAX: usize = 127;
/// Inputs of one asset.
pub const INPUTS_PER_ASSET_MAX: usize = 64;
/// Requirements of one asset.
pub const REQUIREMENTS_PER_ASSET_MAX: usize = 32;
/// Dimensions of one asset: keys multiply, and nobody reads five-dimensional tables.
pub const DIMENSIONS_PER_ASSET_MAX: usize = 4;
/// Tags of one asset.
pub const TAGS_PER_ASSET_MAX: usize = 64;
/// Keys of one static dimension.
pub const STATIC_KEYS_MAX: usize = 10_000;
/// Bytes of one partition key of one dimension.
pub const PARTITION_KEY_BYTES_MAX: usize = 256;
/// Partitions that one asset may have, over all its dimensions: a million rows is what a plan holds in memory.
pub const PARTITIONS_PER_ASSET_MAX: usize = 1_000_000;
/// Bytes of a field's name.
pub const FIELD_NAME_BYTES_MAX: usize = 128;
/// Bytes of a field's value.
pub const FIELD_VALUE_BYTES_MAX: usize = 8 << 10;
/// Fields in one list.
pub const FIELDS_MAX: usize = 64;
/// Bytes kept of a message that a guest gives as its reason.
pub const MESSAGE_BYTES_MAX: usize = 8 << 10;

// ---- an asset's own limits: what the manifest may leave out, and what it may not exceed ----

/// Fuel of one attempt when the manifest is silent: about ten seconds of plain code.
pub const FUEL_DEFAULT: u64 = 10_000_000_000;
/// No attempt may have more: about a week.
pub const FUEL_MAX: u64 = 1_000_000_000_000_000;
/// Linear memory of one attempt, summed over all its memories: a Python guest starts with 16 MiB.
pub const MEMORY_BYTES_DEFAULT: u64 = 256 * MIB;
/// Less does not start a component of any interpreted language.
pub const MEMORY_BYTES_MIN: u64 = MIB;
/// What a 32-bit memory can address.
pub const MEMORY_BYTES_MAX: u64 = 4 * GIB;
/// Wall clock of one attempt.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// Shorter ones would fail on a busy machine for no fault of the guest.
pub const TIMEOUT_MIN: Duration = Duration::from_millis(10);
/// A day: what runs longer should be partitioned.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);
/// Bytes of one output.
pub const OUTPUT_BYTES_DEFAULT: u64 = GIB;
/// No output is larger: the largest object that one S3 request may copy.
pub const OUTPUT_BYTES_MAX: u64 = 5 * 1024 * GIB;
/// Bytes of log kept of one attempt.
pub const LOG_BYTES_DEFAULT: u64 = 64 * KIB;
/// The log is stored in the attempt's row.
pub const LOG_BYTES_MAX: u64 = MIB;
/// Attempts of a job when the manifest is silent.
pub const ATTEMPTS_DEFAULT: u32 = 3;
/// Attempts a manifest may ask for.
pub const ATTEMPTS_MAX: u32 = 100;
/// The longest wait between two attempts that a manifest may ask for.
pub const RETRY_WAIT_MAX: Duration = Duration::from_secs(24 * 3600);
/// Bytes that one attempt may stage in writes to a directory when the manifest is silent.
pub const WRITE_BYTES_DEFAULT: u64 = GIB;

// ---- store ----

/// Connections of one process: the claimer, the committer, the heartbeat, the planner and a few readers. One more hears what
/// is announced.
pub const DATABASE_CONNECTIONS_MAX: usize = 7;
/// How long a connection is kept that nobody uses: a burst of work leaves more behind than quiet times need.
pub const DATABASE_IDLE_MAX: Duration = Duration::from_secs(10 * 60);
/// How old a connection grows: its server process keeps what it has learned of tables and statements, and never less.
pub const DATABASE_CONNECTION_AGE_MAX: Duration = Duration::from_secs(30 * 60);
/// How long a server that refuses connections, or is starting, is left alone before the next try.
pub const DATABASE_CONNECT_RETRY: Duration = Duration::from_millis(50);
/// How often it is looked whether connections in use have come back, when all are to be closed.
pub const DATABASE_CLOSE_POLL: Duration = Duration::from_millis(5);
/// How long a statement waits for a connection before the database counts as gone.
pub const DATABASE_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a statement may take until all of its answer is there; then it counts as lost, and its connection is closed. The
/// longest ones, of a plan of 100,000 partitions, take a tenth of it.
pub const DATABASE_ANSWER_WAIT: Duration = Duration::from_secs(30);
/// How long a connection may have been idle and is lent without being asked whether it is still there: a question takes as
/// long as a statement, and whoever works asks far more often than this.
pub const DATABASE_PING_AFTER: Duration = Duration::from_secs(1);
/// How long a connection that nobody used may take to say that it is still there; then another one is opened, which
/// [`DATABASE_CONNECT_TIMEOUT`] leaves time for.
pub const DATABASE_PING_WAIT: Duration = Duration::from_secs(2);
/// How long a connection that was used may take to be undone and given back; then it is closed.
pub const DATABASE_RETURN_WAIT: Duration = Duration::from_secs(5);
/// How long another process may take to bring the tables up to date: indexes on large tables take minutes.
pub const MIGRATIONS_WAIT: Duration = Duration::from_secs(30 * 60);
/// How long nothing may be announced before the connection is asked whether it is there.
pub const LISTENED_IN_SILENCE_MAX: Duration = Duration::from_secs(30);
/// Days of history made at a time, yesterday among them: each is a partition that every look-up by another key visits.
pub const HISTORY_DAYS_AHEAD: i32 = 4;
/// Rows that one insert carries: some megabytes of parameters.
pub const INSERT_ROWS_MAX: usize = 5_000;
/// Rows that one listing returns.
pub const LIST_ROWS_MAX: i64 = 1_000;
/// A worker renews its session this often...
pub const SESSION_BEAT: Duration = Duration::from_secs(5);
/// ...again after this when that failed...
pub const SESSION_RETRY: Duration = Duration::from_secs(1);
/// ...and others take its jobs when it has not for this long: three missed beats and a slow answer.
pub const SESSION_EXPIRY: Duration = Duration::from_secs(20);
/// A worker that could not renew for this long stops its guests, before others may take their jobs.
pub const SESSION_FENCE: Duration = Duration::from_secs(15);
/// Jobs that one rescue moves: each is two rows, in one transaction.
pub const RESCUE_JOBS_MAX: i64 = 500;
/// Dependents of a job that its commit releases itself: a few milliseconds at most. Of a job that more wait for, they are
/// released afterwards, so that the commit of its batch does not wait for them...
pub const RELEASE_INLINE_MAX: i32 = 32;
/// ...at most this many in one transaction: some tenths of a second in which their rows are locked.
pub const RELEASE_BATCH_MAX: i64 = 4_000;
/// Jobs whose dependents one such transaction may release, where each has few.
pub const RELEASE_NOTES_MAX: i64 = 1_000;
/// Jobs that end with the live jobs they had joined, in one commit: as with dependents, some tenths of a second. Whoever
/// is past that is found by the sweep.
pub const JOINED_ENDED_MAX: i64 = 4_000;
/// Joined jobs that one sweep looks at, each time that it is looked for releases: about ten milliseconds of reading.
pub const JOINED_SWEPT_MAX: i64 = 2_000;
/// Nodes of one lineage walk: more cannot be drawn, and a walk must not hold the database's memory.
pub const LINEAGE_NODES_MAX: usize = 10_000;

// ---- backfills ----

/// Partitions of a backfill that are in flight when nothing else is asked for: enough for the slots of a few workers, and
/// few enough that a pause or a halt takes hold soon.
pub const BACKFILL_CONCURRENCY_DEFAULT: u32 = 100;
/// Partitions of a backfill that may be in flight: each window is planned and written in one go, which takes a second.
pub const BACKFILL_CONCURRENCY_MAX: u32 = 10_000;
/// Ranges that the partitions of a backfill may be: their text is a megabyte, and is read for each window.
pub const BACKFILL_RANGES_MAX: usize = 50_000;
/// How often a process looks for backfills while none is running.
pub const BACKFILL_POLL: Duration = Duration::from_millis(250);
/// How often it looks while one is: a window of a hundred small jobs ends within this.
pub const BACKFILL_BUSY_POLL: Duration = Duration::from_millis(50);
/// How often a command that watches a backfill looks at it: a person does not see more.
pub const BACKFILL_WATCH_POLL: Duration = Duration::from_millis(250);
/// Ended windows of a backfill that one look counts: others wait, and the next look comes soon.
pub const BACKFILL_WINDOWS_SETTLED_MAX: i64 = 100;
/// Bytes kept of why partitions failed: the whole of it is with their jobs.
pub const BACKFILL_CAUSE_BYTES_MAX: usize = 1 << 10;
/// Ranges of failed partitions that a status shows: a screen.
pub const BACKFILL_FAILURES_SHOWN_MAX: i64 = 20;
/// Backfills that are listed when nothing else is asked for: a screen.
pub const BACKFILLS_LISTED_DEFAULT: u16 = 20;

// ---- retention ----

/// Days that history is kept when nothing else is said: what is asked about a run is asked within weeks, and each day is
/// four tables that every look-up by another key visits.
pub const KEEP_HISTORY_DAYS: u32 = 30;
/// How long blobs that nothing names are left alone: the longest attempt, and an hour. A commit that comes later still
/// loses nothing but its attempt.
pub const KEEP_UNNAMED: Duration = Duration::from_secs(25 * 3600);
/// Materializations of a partition that can be asked to be kept, short of all: a million were never made of one.
pub const KEEP_MATERIALIZATIONS_MAX: u32 = 1_000_000;
/// Days that anything can be kept, short of for ever.
pub const KEEP_DAYS_MAX: u32 = 36_500;
/// How often a process that is up collects: what goes is a day or more old.
pub const COLLECT_INTERVAL: Duration = Duration::from_secs(3600);
/// The wait after trouble, and until a collection of another process is looked at again.
pub const COLLECT_TROUBLE_WAIT: Duration = Duration::from_secs(10);
/// How long nobody else collects after a collector was last heard of: longer than any one of its steps.
pub const COLLECTOR_LEASE: Duration = Duration::from_secs(120);
/// A collector deletes no bytes unless it was confirmed in this time: the rest of the lease is for deletions that are on
/// their way.
pub const COLLECTOR_FENCE: Duration = Duration::from_secs(20);
/// Rows that one step of a collection removes: some tenths of a second.
pub const COLLECT_ROWS_MAX: i64 = 5_000;
/// Blobs that one step condemns: each step reads all materializations twice.
pub const COLLECT_BLOBS_MAX: i64 = 20_000;
/// Partitions that one step looks through for materializations that expire: with hundreds of older ones in each, a second
/// or two of the database's.
pub const COLLECT_PARTITIONS_MAX: i64 = 5_000;
/// Materializations that expire in one transaction.
pub const COLLECT_EXPIRED_MAX: i64 = 20_000;
/// Pages of a listing of blobs that are looked at together: up to a thousand blobs each, and some seconds with an object
/// store that is slow.
pub const COLLECT_PAGES_AT_ONCE: usize = 16;
/// Blobs that are deleted at once: an object store takes its time for each.
pub const COLLECT_DELETES_AT_ONCE: usize = 16;
/// Times that days of history are tried whose tables are in use...
pub const DROP_DAYS_ROUNDS: usize = 10;
/// ...each after this: who works must get on in between.
pub const DROP_DAYS_WAIT: Duration = Duration::from_millis(500);

// ---- schedules ----

/// Schedules of one pipeline: more would not fit a screen, and each is looked at by every process.
pub const SCHEDULES_PER_PIPELINE_MAX: usize = 100;
/// Bytes of a cron pattern: every minute of an hour, listed one by one, has 169.
pub const CRON_BYTES_MAX: usize = 256;
/// Missed fires that a schedule may catch up on: each is a run with a plan of its own.
pub const CATCH_UP_MAX: u32 = 1_000;
/// A fire that is decided later than this after its time counts as missed: a restart and a failover take less.
pub const MISFIRE_GRACE: Duration = Duration::from_secs(60);
/// How often a process looks for schedules that are due: patterns name seconds.
pub const SCHEDULE_POLL: Duration = Duration::from_millis(250);
/// Schedules that one look decides: the next look comes at once when there were as many.
pub const SCHEDULES_DECIDED_MAX: i64 = 100;
/// How long the plan of one fire may take, with the look at its directories: a million partitions take some seconds, and
/// other schedules wait.
pub const SCHEDULE_PLAN_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// Times that processes try to submit the run of a fire: after that, it is the fire's fault that they cannot or die.
pub const FIRE_TRIES_MAX: i32 = 100;
/// The wait after trouble with the database.
pub const SCHEDULE_TROUBLE_WAIT: Duration = Duration::from_secs(1);
/// Bytes kept of why a fire could not be submitted.
pub const FIRE_ERROR_BYTES_MAX: usize = 4 << 10;
/// Fire times that one command lists.
pub const FIRE_TIMES_LISTED_MAX: u16 = 1_000;
/// Fire times that are listed when nothing else is asked for.
pub const FIRE_TIMES_LISTED_DEFAULT: u16 = 5;

// ---- runner ----

/// The first wait after a host fault: most pass at once...
pub const HOST_FAULT_WAIT_BASE: Duration = Duration::from_millis(200);
/// ...and a disk that stays full is looked at this often.
pub const HOST_FAULT_WAIT_MAX: Duration = Duration::from_secs(30);
/// The queue of an asset whose manifest names none.
pub const QUEUE_DEFAULT: &str = "default";
/// The highest priority, and below zero the lowest: each is a lane of its own, and nobody keeps more apart.
pub const PRIORITY_MAX: i16 = 9;
/// Tags that an asset can ask of its workers: each set is a lane of its own.
pub const WORKER_TAGS_MAX: usize = 8;
/// Pools that an asset may name: each is a row that whoever claims one of its jobs holds for a moment.
pub const POOLS_PER_ASSET_MAX: usize = 8;
/// Permits of one pool: with more than that many guests at once, on a thousand machines, nothing is limited.
pub const POOL_SIZE_MAX: u32 = 1_000_000;
/// Jobs that are woken at once because a pool has permits left: those that come too late wait again, and cost a claim.
pub const LIMITED_WOKEN_MAX: i64 = 1_000;
/// How often it is looked for permits that nobody was told of: of workers that died, whose jobs waited longer already.
pub const LIMITED_POLL: Duration = Duration::from_secs(1);
/// Workers that die with a component, one after the other and nothing of it completed meanwhile, before it is quarantined.
/// Each is found when its session expires, so this is about two minutes of nothing but deaths.
pub const QUARANTINE_DEATHS: i64 = 6;
/// How long a death is held against a component of which no attempt completes: longer than so many of the longest attempts.
pub const DEATHS_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Jobs that one process claims ahead of its guests' threads: what [`CLAIM_AHEAD`] of the shortest jobs use up.
pub const CLAIM_AHEAD_MAX: usize = 2_048;
/// The work that is claimed ahead, as time: what a job that comes now waits at most behind those of other tenants that
/// are claimed already. A claim and its look-ups take some milliseconds whatever they carry: with half of this they are
/// twice as many, and a worker does a tenth less.
pub const CLAIM_AHEAD: Duration = Duration::from_millis(100);
/// Jobs that one commit carries: past that, statements and fsync are shared by enough, and whoever waits for one of these
/// jobs waits for all. With twice as many a worker does a fiftieth more.
pub const COMMIT_JOBS_MAX: usize = 500;
/// Commits of one process under way at a time: one has the disk, the other the database's processor. With a single one
/// both stand still in turn, and a worker does a fifth less; a third finds nothing left to use.
pub const COMMITS_AT_ONCE: usize = 2;
/// Bytes of inline blobs that the inputs of one job may bring into memory; more goes through the blob store.
pub const INLINE_INPUT_BYTES_MAX: u64 = 8 * MIB;
/// Empty claims wait this long at first...
pub const CLAIM_WAIT_MIN: Duration = Duration::from_millis(5);
/// ...and this long at most: the floor under the latency of work that another process submits.
pub const CLAIM_WAIT_MAX: Duration = Duration::from_millis(250);
/// How often a process that has lanes to claim from looks for others: what a job of a new lane waits beside a million of
/// another, and one look takes as long as claiming a job.
pub const LANE_SEARCH: Duration = Duration::from_millis(5);
/// How often lanes are scanned from their start, for rows that came to them late.
pub const CLAIM_SWEEP: Duration = Duration::from_millis(250);
/// How often runs are looked at for a request to cancel them.
pub const CANCEL_POLL: Duration = Duration::from_millis(100);
/// How often deferred jobs are looked at.
pub const PROMOTE_POLL: Duration = Duration::from_millis(100);
/// Deferred jobs that are promoted at a time.
pub const PROMOTE_JOBS_MAX: i64 = 1_000;
/// How often it is looked for jobs whose dependents another process has left unreleased: no run waits for it otherwise.
pub const RELEASE_POLL: Duration = Duration::from_secs(1);
/// Inputs of claimed jobs that are looked up at a time.
pub const INPUTS_LOADED_MAX: usize = 10_000;
/// Inputs of claimed jobs that a process holds, from their look-up to the commit of the last edge: each takes about a
/// kilobyte. A job with more inputs than that is the only one.
pub const INPUTS_HELD_MAX: usize = 100_000;
/// An idempotency key: as long as those that clients of other services send. `submission_key_is_bounded` says the same.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// Times that a claimed job asks for the key of its recipe while the end of another job gives it up...
pub const LIVE_KEY_TRIES: usize = 5;
/// ...and how long it waits before it asks again: about as long as that commit takes.
pub const LIVE_KEY_WAIT: Duration = Duration::from_millis(5);
/// How long a job is put off that has asked so often: the database is busy, or away.
pub const LIVE_KEY_PUT_OFF: Duration = Duration::from_millis(200);
/// Times that an attempt is repeated because a directory changed while it read: then it changes all the time.
pub const SOURCE_CHANGES_MAX: i64 = 10;
/// Bytes that one commit carries, about: a message to Postgres ends at 1 GiB, and each is held twice while it is sent.
pub const COMMIT_BYTES_MAX: usize = 32 << 20;
/// How long a process that stops waits until its collection is given up: for one statement.
pub const COLLECT_STOP_WAIT: Duration = Duration::from_secs(5);
/// How long a process that stops waits for its last commit.
pub const STOP_COMMIT_WAIT: Duration = Duration::from_secs(30);
/// How long a claim whose answer was lost may still take effect once the database answers again: a server that stood still
/// finds it among what it has received, and notices a lost client at its next word.
pub const UNANSWERED_CLAIM_KEPT: Duration = Duration::from_secs(120);
/// How long guests may go on after a request to stop, unless the operator says otherwise: supervisors kill after 10 to
/// 90 seconds.
pub const STOP_GRACE: Duration = Duration::from_secs(10);
/// What an operator may say: no attempt takes longer.
pub const STOP_GRACE_MAX: Duration = TIMEOUT_MAX;
/// Staged files that are published at a time.
pub const PUBLISH_FILES_MAX: i64 = 1_000;
/// Definitions of assets that a worker keeps in memory.
pub const ASSETS_CACHED_MAX: usize = 10_000;

// ---- telemetry ----

/// Connections that ask for metrics or health at once: a scraper, a supervisor, a person, and their retries. Of more, the
/// oldest is closed, so that connections that say nothing keep nobody out.
pub const WATCH_CONNECTIONS_MAX: usize = 16;
/// How long one of them may take from its first byte to the last: a scraper waits ten seconds.
pub const WATCH_CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a request's head: the least that hyper reads into, and more than scrapers send.
pub const WATCH_HEAD_BYTES_MAX: usize = 8 << 10;
/// Headers of a request.
pub const WATCH_HEADERS_MAX: usize = 64;
/// How long what was read of the database for metrics is good: scrapers cannot load it, however many there are.
pub const QUEUE_DEPTH_KEPT: Duration = Duration::from_secs(1);
/// Rows of a table that are counted for metrics, a few milliseconds; past that, Postgres' own estimate is told.
pub const QUEUE_COUNT_MAX: i64 = 10_000;
/// How long a statement for metrics may run: many dead rows before the first live one make it slow.
pub const WATCH_STATEMENT_TIMEOUT: Duration = Duration::from_millis(500);
/// How long the database is waited for, a free connection included, before metrics and health say that it does not answer.
pub const WATCH_DATABASE_WAIT: Duration = Duration::from_secs(2);
/// How long what was found out about readiness is good: each time a file is written and removed.
pub const READINESS_KEPT: Duration = Duration::from_secs(3);
/// How long the blob store may take for that file.
pub const READINESS_BLOB_WAIT: Duration = Duration::from_secs(2);
/// Calls of capabilities that become spans, of one attempt: the first ones show what it does, and a guest that floods makes
/// no more.
pub const CALL_SPANS_MAX: usize = 64;
/// Spans that wait to be sent, a kilobyte each: some seconds of a worker at full speed. More are dropped.
pub const SPANS_QUEUED_MAX: usize = 8_192;
/// Spans in one request: what OpenTelemetry's own exporters send.
pub const SPANS_BATCH_MAX: usize = 512;
/// How long a span waits for others to be sent with.
pub const SPANS_GATHER: Duration = Duration::from_secs(1);
/// How long a collector may take for one request: what OpenTelemetry's own exporters wait.
pub const SPANS_EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a process that ends waits for its last spans to be sent.
pub const SPANS_FLUSH_WAIT: Duration = Duration::from_secs(2);
/// Bytes of one text of a span.
pub const SPAN_TEXT_BYTES_MAX: usize = 1_024;
/// A loop that has not turned for this long does not turn any more: each of its waits ends within a third of it.
pub const LOOP_TURN_MAX: Duration = Duration::from_secs(60);
// ---- pipeline ----

/// Bytes of a manifest: ten thousand assets with all their settings need a tenth of it.
pub const MANIFEST_BYTES_MAX: usize = 16 << 20;
/// Mistakes that one answer lists: nobody mends more in one go, and a hostile component could fill memory with them.
pub const DIAGNOSTICS_MAX: usize = 100;
/// Components that one pipeline binds: each is compiled and described at deploy.
pub const COMPONENTS_PER_PIPELINE_MAX: usize = 256;
/// Resources that one manifest declares.
pub const RESOURCES_PER_PIPELINE_MAX: usize = 1_024;
/// Bytes of an asset's configuration as JSON: it is stored with every version and copied into every attempt.
pub const CONFIG_BYTES_MAX: usize = 64 << 10;
/// Globs of one grant: each is tried on each file.
pub const GRANT_PATHS_MAX: usize = 64;
/// Bytes of one glob of a grant: as long as the longest path that `files` accepts.
pub const GRANT_PATH_BYTES_MAX: usize = 1_024;
/// The longest time that an effectful result may be declared good for: longer is not a cache but an archive.
pub const FRESH_FOR_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// Partitions in one fixed mapping: a longer list is a mapping that has not been thought of.
pub const FIXED_PARTITIONS_MAX: usize = 1_024;
/// Bytes of the canonical text of a partition: it is part of indexes, and a btree entry ends at 2,704 bytes.
pub const PARTITION_KEY_TEXT_BYTES_MAX: usize = 2_048;
/// Partitions whose newest results a plan looks up one by one. Of more, it reads all that their assets have.
pub const LATEST_LOOKED_UP_MAX: u64 = 20_000;
/// Partitions that one plan considers, over all assets: each costs some 300 bytes while the plan is made.
pub const PLAN_PARTITIONS_MAX: usize = 2_000_000;
/// Inputs of all jobs of one plan, some 60 bytes each: `all` between two large assets multiplies, and must end
/// somewhere.
pub const PLAN_INPUTS_MAX: usize = 10_000_000;
/// Names that a message lists before it says how many more there are.
pub const NAMES_SHOWN_MAX: usize = 10;
// ---- embedded ----

/// Oldest major version of Postgres whose programs are used: that of Debian 12, the oldest that the tests run on.
pub const POSTGRES_MAJOR_MIN: u32 = 15;
/// How long a server may take until it answers: it may have a crash to recover from, and no more than
/// `max_wal_size` to read for it.
pub const SERVER_START_WAIT_MAX: Duration = Duration::from_secs(120);
/// How long a server may take to stop: its last checkpoint writes at most `shared_buffers`.
pub const SERVER_STOP_WAIT_MAX: Duration = Duration::from_secs(30);
/// Between two looks whether a server answers or a lock is free: a start takes tens of milliseconds.
pub const SERVER_POLL_INTERVAL: Duration = Duration::from_millis(3);
/// The longest pause before a server that ended by itself is started again.
pub const SERVER_RESTART_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long a state directory that is in use is waited for: `flowstone status` owns it for a fraction of a second,
/// and should not fail a `flowstone run` that starts meanwhile.
pub const STATE_LOCK_WAIT_MAX: Duration = Duration::from_secs(2);
/// A server's log that has grown past this is set aside at the next start, in place of the one set aside before.
pub const SERVER_LOG_BYTES_MAX: u64 = 4 * MIB;
/// How much of a log's end is searched for the reason of a failure.
pub const SERVER_LOG_TAIL_BYTES: u64 = 16 * KIB;
/// Bytes of the path of a unix socket: `sun_path` of Linux, less its final NUL.
pub const SOCKET_PATH_BYTES_MAX: usize = 107;
/// Connections that the embedded server accepts: several pools of one machine.
pub const SERVER_CONNECTIONS_MAX: u32 = 100;

// ---- config ----

/// Guests that one process runs at a time, at most: each holds a thread and its asset's memory limit.
pub const CONCURRENCY_MAX: usize = 1_024;
// ---- capability ----

/// Bytes that one call into the host moves: large enough that the copy, not the call, takes the time.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;
/// Readers that an attempt has open at once; each may hold a file descriptor.
pub const READERS_OPEN_MAX: usize = 256;
/// Denials kept of one attempt: enough to see what it wanted, and a loop of them fits a row.
pub const DENIALS_MAX: usize = 64;
/// Kinds of use that one capability keeps apart in one attempt: a few kilobytes of its row; targets past that are
/// counted together.
pub const USES_MAX: usize = 256;
/// Bytes kept of a name or path that a guest asked for.
pub const DENIED_NAME_BYTES_MAX: usize = 256;
/// Bytes of a secret: several keys and certificates fit, and an attempt that may know it holds it in memory.
pub const SECRET_BYTES_MAX: usize = 16 << 10;
/// Secrets shorter than this are not masked in what a guest says: they would hide ordinary words.
pub const MASKED_BYTES_MIN: usize = 4;
/// Bytes of one line of log; the rest of it is cut off.
pub const LOG_LINE_BYTES_MAX: usize = 8 << 10;
/// What a line of log costs beside its text, so that empty lines end too.
pub const LOG_LINE_OVERHEAD_BYTES: u64 = 32;
/// Bytes that a guest may write to its standard output or error in one call.
pub const STREAM_WRITE_BYTES_MAX: usize = 64 << 10;
/// Bytes of a path within a granted directory.
pub const PATH_BYTES_MAX: usize = 1_024;
/// Bytes of one name in such a path: the file systems of Linux have no longer ones, and what cannot be published must
/// not be staged.
pub const FILE_NAME_BYTES_MAX: usize = 255;
/// Folders within folders of a granted directory that are looked into.
pub const DIRECTORY_DEPTH_MAX: usize = 32;
/// Files and folders looked at below one granted directory: a listing of more would hold a guest thread for seconds.
pub const DIRECTORY_ENTRIES_MAX: usize = 100_000;
/// Entries that one call lists.
pub const ENTRIES_PER_CALL_MAX: usize = 1_000;
/// Files of mounted directories that an attempt has open at once; each holds a descriptor.
pub const MOUNTED_FILES_OPEN_MAX: usize = 256;
/// Files that one attempt may write or remove, over all its directories; each may hold a descriptor and a buffer.
pub const STAGED_FILES_MAX: usize = 256;
/// Of these in one directory, when the manifest is silent: all of them.
pub const STAGED_FILES_DEFAULT: u32 = STAGED_FILES_MAX as u32;
/// A file that changed this recently may change again within the same tick of its clock: its digest is not remembered.
pub const FINGERPRINT_SETTLE: Duration = Duration::from_secs(2);
/// Files whose digests are remembered.
pub const FINGERPRINTS_KEPT_MAX: usize = 100_000;
/// How far the logical monotonic clock advances each time it is read, in nanoseconds.
pub const CLOCK_STEP_NANOS: u64 = 1_000;
/// Bytes of randomness that one call returns.
pub const RANDOM_BYTES_MAX: u64 = 1 << 20;

// ---- http ----

/// Bytes of a URL, a base or a whole one: what servers and proxies commonly accept.
pub const HTTP_URL_BYTES_MAX: usize = 8 << 10;
/// Headers that a grant may name, a guest may send with one request, and an answer may have.
pub const HTTP_HEADERS_MAX: usize = 64;
/// Networks that one resource may name.
pub const HTTP_NETWORKS_MAX: usize = 64;
/// Credentials of one resource: a header and a parameter, and room for odd ones.
pub const HTTP_CREDENTIALS_MAX: usize = 8;
/// Bytes of the certificate authorities of one resource: a bundle of all that browsers trust has 220 KiB.
pub const HTTP_CA_BYTES_MAX: usize = 512 << 10;
/// Until a connection is there, when the manifest is silent.
pub const HTTP_CONNECT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// Until an answer begins, when the manifest is silent.
pub const HTTP_FIRST_BYTE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Of one request, when the manifest is silent: what clients commonly have.
pub const HTTP_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// The longest of these that a manifest may ask for: an attempt rarely lasts longer.
pub const HTTP_TIMEOUT_MAX: Duration = Duration::from_secs(3600);
/// Requests of one attempt, when the manifest is silent.
pub const HTTP_REQUESTS_DEFAULT: u32 = 100;
/// Requests of one attempt: each answer leaves a digest of 32 bytes until the attempt ends.
pub const HTTP_REQUESTS_MAX: u32 = 100_000;
/// Requests and open answers at once, when the manifest is silent.
pub const HTTP_IN_FLIGHT_DEFAULT: u32 = 4;
/// Requests and open answers at once: each is a connection, a descriptor and its buffers.
pub const HTTP_IN_FLIGHT_MAX: u32 = 64;
/// Of one request's body, when the manifest is silent.
pub const HTTP_REQUEST_BYTES_DEFAULT: u64 = MIB;
/// Of one request's body: the host holds it whole, so that it can be sent again, and one call moves no more.
pub const HTTP_REQUEST_BYTES_MAX: u64 = 8 * MIB;
/// Of the headers of a request and the head of an answer, when the manifest is silent.
pub const HTTP_HEADER_BYTES_DEFAULT: u64 = 16 * KIB;
/// Of the headers of a request and the head of an answer: held in memory for each open answer.
pub const HTTP_HEADER_BYTES_MAX: u64 = 64 * KIB;
/// Of one answer's body, when the manifest is silent.
pub const HTTP_RESPONSE_BYTES_DEFAULT: u64 = 16 * MIB;
/// Of one answer's body: it is streamed, so only time and the other side's patience bound it.
pub const HTTP_RESPONSE_BYTES_MAX: u64 = 64 * GIB;
/// Times that the host sends a request again, when the manifest is silent: three requests in all.
pub const HTTP_RETRIES_DEFAULT: u32 = 2;
/// Times that the host sends a request again: past that, the job's own retry policy is the better place.
pub const HTTP_RETRIES_MAX: u32 = 10;
/// The first wait before a request is sent again; each further one is twice as long...
pub const HTTP_RETRY_WAIT_BASE: Duration = Duration::from_millis(100);
/// ...up to this.
pub const HTTP_RETRY_WAIT_MAX: Duration = Duration::from_secs(10);
/// The longest `retry-after` that is waited for within a request: a longer one is the job's to wait.
pub const HTTP_RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// Redirects that one request follows: what a login and a moved path take.
pub const HTTP_REDIRECTS_MAX: u32 = 5;
/// Addresses of one name that are checked and tried.
pub const HTTP_ADDRESSES_MAX: usize = 16;
/// The smallest buffer that the client's parser takes, and what it reads at a time.
pub const HTTP_BUFFER_BYTES_MIN: usize = 8 << 10;
/// Bytes that an answer's head may take on the wire beyond its grant: interim answers, and what was read ahead.
pub const HTTP_HEAD_SLACK_BYTES: u64 = 256 * KIB;
/// Permits of a rate in one period.
pub const HTTP_RATE_MAX: u32 = 1_000_000;
/// The longest period of a rate.
pub const HTTP_RATE_PERIOD_MAX: Duration = Duration::from_secs(24 * 3600);
/// Bytes, as they lie in memory, of one set of headers that a guest builds through `wasi:http`.
pub const WASI_HTTP_FIELDS_BYTES_MAX: usize = 16 << 10;
/// Bytes of one write to an outgoing body of `wasi:http`: as many wait in each body that a guest has begun.
pub const WASI_HTTP_WRITE_BYTES_MAX: usize = 16 << 10;

// ---- sql ----

/// Statements of one attempt when the grant is silent.
pub const SQL_STATEMENTS_DEFAULT: u64 = 1_000;
/// Statements that a grant may allow: each is at least one round trip, and hours of them.
pub const SQL_STATEMENTS_MAX: u64 = 10_000_000;
/// Rows that one attempt reads when the grant is silent.
pub const SQL_ROWS_DEFAULT: u64 = 1_000_000;
/// Rows that a grant may allow.
pub const SQL_ROWS_MAX: u64 = 10_000_000_000;
/// Bytes of values that one attempt moves when the grant is silent.
pub const SQL_BYTES_DEFAULT: u64 = 256 * MIB;
/// Bytes that a grant may allow: as much as an output may have.
pub const SQL_BYTES_MAX: u64 = OUTPUT_BYTES_MAX;
/// How long one statement takes when the resource is silent.
pub const SQL_STATEMENT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Shorter ones would end what nobody would call slow.
pub const SQL_STATEMENT_TIMEOUT_MIN: Duration = Duration::from_millis(10);
/// As long as an attempt.
pub const SQL_STATEMENT_TIMEOUT_MAX: Duration = TIMEOUT_MAX;
/// How long the server waits for a lock that somebody else holds.
pub const SQL_LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections of one process to one database, when the resource is silent.
pub const SQL_CONNECTIONS_DEFAULT: u32 = 8;
/// Connections that a resource may allow: a server has a hundred by default.
pub const SQL_CONNECTIONS_MAX: u32 = 100;
/// How long an attempt waits for one of them, and a new one for its server, before the database counts as unavailable.
pub const SQL_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Databases to which one process keeps connections: past that, those of the others are closed.
pub const SQL_POOLS_MAX: usize = 256;
/// How long a connection is kept that nobody uses.
pub const SQL_IDLE_MAX: Duration = Duration::from_secs(60);
/// How long a connection may take to become as new; a slower one is closed.
pub const SQL_RESET_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request to cancel a statement may take: the connection is closed as well.
pub const SQL_CANCEL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a commit may take; what became of a slower one is looked up later.
pub const SQL_COMMIT_TIMEOUT: Duration = Duration::from_secs(60);
/// Schemas of a search path: each is looked into for each name.
pub const SQL_SCHEMAS_MAX: usize = 16;
/// Bytes of one statement: what is longer holds data, which belongs into parameters.
pub const SQL_STATEMENT_BYTES_MAX: usize = 64 << 10;
/// Parameters of one statement: the protocol counts them in 16 bits.
pub const SQL_PARAMETERS_MAX: usize = 65_535;
/// Bytes of one message of the server, which is one row: it is held in memory whole.
pub const SQL_MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Bytes that the host holds of rows that were fetched and not yet taken, over all answers of one attempt.
pub const SQL_BUFFER_BYTES_MAX: usize = 16 << 20;
/// Rows that are fetched at a time.
pub const SQL_FETCH_ROWS_MAX: u32 = 256;
/// Rows that one call returns.
pub const SQL_ROWS_PER_CALL_MAX: usize = 1_000;
/// Answers that an attempt has open at once: each is a portal, with its memory in the server.
pub const SQL_ROWS_OPEN_MAX: usize = 64;
/// Messages beside rows (notices, above all) that one exchange with the server may bring.
pub const SQL_NOTICES_MAX: usize = 1_000;
/// Bytes kept of what the server says about an error.
pub const SQL_ERROR_BYTES_MAX: usize = 1 << 10;
/// Bytes of a statement that a record of its use shows, after its digest.
pub const SQL_TARGET_BYTES: usize = 120;

// ---- capability: key-value ----

/// Bytes of a key: with tenant, owner and bucket it is one entry of an index, and that ends at 2,704 bytes.
pub const KEY_BYTES_MAX: usize = 1_024;
/// Bytes of a value that any bucket may allow: one call moves it.
pub const VALUE_BYTES_MAX: u64 = CHUNK_BYTES_MAX as u64;
/// Bytes of a value when the bucket is silent: state and not data, which belongs into outputs.
pub const VALUE_BYTES_DEFAULT: u64 = 64 * KIB;
/// Keys that any bucket may allow: a listing of them all is a thousand calls.
pub const BUCKET_KEYS_MAX: u64 = 1_000_000;
/// Keys of a bucket when it is silent.
pub const BUCKET_KEYS_DEFAULT: u64 = 100_000;
/// Bytes of keys and values that any bucket may allow.
pub const BUCKET_BYTES_MAX: u64 = GIB;
/// Bytes of keys and values of a bucket when it is silent.
pub const BUCKET_BYTES_DEFAULT: u64 = 64 * MIB;
/// Keys that a grant may let one attempt write: they are held in memory, and locked together by its commit.
pub const KEYS_WRITTEN_MAX: u64 = 10_000;
/// Keys that one attempt may write when the grant is silent.
pub const KEYS_WRITTEN_DEFAULT: u64 = 1_000;
/// Bytes of keys and values that a grant may let one attempt write: half of what one commit carries.
pub const KEYS_WRITTEN_BYTES_MAX: u64 = 16 * MIB;
/// Bytes of keys and values that one attempt may write when the grant is silent.
pub const KEYS_WRITTEN_BYTES_DEFAULT: u64 = MIB;
/// Keys that one attempt may read, over all its buckets: each is looked at again by its commit.
pub const KEYS_READ_MAX: usize = 10_000;
/// Questions that one attempt may ask the database about its buckets, listings among them.
pub const BUCKET_QUESTIONS_MAX: u64 = 20_000;
/// Bytes of values that are kept in an attempt once they were read; past that they are asked for again.
pub const VALUES_CACHED_BYTES_MAX: usize = 8 << 20;
/// Keys that one call lists, or takes.
pub const KEYS_PER_CALL_MAX: usize = 1_000;
/// What a staged key costs beside its bytes, so that empty values end too.
pub const STAGED_KEY_OVERHEAD_BYTES: u64 = 32;
/// Comparisons of `wasi:keyvalue/atomics` that an attempt has open at once.
pub const COMPARISONS_OPEN_MAX: usize = 1_000;
/// Questions of guests about buckets that one process asks the database at once: half of its connections, so that
/// commits never wait behind guests.
pub const BUCKET_READS_MAX: usize = DATABASE_CONNECTIONS_MAX / 2;
/// Times that an attempt is repeated because keys changed that it had read. Each commit lets at least one of those
/// pass that wait for the same key, those that wait longest first.
pub const CONFLICTS_MAX: i64 = 100;
/// The first wait after such a conflict; it doubles...
pub const CONFLICT_WAIT_BASE: Duration = Duration::from_millis(20);
/// ...up to this, so that many jobs on one key come one after the other.
pub const CONFLICT_WAIT_MAX: Duration = Duration::from_secs(5);

// ---- descriptors ----

/// Descriptors that one guest may have the host hold: readers, staged files, answers, and for each of its grants a
/// directory and the file in it that was read last.
pub const DESCRIPTORS_PER_GUEST: usize =
    READERS_OPEN_MAX + STAGED_FILES_MAX + HTTP_IN_FLIGHT_MAX as usize + 2 * REQUIREMENTS_PER_ASSET_MAX + 1;
/// Descriptors of the process itself: the machine code of components that are kept ready, connections, the cluster's
/// pipes, compilers, blobs on their way.
pub const DESCRIPTORS_OF_HOST: usize = COMPONENTS_READY_MAX + 256;

// ---- engine ----

/// Bytes of an uploaded component: a Python asset is 18 MB, of which 12 are its memory.
pub const COMPONENT_BYTES_MAX: usize = 128 << 20;
/// Imports, exports and problems that an inspection reports of one component.
pub const INSPECTION_ITEMS_MAX: usize = 1_000;
/// Functions of one component, over all its modules: a Python asset has 13,400, and each costs the compiler time of its own.
pub const FUNCTIONS_MAX: usize = 100_000;
/// Globals of one component, over all its modules: toolchains make a handful, an instance has room for 260,000, and what
/// the compiler tells of each has to be held by the host.
pub const GLOBALS_MAX: u64 = 100_000;
/// Bytes of one function's code: the interpreter loop of Python has 430 KB, and the compiler's time and memory grow faster
/// than a function does.
pub const FUNCTION_BYTES_MAX: usize = 2 << 20;
/// Locals of one function: the most that Python, JavaScript and Rust assets have is 271.
pub const LOCALS_MAX: u64 = 10_000;
/// Blocks within each other in one function: a switch of an interpreter has a block for each of its cases, some hundreds;
/// the compiler's time grows with the square of it.
pub const NESTING_MAX: usize = 5_000;
/// Elements of one table: a Python asset needs more than 5,000.
pub const TABLE_ELEMENTS_MAX: usize = 100_000;
/// Core instances of one attempt: a Python asset has 38.
pub const CORE_INSTANCES_MAX: usize = 128;
/// Tables of one attempt, over all its instances.
pub const TABLES_MAX: usize = 32;
/// Linear memories of one attempt, over all its instances.
pub const MEMORIES_MAX: usize = 8;
/// Tables, and memories, that one core module may define. No toolchain makes more than one.
pub const PER_MODULE_MAX: u32 = 2;
/// Metadata that wasmtime keeps for one instance.
pub const INSTANCE_BYTES_MAX: usize = 4 << 20;
/// What a pooled memory, and a pooled table, keeps resident for its next user instead of giving it back.
pub const MEMORY_KEPT_BYTES: usize = 2 << 20;
/// See [`MEMORY_KEPT_BYTES`].
pub const TABLE_KEPT_BYTES: usize = 512 << 10;
/// Of a pooled stack, from its top: what most calls use. Zeroing it costs less than pages that are given back and come
/// again; deeper ones are given back.
pub const STACK_KEPT_BYTES: usize = 32 << 10;
/// Stack of a guest's own code.
pub const WASM_STACK_BYTES: usize = 512 << 10;
/// Stack of a guest and the host functions it calls.
pub const FIBER_STACK_BYTES: usize = 2 << 20;
/// Fuel between two looks at the deadline: a few milliseconds of guest code, hundreds of times what a look costs.
pub const FUEL_YIELD_INTERVAL: u64 = 10_000_000;
/// Bytes that one call moves across the sandbox, and that one result of a guest may have.
pub const HOSTCALL_BYTES_MAX: usize = 16 << 20;
/// Handles that a guest holds at once.
pub const HANDLES_MAX: usize = 10_000;
/// Things that the host keeps for a guest's handles of WASI: a set of headers or a begun body takes up to 32 KiB.
pub const HOST_RESOURCES_MAX: usize = 2_000;
/// Fuel of instantiation: start functions are guest code, and interpreters initialise in them.
pub const INSTANTIATE_FUEL: u64 = 2_000_000_000;
/// Wall clock of instantiation.
pub const INSTANTIATE_TIMEOUT: Duration = Duration::from_secs(10);
/// Fuel of `describe`.
pub const DESCRIBE_FUEL: u64 = 2_000_000_000;
/// Memory of `describe`: what an asset gets by default.
pub const DESCRIBE_MEMORY_BYTES: u64 = MEMORY_BYTES_DEFAULT;
/// Wall clock of `describe`, instantiation included.
pub const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(20);
/// Log kept of `describe`: it is shown when it fails.
pub const DESCRIBE_LOG_BYTES: u64 = 4 * KIB;
/// Components kept ready in memory.
pub const COMPONENTS_READY_MAX: usize = 256;
/// Compilations at once: each may take [`COMPILE_MEMORY_BYTES_MAX`].
pub const COMPILES_AT_ONCE_MAX: usize = 2;
/// Address space of one compilation: 18 MB of Python take about one gigabyte.
pub const COMPILE_MEMORY_BYTES_MAX: u64 = 6 * GIB;
/// Processor time of one compilation, over all its threads: 18 MB of Python take 16 seconds.
pub const COMPILE_CPU_SECONDS_MAX: u64 = 300;
/// Wall clock of one compilation.
pub const COMPILE_TIMEOUT: Duration = Duration::from_secs(300);
/// Bytes of machine code that one component may become: 18 MB of Python become 40.
pub const COMPILED_BYTES_MAX: u64 = GIB;

// ---- cli ----

/// Runs that `flowstone runs` lists when nothing else is asked for: a screen.
pub const RUNS_LISTED_DEFAULT: u16 = 20;
/// Causes that one list shows before it says how many more there are: past a screen nobody reads on.
pub const CAUSES_SHOWN_MAX: usize = 20;
/// Steps to which a tree of lineage is unfolded: each indents its line further, and a chain would fill a disk with blanks.
pub const TREE_DEPTH_MAX: usize = 64;
/// Jobs that `flowstone plan` lists one by one without being asked to: a screen.
pub const PLAN_JOBS_SHOWN_MAX: usize = 30;
/// Runs with more jobs tell of their progress once a second instead of job by job, where there is no terminal.
pub const JOB_LINES_MAX: usize = 200;
/// Failures and retries that a run tells of one by one; further ones are counted.
pub const TROUBLE_LINES_MAX: usize = 100;
/// How long an attempt has run before what it says is told while it goes on, and how often it is told after: each time is
/// a row for an attempt that said something, and one transaction of its process.
pub const LOG_TELL_POLL: Duration = Duration::from_secs(1);
/// Bytes of log that one statement tells, about.
pub const LOG_TELL_BYTES_MAX: usize = 4 << 20;
/// Jobs or attempts whose logs one statement reads, or writes of lost ones: each may have a log of its own limit.
pub const LOGS_AT_ONCE: usize = 100;
/// How often a run is looked up to see whether it is over: what its own worker tells is only for display.
pub const RUN_POLL: Duration = Duration::from_millis(200);
/// How often a run without a terminal tells how far it is.
pub const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// How long the connections may take to close when a command ends.
pub const CLOSE_GRACE: Duration = Duration::from_secs(2);
/// Progress bars at a time: a small terminal has 24 lines, and the last bar stands for all further assets.
pub const ASSET_BARS_MAX: usize = 16;
/// How often progress is drawn while nothing happens: rates and the time left go on changing.
pub const PROGRESS_TICK: Duration = Duration::from_millis(250);
/// Keys of a list that `flowstone inspect` names before it says how many more there are.
pub const KEYS_SHOWN_MAX: usize = 8;
/// How files begin that are being written into a granted directory: no guest may name, list or read one.
pub const STAGING_PREFIX: &str = ".flowstone-";
/// Columns of a terminal from which on a table is fitted to it; on a smaller one the terminal wraps the lines.
pub const TABLE_WIDTH_MIN: u16 = 60;
