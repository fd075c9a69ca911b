//! The attribute of `flowstone-sdk`. Authors use it from there; this crate exists because macros need one of their own.
//!
//! It checks what it can see in one attribute. What needs the whole pipeline, such as whether an input's asset exists,
//! is the host's to check, at deploy.

mod arguments;
mod expand;
mod keys;
mod parameter;
mod source;

use proc_macro::TokenStream;

/// Makes a function an asset of the component that it is compiled into.
///
/// The function takes nothing or a `&Context`, and returns `Result<T>` where `T` is an `Output`: `String`, `Vec<u8>`,
/// `Json<_>`, `Csv<_>`, `()`. Its name is the asset's name, and its doc comment the description. The attribute may say:
///
/// | key | meaning |
/// |---|---|
/// | `name = ".."` | instead of the function's name |
/// | `description = ".."` | instead of the doc comment |
/// | `media_type = ".."` | instead of what the returned type says, for example `application/json` for `Json<_>` |
/// | `inputs(..)` | what it reads |
/// | `partitions(..)` | how it is partitioned |
/// | `requires(..)` | what an operator must grant: `station = files("one sentence that says why")`; also `clock`, `random`, `secret` |
/// | `tags(..)` | for people and filters: `team = "climate"` |
/// | `config(..)` | what a manifest can configure; without it, anything |
///
/// # Inputs
///
/// Each is the name under which the code opens it, and the asset that produces it:
///
/// | form | reads |
/// |---|---|
/// | `raw = "raw_weather"` | the partition with the same keys |
/// | `raw_weather` | the same, where both names are one |
/// | `months = within("monthly_weather")` | every interval that lies within this one: a year from its months |
/// | `sales = all("sales")` | every partition |
/// | `days = window("daily", -6, 0)` | a range of time: this day and the six before it |
/// | `base = fixed("sales", { year = "2012", region = "north" })` | these partitions, always |
/// | `remarks = optional("remarks")` | like what it is put around, and may be absent |
///
/// # Partitions
///
/// Each is a dimension and its keys; keys multiply where there are several:
///
/// | form | keys |
/// |---|---|
/// | `hour = hourly("2024-01-01T00", "2024-12-31T23")` | hours, of UTC |
/// | `day = daily("2024-01-01")` | days, from the first one to the last that has ended |
/// | `week = weekly("2024-W01")` | weeks of ISO 8601 |
/// | `month = monthly("2012-01", "2015-12")` | months |
/// | `year = yearly("2012", "2015", time_zone = "Europe/Berlin")` | years, as they begin there |
/// | `region = static_keys("north", "south")` | these |
///
/// # Parameters
///
/// Each is a key of the asset's configuration, what it is for, and what holds where the manifest is silent; without a
/// default the manifest must say something. `ctx.config()` reads them:
///
/// | form | takes |
/// |---|---|
/// | `city = text("where the station stands")` | text |
/// | `days = integer("how many are shown", default = 30)` | a whole number of 64 bits |
/// | `scale = number("of the picture", default = 1.5)` | a number |
/// | `legend = boolean("whether it has one", default = true)` | true or false |
/// | `colours = json("of the bands", default = "[\"red\", \"blue\"]")` | anything |
///
/// ```
/// use flowstone_sdk::prelude::*;
///
/// /// Rain of one month in one region.
/// #[asset(
///     inputs(days = within("daily_rain"), norm = optional(fixed("rain_norms", { region = "north" }))),
///     partitions(month = monthly("2012-01", "2015-12"), region = static_keys("north", "south")),
///     requires(stations = files("reads where the stations stand")),
///     tags(team = "climate"),
/// )]
/// fn monthly_rain(ctx: &Context) -> Result<Json<f64>> {
///     let mut sum = 0.0;
///     for day in ctx.inputs("days")? {
///         sum += day.json::<f64>()?;
///     }
///     Ok(Json(sum))
/// }
///
/// use flowstone_sdk::definition::Mapping;
///
/// let described = flowstone_sdk::testing::definitions().into_iter().find(|asset| asset.name == "monthly_rain").unwrap();
/// assert_eq!(described.description, "Rain of one month in one region.");
/// assert_eq!(described.inputs[0].mapping, Mapping::Within);
/// assert_eq!(described.media_type, "application/json");
/// ```
///
/// # What it refuses
///
/// ```compile_fail
/// # use flowstone_sdk::prelude::*;
/// #[asset(media = "text/plain")] // unknown key `media`
/// fn greeting() -> Result<String> { Ok("Hello".into()) }
/// ```
///
/// ```compile_fail
/// # use flowstone_sdk::prelude::*;
/// #[asset(inputs(raw = "a", raw = "b"))] // two inputs of one name
/// fn greeting() -> Result<String> { Ok("Hello".into()) }
/// ```
///
/// ```compile_fail
/// # use flowstone_sdk::prelude::*;
/// #[asset(partitions(month = monthly("2012-1")))] // `2012-01` is the first month of 2012
/// fn greeting() -> Result<String> { Ok("Hello".into()) }
/// ```
///
/// ```compile_fail
/// # use flowstone_sdk::prelude::*;
/// #[asset]
/// fn greeting() -> String { "Hello".into() } // not a `Result`
/// ```
#[proc_macro_attribute]
pub fn asset(arguments: TokenStream, function: TokenStream) -> TokenStream {
    let function = proc_macro2::TokenStream::from(function);
    expand::expand(arguments.into(), function.clone())
        .unwrap_or_else(|error| {
            // The function stays, so that its callers do not fail as well.
            let mut tokens = error.into_compile_error();
            tokens.extend(function);
            tokens
        })
        .into()
}
