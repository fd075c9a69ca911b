//! Assets that know `wasi:keyvalue` as it is, without a word of ours: one for each draft that toolchains emit. They do
//! the same over the same keys, and say what came of it.

use flowstone_sdk::prelude::*;

mod draft {
    wit_bindgen::generate!({
        path: "../../../wit",
        inline: "package tests:first; world draft { include wasi:keyvalue/imports@0.2.0-draft; }",
        world: "tests:first/draft",
        generate_all,
    });
    pub use self::wasi::keyvalue0_2_0_draft::{atomics, batch, store};
}

mod draft2 {
    wit_bindgen::generate!({
        path: "../../../wit",
        inline: "package tests:second; world draft { include wasi:keyvalue/imports@0.2.0-draft2; }",
        world: "tests:second/draft",
        generate_all,
    });
    pub use self::wasi::keyvalue0_2_0_draft2::{atomics, batch, store};
}

/// What both drafts have in common, over each's own types.
macro_rules! common {
    ($draft:ident, $said:ident, $bucket:ident) => {
        let $bucket = $draft::store::open("bucket").map_err(|error| Error::permanent(format!("{error:?}")))?;
        let mut $said = String::new();
        let mut say = |what: &str, answer: String| $said.push_str(&format!("{what}: {answer}\n"));
        say("open", format!("{:?}", $draft::store::open("other").err()));
        say("get", format!("{:?}", $bucket.get("a/1")));
        say("exists", format!("{:?} {:?}", $bucket.exists("a/1"), $bucket.exists("a/9")));
        say("set", format!("{:?}", $bucket.set("a/2", b"two")));
        say("get", format!("{:?}", $bucket.get("a/2")));
        say("delete", format!("{:?} {:?}", $bucket.delete("a/2"), $bucket.get("a/2")));
        say("denied", format!("{:?}", $bucket.get("b/1")));
        say("invalid", format!("{:?}", $bucket.get("")));
        let keys: Vec<String> = (0..1_001).map(|n| format!("a/many/{n:04}")).collect();
        let pairs: Vec<(String, Vec<u8>)> = keys.iter().map(|key| (key.clone(), b"x".to_vec())).collect();
        say("set-many", format!("{:?}", $draft::batch::set_many(&$bucket, &pairs[..1_000])));
        say("set-many of too many", format!("{:?}", $draft::batch::set_many(&$bucket, &pairs)));
        say("delete-many", format!("{:?}", $draft::batch::delete_many(&$bucket, &keys[998..1_000])));
        say("set one", format!("{:?}", $bucket.set("a/zero", b"0")));
    };
}

fn said(error: impl std::fmt::Debug) -> Error {
    Error::permanent(format!("{error:?}"))
}

/// The first draft.
#[asset(requires(bucket = key_value("uses it by wasi:keyvalue@0.2.0-draft")))]
fn first_draft() -> Result<String> {
    common!(draft, text, bucket);
    let found = draft::batch::get_many(&bucket, &["a/1".into(), "a/9".into()]).map_err(said)?;
    text.push_str(&format!("get-many: {found:?}\n"));
    let sum = draft::atomics::increment(&bucket, "a/count", 4);
    text.push_str(&format!("increment: {sum:?} {:?}\n", draft::atomics::increment(&bucket, "a/count", 38)));
    text.push_str(&format!("increment below: {:?}\n", draft::atomics::increment(&bucket, "a/below", 1)));
    let (mut keys, mut pages, mut cursor) = (Vec::new(), 0, None);
    loop {
        let page = bucket.list_keys(cursor).map_err(said)?;
        keys.extend(page.keys);
        pages += 1;
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    text.push_str(&format!("list-keys: {pages} of {} {:?}\n", keys.len(), &keys[keys.len() - 3..]));
    text.push_str(&format!("list-keys of no page: {:?}\n", bucket.list_keys(Some(77))));
    Ok(text)
}

/// The second draft.
#[asset(requires(bucket = key_value("uses it by wasi:keyvalue@0.2.0-draft2")))]
fn second_draft() -> Result<String> {
    common!(draft2, text, bucket);
    let found = draft2::batch::get_many(&bucket, &["a/1".into(), "a/9".into()]).map_err(said)?;
    text.push_str(&format!("get-many: {found:?}\n"));
    let sum = draft2::atomics::increment(&bucket, "a/count", 4);
    text.push_str(&format!("increment: {sum:?} {:?}\n", draft2::atomics::increment(&bucket, "a/count", 38)));
    text.push_str(&format!("increment below: {:?}\n", draft2::atomics::increment(&bucket, "a/below", 1)));
    let (mut keys, mut pages, mut cursor) = (Vec::new(), 0, None::<String>);
    loop {
        let page = bucket.list_keys(cursor.as_deref()).map_err(said)?;
        keys.extend(page.keys);
        pages += 1;
        cursor = page.cursor;
        if cursor.is_none() {
            break;
        }
    }
    text.push_str(&format!("list-keys: {pages} of {} {:?}\n", keys.len(), &keys[keys.len() - 3..]));

    use draft2::atomics::{Cas, CasError, swap};
    let compared = Cas::new(&bucket, "a/1").map_err(said)?;
    text.push_str(&format!("current: {:?}\n", compared.current()));
    bucket.set("a/1", b"changed").map_err(said)?;
    match swap(compared, b"swapped") {
        Err(CasError::CasFailed(again)) => {
            text.push_str(&format!("failed: {:?}\n", again.current()));
            text.push_str(&format!("swap: {:?} {:?}\n", swap(again, b"swapped").is_ok(), bucket.get("a/1")));
        }
        other => text.push_str(&format!("{other:?}\n")),
    }
    let created = Cas::new(&bucket, "a/new").map_err(said)?;
    text.push_str(&format!("create: {:?} {:?}\n", created.current(), swap(created, b"new").is_ok()));
    let mut open = Vec::new();
    let full = loop {
        match Cas::new(&bucket, "a/1") {
            Ok(compared) => open.push(compared),
            Err(error) => break error,
        }
    };
    text.push_str(&format!("comparisons: {} {full:?}\n", open.len()));
    Ok(text)
}

/// Needs nothing, and tries all the same.
#[asset]
fn has_no_grant() -> Result<String> {
    Ok(format!("it went on after {:?}", draft2::store::open("bucket").err()))
}
