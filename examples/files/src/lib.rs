//! A folder that is read like any other, and one that is kept in step with it: a label for each table that has arrived.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use flowstone_sdk::prelude::*;
use serde::Serialize;

/// A table that has arrived.
#[derive(Serialize)]
struct Item {
    file: String,
    rows: usize,
}

/// What lies in the inbox, by name. It is plain code: the manifest mounts the directory where it looks.
#[asset(requires(inbox = files("lists the tables that have arrived")))]
fn inventory() -> Result<Csv<Vec<Item>>> {
    Ok(Csv(list_tables(Path::new("/inbox"))?))
}

fn list_tables(folder: &Path) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "csv") {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            items.push(Item { file, rows: fs::read_to_string(&path)?.lines().skip(1).count() });
        }
    }
    items.sort_by(|one, other| one.file.cmp(&other.file));
    Ok(items)
}

/// The shelf's labels: one for each table, none for a table that is gone. Those that are right already stay as they are.
#[asset(inputs(inventory), requires(shelf = files("keeps a label for each table")))]
fn labels(ctx: &Context) -> Result<String> {
    let inventory = ctx.input("inventory")?.text()?;
    let label = |line: &str| {
        let (file, rows) = line.split_once(',')?;
        Some((format!("{file}.txt"), format!("{rows} rows\n")))
    };
    let wanted: BTreeMap<String, String> = inventory.lines().skip(1).filter_map(label).collect();

    let shelf = ctx.directory("shelf")?;
    let present = shelf.entries().collect::<Result<Vec<_>>>()?;
    for label in present.iter().filter(|label| !wanted.contains_key(&label.path)) {
        shelf.remove(&label.path)?;
    }
    for (path, text) in &wanted {
        let is_there = present.iter().any(|label| label.path == *path);
        if !is_there || shelf.text(path)? != *text {
            shelf.append(path, text)?;
        }
    }
    // What it has just written and removed it sees itself; others do when it has succeeded.
    shelf.entries().map(|label| label.map(|label| format!("{} {}\n", label.path, label.size))).collect()
}

#[cfg(test)]
mod tests {
    use flowstone_sdk::testing::Job;

    use super::*;

    #[test]
    fn tables_are_listed_and_other_files_are_not() {
        let items = list_tables(&Path::new(env!("CARGO_MANIFEST_DIR")).join("data")).unwrap();
        let items: Vec<_> = items.iter().map(|item| (item.file.as_str(), item.rows)).collect();
        assert_eq!(items, [("february.csv", 1), ("january.csv", 2)]);
    }

    #[test]
    fn labels_follow_the_inventory() {
        let shelf = [("gone.csv.txt", "9 rows\n"), ("same.csv.txt", "1 rows\n"), ("old.csv.txt", "1 rows\n")];
        let inventory = "file,rows\nnew.csv,3\nold.csv,22\nsame.csv,1\n";
        let finished = Job::new("labels").input("inventory", inventory).directory("shelf", shelf).run();
        assert_eq!(finished.text(), "new.csv.txt 7\nold.csv.txt 8\nsame.csv.txt 7\n");
        let labels: Vec<&str> = finished.directories["shelf"].keys().map(String::as_str).collect();
        assert_eq!(labels, ["new.csv.txt", "old.csv.txt", "same.csv.txt"]);
    }
}
