//! Values between a guest and Postgres, in Postgres' own text form: the one form that every type has, and exact for all.
//!
//! The session's settings of dates, bytes and floats are fixed and looked at again after each statement, so that the
//! text means here what it meant there.

use crate::{bindings::flowstone::asset::sql::Value, blob::DigestWriter};

/// Object ids of types that have a case of their own, or that stand for text. They are the same in every database.
mod oid {
    pub const BOOL: u32 = 16;
    pub const BYTEA: u32 = 17;
    pub const INT8: u32 = 20;
    pub const INT2: u32 = 21;
    pub const INT4: u32 = 23;
    pub const TEXT: u32 = 25;
    pub const OID: u32 = 26;
    pub const JSON: u32 = 114;
    pub const FLOAT4: u32 = 700;
    pub const FLOAT8: u32 = 701;
    pub const BPCHAR: u32 = 1042;
    pub const VARCHAR: u32 = 1043;
    pub const DATE: u32 = 1082;
    pub const TIMESTAMP: u32 = 1114;
    pub const TIMESTAMPTZ: u32 = 1184;
    pub const NUMERIC: u32 = 1700;
    pub const UUID: u32 = 2950;
    pub const JSONB: u32 = 3802;
}

/// The name of a type that this file knows.
pub fn known_type_name(type_oid: u32) -> Option<&'static str> {
    Some(match type_oid {
        oid::BOOL => "boolean",
        oid::BYTEA => "bytea",
        oid::INT8 => "bigint",
        oid::INT2 => "smallint",
        oid::INT4 => "integer",
        oid::TEXT => "text",
        oid::OID => "oid",
        oid::JSON => "json",
        oid::FLOAT4 => "real",
        oid::FLOAT8 => "double precision",
        oid::BPCHAR => "character",
        oid::VARCHAR => "character varying",
        oid::DATE => "date",
        oid::TIMESTAMP => "timestamp without time zone",
        oid::TIMESTAMPTZ => "timestamp with time zone",
        oid::NUMERIC => "numeric",
        oid::UUID => "uuid",
        oid::JSONB => "jsonb",
        _ => return None,
    })
}

/// A field of a row as the guest sees it; `None` when it is not what its type and the session's settings say.
pub fn decode(type_oid: u32, field: Option<&[u8]>) -> Option<Value> {
    let Some(field) = field else { return Some(Value::Null) };
    let text = std::str::from_utf8(field).ok()?;
    Some(match type_oid {
        oid::BOOL => match text {
            "t" => Value::Boolean(true),
            "f" => Value::Boolean(false),
            _ => return None,
        },
        oid::INT2 | oid::INT4 | oid::INT8 | oid::OID => Value::Integer(text.parse().ok()?),
        oid::FLOAT4 => Value::Float(text.parse::<f32>().ok()?.into()),
        oid::FLOAT8 => Value::Float(text.parse().ok()?),
        oid::NUMERIC => Value::Decimal(text.to_owned()),
        oid::BYTEA => Value::Bytes(from_hex(text.strip_prefix("\\x")?)?),
        oid::TIMESTAMP => instant(text).map_or_else(|| Value::Text(text.to_owned()), Value::Timestamp),
        oid::TIMESTAMPTZ => {
            let utc = text.strip_suffix("+00").and_then(instant);
            utc.map_or_else(|| Value::Text(text.to_owned()), Value::Timestamp)
        }
        oid::DATE if is_day(text) => Value::Date(text.to_owned()),
        oid::UUID => Value::Uuid(text.to_owned()),
        oid::JSON | oid::JSONB => Value::Json(text.to_owned()),
        _ => Value::Text(text.to_owned()),
    })
}

/// `2024-01-31 12:00:00.5` as RFC 3339; years before 1 and after 9999 have another shape.
fn instant(text: &str) -> Option<String> {
    let (day, time) = text.split_at_checked(10)?;
    let (clock, fraction) = time.strip_prefix(' ')?.split_at_checked(8)?;
    let digits = fraction
        .strip_prefix('.')
        .map_or(fraction.is_empty(), |digits| !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit()));
    let is_clock = clock.bytes().enumerate().all(|(at, byte)| match at {
        2 | 5 => byte == b':',
        _ => byte.is_ascii_digit(),
    });
    (is_day(day) && is_clock && digits).then(|| format!("{day}T{clock}{fraction}Z"))
}

fn is_day(text: &str) -> bool {
    let shape = |(at, byte): (usize, u8)| match at {
        4 | 7 => byte == b'-',
        _ => byte.is_ascii_digit(),
    };
    text.len() == 10 && text.bytes().enumerate().all(shape)
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let pair = |pair: &[u8]| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?);
    text.as_bytes().chunks(2).map(pair).collect()
}

