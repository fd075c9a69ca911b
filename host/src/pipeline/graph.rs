//! The graph of assets: their order, what is upstream and downstream, a cycle with its path, and pictures of it.
//!
//! Assets are numbers here, in the order in which they were declared. Partitions and staleness are the planner's.

use std::{cmp::Reverse, collections::BinaryHeap, collections::HashMap, fmt::Write as _};

use super::{
    asset::{AssetDefinition, Mapping},
    diagnostic::{did_you_mean, shown},
};
use crate::limit::DIAGNOSTICS_MAX;

/// Assets and what each reads.
#[derive(Clone, Debug)]
pub struct Graph {
    names: Vec<String>,
    index: HashMap<String, usize>,
    inputs: Vec<Vec<Edge>>,
    outputs: Vec<Vec<usize>>,
    order: Vec<usize>,
}

/// One input of an asset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The producer.
    pub asset: usize,
    /// The name under which the consumer opens it.
    pub input: String,
    /// Whether the consumer can be made without it.
    pub optional: bool,
    /// The mapping's name, where it is not `same`.
    mapping: Option<&'static str>,
}

/// Why assets do not form a graph.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// An input from an asset that nobody describes.
    #[error("the input `{}` reads the asset `{}`, which does not exist{suggestion}", shown(.input), shown(.unknown))]
    Unknown {
        /// The consumer.
        asset: String,
        /// Its input.
        input: String,
        /// What is not there.
        unknown: String,
        /// "; did you mean ...", or nothing.
        suggestion: String,
    },
    /// Assets that need each other.
    #[error("the assets need each other: {}", .0.join(" -> "))]
    Cycle(Vec<String>),
}

/// Which way to follow edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To what an asset reads.
    Upstream,
    /// To what reads an asset.
    Downstream,
}

