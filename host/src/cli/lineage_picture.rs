//! Pictures of a walk through lineage: as a tree, for Mermaid, for Graphviz, and as JSON.
//!
//! Pure: from what the store found to text. What comes from outside the pipeline is drawn as a source of its own.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
};

use serde_json::{Value, json};

use super::{
    figures::{bytes, job, partition, plural},
    print::one_line,
};
use crate::{
    id::MaterializationId,
    limit::TREE_DEPTH_MAX,
    store::lineage::{Direction, ExternalSource, Lineage, LineageNode},
};

/// For a terminal. What was drawn above is not unfolded again.
pub fn tree(lineage: &Lineage, direction: Direction) -> String {
    let Some(root) = lineage.nodes.first() else { return String::new() };
    let walk = Walk::new(lineage, direction);
    let mut text = format!("{}\n", node_line(root));
    let mut unfolded = vec![false; lineage.nodes.len()];
    unfolded[0] = true;
    // An explicit stack: a chain may be as long as a walk.
    let mut pending = walk.below(0, 1, "");
    while let Some(Branch { item, prefix, last, depth }) = pending.pop() {
        let (branch, continued) = if last { ("└── ", "    ") } else { ("├── ", "│   ") };
        match item {
            Item::Source(source) => {
                let source = &lineage.sources[source];
                writeln!(text, "{prefix}{branch}{}", source_line(source)).expect(INTO_A_STRING);
            }
            Item::Node(node) => {
                let below = walk.below(node, depth + 1, &format!("{prefix}{continued}"));
                let remark = if unfolded[node] {
                    "  (see above)"
                } else if depth >= TREE_DEPTH_MAX && !below.is_empty() {
                    "  (goes on: see --format json)"
                } else {
                    ""
                };
                writeln!(text, "{prefix}{branch}{}{remark}", node_line(&lineage.nodes[node])).expect(INTO_A_STRING);
                if remark.is_empty() {
                    unfolded[node] = true;
                    pending.extend(below);
                }
            }
        }
    }
    if lineage.truncated {
        text.push_str("... and more\n");
    }
    text
}

const INTO_A_STRING: &str = "writing to a string cannot fail";

/// The nodes and sources by number, and what is next to each in the direction of the walk.
struct Walk {
    next: Vec<Vec<usize>>,
    sources: Vec<Vec<usize>>,
}

enum Item {
    Node(usize),
    Source(usize),
}

/// Something to be drawn below something else.
struct Branch {
    item: Item,
    prefix: String,
    last: bool,
    depth: usize,
}

impl Walk {
    fn new(lineage: &Lineage, direction: Direction) -> Self {
        let place = places(&lineage.nodes);
        let mut next = vec![Vec::new(); lineage.nodes.len()];
        for edge in &lineage.edges {
            let (Some(&consumer), Some(&upstream)) = (place.get(&edge.consumer), place.get(&edge.upstream)) else {
                continue;
            };
            match direction {
                Direction::Up => next[consumer].push(upstream),
                Direction::Down => next[upstream].push(consumer),
            }
        }
        // The nodes are in order already: by depth, asset and partition. Two inputs may read the same output.
        for next in &mut next {
            next.sort_unstable();
            next.dedup();
        }
        let mut sources = vec![Vec::new(); lineage.nodes.len()];
        // Downstream is what was made; a source is what something was made from.
        let drawn = if direction == Direction::Up { &*lineage.sources } else { &[] };
        for (i, source) in drawn.iter().enumerate() {
            if let Some(&consumer) = place.get(&source.consumer) {
                sources[consumer].push(i);
            }
        }
        Self { next, sources }
    }

    /// What stands below a node, the first to be drawn last in the list.
    fn below(&self, node: usize, depth: usize, prefix: &str) -> Vec<Branch> {
        let nodes = self.next[node].iter().map(|node| Item::Node(*node));
        let items = nodes.chain(self.sources[node].iter().map(|source| Item::Source(*source)));
        let mut branches: Vec<Branch> =
            items.map(|item| Branch { item, prefix: prefix.to_owned(), last: false, depth }).collect();
        if let Some(branch) = branches.last_mut() {
            branch.last = true;
        }
        branches.reverse();
        branches
    }
}

fn places(nodes: &[LineageNode]) -> HashMap<MaterializationId, usize> {
    nodes.iter().enumerate().map(|(i, node)| (node.id, i)).collect()
}