/// A parameter as it is sent, nothing for null; or why the value does not fit the type that the statement gives it.
pub fn encode(value: &Value, type_oid: u32) -> Result<Option<Vec<u8>>, String> {
    use Value as V;
    let text = match (value, type_oid) {
        (V::Null, _) => return Ok(None),
        (V::Boolean(value), oid::BOOL) => value.to_string(),
        (V::Integer(value), oid::INT2 | oid::INT4 | oid::INT8 | oid::OID | oid::NUMERIC) => value.to_string(),
        // Those that a float holds exactly.
        (V::Integer(value), oid::FLOAT8) if value.unsigned_abs() <= 1 << 53 => value.to_string(),
        (V::Integer(value), oid::FLOAT4) if value.unsigned_abs() <= 1 << 24 => value.to_string(),
        (V::Float(value), oid::FLOAT4 | oid::FLOAT8) => value.to_string(),
        (V::Decimal(text), oid::NUMERIC) => text.clone(),
        (V::Bytes(bytes), oid::BYTEA) => to_hex(bytes),
        (V::Timestamp(text), oid::TIMESTAMP | oid::TIMESTAMPTZ) => {
            // Without a zone it counts as UTC, and Postgres takes the letter for nothing.
            rfc3339(text).ok_or_else(|| "is not an RFC 3339 timestamp".to_owned())?
        }
        (V::Date(text), oid::DATE) if is_day(text) => text.clone(),
        (V::Date(_), oid::DATE) => return Err("is not a date like 2024-01-31".to_owned()),
        (V::Uuid(text), oid::UUID) => {
            uuid::Uuid::try_parse(text).map_err(|_| "is not a UUID".to_owned())?.hyphenated().to_string()
        }
        (V::Json(text), oid::JSON | oid::JSONB) => text.clone(),
        (V::Text(text), type_oid) if takes_text(type_oid) => text.clone(),
        _ => {
            let wanted = known_type_name(type_oid).unwrap_or("a type that takes text");
            return Err(format!("is {}, and the statement takes {wanted} there: cast it", kind(value)));
        }
    };
    if text.contains('\0') {
        return Err("holds a NUL, which no text in Postgres can".to_owned());
    }
    Ok(Some(text.into_bytes()))
}

fn takes_text(type_oid: u32) -> bool {
    use oid::{BOOL, BYTEA, FLOAT4, FLOAT8, INT2, INT4, INT8, OID};
    !matches!(type_oid, BOOL | BYTEA | INT2 | INT4 | INT8 | OID | FLOAT4 | FLOAT8)
}

/// An instant in UTC, from one with its offset: RFC 3339 knows no other.
fn rfc3339(text: &str) -> Option<String> {
    // What the parser takes beside it: annotations, signed years.
    if text.len() > 40 || !text.starts_with(|c: char| c.is_ascii_digit()) || text.contains('[') {
        return None;
    }
    match text.strip_suffix(['Z', 'z']) {
        // An instant of the parser's ends a day before the year 9999 does.
        Some(utc) => utc.parse::<jiff::civil::DateTime>().ok().map(|utc| format!("{utc}Z")),
        None => text.parse::<jiff::Timestamp>().ok().map(|instant| instant.to_string()),
    }
}

fn to_hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let digits = digits.map(|digit| char::from_digit(digit.into(), 16).expect("four bits are one digit"));
    "\\x".chars().chain(digits).collect()
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Boolean(_) => "a boolean",
        Value::Integer(_) => "an integer",
        Value::Float(_) => "a float",
        Value::Decimal(_) => "a decimal",
        Value::Text(_) => "text",
        Value::Bytes(_) => "bytes",
        Value::Timestamp(_) => "a timestamp",
        Value::Date(_) => "a date",
        Value::Uuid(_) => "a uuid",
        Value::Json(_) => "json",
    }
}

/// Adds a value, with its kind, to a digest.
pub fn digest(value: &Value, writer: &mut DigestWriter) {
    writer.field(kind(value).as_bytes());
    match value {
        Value::Null => writer.field(&[]),
        Value::Boolean(value) => writer.field(&[u8::from(*value)]),
        Value::Integer(value) => writer.field(&value.to_le_bytes()),
        Value::Float(value) => writer.field(&value.to_le_bytes()),
        Value::Decimal(text)
        | Value::Text(text)
        | Value::Timestamp(text)
        | Value::Date(text)
        | Value::Uuid(text)
        | Value::Json(text) => writer.field(text.as_bytes()),
        Value::Bytes(bytes) => writer.field(bytes),
    }
}

