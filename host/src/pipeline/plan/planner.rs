//! The planner at work: the state that deciding about one partition after another needs.
//!
//! Everything here is numbers and look-ups; what the values mean is told in [`super`].

use std::{collections::HashMap, ops::Range, rc::Rc, sync::Arc};

use super::{
    super::{
        asset::Mapping,
        graph::Graph,
        keyspace::KeySpace,
        mapping::{Projection, check_mapping},
        partition::PartitionKey,
        ranges::IndexRanges,
        recipe::{InputVersion, RecipeParts, input_digest, sources_digest},
        selection::{SelectedAsset, SelectedPartitions},
    },
    Force, InputSource, Known, MissingInput, Plan, PlanError, PlannedInput, PlannedJob, Reason, Request,
};
use crate::limit::{DIAGNOSTICS_MAX, PLAN_INPUTS_MAX, PLAN_PARTITIONS_MAX};

/// One input of an asset, worked out.
struct Edge {
    name: Arc<str>,
    producer: usize,
    optional: bool,
    projection: Rc<Projection>,
}

/// What has been decided about one partition.
#[derive(Clone, Copy)]
enum State<'a> {
    Runs(usize),
    UpToDate(&'a Known),
    /// Needs what does not exist yet.
    NotYet,
}

/// What one input of one partition holds.
#[derive(Default)]
struct Found<'a> {
    pinned: Vec<(PartitionKey, &'a Known)>,
    absent: usize,
    /// Whether one of its versions will be made in this plan.
    runs: bool,
}

pub(super) struct Planner<'a> {
    request: Request<'a>,
    edges: Vec<Vec<Edge>>,
    /// By asset: the partitions that were selected, and whether by name.
    selected: Vec<(IndexRanges, bool)>,
    /// By asset: the partitions that this plan decides about.
    wanted: Vec<IndexRanges>,
    /// By asset, in the order of `wanted`.
    states: Vec<Vec<State<'a>>>,
    /// Texts of partitions, made once for each key space.
    keys: HashMap<*const KeySpace, HashMap<u32, PartitionKey>>,
    inputs: usize,
    plan: Plan,
    unmade: Missing,
    too_early: Missing,
}

#[derive(Default)]
struct Missing {
    first: Vec<MissingInput>,
    total: usize,
}

impl Missing {
    fn push(&mut self, missing: impl FnOnce() -> MissingInput) {
        self.total += 1;
        if self.first.len() < DIAGNOSTICS_MAX {
            self.first.push(missing());
        }
    }
}

impl<'a> Planner<'a> {
    pub(super) fn new(request: &Request<'a>, graph: &Graph) -> Result<Self, PlanError> {
        let count = request.assets.len();
        let mut selected = vec![(IndexRanges::default(), false); count];
        for SelectedAsset { asset, partitions } in request.selection {
            selected[*asset] = match partitions {
                SelectedPartitions::All => (IndexRanges::from(0..request.spaces[*asset].len()), false),
                SelectedPartitions::Only(ranges) => (ranges.clone(), true),
                SelectedPartitions::Possible(ranges) => (ranges.clone(), false),
            };
            selected[*asset].0.normalize();
        }
        Ok(Self {
            request: *request,
            edges: work_out_edges(request, graph)?,
            wanted: selected.iter().map(|(ranges, _)| ranges.clone()).collect(),
            selected,
            states: vec![Vec::new(); count],
            keys: HashMap::new(),
            inputs: 0,
            plan: Plan { jobs: Vec::new(), up_to_date: vec![0; count], not_yet: vec![0; count] },
            unmade: Missing::default(),
            too_early: Missing::default(),
        })
    }

