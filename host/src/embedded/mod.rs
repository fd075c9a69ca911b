//! The private Postgres of a machine that was given no `DATABASE_URL`.
//!
//! One process owns the cluster of a state directory at a time: it holds the lock, starts the server as its child and
//! stops it. Others attach to it as clients. What is where:
//!
//! ```text
//! .flowstone/lock           held by the owner, with its process id
//! .flowstone/postgres.log   the server's log
//! .flowstone/postgres       the cluster's home, or a link to it
//!            postgres/data        Postgres' data directory
//!            postgres/socket      the folder of its socket, or a link to it
//!            postgres/pg_*.conf   who may connect: the account that owns the state directory, and nobody else
//! ```
//!
//! As root the server runs under another account; where that one cannot enter the state directory, the home is
//! elsewhere. A server never outlives its owner: see `server.rs`. What an owner that was killed left behind is ended
//! before a new server starts, rather than adopted, so that every server is the child of its owner.
//!
//! Deliberately not here: schema and migrations (`store`), upgrades between major versions of Postgres, replication,
//! and any way to reach the server over a network. It looks into `/proc`, so it is for Linux.

mod account;
mod cluster;
mod error;
mod home;
mod leftover;
mod lock;
mod postgres;
mod server;
mod settings;
mod socket;

pub use cluster::{Cluster, Reached, attach, reach};
pub use error::EmbeddedError;
