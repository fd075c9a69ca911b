//! Values of each type, there and back.

use proptest::prelude::*;

use super::*;

/// A value, the type that it is sent as, and how it comes back where that differs.
async fn back(attempt: &mut Attempt, value: Value, type_name: &str) -> String {
    Attempt::one(attempt.query(&format!("select $1::{type_name}"), &[value]).await)
}

#[tokio::test]
async fn extremes_of_each_type_come_back_as_they_were() {
    let warehouse =
        Warehouse::new("create type shop.size as enum ('small', 'large'); create domain shop.code as text").await;
    let mut attempt = Attempt::new(&warehouse, Access::Read);
    let digits = format!("{}.{}", "9".repeat(1_000), "1".repeat(1_000));
    let same = [
        (Value::Boolean(true), "boolean"),
        (Value::Boolean(false), "boolean"),
        (Value::Integer(i16::MIN.into()), "smallint"),
        (Value::Integer(i32::MIN.into()), "integer"),
        (Value::Integer(i64::MIN), "bigint"),
        (Value::Integer(i64::MAX), "bigint"),
        (Value::Integer(u32::MAX.into()), "oid"),
        (Value::Float(f64::MIN_POSITIVE), "double precision"),
        (Value::Float(f64::MAX), "double precision"),
        (Value::Float(f64::NAN), "double precision"),
        (Value::Float(f64::NEG_INFINITY), "double precision"),
        (Value::Float(-0.0), "double precision"),
        (Value::Float(f32::MIN_POSITIVE.into()), "real"),
        (Value::Decimal(digits), "numeric"),
        (Value::Decimal("NaN".into()), "numeric"),
        (Value::Decimal("-Infinity".into()), "numeric"),
        (Value::Decimal("0.10".into()), "numeric"),
        (text(""), "text"),
        (text("na\u{ef}ve \u{1b}[2J \u{1f980} \\ ' \" $1"), "text"),
        (text("12:30:00"), "time"),
        (text("P1DT2H"), "interval"),
        (text("10.0.0.0/8"), "inet"),
        (text("{1,NULL,3}"), "integer[]"),
        (text("large"), "size"),
        (text("x"), "code"),
        (Value::Bytes(vec![]), "bytea"),
        (Value::Bytes((0..=255).collect()), "bytea"),
        (Value::Date("0001-01-01".into()), "date"),
        (Value::Date("9999-12-31".into()), "date"),
        (Value::Uuid("01980000-0000-7000-8000-000000000001".into()), "uuid"),
        (Value::Json("{\"a\": [1, null]}".into()), "jsonb"),
        (Value::Json(" [ 1 ] ".into()), "json"),
        (Value::Timestamp("0001-01-01T00:00:00Z".into()), "timestamptz"),
        (Value::Timestamp("9999-12-31T23:59:59.999999Z".into()), "timestamp"),
    ];
    for (value, type_name) in same {
        assert_eq!(back(&mut attempt, value.clone(), type_name).await, format!("{value:?}"), "{type_name}");
        assert_eq!(back(&mut attempt, Value::Null, type_name).await, "Value::Null", "{type_name}");
    }
}

