//! The smallest component: one asset that reads nothing and needs nothing.

use flowstone_sdk::prelude::*;

/// Greets.
#[asset]
fn greeting() -> Result<String> {
    Ok("Hello, World!".into())
}
