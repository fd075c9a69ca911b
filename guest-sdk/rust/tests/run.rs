//! What an asset sees of its inputs, its context and its directories, and what the host sees of how it ends.

// What the attribute expands to must be fit for the strictest crates.
#![forbid(unsafe_code)]

use std::io::{BufRead, Read, Seek, SeekFrom, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, SystemTime};

use flowstone_sdk::log::Level;
use flowstone_sdk::prelude::*;
use flowstone_sdk::testing::{Job, Outcome, Version};

#[asset(inputs(one = optional("a"), many = all("b")))]
fn reader(ctx: &Context) -> Result<String> {
    let mut text = String::new();
    for version in ctx.inputs("many")? {
        let rows = version.metadata("rows").unwrap_or("?");
        text += &format!(
            "{} {} {} {rows} {}\n",
            version.asset(),
            version.partition(),
            version.size(),
            version.media_type()
        );
    }
    if let Some(one) = ctx.optional_input("one")? {
        text += &one.text()?;
    }
    Ok(text)
}

#[test]
fn every_version_comes_with_what_is_known_about_it() {
    let january = Version::new("12.5").at("month", "2012-01").metadata("rows", "31").media_type("text/plain");
    let finished = Job::new("reader").input("many", january).input("many", "x").input("one", "tail").run();
    assert_eq!(finished.text(), "b month=2012-01 4 31 text/plain\nb none 1 ? application/octet-stream\ntail");
    assert_eq!(Job::new("reader").run().text(), "");
}

#[asset(inputs(a = all("a")))]
fn picky(ctx: &Context) -> Result<Json<i64>> {
    Ok(Json(ctx.input("a")?.json()?))
}

#[test]
fn reading_says_what_is_wrong_with_an_input() {
    let fail = |job: Job| match job.run().outcome {
        Outcome::Permanent(message) => message,
        other => panic!("{other:?}"),
    };
    assert_eq!(fail(Job::new("picky")), "input `a` is absent: use `optional_input` if it may be");
    let two = Job::new("picky").input("a", "1").input("a", "2");
    assert_eq!(fail(two), "input `a` has 2 versions: use `inputs` to read them all");
    let text = Job::new("picky").input("a", Version::new("x").at("year", "2012"));
    assert_eq!(fail(text), "reading input `a` at year=2012: expected value at line 1 column 1");
}

#[asset]
fn curious(ctx: &Context) -> Result<()> {
    for error in [ctx.input("secrets").err(), ctx.directory("home").err()] {
        assert_eq!(error.and_then(|error| error.capability_error().cloned()), Some(CapabilityError::Denied));
    }
    ctx.input("secrets").map(drop)
}

#[test]
fn what_is_not_declared_is_denied() {
    assert_eq!(Job::new("curious").run().outcome, Outcome::Permanent("reading input `secrets`: denied".into()));
}

#[asset(inputs(a = "a"))]
fn seeker(ctx: &Context) -> Result<Json<(u64, String, String)>> {
    let mut reader = ctx.input("a")?.reader()?;
    let end = reader.seek(SeekFrom::End(-2))?;
    let (mut last, mut first) = (String::new(), String::new());
    reader.read_to_string(&mut last)?;
    reader.rewind()?;
    reader.read_line(&mut first)?;
    Ok(Json((end, first, last)))
}

#[test]
fn a_reader_goes_to_any_place() {
    // Larger than one call moves, so that the ends lie in different chunks.
    let bytes = format!("head\n{}yz", "x".repeat(3 << 20));
    let (end, first, last) = Job::new("seeker").input("a", bytes).run().json::<(u64, String, String)>();
    assert_eq!((end, &*first, &*last), ((3 << 20) + 5, "head\n", "yz"));
}

#[asset(inputs(a = "a"), media_type = "text/plain")]
fn streamer(ctx: &Context) -> Result<&str> {
    let mut reader = ctx.input("a")?.reader()?;
    write!(ctx.output(), "<")?;
    std::io::copy(&mut reader, &mut ctx.output())?;
    ctx.output().write_all(&vec![b'!'; 3 << 20])?;
    ctx.set_media_type("text/x-loud")?;
    Ok(">")
}

#[test]
fn streams_keep_their_order_whatever_the_size_of_a_write() {
    let body = "y".repeat((2 << 20) + 7);
    let finished = Job::new("streamer").input("a", &body).run();
    assert!(finished.text() == format!("<{body}{}>", "!".repeat(3 << 20)), "the output differs");
    assert_eq!(finished.media_type, "text/x-loud");
}

