//! `flowstone:asset/config` and `wasi:config/store`: the asset's resolved configuration by key. Always there: the
//! manifest's configuration is the grant. Both have the same order in every attempt.

use std::{cell::OnceCell, collections::BTreeMap};

use serde_json::Value;
use wasmtime::component::{ComponentType, Lower};

use crate::bindings::flowstone::asset::config;

/// The configuration of one attempt.
pub struct Config {
    /// A JSON object.
    json: String,
    /// Made when it is first asked for: most assets read their configuration whole, or not at all.
    values: OnceCell<BTreeMap<String, Value>>,
}

impl Config {
    /// From a JSON object.
    pub fn new(json: String) -> Self {
        Self { json, values: OnceCell::new() }
    }

    fn values(&self) -> &BTreeMap<String, Value> {
        // What is stored was an object when it was bound, and `describe` has an empty one.
        self.values.get_or_init(|| serde_json::from_str(&self.json).unwrap_or_default())
    }

    /// A value as `wasi:config` has it.
    pub fn text(&self, key: &str) -> Option<String> {
        self.values().get(key).map(text)
    }

    /// All of them, sorted by key.
    pub fn texts(&self) -> Vec<(String, String)> {
        self.values().iter().map(|(key, value)| (key.clone(), text(value))).collect()
    }
}

/// The exact versions of `wasi:config/store` that toolchains build against; drafts match no other.
pub const WASI_CONFIG: [&str; 2] = ["wasi:config/store@0.2.0-rc.1", "wasi:config/store@0.2.0-draft"];

/// How `wasi:config` says that a value cannot be had. Ours always can.
#[derive(ComponentType, Lower)]
#[component(variant)]
pub enum StoreError {
    /// A remote source failed.
    #[component(name = "upstream")]
    Upstream(String),
    /// Input or output failed.
    #[component(name = "io")]
    Io(String),
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

impl config::Host for Config {
    fn get(&mut self, key: String) -> wasmtime::Result<Option<config::Value>> {
        Ok(self.values().get(&key).map(|value| match value {
            Value::String(text) => config::Value::Text(text.clone()),
            Value::Bool(boolean) => config::Value::Boolean(*boolean),
            Value::Number(number) => match number.as_i64() {
                Some(integer) => config::Value::Integer(integer),
                None => config::Value::Number(number.as_f64().unwrap_or_default()),
            },
            Value::Array(_) | Value::Object(_) | Value::Null => config::Value::Json(value.to_string()),
        }))
    }

    fn keys(&mut self) -> wasmtime::Result<Vec<String>> {
        Ok(self.values().keys().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use config::Host as _;

    use super::*;

    #[test]
    fn values_keep_their_types_and_keys_their_order() {
        let mut config = Config::new(
            r#"{"z":"text","a":-3,"f":1.5,"b":true,"l":[1,"x"],"t":{"k":null},"max":9223372036854775807}"#.into(),
        );
        assert_eq!(config.keys().unwrap(), ["a", "b", "f", "l", "max", "t", "z"]);
        let mut get = |key: &str| format!("{:?}", config.get(key.into()).unwrap());
        assert_eq!(get("z"), r#"Some(Value::Text("text"))"#);
        assert_eq!(get("a"), "Some(Value::Integer(-3))");
        assert_eq!(get("f"), "Some(Value::Number(1.5))");
        assert_eq!(get("b"), "Some(Value::Boolean(true))");
        assert_eq!(get("max"), "Some(Value::Integer(9223372036854775807))");
        assert_eq!(get("l"), r#"Some(Value::Json("[1,\"x\"]"))"#);
        assert_eq!(get("t"), r#"Some(Value::Json("{\"k\":null}"))"#);
        assert_eq!(get("absent"), "None");
    }

    #[test]
    fn the_standard_has_the_same_as_text() {
        let config = Config::new(r#"{"units":"metric","days":30,"on":true,"list":[1]}"#.into());
        assert_eq!(config.text("units").as_deref(), Some("metric"));
        assert_eq!(config.text("absent"), None);
        let texts = config.texts();
        let texts: Vec<(&str, &str)> = texts.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(texts, [("days", "30"), ("list", "[1]"), ("on", "true"), ("units", "metric")]);
    }
}
