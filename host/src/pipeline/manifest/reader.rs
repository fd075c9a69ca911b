//! Walks a TOML document and remembers where everything stands.
//!
//! Reading never stops at the first mistake: each reader records a diagnostic and returns nothing, and the caller
//! goes on with a default, so that one answer names everything. What the keys mean is [`super`]'s business.

use std::{
    collections::BTreeMap,
    ops::{Range, RangeInclusive},
    time::Duration,
};

use serde_json::{Map, Value as Json};
use toml_edit::{Item, TableLike, Value};

use super::super::{
    diagnostic::{Diagnostic, Place, did_you_mean, shown},
    quantity::{bytes_text, duration_text, parse_bytes, parse_duration_ms},
};
use crate::limit::DIAGNOSTICS_MAX;

/// A document that is being read, and what was wrong so far.
pub(super) struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    /// Where each line begins.
    lines: Vec<usize>,
    pub diagnostics: Vec<Diagnostic>,
    /// Where each key stands that may be spoken of later.
    pub places: BTreeMap<String, Place>,
}

/// A key and what stands behind it.
#[derive(Clone)]
pub(super) struct Entry<'a> {
    /// The dotted path of the key.
    pub key: String,
    item: &'a Item,
    at: Range<usize>,
}

impl<'a> Entry<'a> {
    /// What stands there, if it is text.
    pub fn text(&self) -> Option<&'a str> {
        self.item.as_str()
    }

    /// Whether a table stands there.
    pub fn is_table(&self) -> bool {
        self.item.is_table_like()
    }
}

/// A table whose keys are all known.
pub(super) struct Section<'a> {
    pub entries: Vec<(String, Entry<'a>)>,
    /// Stands for the table itself.
    pub this: Entry<'a>,
}

impl<'a> Section<'a> {
    pub fn get(&self, name: &str) -> Option<&Entry<'a>> {
        self.entries.iter().find(|(key, _)| key == name).map(|(_, entry)| entry)
    }
}

/// What a number may be, and how it is written.
pub(super) struct Quantity {
    /// "an amount of fuel".
    pub what: &'static str,
    pub parse: fn(&str) -> Option<u64>,
    pub write: fn(u64) -> String,
    /// How to write it.
    pub fix: &'static str,
    pub min: u64,
    pub max: u64,
}

/// A size within bounds.
pub(super) const fn bytes(min: u64, max: u64) -> Quantity {
    let fix = "write a number with B, KiB, MiB or GiB, for example \"256MiB\"";
    Quantity { what: "a size", parse: parse_bytes, write: bytes_text, fix, min, max }
}

/// A duration within bounds.
pub(super) const fn duration(min: Duration, max: Duration) -> Quantity {
    Quantity {
        what: "a duration",
        parse: parse_duration_ms,
        write: |ms| duration_text(Duration::from_millis(ms)),
        fix: "write a number with ms, s, m, h or d, for example \"90s\"",
        min: min.as_millis() as u64,
        max: max.as_millis() as u64,
    }
}

