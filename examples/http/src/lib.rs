//! A shop behind an HTTP interface: its catalogue read page by page, and a notice posted about it once.
//!
//! Where the shop is, which certificate authority it has and how often it may be asked is the manifest's business; the
//! code knows paths below it.

use flowstone_sdk::prelude::*;
use serde::{Deserialize, Serialize};

/// Something that is for sale.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Item {
    name: String,
    cents: u64,
}

/// One page of the catalogue.
#[derive(Deserialize)]
struct Page {
    items: Vec<Item>,
    /// The next page's number, unless this is the last.
    next: Option<u32>,
}

/// Everything that the shop sells, cheapest first.
#[asset(requires(shop = http("reads the catalogue page by page")))]
fn catalogue(ctx: &Context) -> Result<Csv<Vec<Item>>> {
    let shop = ctx.http("shop")?;
    let mut items = Vec::new();
    let mut next = Some(1);
    while let Some(number) = next {
        let page: Page = shop.get("items").query("page", number).send()?.ok()?.json()?;
        items.extend(page.items);
        next = page.next;
    }
    items.sort_by(|one, other| (one.cents, &one.name).cmp(&(other.cents, &other.name)));
    Ok(Csv(items))
}

/// What the shop says when a notice is posted.
#[derive(Deserialize)]
struct Receipt {
    id: String,
}

/// Posts how many items there are. The key that goes with it is the same however often the job is tried, so that the
/// shop can tell a repetition from a second notice.
#[asset(inputs(catalogue = "catalogue"), requires(shop = http("posts a notice about the catalogue")))]
fn notice(ctx: &Context) -> Result<String> {
    let items = ctx.input("catalogue")?.text()?.lines().skip(1).count();
    let text = format!("{items} items");
    let posted = ctx.http("shop")?.post("notices").json(&text)?.idempotent("notice").send()?.ok()?;
    let Receipt { id } = posted.json()?;
    Ok(format!("{id}: {text}\n"))
}

#[cfg(test)]
mod tests {
    use flowstone_sdk::testing::{Answer, Job};

    #[test]
    fn pages_are_read_to_the_last_and_sorted() {
        let answers = [
            ("GET items?page=1", r#"{ "items": [{ "name": "tea", "cents": 300 }], "next": 2 }"#),
            ("GET items?page=2", r#"{ "items": [{ "name": "cup", "cents": 150 }] }"#),
        ];
        let finished = Job::new("catalogue").http("shop", answers).run();
        assert_eq!(finished.text(), "name,cents\ncup,150\ntea,300\n");
    }

    #[test]
    fn a_notice_says_how_many_items_there_are() {
        let answers = [("POST notices", Answer::new(201, r#"{ "id": "n1" }"#))];
        let job = Job::new("notice").input("catalogue", "name,cents\ncup,150\n").http("shop", answers);
        let finished = job.run();
        assert_eq!(finished.text(), "n1: 1 items\n");
        assert_eq!(finished.requests, [("shop".into(), "POST notices".into(), serde_json::to_vec("1 items").unwrap())]);
    }
}
