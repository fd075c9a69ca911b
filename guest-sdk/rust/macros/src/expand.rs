//! From an attribute and a function to the same function with its definition beside it.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{Attribute, Error, Expr, FnArg, ItemFn, Lit, Meta, Result, ReturnType};

use crate::arguments::{Arguments, Name};

pub(crate) fn expand(arguments: TokenStream, function: TokenStream) -> Result<TokenStream> {
    let arguments: Arguments = syn::parse2(arguments)?;
    let function: ItemFn = syn::parse2(function)?;
    let takes_context = check_signature(&function)?;
    let definition = define(&arguments, &function, takes_context)?;

    let ident = &function.sig.ident;
    // Of this span, so that it does not hide a function that is called the same.
    let context = Ident::new("context", Span::mixed_site());
    let call = if takes_context { quote!(#ident(#context)) } else { quote!(#ident()) };
    Ok(quote! {
        #function

        const _: () = {
            fn __materialize(#context: &::flowstone_sdk::Context) -> ::flowstone_sdk::Result<()> {
                ::flowstone_sdk::expansion::Answer::deliver(#call, #context)
            }

            ::flowstone_sdk::expansion::submit! { #definition }
        };
    })
}

/// Whether the function takes the context; an error if it is not a function that an asset can be.
fn check_signature(function: &ItemFn) -> Result<bool> {
    let signature = &function.sig;
    if let Some(keyword) = &signature.asyncness {
        return Err(Error::new(keyword.span(), "an asset is not async: what it calls answers when it is done"));
    }
    if !signature.generics.params.is_empty() {
        return Err(Error::new(signature.generics.span(), "an asset has no type or lifetime parameters"));
    }
    if matches!(signature.output, ReturnType::Default) {
        return Err(Error::new(signature.ident.span(), "an asset returns a `Result`: write `-> Result<()>`"));
    }
    let mut parameters = signature.inputs.iter();
    match (parameters.next(), parameters.next()) {
        (None, _) => Ok(false),
        (Some(FnArg::Typed(_)), None) => Ok(true),
        (Some(other), None) => Err(Error::new(other.span(), "an asset is a free function")),
        (_, Some(more)) => {
            let text = "an asset takes only `ctx: &Context`: inputs, partition and configuration are read from it";
            Err(Error::new(more.span(), text))
        }
    }
}

/// A `flowstone_sdk::definition::AssetDefinition`, as a constant expression.
fn define(arguments: &Arguments, function: &ItemFn, takes_context: bool) -> Result<TokenStream> {
    let ident = &function.sig.ident;
    let name = match &arguments.name {
        Some(literal) => Name::from(literal),
        None => Name { text: ident.unraw().to_string(), span: ident.span() },
    };
    name.check()?;
    let name = name.text;
    let description = match &arguments.description {
        Some(literal) => literal.value(),
        None => read_doc_comment(&function.attrs),
    };
    let media_type = define_media_type(arguments, function, takes_context)?;

    let inputs = arguments.inputs.iter().map(|(name, source)| {
        let (name, asset, optional, mapping) = (&name.text, &source.asset, source.optional, &source.mapping);
        quote!(::flowstone_sdk::definition::InputDefinition {
            name: #name, asset: #asset, optional: #optional, mapping: #mapping,
        })
    });
    let dimensions = arguments.partitions.iter().map(|(name, keys)| {
        let (name, keys) = (&name.text, &keys.0);
        quote!(::flowstone_sdk::definition::Dimension { name: #name, keys: #keys })
    });
    let requirements = arguments.requires.iter().map(|(name, grant)| {
        let (name, capability, reason) = (&name.text, &grant.capability, &grant.reason);
        quote!(::flowstone_sdk::definition::Requirement {
            resource_name: #name, capability: ::flowstone_sdk::definition::Capability::#capability, reason: #reason,
        })
    });
    let tags = arguments.tags.iter().map(|(name, value)| {
        let name = &name.text;
        quote!((#name, #value))
    });
    Ok(quote! {
        ::flowstone_sdk::definition::AssetDefinition {
            name: #name,
            description: #description,
            inputs: &[#(#inputs),*],
            dimensions: &[#(#dimensions),*],
            requirements: &[#(#requirements),*],
            media_type: #media_type,
            tags: &[#(#tags),*],
            materialize: __materialize,
        }
    })
}

/// The attribute's, or that of the returned type. The type may hold an `impl Trait`, which cannot be named, so it is
/// inferred from the function.
fn define_media_type(arguments: &Arguments, function: &ItemFn, takes_context: bool) -> Result<TokenStream> {
    let Some(literal) = &arguments.media_type else {
        let ident = &function.sig.ident;
        let ask = if takes_context { quote!(media_type_with_context) } else { quote!(media_type) };
        return Ok(quote_spanned!(function.sig.output.span()=> ::flowstone_sdk::expansion::#ask(#ident)));
    };
    let text = literal.value();
    let is_named = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic());
    let named = text.split(';').next().and_then(|name| name.split_once('/'));
    match named.is_some_and(|(kind, subtype)| is_named(kind) && is_named(subtype.trim_end())) && text.len() <= 127 {
        true => Ok(quote!(#literal)),
        false => Err(Error::new(literal.span(), format!("`{text}` is not a media type, like `application/json`"))),
    }
}

/// The lines of the doc comment, without the space that stands before each.
fn read_doc_comment(attributes: &[Attribute]) -> String {
    let mut lines = Vec::new();
    for attribute in attributes {
        if let Meta::NameValue(meta) = &attribute.meta
            && meta.path.is_ident("doc")
            && let Expr::Lit(literal) = &meta.value
            && let Lit::Str(text) = &literal.lit
        {
            let text = text.value();
            lines.push(text.strip_prefix(' ').unwrap_or(&text).to_owned());
        }
    }
    lines.join("\n").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the compiler says about this attribute on a function that is in order.
    fn refuse(arguments: TokenStream) -> String {
        refuse_function(
            arguments,
            quote!(
                fn greeting(ctx: &Context) -> Result<String> {
                    ctx.text()
                }
            ),
        )
    }

    fn refuse_function(arguments: TokenStream, function: TokenStream) -> String {
        expand(arguments, function).expect_err("it is wrong").to_string()
    }

    #[test]
    fn keys_of_the_attribute_are_known_and_said_once() {
        assert_eq!(
            refuse(quote!(media = "text/plain")),
            "unknown key `media`: an asset has name, description, media_type, inputs, partitions, requires and tags"
        );
        assert_eq!(
            refuse(quote!(name = "a", name = "b")),
            "the key called `name` is there already: remove or rename one"
        );
    }

    #[test]
    fn names_are_checked_wherever_they_stand() {
        let rule = "is not a name: at most 64 of `a-z`, `0-9` and `_`, beginning with a letter";
        assert_eq!(refuse(quote!(name = "Greeting")), format!("`Greeting` {rule}"));
        assert_eq!(refuse(quote!(inputs(raw = "raw weather"))), format!("`raw weather` {rule}"));
        assert_eq!(refuse(quote!(inputs(Raw))), format!("`Raw` {rule}"));
        assert_eq!(refuse(quote!(requires("a/b" = files("why")))), format!("`a/b` {rule}"));
        assert_eq!(refuse(quote!(partitions(_m = monthly("2012-01")))), format!("`_m` {rule}"));
        let long = "a".repeat(65);
        assert_eq!(refuse(quote!(name = #long)), format!("`{long}` {rule}"));
    }

    #[test]
    fn inputs_say_what_is_wrong_with_them() {
        assert_eq!(refuse(quote!(inputs(a, a))), "an input called `a` is there already: remove or rename one");
        assert_eq!(refuse(quote!(inputs(a = b))), "write the asset's name in quotes: `\"b\"`");
        assert_eq!(
            refuse(quote!(inputs(a = every("b")))),
            "unknown form `every` of an input: there are optional, all, within, window and fixed"
        );
        assert_eq!(refuse(quote!(inputs(a = window("b", 0, -6)))), "the window ends before it begins: write `-6, 0`");
        assert_eq!(refuse(quote!(inputs(a = fixed("b")))), "name at least one partition: `{ year = \"2012\" }`");
        assert_eq!(refuse(quote!(inputs(a = all("b", 1)))), "more than `all(..)` takes");
    }

    #[test]
    fn partitions_say_what_is_wrong_with_them() {
        assert_eq!(
            refuse(quote!(partitions(month = monthly("2012-1")))),
            "`2012-1` is not a key of monthly partitions, like `2024-01`"
        );
        assert_eq!(
            refuse(quote!(partitions(month = monthly("2012-02", "2012-01")))),
            "the last key is before the first, `2012-02`"
        );
        assert_eq!(refuse(quote!(partitions(day = daily()))), "say where the keys begin: `daily(\"2024-01-01\")`");
        assert_eq!(
            refuse(quote!(partitions(day = daily("2024-01-01", zone = "UTC")))),
            "unknown key `zone`: only time_zone is expected here"
        );
        assert_eq!(
            refuse(quote!(partitions(day = dayly("2024-01-01")))),
            "unknown keys `dayly`: there are hourly, daily, weekly, monthly, yearly and static_keys"
        );
        assert_eq!(
            refuse(quote!(partitions(region = static_keys("a", "a")))),
            "a key called `a` is there already: remove or rename one"
        );
        assert_eq!(
            refuse(quote!(partitions(region = static_keys()))),
            "name at least one key: `static_keys(\"north\", \"south\")`"
        );
    }

    #[test]
    fn requirements_and_media_types_are_checked() {
        assert_eq!(
            refuse(quote!(requires(station = ftp("why")))),
            "unknown capability `ftp`: write `files(\"one sentence that says why\")`, or one of files, clock, random, secret, http, sql"
        );
        assert_eq!(
            refuse(quote!(requires(station = files(" ")))),
            "say in one sentence why: an operator decides by it"
        );
        assert_eq!(refuse(quote!(requires(station))), "`station` needs a value: `station = ..`");
        for wrong in ["text", "text/", "te xt/plain", "/plain"] {
            let message = format!("`{wrong}` is not a media type, like `application/json`");
            assert_eq!(refuse(quote!(media_type = #wrong)), message);
        }
    }

    #[test]
    fn only_a_plain_function_is_an_asset() {
        let nothing = TokenStream::new;
        assert_eq!(
            refuse_function(
                nothing(),
                quote!(
                    async fn a() -> Result<()> {
                        Ok(())
                    }
                )
            ),
            "an asset is not async: what it calls answers when it is done"
        );
        assert_eq!(
            refuse_function(
                nothing(),
                quote!(
                    fn a<T>() -> Result<T> {
                        b()
                    }
                )
            ),
            "an asset has no type or lifetime parameters"
        );
        assert_eq!(
            refuse_function(
                nothing(),
                quote!(
                    fn a() {}
                )
            ),
            "an asset returns a `Result`: write `-> Result<()>`"
        );
        assert_eq!(
            refuse_function(
                nothing(),
                quote!(
                    fn a(&self) -> Result<()> {
                        b()
                    }
                )
            ),
            "an asset is a free function"
        );
        assert_eq!(
            refuse_function(
                nothing(),
                quote!(
                    fn a(ctx: &Context, b: Bytes) -> Result<()> {
                        b()
                    }
                )
            ),
            "an asset takes only `ctx: &Context`: inputs, partition and configuration are read from it"
        );
    }
}
