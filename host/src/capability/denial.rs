//! What a guest asked for and was not granted: told to the operator, never to the guest.

use super::text::{neutralise, truncate};
use crate::limit::{DENIALS_MAX, DENIED_NAME_BYTES_MAX};

/// One refused wish.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Denial {
    /// The interface: `files`, `inputs`.
    pub capability: String,
    /// The resource or input that was named.
    pub resource: String,
    /// The function: `open`, `read`.
    pub operation: String,
    /// The path, where there is one.
    pub target: String,
    /// What an operator would write to grant it.
    pub remedy: String,
}

/// The denials of one capability in one attempt: each once, and a bounded number.
#[derive(Debug, Default)]
pub struct Denials(Vec<Denial>);

impl Denials {
    /// Remembers a denial, unless it is known or there are too many.
    pub fn record(&mut self, capability: &str, resource: &str, operation: &str, target: &str, remedy: String) {
        let named = |name: &str| neutralise(truncate(name, DENIED_NAME_BYTES_MAX));
        let denial = Denial {
            capability: capability.to_owned(),
            resource: named(resource),
            operation: operation.to_owned(),
            target: named(target),
            remedy: neutralise(&remedy),
        };
        if self.0.len() < DENIALS_MAX && !self.0.contains(&denial) {
            self.0.push(denial);
        }
    }

    /// All of them, in the order in which they happened.
    pub fn take(&mut self) -> Vec<Denial> {
        std::mem::take(&mut self.0)
    }
}

/// The manifest line that grants a resource to an asset, with this grant.
pub fn remedy(asset: &str, resource: &str, grant: &str) -> String {
    let resource = toml_key(truncate(resource, DENIED_NAME_BYTES_MAX));
    format!("[assets.{asset}] grants = {{ {resource} = {grant} }}")
}

/// The manifest line that grants a path of a directory to an asset.
pub fn files_remedy(asset: &str, resource: &str, access: &str, path: &str) -> String {
    let path = toml_text(truncate(path, DENIED_NAME_BYTES_MAX));
    remedy(asset, resource, &format!("{{ access = \"{access}\", paths = [{path}] }}"))
}

/// A key of TOML: bare where it can be.
fn toml_key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(bare) { name.to_owned() } else { toml_text(name) }
}

/// A basic string of TOML.
pub fn toml_text(text: &str) -> String {
    let escaped = text.chars().map(|c| match c {
        '"' | '\\' => format!("\\{c}"),
        c if c.is_control() => format!("\\u{:04X}", c as u32),
        c => c.to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_denial_is_kept_once_and_a_flood_is_bounded() {
        let mut denials = Denials::default();
        for n in 0..10 * DENIALS_MAX {
            denials.record("files", "station", "read", "same.csv", "grant it".into());
            denials.record("files", "station", "read", &format!("{n}.csv"), "grant it".into());
        }
        let kept = denials.take();
        assert_eq!(kept.len(), DENIALS_MAX);
        assert_eq!(kept.iter().filter(|denial| denial.target == "same.csv").count(), 1);
    }

    #[test]
    fn what_a_guest_names_cannot_break_the_manifest_line() {
        let line = files_remedy("raw", "a.b", "read", "x\"] } }\n[evil]");
        assert_eq!(line, r#"[assets.raw] grants = { "a.b" = { access = "read", paths = ["x\"] } }\u000A[evil]"] } }"#);
    }
}