fn node_line(node: &LineageNode) -> String {
    // What retention let go is still what something was made from.
    let expired = if node.expired { "  (its bytes were let go)" } else { "" };
    format!("{}  {}{expired}", one_line(&job(&node.asset, &node.partition_key)), node.digest.short())
}

fn source_line(source: &ExternalSource) -> String {
    let item = match source.kind.as_str() {
        "directory" => "file",
        "http" => "answer",
        "key-value" => "key",
        "sql" => "row",
        _ => "item",
    };
    let (items, size) = (plural(source.items.max(0) as u64, item), bytes(source.size_bytes.max(0) as u64));
    format!("{} `{}`  {}  {items}, {size}", one_line(&source.kind), one_line(&source.resource), source.digest.short())
}

/// How a picture calls it.
fn source_name(source: &ExternalSource) -> String {
    format!("{} {}", source.kind, source.resource)
}

/// The same source in the same state is one thing in a picture, whoever read it.
fn distinct_sources(lineage: &Lineage) -> Vec<&ExternalSource> {
    let mut sources: Vec<&ExternalSource> = lineage.sources.iter().collect();
    sources.sort_by_key(|source| (&source.resource, source.digest));
    sources.dedup_by_key(|source| (&source.resource, source.digest));
    sources
}

/// From what to what data flowed, each pair once, however many inputs it came by.
fn arrows(lineage: &Lineage) -> Vec<(String, String)> {
    let place = places(&lineage.nodes);
    let (mut arrows, mut known) = (Vec::new(), HashSet::new());
    let mut add = |from: String, to: &usize| {
        let arrow = (from, format!("n{to}"));
        if known.insert(arrow.clone()) {
            arrows.push(arrow);
        }
    };
    let sources = distinct_sources(lineage);
    for source in &lineage.sources {
        let from = sources.binary_search_by_key(&(&source.resource, source.digest), |s| (&s.resource, s.digest));
        if let (Ok(from), Some(to)) = (from, place.get(&source.consumer)) {
            add(format!("s{from}"), to);
        }
    }
    for edge in &lineage.edges {
        if let (Some(from), Some(to)) = (place.get(&edge.upstream), place.get(&edge.consumer)) {
            add(format!("n{from}"), to);
        }
    }
    arrows
}

/// Mermaid: arrows point the way data flows.
pub fn mermaid(lineage: &Lineage) -> String {
    let mut text = String::from("graph TD\n");
    for (i, source) in distinct_sources(lineage).iter().enumerate() {
        let label = mermaid_label(&source_name(source), &source.digest.short());
        writeln!(text, "    s{i}[(\"{label}\")]").expect(INTO_A_STRING);
    }
    for (i, node) in lineage.nodes.iter().enumerate() {
        let label = mermaid_label(&job(&node.asset, &node.partition_key), &node.digest.short());
        writeln!(text, "    n{i}[\"{label}\"]").expect(INTO_A_STRING);
    }
    for (from, to) in arrows(lineage) {
        writeln!(text, "    {from} --> {to}").expect(INTO_A_STRING);
    }
    if lineage.truncated {
        text.push_str("    %% and more\n");
    }
    text
}

/// Two lines; what would end the label or be taken for HTML is written as an entity.
fn mermaid_label(name: &str, digest: &str) -> String {
    let mut label = String::new();
    for c in one_line(name).chars() {
        match c {
            '"' | '#' | '<' | '>' | '&' | ';' | '`' => write!(label, "#{};", c as u32).expect(INTO_A_STRING),
            c => label.push(c),
        }
    }
    format!("{label}<br/>{digest}")
}

/// Graphviz: arrows point the way data flows.
pub fn dot(lineage: &Lineage) -> String {
    let mut text = String::from("digraph lineage {\n    node [shape=box];\n");
    for (i, source) in distinct_sources(lineage).iter().enumerate() {
        let label = dot_label(&source_name(source), &source.digest.short());
        writeln!(text, "    s{i} [label=\"{label}\", shape=cylinder];").expect(INTO_A_STRING);
    }
    for (i, node) in lineage.nodes.iter().enumerate() {
        let label = dot_label(&job(&node.asset, &node.partition_key), &node.digest.short());
        writeln!(text, "    n{i} [label=\"{label}\"];").expect(INTO_A_STRING);
    }
    for (from, to) in arrows(lineage) {
        writeln!(text, "    {from} -> {to};").expect(INTO_A_STRING);
    }
    if lineage.truncated {
        text.push_str("    // and more\n");
    }
    text.push_str("}\n");
    text
}