#[asset(partitions(day = daily("2024-01-01"), region = static_keys("north")))]
fn placed(ctx: &Context) -> Result<String> {
    let seconds = ctx.logical_time().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let (region, partition) = (ctx.partition().key("region")?, ctx.partition());
    log::warn!(region = region, seconds = seconds, "attempt {} of {}", ctx.attempt(), ctx.asset());
    Ok(format!("{partition} {seconds}"))
}

#[test]
fn the_context_says_where_the_call_stands() {
    let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(43_200);
    let job = Job::new("placed").partition("day", "2024-01-01").partition("region", "north");
    let finished = job.attempt(2).logical_time(noon).run();
    assert_eq!(finished.text(), "day=2024-01-01, region=north 43200");
    let [line] = &finished.log[..] else { panic!("{:?}", finished.log) };
    assert_eq!((line.level, &*line.message), (Level::Warn, "attempt 2 of placed"));
    assert_eq!(line.fields, [("region".into(), "north".into()), ("seconds".into(), "43200".into())]);
}

#[asset]
fn strict(ctx: &Context) -> Result<String> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        city: String,
    }
    Ok(ctx.config::<Config>()?.city)
}

#[test]
fn a_wrong_configuration_is_a_permanent_error_with_its_place() {
    assert_eq!(Job::new("strict").config(serde_json::json!({ "city": "Seattle" })).run().text(), "Seattle");
    let outcome = Job::new("strict").config(serde_json::json!({ "town": "Seattle" })).run().outcome;
    let place = "reading the configuration: unknown field `town`, expected `city` at line 1 column 7";
    assert_eq!(outcome, Outcome::Permanent(place.into()));
}

#[asset]
fn context(context: &Context) -> Result<&str> {
    Ok(context.asset())
}

#[asset]
fn materialize() -> Result<&'static str> {
    Ok("made")
}

#[test]
fn an_asset_may_be_called_as_the_expansion_calls_its_own() {
    assert_eq!(Job::new("context").run().text(), "context");
    assert_eq!(Job::new("materialize").run().text(), "made");
}

#[asset]
fn busy() -> Result<String> {
    Err(Error::retryable("busy").retry_after(Duration::from_millis(1_500)))
}

#[asset]
fn panics(ctx: &Context) -> Result<()> {
    write!(ctx.output(), "half")?;
    panic!("on purpose")
}

#[test]
fn failures_keep_their_kind() {
    let after = Some(Duration::from_millis(1_500));
    assert_eq!(Job::new("busy").run().outcome, Outcome::Retryable { message: "busy".into(), after });
}

#[test]
fn a_panic_leaves_nothing_to_the_next_job_of_the_thread() {
    catch_unwind(AssertUnwindSafe(|| Job::new("panics").run())).expect_err("it panics");
    assert_eq!(Job::new("reader").input("one", "clean").run().text(), "clean");
}

#[asset(requires(station = files("reads and writes")))]
fn clerk(ctx: &Context) -> Result<String> {
    let station = ctx.directory("station")?;
    let list = || station.entries().map(|entry| Ok(entry?.path)).collect::<Result<Vec<_>>>();
    let listed = list()?.len();
    for path in ["../a", "/a", "a//b", "./a", ""] {
        let error = station.bytes(path).err().and_then(|error| error.capability_error().cloned());
        assert!(matches!(error, Some(CapabilityError::Invalid(_))), "{path}");
    }
    let absent = station.text("absent").unwrap_err();
    assert_eq!(absent.to_string(), "reading `absent` of directory `station`: not found");
    station.append("sum", vec![b'x'; (1 << 20) + 1])?;
    station.append("empty", "")?;
    station.remove("b")?;
    assert!(matches!(station.stat("b").unwrap_err().capability_error(), Some(CapabilityError::NotFound)));
    assert!(station.remove("b").is_err() && station.text("b").is_err(), "it is gone for the asset");
    station.append("after", "1")?;
    station.remove("after")?;
    Ok(format!("{listed} {} {} {}", list()?.len(), station.stat("sum")?.size, station.text("empty")?))
}

#[test]
fn what_is_written_to_a_directory_its_asset_sees_at_once() {
    // More than one page of the listing.
    let many = (0..2_500).map(|number| (format!("many/{number:04}"), "")).chain([("b".into(), "old")]);
    let finished = Job::new("clerk").directory("station", many).run();
    assert_eq!(finished.text(), "2501 2502 1048577 ");
    let station = &finished.directories["station"];
    assert_eq!((station["sum"].len(), &station["empty"][..]), ((1 << 20) + 1, &b""[..]));
    assert!(!station.contains_key("b") && !station.contains_key("after"));
}

