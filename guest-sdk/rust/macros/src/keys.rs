//! The keys along one dimension, and the form that a key of each time unit has.
//!
//! The form is checked, not the calendar: the host knows which years have a 53rd week.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::{Error, Ident, LitStr, Result, Token, parenthesized};

use crate::arguments::{parse_comma, refuse_repeated};

/// Bytes of a key, as the contract has it.
const KEY_BYTES_MAX: usize = 256;

/// An expression of type `flowstone_sdk::definition::DimensionKeys`.
pub(crate) struct Keys(pub TokenStream);

/// A time unit, as the attribute knows it.
struct Unit {
    /// The word in the attribute.
    word: &'static str,
    /// The variant of `flowstone_sdk::definition::TimeUnit`.
    variant: &'static str,
    /// The first key of some January: `0` stands for any digit, and what follows is bounded by it.
    example: &'static str,
}

const UNITS: [Unit; 5] = [
    Unit { word: "hourly", variant: "Hour", example: "2024-01-01T00" },
    Unit { word: "daily", variant: "Day", example: "2024-01-01" },
    Unit { word: "weekly", variant: "Week", example: "2024-W01" },
    Unit { word: "monthly", variant: "Month", example: "2024-01" },
    Unit { word: "yearly", variant: "Year", example: "2024" },
];

impl Parse for Keys {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let word = input.call(Ident::parse_any)?;
        let unit = UNITS.iter().find(|unit| word == unit.word);
        if unit.is_none() && word != "static_keys" {
            let known = "hourly, daily, weekly, monthly, yearly and static_keys";
            return Err(Error::new(word.span(), format!("unknown keys `{word}`: there are {known}")));
        }
        let content;
        parenthesized!(content in input);
        match unit {
            Some(unit) => parse_time(unit, &word, &content),
            None => parse_static(&word, &content),
        }
    }
}

/// `from[, to][, time_zone = ".."]`
fn parse_time(unit: &Unit, word: &Ident, content: ParseStream<'_>) -> Result<Keys> {
    if content.is_empty() {
        return Err(Error::new(word.span(), format!("say where the keys begin: `{word}(\"{}\")`", unit.example)));
    }
    let from = parse_key(unit, content)?;
    let mut to = quote!(::core::option::Option::None);
    if content.peek(LitStr) {
        let last = parse_key(unit, content)?;
        if last.value() < from.value() {
            return Err(Error::new(last.span(), format!("the last key is before the first, `{}`", from.value())));
        }
        to = quote!(::core::option::Option::Some(#last));
    }
    let mut time_zone = LitStr::new("UTC", word.span());
    if !content.is_empty() {
        let key = content.call(Ident::parse_any)?;
        if key != "time_zone" {
            return Err(Error::new(key.span(), format!("unknown key `{key}`: only time_zone is expected here")));
        }
        content.parse::<Token![=]>()?;
        time_zone = content.parse()?;
        parse_comma(content)?;
    }
    if !content.is_empty() {
        return Err(content.error(format!("more than `{word}(..)` takes: a first key, a last key, and time_zone")));
    }
    let variant = format_ident!("{}", unit.variant);
    Ok(Keys(quote! {
        ::flowstone_sdk::definition::DimensionKeys::Time {
            unit: ::flowstone_sdk::definition::TimeUnit::#variant,
            from: #from,
            to: #to,
            time_zone: #time_zone,
        }
    }))
}

fn parse_key(unit: &Unit, content: ParseStream<'_>) -> Result<LitStr> {
    let literal: LitStr = content.parse()?;
    parse_comma(content)?;
    match has_form(&literal.value(), unit.example) {
        true => Ok(literal),
        false => {
            let text =
                format!("`{}` is not a key of {} partitions, like `{}`", literal.value(), unit.word, unit.example);
            Err(Error::new(literal.span(), text))
        }
    }
}

/// Whether the key has a digit where the example has one, and the same letter elsewhere, and its numbers are in range.
fn has_form(key: &str, example: &str) -> bool {
    let same_kind = |(a, b): (u8, u8)| a == b || (a.is_ascii_digit() && b.is_ascii_digit());
    if key.len() != example.len() || !key.bytes().zip(example.bytes()).all(same_kind) {
        return false;
    }
    let number = |at: usize| key.get(at..at + 2).and_then(|digits| digits.parse::<u32>().ok());
    match (example.as_bytes().get(5), example.len()) {
        (Some(b'W'), _) => matches!(number(6), Some(1..=53)),
        (_, 4) => true,
        (_, 7) => matches!(number(5), Some(1..=12)),
        (_, 10) => matches!((number(5), number(8)), (Some(1..=12), Some(1..=31))),
        _ => matches!((number(5), number(8), number(11)), (Some(1..=12), Some(1..=31), Some(0..=23))),
    }
}

fn parse_static(word: &Ident, content: ParseStream<'_>) -> Result<Keys> {
    let mut keys = Vec::new();
    let mut seen = Vec::new();
    while !content.is_empty() {
        let key: LitStr = content.parse()?;
        let text = key.value();
        if text.is_empty() || text.len() > KEY_BYTES_MAX {
            return Err(Error::new(key.span(), format!("a key has between 1 and {KEY_BYTES_MAX} bytes")));
        }
        refuse_repeated(&mut seen, &text, key.span(), "a key")?;
        keys.push(key);
        parse_comma(content)?;
    }
    match keys.is_empty() {
        true => Err(Error::new(word.span(), "name at least one key: `static_keys(\"north\", \"south\")`")),
        false => Ok(Keys(quote!(::flowstone_sdk::definition::DimensionKeys::Static(&[#(#keys),*])))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_has_its_own_form_only() {
        for unit in &UNITS {
            for other in &UNITS {
                assert_eq!(
                    has_form(unit.example, other.example),
                    unit.word == other.word,
                    "{} {}",
                    unit.word,
                    other.word
                );
            }
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for (key, example) in [
            ("2024-13", "2024-01"),
            ("2024-00", "2024-01"),
            ("2024-01-32", "2024-01-01"),
            ("2024-W54", "2024-W01"),
            ("2024-01-01T24", "2024-01-01T00"),
            ("2024-01-01t00", "2024-01-01T00"),
            ("24", "2024"),
            ("２０", "2024-01"),
        ] {
            assert!(!has_form(key, example), "{key}");
        }
    }
}
