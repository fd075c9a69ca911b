//! Assets over buckets: what their configuration says is what they do, and the output says what came of it.

use flowstone_sdk::key_value::Version;
use flowstone_sdk::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Script {
    /// Each a word and what it needs.
    steps: Vec<Vec<String>>,
    /// How it ends when all is done.
    #[serde(default)]
    end: End,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum End {
    #[default]
    Done,
    Fail,
    Retry,
    Skip,
    Panic,
}

/// Does what its steps say.
#[asset(requires(bucket = key_value("does what its steps say")))]
fn scripted(ctx: &Context) -> Result<String> {
    follow(ctx)
}

/// The same, as a second asset with a grant of its own.
#[asset(requires(bucket = key_value("does what its steps say")))]
fn scripted_too(ctx: &Context) -> Result<String> {
    follow(ctx)
}

fn follow(ctx: &Context) -> Result<String> {
    let Script { steps, end } = ctx.config()?;
    let bucket = ctx.bucket("bucket")?;
    let mut said = String::new();
    let mut version = None;
    for step in &steps {
        let words: Vec<&str> = step.iter().map(String::as_str).collect();
        let answer = match take(&bucket, &words, &mut version) {
            Ok(answer) => answer,
            Err(error) => match error.capability_error() {
                Some(word) => word.to_string(),
                None => return Err(error),
            },
        };
        said.push_str(&format!("{}: {answer}\n", words[0]));
    }
    log::info!("{said}");
    match end {
        End::Done => Ok(said),
        End::Fail => Err(Error::permanent("told to fail")),
        End::Retry => Err(Error::retryable("told to fail for now")),
        End::Skip => skip("told to skip"),
        End::Panic => panic!("told to panic"),
    }
}

fn take(bucket: &Bucket, words: &[&str], version: &mut Option<Version>) -> Result<String> {
    match *words {
        ["get", key] => Ok(bucket.text(key)?.unwrap_or_else(|| "nothing".into())),
        ["look", key] => {
            let found = bucket.get_versioned(key)?;
            *version = found.as_ref().map(|found| found.version);
            Ok(found.map_or_else(|| "nothing".into(), |found| String::from_utf8_lossy(&found.value).into_owned()))
        }
        ["swap", key, value] => Ok(bucket.compare_and_set(key, *version, value)?.to_string()),
        ["set", key, value] => bucket.set(key, value).map(|()| "ok".into()),
        ["set-bytes", key, size] => bucket.set(key, vec![b'x'; size.parse()?]).map(|()| "ok".into()),
        // Keys under a prefix, numbered from 0.
        ["set-many", prefix, count, size] => {
            let value = vec![b'x'; size.parse()?];
            for n in 0..count.parse()? {
                bucket.set(&format!("{prefix}{n:06}"), &value)?;
            }
            Ok("ok".into())
        }
        ["get-many", prefix, count] => {
            let mut there = 0;
            for n in 0..count.parse()? {
                there += u32::from(bucket.get(&format!("{prefix}{n:06}"))?.is_some());
            }
            Ok(there.to_string())
        }
        ["remove", key] => bucket.remove(key).map(|()| "ok".into()),
        ["increment", key, delta] => bucket.increment(key, delta.parse()?).map(|()| "ok".into()),
        ["keys", prefix] => {
            let keys: Vec<String> = bucket.keys(prefix).collect::<Result<_>>()?;
            // Many are told by their number and their ends.
            Ok(match &keys[..] {
                [first, .., last] if keys.len() > 20 => format!("{} {first} {last}", keys.len()),
                _ => keys.join(" "),
            })
        }
        _ => Err(Error::permanent(format!("no step is {words:?}"))),
    }
}

/// A hundred jobs that count without looking.
#[asset(partitions(day = daily("2024-01-01", "2024-04-09")), requires(bucket = key_value("counts")))]
fn counts(ctx: &Context) -> Result<()> {
    let bucket = ctx.bucket("bucket")?;
    bucket.increment("total", 1)?;
    bucket.increment("total", 2)
}

/// Twenty-one jobs that look first, so that each must see what the others did.
#[asset(partitions(day = daily("2024-01-01", "2024-01-21")), requires(bucket = key_value("counts")))]
fn counts_by_reading(ctx: &Context) -> Result<String> {
    let bucket = ctx.bucket("bucket")?;
    let next = bucket.count("total")? + 1;
    bucket.set("total", next.to_string())?;
    bucket.set(&format!("was/{next:03}"), ctx.partition().key("day")?)?;
    Ok(next.to_string())
}

/// Asks for what it may not, again and again, and goes on.
#[asset(requires(bucket = key_value("asks for what it may not")))]
fn insists(ctx: &Context) -> Result<String> {
    let bucket = ctx.bucket("bucket")?;
    let denied = |result: Result<()>| {
        result.err().is_some_and(|error| error.capability_error() == Some(&CapabilityError::Denied))
    };
    let mut count = 0;
    for n in 0..20_000 {
        count += u32::from(denied(bucket.get(&format!("other/{n}")).map(drop)));
        count += u32::from(denied(bucket.set(&format!("other/{n}"), "x")));
    }
    Ok(format!("{count} times"))
}

/// Needs nothing, and tries all the same.
#[asset]
fn has_no_grant(ctx: &Context) -> Result<String> {
    match ctx.bucket("bucket") {
        Ok(_) => Ok("it was let in".into()),
        Err(error) => Ok(format!("it went on after {error}")),
    }
}
