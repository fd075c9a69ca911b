//! Integration tests, hostile guests, chaos.
