//! All integration tests, as one program: one link, one server.

mod bad_input;
mod buckets;
mod checker;
mod command;
mod control;
mod crash;
mod directories;
mod embedded;
mod examples;
mod faults;
mod findings;
mod foreign;
mod grants;
mod hostile;
mod http;
mod key_value;
mod release;
mod scenarios;
mod store;
mod structure;
mod support;