impl Graph {
    /// Builds the graph of assets whose names are unique.
    pub fn new<'a>(definitions: impl IntoIterator<Item = &'a AssetDefinition>) -> Result<Self, Vec<GraphError>> {
        let definitions: Vec<&AssetDefinition> = definitions.into_iter().collect();
        let names: Vec<String> = definitions.iter().map(|definition| definition.name.clone()).collect();
        let index: HashMap<String, usize> = names.iter().cloned().enumerate().map(|(i, name)| (name, i)).collect();
        let mut errors = Vec::new();
        let mut inputs: Vec<Vec<Edge>> = Vec::with_capacity(names.len());
        let mut outputs = vec![Vec::new(); names.len()];
        for (consumer, definition) in definitions.iter().enumerate() {
            let mut edges = Vec::with_capacity(definition.inputs.len());
            for input in &definition.inputs {
                let Some(&asset) = index.get(&input.asset) else {
                    // Suggestions are made only for mistakes that will be shown: a hostile component may make
                    // thousands.
                    let candidates = if errors.len() < DIAGNOSTICS_MAX { &names[..] } else { &[] };
                    errors.push(unknown(&definition.name, &input.name, &input.asset, candidates));
                    continue;
                };
                outputs[asset].push(consumer);
                let mapping = (input.mapping != Mapping::Same).then(|| input.mapping.name());
                edges.push(Edge { asset, input: input.name.clone(), optional: input.optional, mapping });
            }
            inputs.push(edges);
        }
        outputs.iter_mut().for_each(|consumers| consumers.dedup());
        let mut graph = Self { names, index, inputs, outputs, order: Vec::new() };
        graph.order = graph.sorted();
        if graph.order.len() < graph.names.len() {
            errors.push(GraphError::Cycle(graph.cycle()));
        }
        if errors.is_empty() { Ok(graph) } else { Err(errors) }
    }

    /// The assets' names, by number.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// An asset's number.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.index.get(name).copied()
    }

    /// What an asset reads, in the order of its inputs.
    pub fn inputs(&self, asset: usize) -> &[Edge] {
        &self.inputs[asset]
    }

    /// What reads an asset.
    pub fn consumers(&self, asset: usize) -> &[usize] {
        &self.outputs[asset]
    }

    /// Every asset after all that it reads; among equals, in the order of declaration.
    pub fn topological_order(&self) -> &[usize] {
        &self.order
    }

    /// These assets and everything that they reach, in topological order.
    pub fn closure(&self, from: &[usize], direction: Direction) -> Vec<usize> {
        let mut reached = vec![false; self.names.len()];
        let mut pending = from.to_vec();
        while let Some(asset) = pending.pop() {
            if !std::mem::replace(&mut reached[asset], true) {
                match direction {
                    Direction::Upstream => pending.extend(self.inputs[asset].iter().map(|edge| edge.asset)),
                    Direction::Downstream => pending.extend(&self.outputs[asset]),
                }
            }
        }
        self.order.iter().copied().filter(|asset| reached[*asset]).collect()
    }

    /// Kahn's algorithm; assets on a cycle, and those that need them, are left out.
    fn sorted(&self) -> Vec<usize> {
        let mut waiting: Vec<usize> = self
            .inputs
            .iter()
            .map(|edges| {
                let mut producers: Vec<usize> = edges.iter().map(|edge| edge.asset).collect();
                producers.sort_unstable();
                producers.dedup();
                producers.len()
            })
            .collect();
        let ready = waiting.iter().enumerate().filter(|(_, waiting)| **waiting == 0);
        let mut ready: BinaryHeap<Reverse<usize>> = ready.map(|(asset, _)| Reverse(asset)).collect();
        let mut order = Vec::with_capacity(self.names.len());
        while let Some(Reverse(asset)) = ready.pop() {
            order.push(asset);
            for &consumer in &self.outputs[asset] {
                waiting[consumer] -= 1;
                if waiting[consumer] == 0 {
                    ready.push(Reverse(consumer));
                }
            }
        }
        order
    }

    /// One cycle, in the direction "needs", ending where it begins.
    fn cycle(&self) -> Vec<String> {
        let mut sorted = vec![false; self.names.len()];
        self.order.iter().for_each(|asset| sorted[*asset] = true);
        let first = sorted.iter().position(|sorted| !sorted).expect("called only when an asset is left out");
        // Whatever was left out needs something that was left out: walking on must come back.
        let (mut path, mut place) = (vec![first], HashMap::from([(first, 0)]));
        loop {
            let here = path[path.len() - 1];
            let needed = self.inputs[here].iter().map(|edge| edge.asset).find(|asset| !sorted[*asset]);
            let needed = needed.expect("an asset that is left out needs another");
            path.push(needed);
            if let Some(start) = place.insert(needed, path.len() - 1) {
                return path[start..].iter().map(|asset| self.names[*asset].clone()).collect();
            }
        }
    }
}

fn unknown(asset: &str, input: &str, unknown: &str, names: &[String]) -> GraphError {
    let suggestion = did_you_mean(unknown, names.iter().map(|name| &**name));
    GraphError::Unknown {
        asset: asset.to_owned(),
        input: input.to_owned(),
        unknown: unknown.to_owned(),
        suggestion: suggestion.map(|text| format!("; {text}")).unwrap_or_default(),
    }
}

/// How to draw a graph.
impl Graph {
    /// For a terminal: each final asset with what it needs below it. An asset that stands above is not unfolded again.
    pub fn tree(&self) -> String {
        let (mut text, mut unfolded) = (String::new(), vec![false; self.names.len()]);
        let finals = (0..self.names.len()).filter(|asset| self.outputs[*asset].is_empty());
        for root in finals {
            text.push_str(&self.names[root]);
            text.push('\n');
            unfolded[root] = true;
            // An explicit stack: a chain may be as long as a pipeline has assets.
            let mut pending: Vec<(usize, usize, String)> = self.children(root, "");
            while let Some((consumer, position, prefix)) = pending.pop() {
                let edge = &self.inputs[consumer][position];
                let last = position + 1 == self.inputs[consumer].len();
                let seen = std::mem::replace(&mut unfolded[edge.asset], true);
                let folded = seen && !self.inputs[edge.asset].is_empty();
                let (branch, below) = if last { ("└── ", "    ") } else { ("├── ", "│   ") };
                let line = format!("{prefix}{branch}{}{}", self.names[edge.asset], self.remark(edge, folded));
                text.push_str(&line);
                text.push('\n');
                if !seen {
                    pending.extend(self.children(edge.asset, &format!("{prefix}{below}")));
                }
            }
        }
        text
    }

