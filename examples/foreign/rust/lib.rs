//! The orders, and the invoice in Rust: with the SDK, beside languages that have none yet.

use std::fmt::Write as _;

use flowstone_sdk::prelude::*;

/// What was ordered.
#[asset(media_type = "text/csv", requires(desk = files("reads the orders")))]
fn orders(ctx: &Context) -> Result<Vec<u8>> {
    ctx.directory("desk")?.bytes("orders.csv")
}

/// Orders with their prices.
#[asset(
    media_type = "text/csv",
    inputs(orders = "orders"),
    requires(shop = http("asks for prices"), prices = key_value("remembers prices"))
)]
fn invoice_rust(ctx: &Context) -> Result<String> {
    let (shop, prices) = (ctx.http("shop")?, ctx.bucket("prices")?);
    let asset = ctx.asset();
    let price = |item: &str| -> Result<u64> {
        let key = format!("{asset}/price/{item}");
        if let Some(known) = prices.text(&key)? {
            return Ok(known.parse()?);
        }
        let price = shop.get("price").query("item", item).send()?.ok()?.text()?;
        prices.set(&key, &price)?;
        prices.increment(&format!("{asset}/asked"), 1)?;
        Ok(price.parse()?)
    };
    let orders = ctx.input("orders")?.text()?;
    let mut invoice = "item,quantity,cents,total\n".to_owned();
    let (mut sum, mut count) = (0, 0);
    for order in orders.lines().skip(1) {
        let (item, quantity) = order.split_once(',').ok_or_else(|| Error::permanent("an order has two columns"))?;
        let (quantity, cents): (u64, u64) = (quantity.parse()?, price(item)?);
        writeln!(invoice, "{item},{quantity},{cents},{}", quantity * cents)?;
        sum += quantity * cents;
        count += 1;
    }
    writeln!(invoice, "sum,,,{sum}")?;
    ctx.add_metadata("orders", count)?;
    log::info!(orders = count, "priced");
    Ok(invoice)
}

#[cfg(test)]
mod tests {
    use flowstone_sdk::testing::Job;

    #[test]
    fn a_remembered_price_is_not_asked_for() {
        let job = Job::new("invoice_rust").input("orders", "item,quantity\ntea,2\ncup,3\ntea,1\n");
        let job = job.bucket("prices", [("invoice_rust/price/cup", "150")]).http("shop", [("GET price?item=tea", "300")]);
        let finished = job.run();
        let expected = "item,quantity,cents,total\ntea,2,300,600\ncup,3,150,450\ntea,1,300,300\nsum,,,1350\n";
        assert_eq!(finished.text(), expected);
        assert_eq!(finished.buckets["prices"]["invoice_rust/asked"], b"1");
        assert_eq!(finished.requests.len(), 1);
    }
}