    /// From the selection back to its inputs: consumers before producers, so that each asset's set is whole when it
    /// is reached.
    pub(super) fn find_wanted(&mut self, graph: &Graph) -> Result<(), PlanError> {
        let (mut partitions, mut inputs) = (0, 0);
        for &asset in graph.topological_order().iter().rev() {
            let mut wanted = std::mem::take(&mut self.wanted[asset]);
            wanted.normalize();
            partitions += wanted.len() as usize;
            if partitions > PLAN_PARTITIONS_MAX {
                return Err(PlanError::TooLarge { what: "partitions", max: PLAN_PARTITIONS_MAX });
            }
            let edges: &[Edge] = if self.request.with_inputs { &self.edges[asset] } else { &[] };
            for edge in edges {
                let (space, from) = (&self.request.spaces[asset], &self.request.spaces[edge.producer]);
                for index in wanted.iter() {
                    // A partition whose input does not exist yet is not made; its other inputs may be made all the
                    // same.
                    let needed = &mut self.wanted[edge.producer];
                    let visited = edge.projection.visit(space, index, from, |range| {
                        inputs += range.len();
                        needed.push(range);
                    });
                    if visited.is_ok() && inputs > PLAN_INPUTS_MAX {
                        return Err(PlanError::TooLarge { what: "inputs", max: PLAN_INPUTS_MAX });
                    }
                }
            }
            self.wanted[asset] = wanted;
        }
        Ok(())
    }

    /// By asset: the partitions whose newest materialization a decision may ask for, once all wanted ones are known.
    pub(super) fn find_compared(&self) -> Vec<IndexRanges> {
        let mut compared = self.wanted.clone();
        if self.request.with_inputs {
            return compared;
        }
        for (asset, edges) in self.edges.iter().enumerate() {
            let space = &self.request.spaces[asset];
            for edge in edges {
                let from = &self.request.spaces[edge.producer];
                for index in self.wanted[asset].iter() {
                    let needed = &mut compared[edge.producer];
                    // What leads to nothing that exists asks for nothing.
                    if edge.projection.visit(space, index, from, |range| needed.push(range)).is_err() {
                        continue;
                    }
                }
            }
        }
        compared.iter_mut().for_each(IndexRanges::normalize);
        compared
    }

    /// Decides about every wanted partition of one asset, whose inputs have been decided about.
    pub(super) fn plan_asset(&mut self, asset: usize) -> Result<(), PlanError> {
        if self.wanted[asset].is_empty() {
            return Ok(());
        }
        let bound = &self.request.assets[asset];
        let sources = self.request.sources.get(asset).map_or(&[][..], |sources| sources);
        // The digests that all partitions share; those of inputs follow for each.
        let shared = RecipeParts {
            component: bound.component,
            config: bound.config_digest,
            grants: bound.grants_digest,
            sources: sources_digest(sources),
            inputs: Vec::new(),
        };
        let indexes: Vec<u32> = self.wanted[asset].iter().collect();
        for index in indexes {
            let state = self.plan_partition(asset, index, &shared)?;
            match state {
                State::Runs(_) => {}
                State::UpToDate(_) => self.plan.up_to_date[asset] += 1,
                State::NotYet => self.plan.not_yet[asset] += 1,
            }
            self.states[asset].push(state);
        }
        Ok(())
    }