#[asset(config(
    city = text("where it is"),
    note = text("with a \"quote\"", default = "a \"b\"\n\\"),
    days = integer("how many", default = -7),
    scale = number("how large", default = 2.0),
    list = json("what else", default = "[1, {}]"),
))]
fn configured(ctx: &Context) -> Result<Json<serde_json::Value>> {
    Ok(Json(ctx.config()?))
}

#[test]
fn a_configuration_is_completed_by_the_defaults_and_held_to_the_parameters() {
    let config = |config: serde_json::Value| Job::new("configured").config(config);
    let found: serde_json::Value = config(serde_json::json!({ "city": "Seattle", "days": 3 })).run().json();
    let expected = serde_json::json!({
        "city": "Seattle", "note": "a \"b\"\n\\", "days": 3, "scale": 2.0, "list": [1, {}],
    });
    assert_eq!(found, expected);
    for (wrong, said) in [
        (serde_json::json!({}), "asset `configured` needs a value for `city`"),
        (serde_json::json!({ "city": "x", "dys": 1 }), "asset `configured` has no parameter `dys`"),
        (serde_json::json!({ "city": "x", "days": 1.5 }), "the parameter `days` of asset `configured` takes no 1.5"),
    ] {
        let panic = catch_unwind(AssertUnwindSafe(|| config(wrong).run())).expect_err("it does not fit");
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.starts_with(said), "{text}");
    }
}

#[asset(requires(seen = key_value("reads and writes")))]
fn keeper(ctx: &Context) -> Result<String> {
    let seen = ctx.bucket("seen")?;
    for key in ["", "a\0b", &"k".repeat(1_025)] {
        let error = seen.set(key, "").err().and_then(|error| error.capability_error().cloned());
        assert!(matches!(error, Some(CapabilityError::Invalid(_))), "{key}");
    }
    let listed = seen.keys("many/").count();
    let first = seen.get_versioned("first")?.map(|found| found.version);
    assert!(!seen.compare_and_set("first", None, "mine")?);
    assert!(seen.compare_and_set("first", first, "changed")?);
    assert!(!seen.compare_and_set("first", first, "again")?);
    seen.remove("many/0000")?;
    seen.set_json("list", &[1, 2])?;
    seen.increment("count", 40)?;
    seen.increment("count", 2)?;
    let wrong = seen.count("first").unwrap_err();
    assert_eq!(wrong.to_string(), "reading `first` of bucket `seen`: invalid digit found in string");
    let next: Vec<String> = seen.keys("many/").take(2).collect::<Result<_>>()?;
    let text = format!("{listed} {next:?} {:?} {}", seen.json::<Vec<i32>>("list")?, seen.count("count")?);
    match seen.text("end")?.as_deref() {
        Some("badly") => Err(Error::permanent(text)),
        _ => Ok(text),
    }
}

#[test]
fn what_is_written_to_a_bucket_shows_at_once_and_stays_only_when_all_is_done() {
    // More than one page of the listing.
    let many = || (0..2_500).map(|number| (format!("many/{number:04}"), "")).chain([("first".into(), "1")]);
    let finished = Job::new("keeper").bucket("seen", many()).run();
    assert_eq!(finished.text(), r#"2500 ["many/0001", "many/0002"] Some([1, 2]) 42"#);
    let seen = &finished.buckets["seen"];
    assert_eq!((seen.len(), &seen["first"][..], &seen["count"][..]), (2_502, &b"changed"[..], &b"42"[..]));
    let failed = Job::new("keeper").bucket("seen", many().chain([("end".into(), "badly")])).run();
    assert!(matches!(failed.outcome, Outcome::Permanent(_)), "{:?}", failed.outcome);
    assert_eq!((failed.buckets["seen"].len(), &failed.buckets["seen"]["first"][..]), (2_502, &b"1"[..]));
}

#[test]
fn a_test_that_the_host_would_not_start_fails() {
    let panics = |run: fn()| catch_unwind(run).expect_err("it cannot start").downcast_ref::<String>().unwrap().clone();
    assert!(panics(|| drop(Job::new("nobody"))).starts_with("no asset is called `nobody`; there are [\"busy\","));
    assert_eq!(
        panics(|| drop(Job::new("seeker").input("b", ""))),
        "asset `seeker` declares no input `b`; it has [\"a\"]"
    );
    assert_eq!(panics(|| drop(Job::new("seeker").run())), "asset `seeker` needs a version of `a`");
    assert_eq!(panics(|| drop(Job::new("clerk").run())), "asset `clerk` requires `station`");
    assert!(panics(|| drop(Job::new("placed").run())).contains("other dimensions"));
}
