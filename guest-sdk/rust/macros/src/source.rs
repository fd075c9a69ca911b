//! One input: the asset that it comes from, and which of its partitions are read.

use proc_macro2::TokenStream;
use quote::quote;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::{Error, Ident, LitInt, LitStr, Result, Token, braced, parenthesized, token};

use crate::arguments::{Name, parse_comma, refuse_repeated};

/// What stands on the right of an input's name.
pub(crate) struct Source {
    pub asset: String,
    pub optional: bool,
    /// An expression of type `flowstone_sdk::definition::Mapping`.
    pub mapping: TokenStream,
}

impl Source {
    /// What follows the name: nothing where the asset is called the same.
    pub(crate) fn parse_after(name: &Name, input: ParseStream<'_>) -> Result<Self> {
        if !input.peek(Token![=]) {
            return Ok(Self::same(name.text.clone()));
        }
        input.parse::<Token![=]>()?;
        input.parse()
    }

    fn same(asset: String) -> Self {
        Self { asset, optional: false, mapping: quote!(::flowstone_sdk::definition::Mapping::Same) }
    }
}

impl Parse for Source {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        if input.peek(LitStr) {
            return parse_asset(input).map(Self::same);
        }
        let form = input.call(Ident::parse_any)?;
        if !input.peek(token::Paren) {
            return Err(Error::new(form.span(), format!("write the asset's name in quotes: `\"{form}\"`")));
        }
        let content;
        parenthesized!(content in input);
        let source = match form.to_string().as_str() {
            "optional" => Self { optional: true, ..content.parse()? },
            "all" => Self { mapping: quote!(::flowstone_sdk::definition::Mapping::All), ..parse_plain(&content)? },
            "within" => {
                Self { mapping: quote!(::flowstone_sdk::definition::Mapping::Within), ..parse_plain(&content)? }
            }
            "window" => Self { asset: parse_asset(&content)?, optional: false, mapping: parse_window(&content)? },
            "fixed" => Self { asset: parse_asset(&content)?, optional: false, mapping: parse_fixed(&content)? },
            unknown => {
                let known = "optional, all, within, window and fixed";
                return Err(Error::new(
                    form.span(),
                    format!("unknown form `{unknown}` of an input: there are {known}"),
                ));
            }
        };
        parse_comma(&content)?;
        match content.is_empty() {
            true => Ok(source),
            false => Err(content.error(format!("more than `{form}(..)` takes"))),
        }
    }
}

fn parse_plain(content: ParseStream<'_>) -> Result<Source> {
    parse_asset(content).map(Source::same)
}

fn parse_asset(content: ParseStream<'_>) -> Result<String> {
    let literal: LitStr = content.parse()?;
    let name = Name::from(&literal);
    name.check()?;
    Ok(name.text)
}

/// `, from, to`
fn parse_window(content: ParseStream<'_>) -> Result<TokenStream> {
    content.parse::<Token![,]>()?;
    let (from, _) = parse_offset(content)?;
    content.parse::<Token![,]>()?;
    let (to, span) = parse_offset(content)?;
    if to < from {
        return Err(Error::new(span, format!("the window ends before it begins: write `{to}, {from}`")));
    }
    Ok(quote!(::flowstone_sdk::definition::Mapping::Window { from: #from, to: #to }))
}

fn parse_offset(content: ParseStream<'_>) -> Result<(i32, proc_macro2::Span)> {
    let minus: Option<Token![-]> = content.parse()?;
    let literal: LitInt = content.parse()?;
    let digits: i32 = literal.base10_parse()?;
    Ok((if minus.is_some() { -digits } else { digits }, literal.span()))
}

/// `, { dimension = "key", .. }, ..`
fn parse_fixed(content: ParseStream<'_>) -> Result<TokenStream> {
    let mut partitions = Vec::new();
    while content.peek(Token![,]) && content.peek2(token::Brace) {
        content.parse::<Token![,]>()?;
        partitions.push(parse_partition(content)?);
    }
    if partitions.is_empty() {
        return Err(Error::new(content.span(), "name at least one partition: `{ year = \"2012\" }`"));
    }
    Ok(quote!(::flowstone_sdk::definition::Mapping::Fixed(&[#(&[#partitions]),*])))
}

fn parse_partition(input: ParseStream<'_>) -> Result<TokenStream> {
    let content;
    braced!(content in input);
    let mut coordinates = TokenStream::new();
    let mut seen = Vec::new();
    while !content.is_empty() {
        let Name { text, span } = content.parse()?;
        refuse_repeated(&mut seen, &text, span, "a dimension")?;
        content.parse::<Token![=]>()?;
        let key: LitStr = content.parse()?;
        coordinates.extend(quote!((#text, #key),));
        parse_comma(&content)?;
    }
    Ok(coordinates)
}
