//! All integration tests, as one program: one link, one server.

mod bad_input;
mod command;
mod embedded;
mod examples;
mod hostile;
mod scenarios;
mod store;
mod structure;
mod support;
