//! One row, and what it can be read as.

use std::rc::Rc;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::Value;
use crate::error::{Error, Result};

/// One row of an answer.
#[derive(Clone, Debug)]
pub struct Row {
    columns: Rc<[String]>,
    values: Vec<Value>,
}

impl Row {
    pub(super) fn new(columns: Rc<[String]>, values: Vec<Value>) -> Self {
        Self { columns, values }
    }

    /// The whole row: as a tuple in the order of the columns, as a structure whose fields are named like them, or, of a
    /// row with one column, as its value.
    pub fn get<T: DeserializeOwned>(self) -> Result<T> {
        T::deserialize(self).map_err(|error| Error::from(error).context("reading a row"))
    }

    /// The value of a column, if there is one of that name.
    pub fn value(&self, column: &str) -> Option<&Value> {
        let at = self.columns.iter().position(|name| name == column)?;
        self.values.get(at)
    }

    /// All values, in the order of the columns.
    pub fn values(&self) -> &[Value] {
        &self.values
    }
}

/// What serde says about a value that does not fit.
type Mismatch = serde::de::value::Error;

impl Row {
    fn into_map(self) -> impl Iterator<Item = (String, Value)> {
        let columns: Vec<String> = self.columns.to_vec();
        columns.into_iter().zip(self.values)
    }

    /// The only value, where one is asked for.
    fn into_one(mut self) -> Result<Value, Mismatch> {
        match self.values.len() {
            1 => Ok(self.values.remove(0)),
            count => Err(Mismatch::custom(format!("a row of {count} columns is no single value"))),
        }
    }
}

macro_rules! of_one {
    ($($method:ident)+) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
            self.into_one()?.$method(visitor)
        }
    )+};
}

impl<'de> Deserializer<'de> for Row {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_map(MapDeserializer::new(self.into_map()))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        visitor.visit_seq(SeqDeserializer::new(self.values.into_iter()))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Mismatch> {
        let count = self.values.len();
        if count != length {
            return Err(Mismatch::custom(format!("a row of {count} columns is no tuple of {length}")));
        }
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        self.deserialize_tuple(length, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        visitor.visit_newtype_struct(self)
    }

    of_one! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32
        deserialize_f64 deserialize_char deserialize_str deserialize_string deserialize_bytes
        deserialize_byte_buf deserialize_option deserialize_identifier
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        self.into_one()?.deserialize_enum(name, variants, visitor)
    }

    forward_to_deserialize_any! { unit unit_struct map struct ignored_any }
}

impl IntoDeserializer<'_, Mismatch> for Value {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl Value {
    /// The text of a value that has one.
    fn into_text(self) -> std::result::Result<String, Self> {
        match self {
            Self::Decimal(text)
            | Self::Text(text)
            | Self::Timestamp(text)
            | Self::Date(text)
            | Self::Uuid(text)
            | Self::Json(text) => Ok(text),
            other => Err(other),
        }
    }
}

impl<'de> Deserializer<'de> for Value {
    type Error = Mismatch;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self {
            Self::Null => visitor.visit_unit(),
            Self::Boolean(value) => visitor.visit_bool(value),
            Self::Integer(value) => visitor.visit_i64(value),
            Self::Float(value) => visitor.visit_f64(value),
            Self::Bytes(bytes) => visitor.visit_byte_buf(bytes),
            Self::Json(text) => {
                let mut json = serde_json::Deserializer::from_str(&text);
                // Owned: what is read does not outlive the text.
                let value: serde_json::Value = serde::Deserialize::deserialize(&mut json).map_err(Mismatch::custom)?;
                value.deserialize_any(visitor).map_err(Mismatch::custom)
            }
            Self::Decimal(text) | Self::Text(text) | Self::Timestamp(text) | Self::Date(text) | Self::Uuid(text) => {
                visitor.visit_string(text)
            }
        }
    }

    /// The text of a JSON value, and not what it stands for.
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self.into_text() {
            Ok(text) => visitor.visit_string(text),
            Err(other) => other.deserialize_any(visitor),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_string(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self {
            // Whoever asks for a float wants the nearest one.
            Self::Decimal(text) => visitor.visit_f64(text.parse().map_err(Mismatch::custom)?),
            other => other.deserialize_any(visitor),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self {
            Self::Bytes(bytes) => visitor.visit_seq(SeqDeserializer::new(bytes.into_iter())),
            other => other.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mismatch> {
        match self {
            Self::Null => visitor.visit_none(),
            other => visitor.visit_some(other),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mismatch> {
        match self.into_text() {
            Ok(text) => text.into_deserializer().deserialize_enum(name, variants, visitor),
            Err(_) => Err(Mismatch::custom("a value that is no text is no variant")),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 char bytes byte_buf unit unit_struct tuple tuple_struct map struct
        identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    fn row(fields: &[(&str, Value)]) -> Row {
        let columns = fields.iter().map(|(name, _)| (*name).to_owned()).collect();
        Row::new(columns, fields.iter().map(|(_, value)| value.clone()).collect())
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        Large,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Item {
        id: u32,
        price: String,
        weight: f64,
        kind: Kind,
        note: Option<String>,
        tags: Vec<String>,
        raw: String,
        bytes: Vec<u8>,
    }

    #[test]
    fn a_row_is_a_structure_by_the_names_of_its_columns() {
        let fields = [
            ("raw", Value::Json("{\"a\": 1}".into())),
            ("id", Value::Integer(7)),
            ("price", Value::Decimal("31.50".into())),
            ("weight", Value::Decimal("2.5".into())),
            ("kind", Value::Text("large".into())),
            ("note", Value::Null),
            ("tags", Value::Json("[\"a\", \"b\"]".into())),
            ("bytes", Value::Bytes(vec![1, 2])),
            ("unused", Value::Boolean(true)),
        ];
        let expected = Item {
            id: 7,
            price: "31.50".into(),
            weight: 2.5,
            kind: Kind::Large,
            note: None,
            tags: vec!["a".into(), "b".into()],
            raw: "{\"a\": 1}".into(),
            bytes: vec![1, 2],
        };
        assert_eq!(row(&fields).get::<Item>().unwrap(), expected);
    }

    #[test]
    fn a_row_is_a_tuple_by_the_order_of_its_columns_or_its_only_value() {
        let two = row(&[("a", Value::Integer(1)), ("b", Value::Null)]);
        assert_eq!(two.clone().get::<(i64, Option<String>)>().unwrap(), (1, None));
        assert_eq!(two.value("a"), Some(&Value::Integer(1)));
        assert_eq!(row(&[("a", Value::Integer(1))]).get::<i64>().unwrap(), 1);
        assert_eq!(row(&[("a", Value::Null)]).get::<Option<i64>>().unwrap(), None);
        let wrong = |error: Result<i64>| error.unwrap_err().to_string();
        assert_eq!(wrong(two.clone().get()), "reading a row: a row of 2 columns is no single value");
        let three: Result<(i64, i64, i64)> = two.get();
        assert_eq!(three.unwrap_err().to_string(), "reading a row: a row of 2 columns is no tuple of 3");
        assert!(wrong(row(&[("a", Value::Text("x".into()))]).get()).contains("invalid type: string"));
    }
}
