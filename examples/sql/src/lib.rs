//! A shop's orders out of its database, and what they sum up to back into it, day by day:
//!
//! ```text
//!   shop.orders -> daily_orders -> daily_sums -> shop.sums
//! ```
//!
//! The first asset may only read, the second writes one table and sees no other.

use flowstone_sdk::prelude::*;
use flowstone_sdk::sql::Value;
use serde::{Deserialize, Serialize};

/// A row of `shop.orders`. The total is a decimal, and stays text: a float would not be the same number.
#[derive(Deserialize, Serialize)]
struct Order {
    id: i64,
    total: String,
}

/// The orders of one day, as the shop's database has them.
#[asset(partitions(day = daily("2024-01-01", "2024-01-03")), requires(orders = sql("reads the day's orders")))]
fn daily_orders(ctx: &Context) -> Result<Csv<Vec<Order>>> {
    let day = ctx.partition().key("day")?;
    let statement = "select id, total from orders where day = $1 order by id";
    Ok(Csv(ctx.database("orders")?.query(statement).bind(Value::Date(day.into())).all()?))
}

/// What a day's orders sum up to; written to the shop's table as well, once, however often it is tried.
#[asset(
    inputs(orders = "daily_orders"),
    partitions(day = daily("2024-01-01", "2024-01-03")),
    requires(sums = sql("writes the day's sum into shop.sums"))
)]
fn daily_sums(ctx: &Context) -> Result<String> {
    let day = ctx.partition().key("day")?;
    let orders: Vec<Order> = ctx.input("orders")?.csv()?.collect::<Result<_>>()?;
    let cents = orders.iter().map(|order| cents(&order.total)).sum::<Result<i64>>()?;
    let total = format!("{}.{:02}", cents / 100, cents % 100);
    ctx.database("sums")?
        .query(
            "insert into sums (day, orders, total) values ($1, $2, $3)
             on conflict (day) do update set orders = excluded.orders, total = excluded.total",
        )
        .bind(Value::Date(day.into()))
        .bind(orders.len() as i64)
        .bind(Value::Decimal(total.clone()))
        .execute()?;
    Ok(total)
}

fn cents(total: &str) -> Result<i64> {
    let whole = total.replace('.', "").parse();
    whole.map_err(|error| Error::from(error).context(format!("reading the total `{total}`")))
}

#[cfg(test)]
mod tests {
    use flowstone_sdk::sql::Value;
    use flowstone_sdk::testing::{Job, Tables};

    #[test]
    fn a_day_is_read_summed_up_and_written() {
        let orders = Tables::new().rows(
            "select id, total from orders where day = $1 order by id",
            ["id", "total"],
            [(1, "1.25"), (2, "10.50")].map(|(id, total)| [Value::Integer(id), Value::Decimal(total.into())]),
        );
        let read = Job::new("daily_orders").partition("day", "2024-01-02").database("orders", orders).run();
        assert_eq!(read.text(), "id,total\n1,1.25\n2,10.50\n");

        let sums = Tables::new().changes(
            "insert into sums (day, orders, total) values ($1, $2, $3)
             on conflict (day) do update set orders = excluded.orders, total = excluded.total",
            1,
        );
        let job = Job::new("daily_sums").partition("day", "2024-01-02").input("orders", &read.output);
        let summed = job.database("sums", sums).run();
        assert_eq!(summed.text(), "11.75");
        let [(_, parameters)] = &summed.asked["sums"][..] else { panic!("{:?}", summed.asked) };
        assert_eq!(parameters[1..], [Value::Integer(2), Value::Decimal("11.75".into())]);
    }
}
