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
/// Partitions that one plan considers, over all assets: each costs some 300 bytes while the plan is made.
pub const PLAN_PARTITIONS_MAX: usize = 2_000_000;
/// Inputs of all jobs of one plan, some 60 bytes each: `all` between two large assets multiplies, and must end
/// somewhere.
pub const PLAN_INPUTS_MAX: usize = 10_000_000;
/// Names that a message lists before it says how many more there are.
pub const NAMES_SHOWN_MAX: usize = 10;
