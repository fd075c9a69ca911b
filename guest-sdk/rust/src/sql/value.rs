//! Values of rows and parameters, and what of Rust's own becomes one.

/// A value in a row or for a parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Nothing, of any type.
    Null,
    /// `boolean`.
    Boolean(bool),
    /// `smallint`, `integer`, `bigint`, `oid`.
    Integer(i64),
    /// `real`, `double precision`.
    Float(f64),
    /// `numeric`, exact, as text.
    Decimal(String),
    /// Text, and each type that has no case of its own, as Postgres writes it.
    Text(String),
    /// `bytea`.
    Bytes(Vec<u8>),
    /// RFC 3339.
    Timestamp(String),
    /// `2024-01-31`.
    Date(String),
    /// Lower case, with hyphens.
    Uuid(String),
    /// The text of `json` or `jsonb`.
    Json(String),
}

macro_rules! from {
    ($($type:ty => $value:ident, $into:expr;)+) => {$(
        impl From<$type> for Value {
            fn from($value: $type) -> Self {
                $into
            }
        }
    )+};
}

from! {
    bool => value, Self::Boolean(value);
    i16 => value, Self::Integer(value.into());
    i32 => value, Self::Integer(value.into());
    i64 => value, Self::Integer(value);
    u8 => value, Self::Integer(value.into());
    u16 => value, Self::Integer(value.into());
    u32 => value, Self::Integer(value.into());
    f32 => value, Self::Float(value.into());
    f64 => value, Self::Float(value);
    &str => value, Self::Text(value.into());
    String => value, Self::Text(value);
    &String => value, Self::Text(value.clone());
    Vec<u8> => value, Self::Bytes(value);
    &[u8] => value, Self::Bytes(value.to_vec());
    serde_json::Value => value, Self::Json(value.to_string());
    &serde_json::Value => value, Self::Json(value.to_string());
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}
