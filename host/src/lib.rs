//! FlowStone: assets whose code nobody has to trust, and the record of where every byte came from.
//!
//! ```text
//!    CLI --> app -> pipeline (graph, plan) --> +------------- Postgres --------------+
//!           (verbs)      pure, no IO           | store: runs, jobs, materializations, |
//!                                              |        lineage                       |
//!                                              +------+-----------------------^-------+
//!                                               claim |                       | commit (1 transaction)
//!                                                     v                       |
//!                          runner:  claim -> prepare -> execute -> commit ----+
//!                                              |          |
//!                                         capability/*    engine (wasmtime)
//!                                              |
//!                                            blob (bytes, content-addressed)
//! ```
//!
//! In reading order, each module using only what is above it.

pub mod id;
pub mod limit;

pub mod secret;

pub mod blob;

pub mod bindings;

pub mod pipeline;

pub mod store;

pub mod capability;

pub mod engine;

pub mod app;

pub mod runner;

pub mod scheduler;

pub mod collector;

pub mod embedded;

pub mod config;
pub mod telemetry;

pub mod cli;
