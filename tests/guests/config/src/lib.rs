//! Assets that say what their configuration is, by each way to it.

use std::fmt::Write as _;

use flowstone_sdk::prelude::*;
use serde_json::Value;

use bindings::flowstone::asset::config;
use bindings::wasi::config0_2_0_draft::store as draft;
use bindings::wasi::config0_2_0_rc_1::store as candidate;

mod bindings {
    wit_bindgen::generate!({
        path: ["../../../wit", "wit"],
        world: "test:config/reader",
        generate_all,
    });
}

/// Everything that it is configured with, as each interface has it.
fn everything(ctx: &Context) -> Result<String> {
    let whole: Value = ctx.config()?;
    let mut said = format!("{whole}\n");
    for key in config::keys() {
        writeln!(said, "{key} {:?}", config::get(&key))?;
    }
    writeln!(said, "absent {:?} {:?}", config::get("absent"), candidate::get("absent"))?;
    writeln!(said, "{:?}", candidate::get_all())?;
    for (key, value) in draft::get_all().map_err(|_| Error::permanent("the draft fails"))? {
        let alike = candidate::get(&key).ok().flatten() == Some(value.clone());
        writeln!(said, "{key}={value} {alike}")?;
    }
    Ok(said)
}

/// Takes what it has parameters for.
#[asset(config(
    city = text("where the station stands"),
    units = text("metric or imperial", default = "metric \"SI\""),
    days = integer("how many are shown", default = -30),
    scale = number("of the picture", default = 1.5),
    on = boolean("whether it is drawn", default = true),
    colours = json("of the bands", default = "[\"red\", {\"r\": 1}]"),
))]
fn strict(ctx: &Context) -> Result<String> {
    everything(ctx)
}

/// Takes anything.
#[asset]
fn lax(ctx: &Context) -> Result<String> {
    everything(ctx)
}
