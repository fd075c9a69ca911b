//! What is to run, and why: pure values and pure functions, without IO, clock or database.
//!
//! `manifest` reads what an operator wrote, `definition` checks what a component says, `validate` binds the two;
//! `keyspace` and `mapping` know the partitions; `plan` decides what runs, by `recipe`.

pub mod asset;
pub mod backfill;
pub mod calendar;
pub mod concurrency;
pub mod definition;
pub mod diagnostic;
pub mod fire_times;
pub mod grant;
pub mod graph;
pub mod http;
pub mod key_value;
pub mod keyspace;
pub mod manifest;
pub mod mapping;
pub mod network;
pub mod parameter;
pub mod partition;
pub mod plan;
pub mod policy;
pub mod quantity;
pub mod ranges;
pub mod recipe;
pub mod resource;
pub mod schedule;
pub mod selection;
pub mod sql;
pub mod validate;
