//! What is to run, and why: pure values and pure functions, without IO, clock or database.

pub mod asset;
pub mod partition;
pub mod policy;
