//! The assets that the tests of `sql` run: each writes a visit, and then does what its name says.

use flowstone_sdk::prelude::*;

/// Writes a visit of this asset's; returns its number.
fn write(ctx: &Context) -> Result<i64> {
    let shop = ctx.database("shop")?;
    let statement = "insert into visits (who) values ($1) returning id";
    let id: Option<i64> = shop.query(statement).bind(ctx.asset()).first()?;
    id.ok_or_else(|| Error::permanent("no row came back"))
}

/// Succeeds.
#[asset(requires(shop = sql("writes a visit")))]
fn visit(ctx: &Context) -> Result<String> {
    Ok(format!("visit {}", write(ctx)?))
}

/// Fails.
#[asset(requires(shop = sql("writes a visit")))]
fn visit_and_fail(ctx: &Context) -> Result<String> {
    write(ctx)?;
    Err(Error::permanent("as its name says"))
}

/// Has nothing to make.
#[asset(requires(shop = sql("writes a visit")))]
fn visit_and_skip(ctx: &Context) -> Result<String> {
    write(ctx)?;
    skip("as its name says")
}

/// Goes on after a statement that failed.
#[asset(requires(shop = sql("writes a visit")))]
fn visit_and_ignore(ctx: &Context) -> Result<String> {
    write(ctx)?;
    let failed = ctx.database("shop")?.query("select 1 / $1").bind(0).first::<i64>();
    Ok(format!("{}", failed.is_err()))
}

/// Writes what is refused when it is committed, and not before.
#[asset(requires(shop = sql("writes a visit")))]
fn visit_nobody(ctx: &Context) -> Result<()> {
    let statement = "insert into visits (who, guide) values ($1, -1)";
    ctx.database("shop")?.query(statement).bind(ctx.asset()).execute()?;
    Ok(())
}

/// Waits for a lock that the test holds.
#[asset(requires(shop = sql("writes a visit")))]
fn visit_and_wait(ctx: &Context) -> Result<String> {
    write(ctx)?;
    ctx.database("shop")?.query("select pg_advisory_xact_lock_shared(1)::text").first::<String>()?;
    Ok("waited".into())
}

/// Counts what is there.
#[asset(requires(shop = sql("counts visits")))]
fn count(ctx: &Context) -> Result<Json<i64>> {
    let counted = ctx.database("shop")?.query("select count(*) from visits where who like $1").bind("visit%").first()?;
    Ok(Json(counted.unwrap_or_default()))
}

/// Writes with a grant that reads.
#[asset(requires(shop = sql("counts visits")))]
fn count_and_write(ctx: &Context) -> Result<Json<i64>> {
    Ok(Json(write(ctx)?))
}

/// Asks for what it is denied, each time something else, and never stops asking because of it.
#[asset(requires(shop = sql("counts visits")))]
fn ask_on(ctx: &Context) -> Result<Json<u32>> {
    let shop = ctx.database("shop")?;
    let refused = (0..50_000).filter(|n| shop.query(format!("vacuum visits_{n}")).execute().is_err());
    Ok(Json(refused.count() as u32))
}

/// Leaves every answer open, and reads none to its end.
#[asset(requires(shop = sql("writes a visit")))]
fn visit_and_leave(ctx: &Context) -> Result<String> {
    let shop = ctx.database("shop")?;
    write(ctx)?;
    let open = |_| shop.query("select repeat('x', 100000), n from generate_series(1, 1000) n").rows();
    let answers: Vec<_> = (0..8).map(open).collect::<Result<_>>()?;
    let before = answers.len();
    std::mem::forget(answers);
    Ok(format!("left {before}"))
}

/// Sends the longest statement and the most parameters, and more than either.
#[asset(requires(shop = sql("counts visits")))]
fn send_much(ctx: &Context) -> Result<String> {
    let shop = ctx.database("shop")?;
    let fits = format!("select length('{}')", "x".repeat((64 << 10) - 17));
    let length: Option<i64> = shop.query(fits).first()?;
    let long = shop.query(format!("select '{}'", "x".repeat(8 << 20))).first::<String>();
    let mut many = shop.query("select 1");
    for _ in 0..70_000 {
        many = many.bind(1);
    }
    Ok(format!("{length:?}, {}, {}", long.is_err(), many.first::<i64>().is_err()))
}

/// Says nowhere that it needs a database, and asks one all the same.
#[asset]
fn ask_ungranted(ctx: &Context) -> Result<Json<bool>> {
    Ok(Json(ctx.database("shop").is_ok()))
}
