//! What a site remembers of its visitors: days are counted one beside the other, and what they have in common is kept in
//! a bucket.
//!
//! Counting pages reads nothing, so days never meet over it. Remembering a visitor does: when two days have seen the same
//! one, whichever is committed later runs again, and finds what the other has written.

use std::collections::BTreeMap;

use flowstone_sdk::prelude::*;
use serde::{Deserialize, Serialize};

/// Somebody looked at a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Visit {
    visitor: u32,
    page: String,
}

/// What a day's log says; made up, and the same each time.
#[asset(partitions(day = daily("2024-03-04", "2024-03-10")))]
fn visits(ctx: &Context) -> Result<Csv<Vec<Visit>>> {
    let day: u32 = ctx.partition().key("day")?.rsplit('-').next().unwrap_or_default().parse()?;
    let pages = ["home", "shop", "help"];
    let visit = |n: u32| Visit { visitor: (day * 7 + n * n) % 61, page: pages[n as usize % 3].into() };
    Ok(Csv((0..30).map(visit).collect()))
}

/// Counts a day's visits, and remembers the first day of each visitor; says how many visits there were.
#[asset(
    inputs(visits = "visits"),
    partitions(day = daily("2024-03-04", "2024-03-10")),
    requires(site = key_value("counts pages and remembers visitors")),
)]
fn counted(ctx: &Context) -> Result<Json<usize>> {
    let site = ctx.bucket("site")?;
    let day = ctx.partition().key("day")?;
    let visits: Vec<Visit> = ctx.input("visits")?.csv()?.collect::<Result<_>>()?;
    for Visit { visitor, page } in &visits {
        site.increment(&format!("page/{page}"), 1)?;
        let key = format!("visitor/{visitor:04}");
        if site.text(&key)?.is_none_or(|first| *first > *day) {
            site.set(&key, day)?;
        }
    }
    Ok(Json(visits.len()))
}

/// A week, as the site remembers it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Week {
    /// How often each page was looked at.
    pages: BTreeMap<String, i64>,
    /// How many visitors came for the first time on each day.
    new_visitors: BTreeMap<String, u32>,
}

/// What the week was like.
#[asset(inputs(days = all("counted")), requires(site = key_value("reads what was counted")))]
fn week(ctx: &Context) -> Result<Json<Week>> {
    let site = ctx.bucket("site")?;
    let mut week = Week { pages: BTreeMap::new(), new_visitors: BTreeMap::new() };
    for key in site.keys("page/") {
        let key = key?;
        let count = site.count(&key)?;
        week.pages.insert(key.trim_start_matches("page/").to_owned(), count);
    }
    for key in site.keys("visitor/") {
        let first = site.text(&key?)?.unwrap_or_default();
        *week.new_visitors.entry(first).or_default() += 1;
    }
    Ok(Json(week))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowstone_sdk::testing::Job;

    #[test]
    fn the_first_day_of_a_visitor_is_kept_in_whatever_order_days_are_counted() {
        let log = "visitor,page\n7,home\n7,home\n8,shop\n";
        let job = |day: &str| Job::new("counted").partition("day", day).input("visits", log);
        let known = [("page/home", "3"), ("visitor/0007", "2024-03-06"), ("visitor/0008", "2024-03-04")];
        let finished = job("2024-03-05").bucket("site", known).run();
        assert_eq!(finished.json::<usize>(), 3);
        let site = &finished.buckets["site"];
        assert_eq!(site["page/home"], b"5");
        assert_eq!(site["page/shop"], b"1");
        assert_eq!(site["visitor/0007"], b"2024-03-05");
        assert_eq!(site["visitor/0008"], b"2024-03-04");
    }

    #[test]
    fn a_week_is_what_the_site_remembers() {
        let site = [("page/home", "3"), ("visitor/0007", "2024-03-06"), ("visitor/0009", "2024-03-06")];
        let week: Week = Job::new("week").bucket("site", site).run().json();
        assert_eq!(week.pages, BTreeMap::from([("home".to_owned(), 3)]));
        assert_eq!(week.new_visitors, BTreeMap::from([("2024-03-06".to_owned(), 2)]));
    }
}