    /// What stands below an asset, the first to be drawn last in the list.
    fn children(&self, asset: usize, prefix: &str) -> Vec<(usize, usize, String)> {
        (0..self.inputs[asset].len()).rev().map(|position| (asset, position, prefix.to_owned())).collect()
    }

    fn remark(&self, edge: &Edge, folded: bool) -> String {
        let words = [edge.mapping, edge.optional.then_some("optional"), folded.then_some("see above")];
        let words: Vec<&str> = words.into_iter().flatten().collect();
        if words.is_empty() { String::new() } else { format!(" ({})", words.join(", ")) }
    }

    /// Mermaid: edges from producer to consumer, the way data flows; dotted when optional.
    pub fn mermaid(&self) -> String {
        let mut text = String::from("graph TD\n");
        for name in &self.names {
            // The id is prefixed: words such as `end` break a picture.
            writeln!(text, "    a_{name}[\"{name}\"]").expect("writing to a string cannot fail");
        }
        self.for_each_edge(|producer, consumer, edge| {
            let arrow = match (edge.optional, edge.mapping) {
                (false, None) => "-->".to_owned(),
                (true, None) => "-.->".to_owned(),
                (false, Some(mapping)) => format!("-->|{mapping}|"),
                (true, Some(mapping)) => format!("-.->|{mapping}|"),
            };
            writeln!(text, "    a_{producer} {arrow} a_{consumer}").expect("writing to a string cannot fail");
        });
        text
    }

    /// Graphviz.
    pub fn dot(&self) -> String {
        let mut text = String::from("digraph pipeline {\n    node [shape=box];\n");
        for name in &self.names {
            writeln!(text, "    \"{name}\";").expect("writing to a string cannot fail");
        }
        self.for_each_edge(|producer, consumer, edge| {
            let label = edge.mapping.map(|mapping| format!("label=\"{mapping}\""));
            let style = edge.optional.then(|| "style=dashed".to_owned());
            let attributes: Vec<String> = [label, style].into_iter().flatten().collect();
            let attributes =
                if attributes.is_empty() { String::new() } else { format!(" [{}]", attributes.join(", ")) };
            writeln!(text, "    \"{producer}\" -> \"{consumer}\"{attributes};")
                .expect("writing to a string cannot fail");
        });
        text.push_str("}\n");
        text
    }

    /// JSON: `{"assets": [name], "edges": [{"from", "to", "input", "optional", "mapping"}]}`.
    pub fn json(&self) -> String {
        let mut edges = Vec::new();
        self.for_each_edge(|producer, consumer, edge| {
            edges.push(serde_json::json!({
                "from": producer,
                "to": consumer,
                "input": edge.input,
                "optional": edge.optional,
                "mapping": edge.mapping.unwrap_or("same"),
            }));
        });
        let assets: Vec<&str> = self.order.iter().map(|asset| &*self.names[*asset]).collect();
        format!("{:#}\n", serde_json::json!({ "assets": assets, "edges": edges }))
    }

