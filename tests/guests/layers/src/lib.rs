//! A thousand assets in ten layers, a hundred days each: what the planner is measured on. Making one writes nothing.
//!
//! Each asset reads three of the layer before it, day by day.

use exports::flowstone::asset::{definitions, materializer};
use flowstone::asset::types::Failure;

wit_bindgen::generate!({ path: "../../../wit", world: "asset" });
export!(Layers);

const LAYERS: usize = 10;
const WIDTH: usize = 100;
const INPUTS: usize = 3;

struct Layers;

impl definitions::Guest for Layers {
    fn describe() -> Vec<definitions::Asset> {
        (0..LAYERS).flat_map(|layer| (0..WIDTH).map(move |place| asset(layer, place))).collect()
    }
}

impl materializer::Guest for Layers {
    fn materialize(_: String) -> Result<materializer::Outcome, Failure> {
        Ok(materializer::Outcome::Done)
    }
}

fn asset(layer: usize, place: usize) -> definitions::Asset {
    let inputs = match layer.checked_sub(1) {
        None => Vec::new(),
        Some(before) => (0..INPUTS).map(|next| input(name(before, place + next))).collect(),
    };
    let days = definitions::TimeKeys {
        unit: definitions::TimeUnit::Day,
        from: "2024-01-01".to_owned(),
        to: Some("2024-04-09".to_owned()),
        time_zone: "UTC".to_owned(),
    };
    definitions::Asset {
        name: name(layer, place),
        description: String::new(),
        kind: definitions::Kind::Plain,
        inputs,
        dimensions: vec![definitions::Dimension { name: "day".to_owned(), keys: definitions::DimensionKeys::Time(days) }],
        requirements: Vec::new(),
        media_type: "application/octet-stream".to_owned(),
        checks: Vec::new(),
        tags: Vec::new(),
    }
}

fn name(layer: usize, place: usize) -> String {
    format!("asset_{layer}_{}", place % WIDTH)
}

fn input(asset: String) -> definitions::Input {
    definitions::Input { name: asset.clone(), asset, optional: false, mapping: definitions::Mapping::Same }
}
