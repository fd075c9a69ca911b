//! FlowStone: assets whose code nobody has to trust, and the record of where every byte came from.

pub mod bindings;
pub mod blob;
pub mod capability;
pub mod engine;
pub mod id;
pub mod limit;
pub mod pipeline;
pub mod store;
pub mod config;
pub mod embedded;
pub mod id;
pub mod limit;
pub mod pipeline;
pub mod telemetry;
