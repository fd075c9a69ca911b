//! Lists of named values that cross the sandbox, and their bounds.

use std::collections::BTreeSet;

use crate::{
    bindings::flowstone::asset::types,
    limit::{FIELD_NAME_BYTES_MAX, FIELD_VALUE_BYTES_MAX, FIELDS_MAX},
    pipeline::asset::Field,
};

/// Fields as the guest sees them.
pub fn fields_to_wit(fields: &[Field]) -> Vec<types::Field> {
    fields.iter().map(|field| types::Field { name: field.name.clone(), value: field.value.clone() }).collect()
}

/// A guest's fields, when they keep the bounds of `types.wit`; otherwise which bound they break.
pub fn checked_fields(fields: Vec<types::Field>) -> Result<Vec<Field>, String> {
    if fields.len() > FIELDS_MAX {
        return Err(format!("{} fields are more than {FIELDS_MAX}", fields.len()));
    }
    let mut names = BTreeSet::new();
    for field in &fields {
        if field.name.is_empty() || field.name.len() > FIELD_NAME_BYTES_MAX {
            return Err(format!("a field's name has 1 to {FIELD_NAME_BYTES_MAX} bytes, not {}", field.name.len()));
        }
        if field.name.chars().any(char::is_control) {
            return Err(format!("the field name {:?} holds control characters", field.name));
        }
        if field.value.len() > FIELD_VALUE_BYTES_MAX {
            return Err(format!(
                "the value of field `{}` has {} bytes, more than {FIELD_VALUE_BYTES_MAX}",
                field.name,
                field.value.len()
            ));
        }
        if field.value.contains('\0') {
            return Err(format!("the value of field `{}` holds a NUL, which no text in the database can", field.name));
        }
        if !names.insert(field.name.as_str()) {
            return Err(format!("the field name `{}` is there twice", field.name));
        }
    }
    Ok(fields.into_iter().map(|field| Field { name: field.name, value: field.value }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, value: &str) -> types::Field {
        types::Field { name: name.into(), value: value.into() }
    }

    #[test]
    fn fields_within_the_bounds_are_kept_in_order() {
        let fields = vec![field("rows", "3"), field("a", ""), field("Schlüssel", "{\"a\":1}\n")];
        let kept = checked_fields(fields).unwrap();
        assert_eq!(kept.iter().map(|field| field.name.as_str()).collect::<Vec<_>>(), ["rows", "a", "Schlüssel"]);
    }

    #[test]
    fn each_bound_is_named() {
        let check = |fields: Vec<types::Field>, expected: &str| {
            let error = checked_fields(fields).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        check((0..=FIELDS_MAX).map(|n| field(&n.to_string(), "")).collect(), "65 fields are more than 64");
        check(vec![field("", "")], "1 to 128 bytes");
        check(vec![field(&"n".repeat(FIELD_NAME_BYTES_MAX + 1), "")], "1 to 128 bytes, not 129");
        check(vec![field("a\u{1b}b", "")], "control characters");
        check(vec![field("a", &"v".repeat(FIELD_VALUE_BYTES_MAX + 1))], "more than 8192");
        check(vec![field("a", "1"), field("a", "2")], "`a` is there twice");
    }
}
