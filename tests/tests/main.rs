//! All integration tests, as one program: one link, one server.

mod embedded;
mod store;
mod support;
