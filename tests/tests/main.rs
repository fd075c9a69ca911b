//! All integration tests, as one program: one link, one server.

mod bad_input;
mod checker;
mod command;
mod control;
mod crash;
mod embedded;
mod examples;
mod faults;
mod hostile;
mod http;
mod scenarios;
mod store;
mod structure;
mod support;
