//! All integration tests, as one program: one link, one server.

mod checker;
mod crash;
mod embedded;
mod faults;
mod scenarios;
mod store;
mod support;