    fn plan_partition(&mut self, asset: usize, index: u32, shared: &RecipeParts) -> Result<State<'a>, PlanError> {
        let partition = self.key(asset, index);
        let (mut planned, mut found, mut ready) = (Vec::new(), Vec::new(), true);
        for input in 0..self.edges[asset].len() {
            match self.find_input(asset, index, input, &mut planned)? {
                Some(input) => found.push(input),
                None => ready = false,
            }
        }
        if !ready {
            return Ok(State::NotYet);
        }
        let known = self.request.latest.get(asset, &partition);
        let selected = &self.selected[asset].0;
        let forced = match self.request.force {
            Force::No => false,
            Force::Selected => selected.contains(index),
            Force::All => true,
        };
        let reason = match known {
            _ if forced => Some(Reason::Forced),
            None => Some(Reason::NeverMaterialized),
            Some(known) => self.why_stale(asset, known, shared, &found),
        };
        match (reason, known) {
            (None, Some(known)) => Ok(State::UpToDate(known)),
            (reason, _) => {
                let reason = reason.unwrap_or(Reason::NeverMaterialized);
                self.plan.jobs.push(PlannedJob { asset, partition, reason, inputs: planned });
                Ok(State::Runs(self.plan.jobs.len() - 1))
            }
        }
    }

    /// Finds the versions of one input and appends them to the job's. Absent when a required one cannot be had, which
    /// is noted.
    fn find_input(
        &mut self,
        asset: usize,
        index: u32,
        input: usize,
        planned: &mut Vec<PlannedInput>,
    ) -> Result<Option<Found<'a>>, PlanError> {
        let edge = &self.edges[asset][input];
        let (name, producer, optional) = (Arc::clone(&edge.name), edge.producer, edge.optional);
        let Some(versions) = self.versions(asset, index, input)? else {
            // No version is there to be counted, and one was to be expected.
            if optional {
                planned.push(PlannedInput { name, position: 0, optional, from: InputSource::Absent });
                return Ok(Some(Found { absent: 1, ..Found::default() }));
            }
            self.note_not_yet(asset, index, producer, None);
            return Ok(None);
        };
        let (mut found, mut ready) = (Found::default(), true);
        for (position, at) in (0..).zip(versions.into_iter().flatten()) {
            let from = match self.version(producer, at) {
                Some(State::Runs(job)) => {
                    found.runs = true;
                    InputSource::Upstream(job)
                }
                Some(State::UpToDate(known)) => {
                    found.pinned.push((self.key(producer, at), known));
                    InputSource::Pinned(known.materialization)
                }
                Some(State::NotYet) | None if optional => {
                    found.absent += 1;
                    InputSource::Absent
                }
                other => {
                    ready = false;
                    self.note_missing(asset, index, producer, at, other.is_some());
                    continue;
                }
            };
            planned.push(PlannedInput { name: Arc::clone(&name), position, optional, from });
        }
        Ok(ready.then_some(found))
    }

    /// The producer's partitions that one input of a partition reads; absent when it leads to one that does not exist.
    fn versions(&mut self, asset: usize, index: u32, input: usize) -> Result<Option<Vec<Range<u32>>>, PlanError> {
        let edge = &self.edges[asset][input];
        let (space, from) = (&self.request.spaces[asset], &self.request.spaces[edge.producer]);
        let mut ranges: Vec<Range<u32>> = Vec::new();
        let visited = edge.projection.visit(space, index, from, |range| ranges.push(range));
        self.inputs += ranges.iter().map(ExactSizeIterator::len).sum::<usize>();
        match self.inputs {
            0..=PLAN_INPUTS_MAX => Ok(visited.is_ok().then_some(ranges)),
            _ => Err(PlanError::TooLarge { what: "inputs", max: PLAN_INPUTS_MAX }),
        }
    }

    /// What is decided about a version, or what exists of one that this plan does not decide about.
    fn version(&mut self, producer: usize, at: u32) -> Option<State<'a>> {
        if let Some(position) = self.wanted[producer].position(at) {
            return Some(self.states[producer][position as usize]);
        }
        let key = self.key(producer, at);
        self.request.latest.get(producer, &key).map(State::UpToDate)
    }

    /// Why the newest materialization is not what would come out now; absent when it is.
    fn why_stale(&self, asset: usize, known: &Known, now: &RecipeParts, found: &[Found<'_>]) -> Option<Reason> {
        let bound = &self.request.assets[asset];
        let edges = &self.edges[asset];
        let then = &known.parts;
        if then.component != now.component || then.inputs.len() != edges.len() {
            return Some(Reason::CodeChanged);
        }
        let parts = [
            (then.config != now.config, Reason::ConfigChanged),
            (then.grants != now.grants, Reason::GrantChanged),
            (then.sources != now.sources, Reason::SourceChanged),
        ];
        if let Some((_, reason)) = parts.into_iter().find(|(changed, _)| *changed) {
            return Some(reason);
        }
        for ((edge, found), then) in edges.iter().zip(found).zip(&then.inputs) {
            let asset = &*self.request.assets[edge.producer].definition.name;
            let versions = found.pinned.iter();
            let versions = versions.map(|(partition, known)| InputVersion { asset, partition, seen: known.digest });
            if !found.runs && input_digest(&edge.name, versions, found.absent) != *then {
                return Some(Reason::InputChanged { input: Arc::clone(&edge.name) });
            }
        }
        if let Some((edge, _)) = edges.iter().zip(found).find(|(_, found)| found.runs) {
            return Some(Reason::InputWillRun { input: Arc::clone(&edge.name) });
        }
        match bound.fresh_for_ms {
            _ if bound.pure => None,
            None => Some(Reason::Effectful),
            Some(fresh_for_ms) => {
                let age_ms = self.request.now.as_millisecond().saturating_sub(known.made_at_ms);
                (age_ms >= fresh_for_ms as i64).then_some(Reason::NoLongerFresh)
            }
        }
    }

    /// The text of a partition.
    fn key(&mut self, asset: usize, index: u32) -> PartitionKey {
        let space = &self.request.spaces[asset];
        let keys = self.keys.entry(Arc::as_ptr(space)).or_default();
        keys.entry(index).or_insert_with(|| space.key(index)).clone()
    }

    fn missing(&mut self, asset: usize, index: u32, producer: usize, at: Option<u32>) -> MissingInput {
        let name = |asset: usize| self.request.assets[asset].definition.name.clone();
        let (asset_name, producer_name) = (name(asset), name(producer));
        MissingInput {
            asset: asset_name,
            partition: self.key(asset, index),
            producer: producer_name,
            producer_partition: at.map(|at| self.key(producer, at)),
        }
    }

    /// A required version that cannot be had: because it is too early, or because nobody has made it.
    fn note_missing(&mut self, asset: usize, index: u32, producer: usize, at: u32, too_early: bool) {
        if too_early {
            return self.note_not_yet(asset, index, producer, Some(at));
        }
        let missing = self.missing(asset, index, producer, Some(at));
        self.unmade.push(|| missing);
    }

    /// Left out without a word when all partitions were asked for; an error when this one was.
    fn note_not_yet(&mut self, asset: usize, index: u32, producer: usize, at: Option<u32>) {
        let (selected, by_name) = &self.selected[asset];
        if *by_name && selected.contains(index) {
            let missing = self.missing(asset, index, producer, at);
            self.too_early.push(|| missing);
        }
    }

    pub(super) fn finish(self) -> Result<Plan, PlanError> {
        if self.unmade.total > 0 {
            return Err(PlanError::DependencyNotReady { missing: self.unmade.first, total: self.unmade.total });
        }
        if self.too_early.total > 0 {
            return Err(PlanError::NotYet { missing: self.too_early.first, total: self.too_early.total });
        }
        Ok(self.plan)
    }
}

