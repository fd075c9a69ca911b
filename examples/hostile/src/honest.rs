//! Assets that do their work beside the others, and must not notice them.

use flowstone_sdk::prelude::*;

/// The sum of the prices in its directory.
#[asset(requires(vault = files("adds up the prices")))]
fn honest(ctx: &Context) -> Result<Json<u64>> {
    let text = ctx.directory("vault")?.text("prices.csv")?;
    let mut sum = 0;
    for line in text.lines().skip(1) {
        let (_, price) = line.split_once(',').ok_or_else(|| Error::permanent(format!("no price in `{line}`")))?;
        sum += price.parse::<u64>()?;
    }
    Ok(Json(sum))
}

/// The sum as a sentence.
#[asset(inputs(honest))]
fn honest_downstream(ctx: &Context) -> Result<String> {
    let sum: u64 = ctx.input("honest")?.json()?;
    Ok(format!("All of it costs {}.{:02}.", sum / 100, sum % 100))
}

#[cfg(test)]
mod tests {
    use flowstone_sdk::testing::{Job, Outcome};

    #[test]
    fn prices_are_added_up() {
        let prices = "name,price\nhammer,1250\nnail,3\n";
        let sum = Job::new("honest").directory("vault", [("prices.csv", prices)]).run();
        assert_eq!(sum.text(), "1253");
        let sentence = Job::new("honest_downstream").input("honest", sum.text()).run();
        assert_eq!(sentence.text(), "All of it costs 12.53.");
    }

    #[test]
    fn a_line_without_a_price_is_a_failure() {
        let outcome = Job::new("honest").directory("vault", [("prices.csv", "name,price\nhammer\n")]).run().outcome;
        assert_eq!(outcome, Outcome::Permanent("no price in `hammer`".into()));
    }
}
