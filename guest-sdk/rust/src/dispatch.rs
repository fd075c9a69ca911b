//! From a name to the function that carries it, and from what it returns to the host's words.

use crate::context::Context;
use crate::definition::find_asset;
use crate::error::{Error, Outcome, Result};
use crate::output::Output;

/// Makes the asset of this name, in the job that the host says is current.
pub(crate) fn materialize(name: &str) -> Outcome {
    let Some(asset) = find_asset(name) else {
        return Outcome::Permanent(format!("this component has no asset `{name}`"));
    };
    let context = Context::new();
    match (asset.materialize)(&context).and_then(|()| context.finish_output()) {
        Ok(()) => Outcome::Done,
        Err(error) => error.into_outcome(),
    }
}

/// What a function with the attribute `asset` returns.
#[diagnostic::on_unimplemented(
    message = "an asset cannot return `{Self}`",
    label = "returns something else than a `Result` of an output",
    note = "return `flowstone_sdk::Result<T>`, where `T` is `String`, `Vec<u8>`, `Json<_>`, `Csv<_>`, or `()` after writing to `ctx.output()`"
)]
pub trait Answer {
    /// Declared for the asset when its attribute does not say.
    const MEDIA_TYPE: &'static str;

    /// Writes the value, if there is one.
    fn deliver(self, context: &Context) -> Result<()>;
}

impl<T: Output, E: Into<Error>> Answer for Result<T, E> {
    const MEDIA_TYPE: &'static str = T::MEDIA_TYPE;

    fn deliver(self, context: &Context) -> Result<()> {
        self.map_err(Into::into)?.write_to(&mut context.output())
    }
}

/// What the function's type declares.
pub const fn media_type<A: Answer>(_asset: fn() -> A) -> &'static str {
    A::MEDIA_TYPE
}

/// The same of a function that takes the context. What it returns may borrow from it, so one lifetime stands for all.
pub const fn media_type_with_context<A: Answer>(_asset: fn(&'static Context) -> A) -> &'static str {
    A::MEDIA_TYPE
}
