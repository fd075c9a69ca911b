//! A shop closes its day: everything that can be granted, in one pipeline, and each asset with no more than it needs.
//!
//! ```text
//!   bank (http) ---> rates ---\
//!                              closing ---> receipt ---> books (files)
//!   shop (sql) ----> orders --/   |            |
//!                       customers (key-value)  auditor's key (secret), wall (clock), dice (random)
//! ```

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

use flowstone_sdk::prelude::*;
use flowstone_sdk::sql::Value;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// What one unit of each currency costs, in ten-thousandths of the shop's own.
type Rates = BTreeMap<String, i64>;

/// The day's rates. The bank wants a key with each request: the host adds it, and no asset ever has it.
#[asset(partitions(day = daily("2024-01-01", "2024-01-03")), requires(bank = http("reads the day's rates")))]
fn rates(ctx: &Context) -> Result<Json<Rates>> {
    let day = ctx.partition().key("day")?;
    Ok(Json(ctx.http("bank")?.get(&format!("rates/{day}")).send()?.ok()?.json()?))
}

/// A row of `shop.orders`. The total is a decimal, and stays text: a float would not be the same number.
#[derive(Deserialize, Serialize)]
struct Order {
    customer: String,
    total: String,
}

/// The day's orders, as the shop's database has them.
#[asset(partitions(day = daily("2024-01-01", "2024-01-03")), requires(shop = sql("reads the day's orders")))]
fn orders(ctx: &Context) -> Result<Csv<Vec<Order>>> {
    let day = ctx.partition().key("day")?;
    let query = ctx.database("shop")?.query("select customer, total from orders where day = $1 order by id");
    Ok(Csv(query.bind(Value::Date(day.into())).all()?))
}

/// What the closing can be told.
#[derive(Deserialize)]
struct Config {
    currency: String,
}

/// A closed day.
#[derive(Debug, PartialEq, Eq, Deserialize, Serialize)]
struct Closing {
    orders: usize,
    /// Hundredths of the currency.
    cents: i64,
    currency: String,
    /// How many customers had never ordered before.
    new_customers: u32,
}

/// The day in the currency of the books, and how many customers were new.
#[asset(
    inputs(rates, orders),
    partitions(day = daily("2024-01-01", "2024-01-03")),
    config(currency = text("what the books are kept in", default = "EUR")),
    requires(customers = key_value("remembers who has ordered before")),
)]
fn closing(ctx: &Context) -> Result<Json<Closing>> {
    let Config { currency } = ctx.config()?;
    let rates: Rates = ctx.input("rates")?.json()?;
    let rate = *rates.get(&currency).ok_or_else(|| Error::permanent(format!("the bank has no rate for {currency}")))?;
    let customers = ctx.bucket("customers")?;
    let orders: Vec<Order> = ctx.input("orders")?.csv()?.collect::<Result<_>>()?;
    let (mut cents, mut new_customers) = (0, 0);
    for Order { customer, total } in &orders {
        cents += total.replace('.', "").parse::<i64>()?;
        let key = format!("first/{customer}");
        if customers.get(&key)?.is_none() {
            customers.set(&key, ctx.partition().key("day")?)?;
            new_customers += 1;
        }
    }
    Ok(Json(Closing { orders: orders.len(), cents: cents * 10_000 / rate, currency, new_customers }))
}

/// A line for the books: numbered by lot, stamped with the time, and sealed with the auditor's key. It is found in the
/// directory once it is recorded here, and not before.
#[asset(
    inputs(closing),
    partitions(day = daily("2024-01-01", "2024-01-03")),
    requires(
        books = files("keeps a receipt for each day"),
        auditor = secret("seals receipts"),
        wall = clock("stamps receipts"),
        dice = random("numbers receipts, so that nobody can count them"),
    ),
)]
fn receipt(ctx: &Context) -> Result<String> {
    let day = ctx.partition().key("day")?;
    let Closing { orders, cents, currency, .. } = ctx.input("closing")?.json()?;
    let number = RandomState::new().hash_one(day);
    let stamp = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let text = format!("{number:016x} {stamp} {orders} orders, {}.{:02} {currency}", cents / 100, cents % 100);
    let key = ctx.secret("auditor")?;
    let mut seal = Hmac::<Sha256>::new_from_slice(key.bytes())?;
    seal.update(text.as_bytes());
    let seal: String = seal.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    ctx.directory("books")?.append(&format!("{day}.txt"), format!("{text}\n{seal}\n"))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowstone_sdk::testing::Job;

    #[test]
    fn a_day_is_closed_in_the_currency_of_the_books() {
        let job = Job::new("closing").partition("day", "2024-01-02").input("rates", r#"{ "EUR": 20000 }"#);
        let job = job.input("orders", "customer,total\nAda,1.25\nBob,10.50\nAda,2.00\n");
        let finished = job.bucket("customers", [("first/Bob", "2024-01-01")]).run();
        let expected = Closing { orders: 3, cents: 687, currency: "EUR".into(), new_customers: 1 };
        assert_eq!(finished.json::<Closing>(), expected);
        assert_eq!(finished.buckets["customers"]["first/Ada"], b"2024-01-02");
    }
}
