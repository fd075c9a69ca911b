//! All integration tests, as one program: one link, one server.

mod bad_input;
mod buckets;
mod checker;
mod command;
mod config;
mod control;
mod crash;
mod directories;
mod embedded;
mod examples;
mod faults;
mod files;
mod findings;
mod foreign;
mod grants;
mod hostile;
mod http;
mod key_value;
mod release;
mod scenarios;
mod side_by_side;
mod sql;
mod store;
mod structure;
mod support;
mod tenants;