/// Every asset's inputs; mappings between the same key spaces are worked out once.
fn work_out_edges(request: &Request<'_>, graph: &Graph) -> Result<Vec<Vec<Edge>>, PlanError> {
    let mut known: HashMap<(*const KeySpace, *const KeySpace, &Mapping), Rc<Projection>> = HashMap::new();
    let mut all = Vec::with_capacity(request.assets.len());
    for (asset, bound) in request.assets.iter().enumerate() {
        let definition = &bound.definition;
        let mut edges = Vec::with_capacity(definition.inputs.len());
        for (input, edge) in definition.inputs.iter().zip(graph.inputs(asset)) {
            let (from, to) = (&request.spaces[asset], &request.spaces[edge.asset]);
            let key = (Arc::as_ptr(from), Arc::as_ptr(to), &input.mapping);
            let projection = match known.get(&key) {
                Some(projection) => Rc::clone(projection),
                None => {
                    let producer = &request.assets[edge.asset].definition.dimensions;
                    check_mapping(&input.mapping, &definition.dimensions, producer, false).map_err(|source| {
                        PlanError::Mapping { asset: definition.name.clone(), input: input.name.clone(), source }
                    })?;
                    let projection = Rc::new(Projection::new(&input.mapping, from, to));
                    known.insert(key, Rc::clone(&projection));
                    projection
                }
            };
            edges.push(Edge {
                name: (&*input.name).into(),
                producer: edge.asset,
                optional: input.optional,
                projection,
            });
        }
        all.push(edges);
    }
    Ok(all)
}
