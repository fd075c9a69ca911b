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