fn dot_label(name: &str, digest: &str) -> String {
    let name = one_line(name).replace('\\', "\\\\").replace('"', "\\\"");
    format!("{name}\\n{digest}")
}

/// For programs: nodes, edges and sources by id, in full.
pub fn json(lineage: &Lineage, direction: Direction) -> Value {
    let node = |node: &LineageNode| {
        let label = partition(&node.partition_key);
        json!({
            "materialization": node.id,
            "asset": node.asset,
            "partition": (!label.is_empty()).then_some(label),
            "partition_key": node.partition_key,
            "digest": node.digest,
            "depth": node.depth,
            "created_at_ms": node.created_at_ms,
            "expired": node.expired,
        })
    };
    let edges = lineage.edges.iter().map(|edge| {
        json!({
            "consumer": edge.consumer,
            "input": edge.input,
            "upstream": edge.upstream,
            "bytes_read": edge.bytes_read,
        })
    });
    let sources = lineage.sources.iter().map(|source| {
        json!({
            "consumer": source.consumer,
            "resource": source.resource,
            "kind": source.kind,
            "digest": source.digest,
            "items": source.items,
            "size_bytes": source.size_bytes,
        })
    });
    json!({
        "direction": match direction { Direction::Up => "up", Direction::Down => "down" },
        "start": lineage.nodes.first().map(|node| node.id),
        "truncated": lineage.truncated,
        "nodes": lineage.nodes.iter().map(node).collect::<Vec<_>>(),
        "edges": edges.collect::<Vec<_>>(),
        "sources": sources.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{blob::Digest, store::lineage::LineageEdge};

    fn node(asset: &str, partition_key: &str, depth: i32) -> LineageNode {
        LineageNode {
            id: MaterializationId::new(),
            asset: asset.into(),
            partition_key: partition_key.into(),
            digest: Digest::of(format!("{asset} {partition_key}").as_bytes()),
            depth,
            created_at_ms: 1_795_423_391_000,
            expired: false,
        }
    }

    fn edge(consumer: &LineageNode, input: &str, upstream: &LineageNode) -> LineageEdge {
        LineageEdge { consumer: consumer.id, input: input.into(), upstream: upstream.id, bytes_read: 10 }
    }

    fn source(consumer: &LineageNode, resource: &str) -> ExternalSource {
        let digest = Digest::of(resource.as_bytes());
        let kind = "directory".into();
        ExternalSource { consumer: consumer.id, resource: resource.into(), kind, digest, items: 1, size_bytes: 48_219 }
    }

    /// report <- two months <- clean <- raw <- a directory; the report reads `clean` itself as well, under two names.
    fn diamond() -> Lineage {
        let report = node("report", "none", 0);
        let clean = node("clean", "none", 1);
        let months = [node("monthly", "month=month:2012-01", 1), node("monthly", "month=month:2012-02", 1)];
        let raw = node("raw", "none", 2);
        let edges = vec![
            edge(&report, "months", &months[0]),
            edge(&report, "months", &months[1]),
            edge(&report, "clean", &clean),
            edge(&report, "again", &clean),
            edge(&months[0], "clean", &clean),
            edge(&months[1], "clean", &clean),
            edge(&clean, "raw", &raw),
        ];
        let sources = vec![source(&raw, "station"), source(&clean, "station")];
        let [january, february] = months;
        Lineage { nodes: vec![report, clean, january, february, raw], edges, sources, truncated: false }
    }

    #[test]
    fn scenario_107_a_tree_unfolds_each_output_once_and_ends_in_its_sources() {
        insta::assert_snapshot!(tree(&diamond(), Direction::Up), @"
        report  b17c2a8aeaa8
        ├── clean  e51cd700d898
        │   ├── raw  6f2feef9011b
        │   │   └── directory `station`  9b4ef3e5b7b4  1 file, 47.1 KiB
        │   └── directory `station`  9b4ef3e5b7b4  1 file, 47.1 KiB
        ├── monthly[2012-01]  6461dd7b7bc8
        │   └── clean  e51cd700d898  (see above)
        └── monthly[2012-02]  056926b17bc4
            └── clean  e51cd700d898  (see above)
        ");
    }

    #[test]
    fn scenario_106_down_shows_what_was_made_from_it() {
        let mut walk = diamond();
        // The walk down from `raw`.
        walk.nodes.reverse();
        insta::assert_snapshot!(tree(&walk, Direction::Down), @"
        raw  6f2feef9011b
        └── clean  e51cd700d898
            ├── monthly[2012-02]  056926b17bc4
            │   └── report  b17c2a8aeaa8
            ├── monthly[2012-01]  6461dd7b7bc8
            │   └── report  b17c2a8aeaa8  (see above)
            └── report  b17c2a8aeaa8  (see above)
        ");
    }

    #[test]
    fn mermaid_and_dot_draw_each_source_once() {
        insta::assert_snapshot!(mermaid(&diamond()), @r#"
        graph TD
            s0[("directory station<br/>9b4ef3e5b7b4")]
            n0["report<br/>b17c2a8aeaa8"]
            n1["clean<br/>e51cd700d898"]
            n2["monthly[2012-01]<br/>6461dd7b7bc8"]
            n3["monthly[2012-02]<br/>056926b17bc4"]
            n4["raw<br/>6f2feef9011b"]
            s0 --> n4
            s0 --> n1
            n2 --> n0
            n3 --> n0
            n1 --> n0
            n1 --> n2
            n1 --> n3
            n4 --> n1
        "#);
        insta::assert_snapshot!(dot(&diamond()), @r#"
        digraph lineage {
            node [shape=box];
            s0 [label="directory station\n9b4ef3e5b7b4", shape=cylinder];
            n0 [label="report\nb17c2a8aeaa8"];
            n1 [label="clean\ne51cd700d898"];
            n2 [label="monthly[2012-01]\n6461dd7b7bc8"];
            n3 [label="monthly[2012-02]\n056926b17bc4"];
            n4 [label="raw\n6f2feef9011b"];
            s0 -> n4;
            s0 -> n1;
            n2 -> n0;
            n3 -> n0;
            n1 -> n0;
            n1 -> n2;
            n1 -> n3;
            n4 -> n1;
        }
        "#);
    }

    #[test]
    fn json_has_everything() {
        let value = json(&diamond(), Direction::Up);
        assert_eq!(value["direction"], "up");
        assert_eq!(value["start"], value["nodes"][0]["materialization"]);
        assert_eq!(value["nodes"].as_array().unwrap().len(), 5);
        assert_eq!(value["edges"].as_array().unwrap().len(), 7);
        assert_eq!(value["sources"][0]["size_bytes"], 48_219);
        assert_eq!(
            (&value["nodes"][0]["partition"], &value["nodes"][2]["partition"]),
            (&Value::Null, &json!("2012-01"))
        );
    }

    #[test]
    fn labels_cannot_break_out_of_a_picture() {
        let evil = "a\"]; end <b>&#`\n\\";
        assert_eq!(mermaid_label(evil, "d"), "a#34;]#59; end #60;b#62;#38;#35;#96;␊\\<br/>d");
        assert_eq!(dot_label(evil, "d"), "a\\\"]; end <b>&#`␊\\\\\\nd");
    }

    #[test]
    fn a_walk_that_was_cut_says_so_in_every_picture() {
        let walk = Lineage { truncated: true, ..diamond() };
        assert!(tree(&walk, Direction::Up).ends_with("... and more\n"));
        assert!(mermaid(&walk).ends_with("%% and more\n"));
        assert!(dot(&walk).contains("// and more\n"));
        assert_eq!(json(&walk, Direction::Up)["truncated"], true);
    }

    #[test]
    fn a_very_long_chain_is_no_trouble() {
        let nodes: Vec<LineageNode> = (0..10_000).map(|depth| node("a", "none", depth)).collect();
        let edges = nodes.windows(2).map(|pair| edge(&pair[0], "a", &pair[1])).collect();
        let walk = Lineage { nodes, edges, sources: vec![], truncated: false };
        let tree = tree(&walk, Direction::Up);
        assert_eq!(tree.lines().count(), TREE_DEPTH_MAX + 1);
        assert!(tree.ends_with("(goes on: see --format json)\n"));
    }
}
