//! What the attribute writes down: every kind of mapping and of partition, and what is taken from the function.

use flowstone_sdk::definition::{AssetDefinition, DimensionKeys, Mapping, TimeUnit};
use flowstone_sdk::prelude::*;

fn describe(name: &str) -> &'static AssetDefinition {
    let found = flowstone_sdk::testing::definitions().into_iter().find(|asset| asset.name == name);
    found.unwrap_or_else(|| panic!("`{name}` is not described"))
}

/// The first line.
///
///     indented
#[asset]
fn plain() -> Result<String> {
    Ok(String::new())
}

#[asset(
    name = "renamed",
    description = "Said here.",
    media_type = "image/png; version=2",
    tags(team = "climate", "cost centre" = "12"),
    requires(station = files("reads"), desk = files("writes"))
)]
fn r#type(_: &Context) -> Result<Vec<u8>> {
    Ok(Vec::new())
}

#[asset(inputs(
    plain,
    same = "plain",
    all = all("a"),
    within = within("a"),
    window = window("a", -6, 0),
    fixed = fixed("a", { year = "2012", region = "north" }, {}),
    maybe = optional("a"),
    maybe_all = optional(all("a")),
))]
fn reader() -> Result<Json<()>> {
    Ok(Json(()))
}

#[asset(partitions(
    hour = hourly("2024-01-01T00", "2024-12-31T23"),
    day = daily("2024-01-01"),
    week = weekly("2024-W01", time_zone = "Europe/Berlin"),
    region = static_keys("north", "süd |=,"),
))]
fn partitioned() -> Result<Csv<Vec<()>>> {
    Ok(Csv(Vec::new()))
}

#[asset(partitions(month = monthly("2012-01", "2015-12"), year = yearly("2012", "2015", time_zone = "UTC")))]
fn calendar(ctx: &Context) -> Result<&str> {
    Ok(ctx.asset())
}

#[test]
fn name_description_and_media_type_come_from_the_function() {
    let plain = describe("plain");
    assert_eq!(plain.description, "The first line.\n\n    indented");
    assert_eq!(plain.media_type, "text/plain; charset=utf-8");
    assert!(plain.inputs.is_empty() && plain.dimensions.is_empty() && plain.requirements.is_empty());
    assert_eq!(describe("reader").media_type, "application/json");
    assert_eq!(describe("partitioned").media_type, "text/csv; charset=utf-8");
}

#[test]
fn the_attribute_goes_before_the_function() {
    let renamed = describe("renamed");
    assert_eq!((renamed.description, renamed.media_type), ("Said here.", "image/png; version=2"));
    assert_eq!(renamed.tags, [("team", "climate"), ("cost centre", "12")]);
    let required: Vec<_> = renamed.requirements.iter().map(|need| (need.resource_name, need.reason)).collect();
    assert_eq!(required, [("station", "reads"), ("desk", "writes")]);
}

#[test]
fn every_mapping_is_described() {
    let fixed: &[&[_]] = &[&[("year", "2012"), ("region", "north")], &[]];
    let expected = [
        ("plain", "plain", false, Mapping::Same),
        ("same", "plain", false, Mapping::Same),
        ("all", "a", false, Mapping::All),
        ("within", "a", false, Mapping::Within),
        ("window", "a", false, Mapping::Window { from: -6, to: 0 }),
        ("fixed", "a", false, Mapping::Fixed(fixed)),
        ("maybe", "a", true, Mapping::Same),
        ("maybe_all", "a", true, Mapping::All),
    ];
    let inputs = describe("reader").inputs.iter();
    let described: Vec<_> = inputs.map(|input| (input.name, input.asset, input.optional, input.mapping)).collect();
    assert_eq!(described, expected);
}

#[test]
fn every_kind_of_partition_is_described() {
    let time = |unit, from, to, time_zone| DimensionKeys::Time { unit, from, to, time_zone };
    let described = |name| describe(name).dimensions.iter().map(|dimension| (dimension.name, dimension.keys));
    assert_eq!(
        described("partitioned").collect::<Vec<_>>(),
        [
            ("hour", time(TimeUnit::Hour, "2024-01-01T00", Some("2024-12-31T23"), "UTC")),
            ("day", time(TimeUnit::Day, "2024-01-01", None, "UTC")),
            ("week", time(TimeUnit::Week, "2024-W01", None, "Europe/Berlin")),
            ("region", DimensionKeys::Static(&["north", "süd |=,"])),
        ]
    );
    assert_eq!(
        described("calendar").collect::<Vec<_>>(),
        [
            ("month", time(TimeUnit::Month, "2012-01", Some("2015-12"), "UTC")),
            ("year", time(TimeUnit::Year, "2012", Some("2015"), "UTC")),
        ]
    );
}

#[test]
fn assets_are_described_in_the_order_of_their_names() {
    let definitions = flowstone_sdk::testing::definitions();
    let names: Vec<_> = definitions.iter().map(|asset| asset.name).collect();
    assert_eq!(names, ["calendar", "partitioned", "plain", "reader", "renamed"]);
}