#[tokio::test]
async fn what_postgres_writes_otherwise_comes_back_as_postgres_has_it() {
    let warehouse = Warehouse::new("").await;
    let mut attempt = Attempt::new(&warehouse, Access::Read);
    let timestamp = |text: &str| Value::Timestamp(text.into());
    for (value, type_name, expected) in [
        (timestamp("2024-03-31T02:30:00.5+01:00"), "timestamptz", r#"Value::Timestamp("2024-03-31T01:30:00.5Z")"#),
        (timestamp("2024-03-31T02:30:00+01:00"), "timestamp", r#"Value::Timestamp("2024-03-31T01:30:00Z")"#),
        (text("infinity"), "timestamptz", r#"Value::Text("infinity")"#),
        (text("0044-03-15 BC"), "date", r#"Value::Text("0044-03-15 BC")"#),
        (Value::Integer(7), "numeric", r#"Value::Decimal("7")"#),
        (Value::Integer(7), "double precision", "Value::Float(7.0)"),
        (
            Value::Uuid("{01980000-0000-7000-8000-00000000000A}".into()),
            "uuid",
            r#"Value::Uuid("01980000-0000-7000-8000-00000000000a")"#,
        ),
        (text("x"), "character(3)", r#"Value::Text("x  ")"#),
    ] {
        assert_eq!(back(&mut attempt, value, type_name).await, expected);
    }
}

#[tokio::test]
async fn columns_are_named_with_their_types() {
    let warehouse = Warehouse::new("create type shop.size as enum ('small')").await;
    let mut attempt = Attempt::new(&warehouse, Access::Read);
    let statement =
        "select 1 as id, null::numeric(10, 2) as total, '{}'::text[] as tags, 'small'::size as size, now() as \"At\"";
    let rows = attempt.rows(statement, &[]).await.unwrap();
    let columns = attempt.sql.columns(Resource::new_borrow(rows)).await.unwrap();
    let columns: Vec<_> = columns.iter().map(|column| (&*column.name, &*column.type_name)).collect();
    let expected = [
        ("id", "integer"),
        ("total", "numeric"),
        ("tags", "text[]"),
        ("size", "size"),
        ("At", "timestamp with time zone"),
    ];
    assert_eq!(columns, expected);
    assert_eq!(attempt.next(rows, 10).await.unwrap().len(), 1, "asking for names costs no rows");
    let empty = attempt.query("select from generate_series(1, 3)", &[]).await.unwrap();
    assert!(empty.len() == 3 && empty.iter().all(Vec::is_empty), "rows without columns are rows");
}

#[tokio::test]
async fn a_parameter_of_another_type_is_refused_and_the_transaction_goes_on() {
    let warehouse = Warehouse::new("").await;
    let mut attempt = Attempt::new(&warehouse, Access::Read);
    for (statement, parameters, expected) in [
        (
            "select repeat('x', $1)",
            vec![text("3")],
            "parameter 1 is text, and the statement takes integer there: cast it",
        ),
        (
            "select $1",
            vec![Value::Integer(1)],
            "parameter 1 is an integer, and the statement takes text there: cast it",
        ),
        ("select $1::bytea, $2::boolean", vec![Value::Null, text("t")], "parameter 2 is text"),
        ("select $1::text", vec![], "takes 1 parameters, and 0 are given"),
        ("select 1", vec![Value::Null], "takes 0 parameters, and 1 are given"),
        ("select $1::text", vec![text("a\0b")], "holds a NUL"),
    ] {
        let refused = attempt.query(statement, &parameters).await.unwrap_err();
        assert!(matches!(&refused, CapabilityError::Invalid(why) if why.contains(expected)), "{refused:?}");
    }
    assert_eq!(Attempt::one(attempt.query("select 1", &[]).await), "Value::Integer(1)");
}

fn any_value() -> impl Strategy<Value = (Value, &'static str)> {
    let texts = || any::<String>().prop_map(|text| text.replace('\0', ""));
    prop_oneof![
        any::<i64>().prop_map(|number| (Value::Integer(number), "bigint")),
        any::<f64>().prop_map(|number| (Value::Float(number), "double precision")),
        any::<f32>().prop_map(|number| (Value::Float(number.into()), "real")),
        any::<i128>().prop_map(|number| (Value::Decimal(number.to_string()), "numeric")),
        texts().prop_map(|text| (Value::Text(text), "text")),
        any::<Vec<u8>>().prop_map(|bytes| (Value::Bytes(bytes), "bytea")),
        (0..253_402_300_800_i64).prop_map(|seconds| {
            let instant = jiff::Timestamp::from_second(seconds).unwrap();
            (Value::Timestamp(instant.to_string()), "timestamptz")
        }),
        (0..3_652_058_i64).prop_map(|days| {
            let day = jiff::civil::date(1, 1, 1).checked_add(jiff::Span::new().days(days)).unwrap();
            (Value::Date(day.to_string()), "date")
        }),
        any::<u128>().prop_map(|bits| (Value::Uuid(uuid::Uuid::from_u128(bits).to_string()), "uuid")),
        texts().prop_map(|text| (Value::Json(serde_json::Value::from(text).to_string()), "json")),
    ]
}

#[test]
fn any_value_comes_back_as_it_was() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut attempt = runtime.block_on(async {
        // It outlives the test's own end by a moment; its database is dropped with force.
        let warehouse = Warehouse::new("").await;
        (Attempt::new(&warehouse, Access::Read), warehouse)
    });
    let cases = proptest::test_runner::Config::with_cases(400);
    let mut runner = proptest::test_runner::TestRunner::new(cases);
    let attempt = std::cell::RefCell::new(&mut attempt.0);
    let came_back = runner.run(&any_value(), |(value, type_name)| {
        let seen = runtime.block_on(back(*attempt.borrow_mut(), value.clone(), type_name));
        prop_assert_eq!(seen, format!("{value:?}"));
        Ok(())
    });
    came_back.unwrap();
}
