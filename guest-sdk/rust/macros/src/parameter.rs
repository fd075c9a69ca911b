//! One parameter of the configuration, as it is written: `text("for whom", default = "everybody")`.

use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::{Error, Ident, Lit, LitStr, Result, Token, parenthesized};

use crate::arguments::parse_comma;

/// What a parameter takes, and what holds without it.
pub(crate) struct Parameter {
    /// The variant of `ParameterKind`.
    pub kind: Ident,
    pub description: LitStr,
    /// As JSON.
    pub default: Option<String>,
}

/// The kinds by the name that authors write, and their variants.
const KINDS: [(&str, &str); 5] =
    [("text", "Text"), ("integer", "Integer"), ("number", "Number"), ("boolean", "Boolean"), ("json", "Json")];

/// Bytes of a description, and of a default as JSON, as the contract has them.
const DESCRIPTION_BYTES_MAX: usize = 512;
const DEFAULT_BYTES_MAX: usize = 8 << 10;

impl Parse for Parameter {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let kind = input.call(Ident::parse_any)?;
        let Some((_, variant)) = KINDS.iter().find(|(name, _)| kind == name) else {
            let known = KINDS.map(|(name, _)| name).join(", ");
            return Err(Error::new(kind.span(), format!("unknown kind `{kind}` of a parameter: there are {known}")));
        };
        let content;
        parenthesized!(content in input);
        let description: LitStr = content.parse()?;
        if description.value().len() > DESCRIPTION_BYTES_MAX {
            return Err(Error::new(description.span(), "more than 512 bytes: one sentence is enough"));
        }
        parse_comma(&content)?;
        let mut default = None;
        if !content.is_empty() {
            let key = content.call(Ident::parse_any)?;
            if key != "default" {
                return Err(Error::new(key.span(), format!("unknown key `{key}`: only default is expected here")));
            }
            content.parse::<Token![=]>()?;
            default = Some(parse_default(variant, &content)?);
            parse_comma(&content)?;
        }
        if !content.is_empty() {
            return Err(content.error("only a description and a default are expected here"));
        }
        Ok(Self { kind: Ident::new(variant, kind.span()), description, default })
    }
}

/// A literal of the kind, as JSON.
fn parse_default(kind: &str, input: ParseStream<'_>) -> Result<String> {
    let minus = if input.peek(Token![-]) { input.parse::<Token![-]>().map(|_| "-")? } else { "" };
    let literal: Lit = input.parse()?;
    let json = match (kind, &literal, minus) {
        ("Text", Lit::Str(text), "") => quoted(&text.value()),
        // The host reads it: the mistake, if there is one, is told at deploy.
        ("Json", Lit::Str(text), "") => text.value(),
        ("Boolean", Lit::Bool(boolean), "") => boolean.value.to_string(),
        ("Integer" | "Number", Lit::Int(number), _) if number.base10_parse::<i64>().is_ok() => {
            format!("{minus}{}", number.base10_digits())
        }
        ("Number", Lit::Float(number), _) if number.base10_parse::<f64>().is_ok_and(f64::is_finite) => {
            format!("{minus}{:?}", number.base10_parse::<f64>()?)
        }
        _ => {
            let expected = match kind {
                "Text" => "text in quotes",
                "Json" => "JSON in quotes",
                "Boolean" => "true or false",
                "Integer" => "a whole number of 64 bits",
                _ => "a number",
            };
            return Err(Error::new(literal.span(), format!("the default is not of its kind: write {expected}")));
        }
    };
    match json.len() <= DEFAULT_BYTES_MAX {
        true => Ok(json),
        false => Err(Error::new(literal.span(), "more than 8 KiB as JSON: put large values into an input or a file")),
    }
}

fn quoted(text: &str) -> String {
    let escaped = text.chars().map(|c| match c {
        '"' | '\\' => format!("\\{c}"),
        c if c.is_control() => format!("\\u{:04x}", c as u32),
        c => c.to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}
