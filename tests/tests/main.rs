//! All integration tests, as one program: one link, one server.

mod bad_input;
mod checker;
mod command;
mod control;
mod crash;
mod directories;
mod embedded;
mod examples;
mod faults;
mod findings;
mod grants;
mod hostile;
mod http;
mod release;
mod scenarios;
mod store;
mod structure;
mod support;
mod tenants;
