//! What the integration tests stand on: state directories that clean up, a database per test, the real command.
//!
//! Nothing here imitates a part of FlowStone. The tests themselves are one program, `tests/main.rs`, so that they
//! share one server and are linked once.

mod account;
mod database;
pub mod deadline;
pub mod fault;
pub mod guest;
mod mount;
pub mod object_server;
pub mod pipeline;
mod pooler;
mod postgres;
mod program;
pub mod proxy;
pub mod relay;
mod server;
mod state;
pub mod warehouse;
pub mod web;

pub use database::Database;
pub use mount::Mount;
pub use pooler::Pooler;
pub use postgres::{Postgres, Small, Stop};
pub use program::{Flowstone, Output, Running, signal};
pub use state::StateFolder;
pub use warehouse::Warehouse;
