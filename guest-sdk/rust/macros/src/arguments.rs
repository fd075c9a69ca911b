//! The attribute's arguments, as they are written.
//!
//! It knows the top level and the lists; one input is [`crate::source`], one dimension [`crate::keys`].

use std::fmt::Display;

use proc_macro2::Span;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::{Error, Ident, LitStr, Result, Token, parenthesized, token};

use crate::keys::Keys;
use crate::source::Source;

/// Bytes of a name, as the contract has it.
const NAME_BYTES_MAX: usize = 64;

/// What `#[asset(..)]` says.
#[derive(Default)]
pub(crate) struct Arguments {
    pub name: Option<LitStr>,
    pub description: Option<LitStr>,
    pub media_type: Option<LitStr>,
    pub inputs: Vec<(Name, Source)>,
    pub partitions: Vec<(Name, Keys)>,
    pub requires: Vec<(Name, Grant)>,
    pub tags: Vec<(Name, LitStr)>,
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut arguments = Self::default();
        let mut seen = Vec::new();
        while !input.is_empty() {
            let key = input.call(Ident::parse_any)?;
            let text = key.to_string();
            match text.as_str() {
                "name" => arguments.name = Some(parse_text(input)?),
                "description" => arguments.description = Some(parse_text(input)?),
                "media_type" => arguments.media_type = Some(parse_text(input)?),
                "inputs" => arguments.inputs = parse_list(input, "an input", Source::parse_after)?,
                "partitions" => arguments.partitions = parse_list(input, "a dimension", parse_assigned)?,
                "requires" => arguments.requires = parse_list(input, "a requirement", parse_assigned)?,
                "tags" => arguments.tags = parse_list(input, "a tag", parse_assigned)?,
                unknown => {
                    let known = "name, description, media_type, inputs, partitions, requires and tags";
                    return Err(Error::new(key.span(), format!("unknown key `{unknown}`: an asset has {known}")));
                }
            }
            refuse_repeated(&mut seen, &text, key.span(), "the key")?;
            parse_comma(input)?;
        }
        Ok(arguments)
    }
}

/// A name on the left of `=`: an identifier, or text for what Rust does not let an identifier be.
pub(crate) struct Name {
    pub text: String,
    pub span: Span,
}

impl Name {
    /// Assets, inputs, dimensions and resources have names of one form.
    pub(crate) fn check(&self) -> Result<()> {
        let mut letters = self.text.bytes();
        let starts = letters.next().is_some_and(|letter| letter.is_ascii_lowercase());
        let continues = letters.all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == b'_');
        if starts && continues && self.text.len() <= NAME_BYTES_MAX {
            return Ok(());
        }
        let rule = format!("at most {NAME_BYTES_MAX} of `a-z`, `0-9` and `_`, beginning with a letter");
        Err(Error::new(self.span, format!("`{}` is not a name: {rule}", self.text)))
    }
}

impl Parse for Name {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        if input.peek(LitStr) {
            return input.parse().map(|literal: LitStr| Self::from(&literal));
        }
        let name = input.call(Ident::parse_any)?;
        Ok(Self { text: name.unraw().to_string(), span: name.span() })
    }
}

impl From<&LitStr> for Name {
    fn from(literal: &LitStr) -> Self {
        Self { text: literal.value(), span: literal.span() }
    }
}

/// What a requirement asks for: `files("why")`.
pub(crate) struct Grant {
    /// The variant of `Capability`.
    pub capability: Ident,
    pub reason: LitStr,
}

/// The capabilities by the name that authors write, and their variants.
const CAPABILITIES: [(&str, &str); 6] = [
    ("files", "Files"),
    ("clock", "Clock"),
    ("random", "Random"),
    ("secret", "Secret"),
    ("http", "Http"),
    ("sql", "Sql"),
];

impl Parse for Grant {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let capability = input.call(Ident::parse_any)?;
        let Some((_, variant)) = CAPABILITIES.iter().find(|(name, _)| capability == name) else {
            let known = CAPABILITIES.map(|(name, _)| name).join(", ");
            let text = format!(
                "unknown capability `{capability}`: write `files(\"one sentence that says why\")`, or one of {known}"
            );
            return Err(Error::new(capability.span(), text));
        };
        let capability = Ident::new(variant, capability.span());
        let content;
        parenthesized!(content in input);
        let reason: LitStr = content.parse()?;
        parse_comma(&content)?;
        if reason.value().trim().is_empty() {
            return Err(Error::new(reason.span(), "say in one sentence why: an operator decides by it"));
        }
        if reason.value().len() > 512 {
            return Err(Error::new(reason.span(), "more than 512 bytes: one sentence is enough"));
        }
        content
            .is_empty()
            .then_some(Self { capability, reason })
            .ok_or_else(|| content.error("only the reason is expected here"))
    }
}

/// `= value`, of one thing of a list.
fn parse_assigned<T: Parse>(name: &Name, input: ParseStream<'_>) -> Result<T> {
    if !input.peek(Token![=]) {
        return Err(Error::new(name.span, format!("`{}` needs a value: `{0} = ..`", name.text)));
    }
    input.parse::<Token![=]>()?;
    input.parse()
}

/// `= "text"`, of a key.
fn parse_text(input: ParseStream<'_>) -> Result<LitStr> {
    input.parse::<Token![=]>()?;
    input.parse()
}

/// `(name .., name ..)`, no name twice.
fn parse_list<T>(
    input: ParseStream<'_>,
    what: &str,
    parse_rest: impl Fn(&Name, ParseStream<'_>) -> Result<T>,
) -> Result<Vec<(Name, T)>> {
    if !input.peek(token::Paren) {
        return Err(input.error("expected a list in parentheses"));
    }
    let content;
    parenthesized!(content in input);
    let mut list = Vec::new();
    let mut seen = Vec::new();
    while !content.is_empty() {
        let name: Name = content.parse()?;
        if what != "a tag" {
            name.check()?;
        }
        refuse_repeated(&mut seen, &name.text, name.span, what)?;
        let rest = parse_rest(&name, &content)?;
        list.push((name, rest));
        parse_comma(&content)?;
    }
    Ok(list)
}

/// The comma between two things, or none after the last.
pub(crate) fn parse_comma(input: ParseStream<'_>) -> Result<()> {
    if !input.is_empty() {
        input.parse::<Token![,]>()?;
    }
    Ok(())
}

/// Notes the text as seen, unless it was.
pub(crate) fn refuse_repeated(seen: &mut Vec<String>, text: &str, span: Span, what: impl Display) -> Result<()> {
    if seen.iter().any(|earlier| earlier == text) {
        return Err(Error::new(span, format!("{what} called `{text}` is there already: remove or rename one")));
    }
    seen.push(text.into());
    Ok(())
}