impl<'a> Reader<'a> {
    pub fn new(file: &'a str, text: &'a str) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { file, text, lines, diagnostics: Vec::new(), places: BTreeMap::new() }
    }

    /// The line and column of a byte.
    fn place(&self, at: usize) -> Place {
        let line = self.lines.partition_point(|start| *start <= at);
        let start = self.lines[line - 1];
        let before = self.text.get(start..at.min(self.text.len())).unwrap_or("");
        Place { line, column: before.chars().count() + 1 }
    }

    /// Records a mistake at a place in the text.
    pub fn refuse_at(&mut self, at: Option<usize>, key: &str, message: impl Into<String>, fix: Option<String>) {
        let place = at.map(|at| self.place(at));
        let (file, key) = (self.file.to_owned(), key.to_owned());
        self.diagnostics.push(Diagnostic { file, place, key, message: message.into(), fix });
    }

    /// Records a mistake in what stands behind a key.
    pub fn refuse(&mut self, entry: &Entry<'_>, message: impl Into<String>, fix: impl Into<String>) {
        let at = entry.item.span().map_or(entry.at.start, |span| span.start);
        let fix = Some(fix.into()).filter(|fix| !fix.is_empty());
        self.refuse_at(Some(at), &entry.key, message, fix);
    }

    /// "did you mean ...", for mistakes that will be shown: in a manifest full of them, looking for each would take
    /// minutes.
    pub fn suggestion<'c>(&self, name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<String> {
        if self.has_room() { did_you_mean(name, candidates) } else { None }
    }

    /// Whether a mistake that is found now will be shown.
    pub fn has_room(&self) -> bool {
        self.diagnostics.len() < DIAGNOSTICS_MAX
    }

    /// Remembers where a key stands, for mistakes that are found later.
    pub fn remember(&mut self, entry: &Entry<'_>) {
        let place = self.place(entry.at.start);
        self.places.insert(entry.key.clone(), place);
    }

    /// Remembers where each key of a table stands.
    pub fn remember_children(&mut self, entry: &Entry<'a>) {
        if let Some(table) = entry.item.as_table_like() {
            children(&entry.key, &entry.at, table).iter().for_each(|(_, child)| self.remember(child));
        }
    }

    /// The document's own table.
    pub fn root(&mut self, item: &'a Item, known: &[&str]) -> Option<Section<'a>> {
        self.section(&Entry { key: String::new(), item, at: 0..0 }, known)
    }

    /// A table that may hold these keys only.
    pub fn section(&mut self, entry: &Entry<'a>, known: &[&str]) -> Option<Section<'a>> {
        let section = self.table(entry)?;
        self.refuse_unknown_keys(&section, known);
        Some(section)
    }

    /// A table that may hold any keys.
    pub fn table(&mut self, entry: &Entry<'a>) -> Option<Section<'a>> {
        let Some(table) = entry.item.as_table_like() else {
            self.refuse_type(entry, "a table");
            return None;
        };
        Some(Section { entries: children(&entry.key, &entry.at, table), this: entry.clone() })
    }

    /// A list of tables, written `[[name]]` or as an array of inline tables, each of which may hold these keys only.
    pub fn sections(&mut self, entry: &Entry<'a>, known: &[&str]) -> Vec<Section<'a>> {
        let mut found = Vec::new();
        if let Some(tables) = entry.item.as_array_of_tables() {
            for (i, table) in tables.iter().enumerate() {
                let at = table.span().unwrap_or(entry.at.clone());
                let key = format!("{}[{i}]", entry.key);
                let this = Entry { key: key.clone(), item: entry.item, at: at.clone() };
                found.push(Section { entries: children(&key, &at, table), this });
            }
        } else if let Some(tables) = entry.item.as_array() {
            for (i, value) in tables.iter().enumerate() {
                let at = value.span().unwrap_or(entry.at.clone());
                let key = format!("{}[{i}]", entry.key);
                let this = Entry { key: key.clone(), item: entry.item, at: at.clone() };
                match value.as_inline_table() {
                    Some(table) => found.push(Section { entries: children(&key, &at, table), this }),
                    None => self.refuse_at(Some(at.start), &key, "must be a table", None),
                }
            }
        } else {
            self.refuse_type(entry, "a list of tables");
        }
        found.iter().for_each(|section| self.refuse_unknown_keys(section, known));
        found
    }

    fn refuse_unknown_keys(&mut self, section: &Section<'a>, known: &[&str]) {
        for (name, child) in section.entries.iter().filter(|(name, _)| !known.contains(&&**name)) {
            let fix = self.suggestion(name, known.iter().copied());
            let fix = fix.unwrap_or_else(|| format!("known here: {}", known.join(", ")));
            self.refuse_at(Some(child.at.start), &child.key, "unknown key", Some(fix));
        }
    }

    /// A key that must be there.
    pub fn required<'s>(&mut self, section: &'s Section<'a>, name: &str, fix: &str) -> Option<&'s Entry<'a>> {
        let found = section.get(name);
        if found.is_none() {
            let key = dotted(&section.this.key, name);
            self.refuse_at(Some(section.this.at.start), &key, "missing", Some(fix.to_owned()));
        }
        found
    }

    pub fn string(&mut self, entry: &Entry<'a>) -> Option<&'a str> {
        let text = entry.item.as_str();
        if text.is_none() {
            self.refuse_type(entry, "text in quotes");
        }
        text
    }

    pub fn boolean(&mut self, entry: &Entry<'a>) -> Option<bool> {
        let boolean = entry.item.as_bool();
        if boolean.is_none() {
            self.refuse_type(entry, "true or false");
        }
        boolean
    }

    /// A whole number within bounds.
    pub fn integer(&mut self, entry: &Entry<'a>, min: u32, max: u32) -> Option<u32> {
        let Some(integer) = entry.item.as_integer() else {
            self.refuse_type(entry, "a whole number");
            return None;
        };
        let bounded = u32::try_from(integer).ok().filter(|integer| (min..=max).contains(integer));
        if bounded.is_none() {
            self.refuse(entry, format!("{integer} is out of bounds"), format!("from {min} to {max}"));
        }
        bounded
    }

    /// A whole number within bounds on both sides of zero.
    pub fn signed(&mut self, entry: &Entry<'a>, bounds: RangeInclusive<i16>) -> Option<i16> {
        let Some(integer) = entry.item.as_integer() else {
            self.refuse_type(entry, "a whole number");
            return None;
        };
        let bounded = i16::try_from(integer).ok().filter(|integer| bounds.contains(integer));
        if bounded.is_none() {
            let fix = format!("from {} to {}", bounds.start(), bounds.end());
            self.refuse(entry, format!("{integer} is out of bounds"), fix);
        }
        bounded
    }

    /// A count within bounds.
    pub fn count(&mut self, entry: &Entry<'a>, min: u64, max: u64) -> Option<u64> {
        let Some(integer) = entry.item.as_integer() else {
            self.refuse_type(entry, "a whole number");
            return None;
        };
        let bounded = u64::try_from(integer).ok().filter(|count| (min..=max).contains(count));
        if bounded.is_none() {
            self.refuse(entry, format!("{integer} is out of bounds"), format!("from {min} to {max}"));
        }
        bounded
    }

    /// A list of texts.
    pub fn strings(&mut self, entry: &Entry<'a>) -> Option<Vec<&'a str>> {
        let list = entry.item.as_array().and_then(|array| array.iter().map(Value::as_str).collect());
        if list.is_none() {
            self.refuse_type(entry, "a list of texts");
        }
        list
    }

    /// One of these words.
    pub fn word<T: Copy>(&mut self, entry: &Entry<'a>, words: &[(&str, T)]) -> Option<T> {
        let text = self.string(entry)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let fix = did_you_mean(text, words.iter().map(|(word, _)| *word)).unwrap_or_else(|| {
                let words: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
                format!("write one of {}", words.join(", "))
            });
            self.refuse(entry, format!("\"{}\" is not known here", shown(text)), fix);
        }
        found
    }

    /// An amount with its unit.
    pub fn quantity(&mut self, entry: &Entry<'a>, quantity: &Quantity) -> Option<u64> {
        let Some(text) = entry.item.as_str() else {
            let message = format!("must be {}, not {}", quantity.what, described(entry.item));
            self.refuse(entry, message, quantity.fix);
            return None;
        };
        let Some(amount) = (quantity.parse)(text) else {
            self.refuse(entry, format!("\"{}\" is not {}", shown(text), quantity.what), quantity.fix);
            return None;
        };
        if !(quantity.min..=quantity.max).contains(&amount) {
            let bounds = format!("from {} to {}", (quantity.write)(quantity.min), (quantity.write)(quantity.max));
            self.refuse(entry, format!("\"{}\" is out of bounds", shown(text)), bounds);
            return None;
        }
        Some(amount)
    }

    /// A table as a JSON object; dates and times become text.
    pub fn json_object(&mut self, entry: &Entry<'a>) -> Option<Map<String, Json>> {
        let section = self.table(entry)?;
        self.json_fields(&section.entries)
    }

    fn json_fields(&mut self, fields: &[(String, Entry<'a>)]) -> Option<Map<String, Json>> {
        let field = |(name, child): &(String, Entry<'a>)| {
            if name.contains('\0') {
                self.refuse(child, "its name holds a NUL, which the database cannot keep", "rename it");
            }
            Some((name.clone(), self.json(child)?))
        };
        fields.iter().map(field).collect()
    }

    fn json(&mut self, entry: &Entry<'a>) -> Option<Json> {
        match entry.item {
            Item::Value(value) => self.json_value(entry, value),
            Item::Table(_) => self.json_object(entry).map(Json::Object),
            Item::ArrayOfTables(tables) => {
                let object = |(i, table): (usize, &'a toml_edit::Table)| {
                    let at = table.span().unwrap_or(entry.at.clone());
                    let children = children(&format!("{}[{i}]", entry.key), &at, table);
                    self.json_fields(&children).map(Json::Object)
                };
                tables.iter().enumerate().map(object).collect::<Option<_>>().map(Json::Array)
            }
            Item::None => None,
        }
    }

    fn json_value(&mut self, entry: &Entry<'a>, value: &'a Value) -> Option<Json> {
        match value {
            Value::String(text) if text.value().contains('\0') => {
                self.refuse(entry, "holds a NUL, which the database cannot keep", "leave it out");
                None
            }
            Value::String(text) => Some(Json::from(text.value().as_str())),
            Value::Integer(integer) => Some(Json::from(*integer.value())),
            Value::Boolean(boolean) => Some(Json::from(*boolean.value())),
            Value::Datetime(instant) => Some(Json::from(instant.value().to_string())),
            Value::Float(float) => {
                let number = serde_json::Number::from_f64(*float.value()).map(Json::Number);
                if number.is_none() {
                    self.refuse(entry, "JSON has no infinity and no NaN", "write a number");
                }
                number
            }
            Value::Array(items) => {
                items.iter().map(|item| self.json_value(entry, item)).collect::<Option<_>>().map(Json::Array)
            }
            Value::InlineTable(table) => {
                let children = children(&entry.key, &entry.at, table);
                self.json_fields(&children).map(Json::Object)
            }
        }
    }

    fn refuse_type(&mut self, entry: &Entry<'_>, expected: &str) {
        self.refuse(entry, format!("must be {expected}, not {}", described(entry.item)), "");
    }
}

fn children<'a>(key: &str, at: &Range<usize>, table: &'a dyn TableLike) -> Vec<(String, Entry<'a>)> {
    let child = |(name, item): (&'a str, &'a Item)| {
        let at = table.key(name).and_then(|key| key.span()).unwrap_or(at.clone());
        (name.to_owned(), Entry { key: dotted(key, name), item, at })
    };
    table.iter().map(child).collect()
}

/// A key below another, quoted where TOML would want it quoted.
fn dotted(parent: &str, name: &str) -> String {
    let bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let name = if bare { shown(name) } else { format!("\"{}\"", shown(name)) };
    if parent.is_empty() { name } else { format!("{parent}.{name}") }
}

/// What stands there, in words.
fn described(item: &Item) -> &'static str {
    match item {
        Item::Value(Value::String(_)) => "text",
        Item::Value(Value::Integer(_)) => "a whole number",
        Item::Value(Value::Float(_)) => "a number with a fraction",
        Item::Value(Value::Boolean(_)) => "true or false",
        Item::Value(Value::Datetime(_)) => "a date or time",
        Item::Value(Value::Array(_)) => "a list",
        Item::Value(Value::InlineTable(_)) | Item::Table(_) => "a table",
        Item::ArrayOfTables(_) => "a list of tables",
        Item::None => "nothing",
    }
}