/// Bytes that a value counts as.
pub fn size_of(value: &Value) -> u64 {
    let size = match value {
        Value::Null => 0,
        Value::Boolean(_) => 1,
        Value::Integer(_) | Value::Float(_) => 8,
        Value::Decimal(text)
        | Value::Text(text)
        | Value::Timestamp(text)
        | Value::Date(text)
        | Value::Uuid(text)
        | Value::Json(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
    };
    size as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seen(type_oid: u32, text: &str) -> String {
        format!("{:?}", decode(type_oid, Some(text.as_bytes())))
    }

    #[test]
    fn what_rfc_3339_cannot_say_is_text() {
        assert_eq!(
            seen(oid::TIMESTAMPTZ, "2024-01-31 12:00:00.5+00"),
            r#"Some(Value::Timestamp("2024-01-31T12:00:00.5Z"))"#
        );
        assert_eq!(seen(oid::TIMESTAMP, "0001-01-01 00:00:00"), r#"Some(Value::Timestamp("0001-01-01T00:00:00Z"))"#);
        for odd in ["infinity", "0044-03-15 12:00:00+00 BC", "12024-01-31 12:00:00+00", "2024-01-31 12:00:00+01"] {
            assert_eq!(seen(oid::TIMESTAMPTZ, odd), format!("Some(Value::Text({odd:?}))"));
        }
        assert_eq!(seen(oid::DATE, "2024-01-31"), r#"Some(Value::Date("2024-01-31"))"#);
        assert_eq!(seen(oid::DATE, "0044-03-15 BC"), r#"Some(Value::Text("0044-03-15 BC"))"#);
    }

    #[test]
    fn what_the_settings_do_not_allow_is_not_guessed() {
        // As they would look under another DateStyle or bytea_output.
        assert!(decode(oid::BYTEA, Some(b"abc")).is_none());
        assert!(decode(oid::BYTEA, Some(b"\\xabc")).is_none());
        assert!(decode(oid::BOOL, Some(b"true")).is_none());
        assert!(decode(oid::INT4, Some(b"1,000")).is_none());
        assert!(decode(oid::TEXT, Some(b"\xff")).is_none());
    }

    #[test]
    fn a_value_fits_its_type_or_is_told_what_to_do() {
        let refused = |value: Value, type_oid| encode(&value, type_oid).unwrap_err();
        assert_eq!(refused(Value::Integer(1), oid::TEXT), "is an integer, and the statement takes text there: cast it");
        assert_eq!(
            refused(Value::Text("1".into()), oid::INT4),
            "is text, and the statement takes integer there: cast it"
        );
        assert!(refused(Value::Integer((1 << 53) + 1), oid::FLOAT8).contains("double precision"));
        assert!(refused(Value::Text("a\0".into()), oid::TEXT).contains("NUL"));
        assert!(refused(Value::Timestamp("2024-01-31T12:00:00".into()), oid::TIMESTAMPTZ).contains("RFC 3339"));
        assert!(
            refused(Value::Timestamp("2024-01-31T12:00:00Z[Europe/Berlin]".into()), oid::TIMESTAMP)
                .contains("RFC 3339")
        );
        assert!(refused(Value::Date("31.1.2024".into()), oid::DATE).contains("2024-01-31"));
        assert!(refused(Value::Uuid("x".into()), oid::UUID).contains("UUID"));
        let offset = Value::Timestamp("2024-01-31T12:00:00.25+02:00".into());
        assert_eq!(encode(&offset, oid::TIMESTAMP).unwrap().unwrap(), b"2024-01-31T10:00:00.25Z");
        // An interval, an array, an enumeration.
        assert_eq!(encode(&Value::Text("{1,2}".into()), 1007).unwrap().unwrap(), b"{1,2}");
    }

    #[test]
    fn values_that_differ_in_their_kind_only_have_other_digests() {
        let of = |value: Value| {
            let mut writer = DigestWriter::default();
            digest(&value, &mut writer);
            writer.finish()
        };
        let values = [
            Value::Null,
            Value::Text(String::new()),
            Value::Bytes(vec![]),
            Value::Text("1".into()),
            Value::Decimal("1".into()),
            Value::Json("1".into()),
            Value::Bytes(b"1".to_vec()),
            Value::Boolean(true),
            Value::Integer(0),
            Value::Float(0.0),
        ];
        let seen: std::collections::HashSet<_> = values.iter().cloned().map(of).collect();
        assert_eq!(seen.len(), values.len());
    }

    proptest! {
        #[test]
        fn numbers_and_bytes_survive_their_text(integer: i64, float: f64, single: f32, bytes: Vec<u8>) {
            let back = |value: &Value, type_oid| decode(type_oid, encode(value, type_oid).unwrap().as_deref());
            let same = |value: Value, type_oid| {
                format!("{:?}", back(&value, type_oid).unwrap()) == format!("{value:?}")
            };
            prop_assert!(same(Value::Integer(integer), oid::INT8));
            prop_assert!(same(Value::Float(float), oid::FLOAT8));
            prop_assert!(same(Value::Float(single.into()), oid::FLOAT4));
            prop_assert!(same(Value::Bytes(bytes), oid::BYTEA));
        }

        #[test]
        fn no_text_of_a_server_panics(type_oid in prop::sample::select(vec![16, 17, 20, 25, 700, 701, 1082, 1114, 1184, 1700, 2950]), text: Vec<u8>) {
            let _any = decode(type_oid, Some(&text));
        }
    }
}
