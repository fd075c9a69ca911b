//! What the queue is measured with: assets that do nothing, so that all that is left is the host's work.
//!
//! `noop` reads two others in each of a million hours; `fan` waits for `root` in each of ten thousand; `step_1` to
//! `step_99` each wait for the one before; `stamp` says when its first instruction ran, by the granted clock; `fails` fails
//! at first, and is tried again.

use std::time::{SystemTime, UNIX_EPOCH};

use exports::flowstone::asset::{definitions, materializer};
use flowstone::asset::{
    context, output,
    types::{Failure, Field, Retry},
};

wit_bindgen::generate!({ path: "../../../wit", world: "asset" });
export!(Queue);

struct Queue;

const STEPS: usize = 100;

impl definitions::Guest for Queue {
    fn describe() -> Vec<definitions::Asset> {
        let mut assets = vec![
            asset("left"),
            asset("right"),
            // A million hours.
            definitions::Asset { inputs: vec![input("left"), input("right")], ..hourly("noop", "2014-01-29T15") },
            asset("root"),
            // Ten thousand.
            definitions::Asset { inputs: vec![input("root")], ..hourly("fan", "1901-02-21T15") },
            hourly("fails", "2014-01-29T15"),
            definitions::Asset { requirements: vec![clock()], ..asset("stamp") },
            asset(&step(0)),
        ];
        assets.extend((1..STEPS).map(|n| definitions::Asset { inputs: vec![input(&step(n - 1))], ..asset(&step(n)) }));
        assets
    }
}

impl materializer::Guest for Queue {
    fn materialize(asset: String) -> Result<materializer::Outcome, Failure> {
        match &*asset {
            "stamp" => say_when(),
            "fails" if context::current().attempt == 1 => {
                let message = "the first attempt fails".to_owned();
                Err(Failure::Retryable(Retry { message, after_ms: None }))
            }
            _ => Ok(materializer::Outcome::Done),
        }
    }
}

/// In nanoseconds since 1970, as metadata of the output: a column that can be read for many jobs at once.
fn say_when() -> Result<materializer::Outcome, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| Failure::Permanent(error.to_string()))?;
    let began = Field { name: "began".to_owned(), value: now.as_nanos().to_string() };
    output::set_metadata(&[began]).map_err(|error| Failure::Permanent(error.to_string()))?;
    Ok(materializer::Outcome::Done)
}

fn step(n: usize) -> String {
    format!("step_{n}")
}

fn asset(name: &str) -> definitions::Asset {
    definitions::Asset {
        name: name.to_owned(),
        description: String::new(),
        kind: definitions::Kind::Plain,
        inputs: Vec::new(),
        dimensions: Vec::new(),
        requirements: Vec::new(),
        media_type: "application/octet-stream".to_owned(),
        checks: Vec::new(),
        tags: Vec::new(),
    }
}

/// From 1900 on: no hour is in the future.
fn hourly(name: &str, last: &str) -> definitions::Asset {
    let hours = definitions::TimeKeys {
        unit: definitions::TimeUnit::Hour,
        from: "1900-01-01T00".to_owned(),
        to: Some(last.to_owned()),
        time_zone: "UTC".to_owned(),
    };
    let dimension = definitions::Dimension { name: "hour".to_owned(), keys: definitions::DimensionKeys::Time(hours) };
    definitions::Asset { dimensions: vec![dimension], ..asset(name) }
}

fn input(asset: &str) -> definitions::Input {
    let (name, asset) = (asset.to_owned(), asset.to_owned());
    definitions::Input { name, asset, optional: false, mapping: definitions::Mapping::Same }
}

fn clock() -> definitions::Requirement {
    definitions::Requirement {
        resource_name: "wall".to_owned(),
        capability: definitions::Capability::Clock,
        reason: "is what is measured".to_owned(),
    }
}