    /// Calls with producer, consumer and edge, in topological order of the consumers.
    fn for_each_edge(&self, mut each: impl FnMut(&str, &str, &Edge)) {
        for &consumer in &self.order {
            for edge in &self.inputs[consumer] {
                each(&self.names[edge.asset], &self.names[consumer], edge);
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::{
        super::asset::{AssetKind, Input},
        *,
    };

    /// A plain asset; an input is an asset's name, with `?` after it when it is optional.
    pub(crate) fn asset(name: &str, inputs: &[&str]) -> AssetDefinition {
        let input = |text: &&str| {
            let producer = text.trim_end_matches('?');
            let optional = text.ends_with('?');
            Input { name: producer.into(), asset: producer.into(), optional, mapping: Mapping::Same }
        };
        AssetDefinition {
            name: name.into(),
            description: String::new(),
            kind: AssetKind::Plain,
            inputs: inputs.iter().map(input).collect(),
            dimensions: vec![],
            requirements: vec![],
            media_type: "application/json".into(),
            checks: vec![],
            tags: vec![],
            parameters: vec![],
        }
    }

    fn graph(assets: &[(&str, &[&str])]) -> Result<Graph, Vec<GraphError>> {
        let definitions: Vec<AssetDefinition> = assets.iter().map(|(name, inputs)| asset(name, inputs)).collect();
        Graph::new(&definitions)
    }

    #[track_caller]
    fn check_order(assets: &[(&str, &[&str])], expected: &[&str]) {
        let graph = graph(assets).unwrap();
        let order: Vec<&str> = graph.topological_order().iter().map(|asset| &*graph.names()[*asset]).collect();
        assert_eq!(order, expected);
    }

    #[track_caller]
    fn check_refused(assets: &[(&str, &[&str])], expected: &[&str]) {
        let errors: Vec<String> = graph(assets).unwrap_err().iter().map(ToString::to_string).collect();
        assert_eq!(errors, expected);
    }

    #[test]
    fn scenario_23_what_is_needed_comes_first() {
        check_order(&[("clean_events", &["raw_events"]), ("raw_events", &[])], &["raw_events", "clean_events"]);
        check_order(&[("b", &[]), ("a", &[]), ("c", &["a", "b", "a"])], &["b", "a", "c"]);
    }

    #[test]
    fn scenario_24_a_cycle_is_reported_with_its_path() {
        check_refused(&[("a", &["b"]), ("b", &["a"])], &["the assets need each other: a -> b -> a"]);
        check_refused(&[("a", &["a"])], &["the assets need each other: a -> a"]);
        // What only needs the cycle, and what the cycle needs besides, are not on its path.
        let assets: [(&str, &[&str]); 5] =
            [("top", &["a"]), ("a", &["root", "b"]), ("b", &["c"]), ("c", &["root", "a"]), ("root", &[])];
        check_refused(&assets, &["the assets need each other: a -> b -> c -> a"]);
    }

    #[test]
    fn scenario_25_an_optional_input_is_an_edge_like_any_other() {
        // Being optional is a property of an input here, so an optional one that is not an input cannot be written
        // down.
        check_refused(&[("a", &["b?"]), ("b", &["a"])], &["the assets need each other: a -> b -> a"]);
        check_order(&[("b", &["a?"]), ("a", &[])], &["a", "b"]);
    }

    #[test]
    fn scenario_31_unknown_assets_are_all_named_with_a_suggestion() {
        check_refused(
            &[("raw_weather", &[]), ("clean", &["raw_wether"]), ("report", &["nothing_like_it"])],
            &[
                "the input `raw_wether` reads the asset `raw_wether`, which does not exist; did you mean `raw_weather`?",
                "the input `nothing_like_it` reads the asset `nothing_like_it`, which does not exist",
            ],
        );
    }

    fn numbers() -> Graph {
        graph(&[("greeting", &[]), ("numbers", &[]), ("doubled", &["numbers"]), ("sum", &["doubled", "numbers?"])])
            .unwrap()
    }

    #[test]
    fn scenario_32_pictures_hold_every_asset() {
        insta::assert_snapshot!(numbers().tree(), @"
        greeting
        sum
        ├── doubled
        │   └── numbers
        └── numbers (optional)
        ");
        insta::assert_snapshot!(numbers().mermaid(), @r#"
        graph TD
            a_greeting["greeting"]
            a_numbers["numbers"]
            a_doubled["doubled"]
            a_sum["sum"]
            a_numbers --> a_doubled
            a_doubled --> a_sum
            a_numbers -.-> a_sum
        "#);
        insta::assert_snapshot!(numbers().dot(), @r#"
        digraph pipeline {
            node [shape=box];
            "greeting";
            "numbers";
            "doubled";
            "sum";
            "numbers" -> "doubled";
            "doubled" -> "sum";
            "numbers" -> "sum" [style=dashed];
        }
        "#);
        let json: serde_json::Value = serde_json::from_str(&numbers().json()).unwrap();
        assert_eq!(json["assets"], serde_json::json!(["greeting", "numbers", "doubled", "sum"]));
        assert_eq!(json["edges"].as_array().unwrap().len(), 3);
        assert_eq!(json["edges"][2]["optional"], true);
    }

    #[test]
    fn a_shared_input_is_unfolded_once() {
        let diamond = graph(&[("a", &[]), ("b", &["a"]), ("c", &["b"]), ("d", &["b"]), ("e", &["c", "d"])]).unwrap();
        insta::assert_snapshot!(diamond.tree(), @"
        e
        ├── c
        │   └── b
        │       └── a
        └── d
            └── b (see above)
        ");
    }

    #[test]
    fn closures_follow_edges_both_ways() {
        let graph = numbers();
        let names = |name: &str, direction| -> Vec<&str> {
            let closure = graph.closure(&[graph.find(name).unwrap()], direction);
            closure.into_iter().map(|asset| &*graph.names()[asset]).collect()
        };
        assert_eq!(names("doubled", Direction::Upstream), ["numbers", "doubled"]);
        assert_eq!(names("doubled", Direction::Downstream), ["doubled", "sum"]);
        assert_eq!(names("greeting", Direction::Downstream), ["greeting"]);
        assert_eq!(graph.find("absent"), None);
    }

    #[test]
    fn a_very_long_chain_is_no_trouble() {
        let names: Vec<String> = (0..10_000).map(|i| format!("a{i}")).collect();
        let definitions: Vec<AssetDefinition> =
            (0..names.len()).map(|i| asset(&names[i], &if i == 0 { vec![] } else { vec![&*names[i - 1]] })).collect();
        let chain = Graph::new(&definitions).unwrap();
        assert_eq!(chain.topological_order().len(), names.len());
        assert_eq!(chain.closure(&[9_999], Direction::Upstream).len(), names.len());
    }

    proptest! {
        #[test]
        fn every_asset_comes_after_its_inputs_or_a_true_cycle_is_shown(
            edges in prop::collection::vec((0usize..12, 0usize..12), 0..20),
        ) {
            let names: Vec<String> = (0..12).map(|i| format!("a{i}")).collect();
            let inputs = |consumer: usize| -> Vec<&str> {
                edges.iter().filter(|(to, _)| *to == consumer).map(|(_, from)| &*names[*from]).collect()
            };
            let definitions: Vec<AssetDefinition> = (0..12).map(|i| asset(&names[i], &inputs(i))).collect();
            match Graph::new(&definitions) {
                Ok(graph) => {
                    let place = |asset: usize| graph.topological_order().iter().position(|a| *a == asset).unwrap();
                    prop_assert!(edges.iter().all(|(consumer, producer)| place(*producer) < place(*consumer)));
                }
                Err(errors) => {
                    let [GraphError::Cycle(path)] = &errors[..] else { panic!("only a cycle is possible: {errors:?}") };
                    let number = |name: &String| names.iter().position(|n| n == name).unwrap();
                    prop_assert!(path.len() >= 2 && path.first() == path.last());
                    prop_assert!(path.windows(2).all(|pair| edges.contains(&(number(&pair[0]), number(&pair[1])))));
                }
            }
        }
    }
}
