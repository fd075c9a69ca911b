//! What runs and why, told as small stories: a pipeline, what exists, a change, and the plan.

use super::{
    super::{
        asset::{Mapping, TimeUnit},
        graph::tests::asset,
        keyspace::tests::{at, list, time},
        policy::{Limits, RetryPolicy, Route},
        recipe::{InputVersion, config_digest, input_digest, reach_digest, sources_digest},
        resource::{Access, DirectoryGrant, Grant},
        selection::resolve_selection,
    },
    *,
};

const NOW: &str = "2016-01-01T00:00:00Z";

/// An asset with nothing special, as the manifest binds it.
pub(crate) fn bound(name: &str, inputs: &[&str]) -> BoundAsset {
    BoundAsset {
        route: Route::default(),
        concurrency: Default::default(),
        definition: asset(name, inputs),
        component: Digest::of(b"component"),
        grants: vec![],
        config: serde_json::Map::new(),
        config_digest: config_digest(&serde_json::Map::new()),
        grants_digest: reach_digest(&[]),
        limits: Limits::default(),
        retry: RetryPolicy::default(),
        fresh_for_ms: None,
        pure: true,
    }
}

/// A pipeline and what has been made of it. Running a plan makes what the assets would make: by default, bytes that
/// follow from the recipe.
struct Story {
    assets: Vec<BoundAsset>,
    latest: Latest,
    sources: Vec<Vec<SourceFingerprint>>,
    now: Timestamp,
    /// Assets whose bytes come out the same whatever they are made from.
    constant: Vec<&'static str>,
}

impl Story {
    fn new(assets: Vec<BoundAsset>) -> Self {
        let count = assets.len();
        let (latest, sources) = (Latest::new(count), vec![Vec::new(); count]);
        Self { assets, latest, sources, now: at(NOW), constant: vec![] }
    }

    fn number(&self, name: &str) -> usize {
        self.assets.iter().position(|asset| asset.definition.name == name).unwrap()
    }

    fn asset(&mut self, name: &str) -> &mut BoundAsset {
        let number = self.number(name);
        &mut self.assets[number]
    }

    fn try_plan(
        &self,
        names: &[&str],
        partitions: &[&str],
        with_inputs: bool,
        force: Force,
    ) -> Result<Plan, PlanError> {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        // As a deploy would have bound what the test changed.
        let mut assets = self.assets.clone();
        for asset in &mut assets {
            asset.config_digest = config_digest(&asset.config);
            asset.grants_digest = reach_digest(&asset.grants);
        }
        let spaces = key_spaces(&assets, self.now).unwrap();
        let selection = resolve_selection(&assets, &spaces, &owned(names), &owned(partitions)).unwrap();
        let request = Request {
            assets: &assets,
            spaces: &spaces,
            selection: &selection,
            with_inputs,
            force,
            now: self.now,
            latest: &self.latest,
            sources: &self.sources,
        };
        let planned = plan(&request);
        // Whoever looks up only what is compared comes to the same.
        if let Ok(compared) = find_compared(&Request { latest: &Latest::new(0), sources: &[], ..request }) {
            let mut latest = Latest::new(assets.len());
            for (asset, indexes) in compared.iter().enumerate() {
                for key in indexes.iter().map(|index| spaces[asset].key(index)) {
                    if let Some(known) = self.latest.get(asset, &key) {
                        latest.insert(asset, key, known.clone());
                    }
                }
            }
            assert_eq!(plan(&Request { latest: &latest, ..request }), planned);
        }
        planned
    }

    fn plan(&self, names: &[&str], partitions: &[&str]) -> Plan {
        self.try_plan(names, partitions, true, Force::No).unwrap()
    }

    /// One line for each job.
    fn lines(&self, plan: &Plan) -> Vec<String> {
        let line = |job: &PlannedJob| {
            let named = named(&self.assets[job.asset].definition.name, &job.partition).replace('`', "");
            format!("{named}: {}", job.reason)
        };
        plan.jobs.iter().map(line).collect()
    }

    #[track_caller]
    fn check(&self, names: &[&str], partitions: &[&str], expected: &[&str]) {
        assert_eq!(self.lines(&self.plan(names, partitions)), expected);
    }

    #[track_caller]
    fn check_refused(&self, names: &[&str], partitions: &[&str], with_inputs: bool, expected: &str) {
        let refused = self.try_plan(names, partitions, with_inputs, Force::No).unwrap_err();
        assert_eq!(refused.to_string(), expected);
    }

    /// Carries out everything, and proves that the plan's order and places are sound while doing so.
    fn run(&mut self) {
        let plan = self.plan(&[], &[]);
        self.carry_out(&plan);
    }

    fn carry_out(&mut self, plan: &Plan) {
        let mut made: Vec<(PartitionKey, Known)> = Vec::new();
        for (place, job) in plan.jobs.iter().enumerate() {
            let bound = &self.assets[job.asset];
            let mut inputs = Vec::new();
            for input in &bound.definition.inputs {
                let producer = self.number(&input.asset);
                let rows: Vec<&PlannedInput> = job.inputs.iter().filter(|row| *row.name == *input.name).collect();
                let positions: Vec<u32> = rows.iter().map(|row| row.position).collect();
                assert_eq!(positions, (0..rows.len() as u32).collect::<Vec<_>>());
                let known = rows.iter().filter_map(|row| match row.from {
                    InputSource::Upstream(upstream) => {
                        assert!(upstream < place, "a job comes after what it waits for");
                        assert_eq!(plan.jobs[upstream].asset, producer);
                        Some(made[upstream].clone())
                    }
                    InputSource::Pinned(id) => {
                        let mut all = self.latest.by_asset[producer].iter();
                        let (key, known) = all.find(|(_, known)| known.materialization == id).unwrap();
                        Some((key.clone(), known.clone()))
                    }
                    InputSource::Absent => None,
                });
                let known: Vec<(PartitionKey, Known)> = known.collect();
                let versions = known.iter().map(|(partition, known)| InputVersion {
                    asset: &input.asset,
                    partition,
                    seen: known.digest,
                });
                inputs.push(input_digest(&input.name, versions, rows.len() - known.len()));
            }
            let parts = RecipeParts {
                component: bound.component,
                config: config_digest(&bound.config),
                grants: reach_digest(&bound.grants),
                sources: sources_digest(&self.sources[job.asset]),
                inputs,
            };
            let digest = match self.constant.contains(&&*bound.definition.name) {
                true => Digest::of(b"constant"),
                false => parts.recipe(&bound.definition.name, &job.partition),
            };
            let (materialization, made_at_ms) = (MaterializationId::new(), self.now.as_millisecond());
            made.push((job.partition.clone(), Known { materialization, digest, parts, made_at_ms }));
        }
        for (job, (partition, known)) in plan.jobs.iter().zip(made) {
            self.latest.insert(job.asset, partition, known);
        }
    }
}

fn numbers() -> Story {
    Story::new(vec![
        bound("greeting", &[]),
        bound("numbers", &[]),
        bound("doubled", &["numbers"]),
        bound("sum", &["doubled"]),
    ])
}

fn weather() -> Story {
    let mut assets = vec![
        bound("raw", &[]),
        bound("monthly", &["raw"]),
        bound("yearly", &["monthly"]),
        bound("report", &["yearly"]),
    ];
    assets[1].definition.dimensions = vec![time("month", TimeUnit::Month, "2012-01", Some("2015-12"))];
    assets[2].definition.dimensions = vec![time("year", TimeUnit::Year, "2012", Some("2015"))];
    assets[2].definition.inputs[0].mapping = Mapping::Within;
    assets[3].definition.inputs[0].mapping = Mapping::All;
    Story::new(assets)
}

#[test]
fn scenario_2_what_is_needed_is_made_first() {
    let story = numbers();
    let never = "never materialized";
    story.check(&["sum"], &[], &[&format!("numbers: {never}"), &format!("doubled: {never}"), &format!("sum: {never}")]);
    assert_eq!(story.plan(&[], &[]).jobs.len(), 4);
}

#[test]
fn scenario_7_what_is_up_to_date_does_not_run_unless_forced() {
    let mut story = numbers();
    story.run();
    let plan = story.plan(&[], &[]);
    assert_eq!((plan.jobs.len(), plan.up_to_date), (0, vec![1, 1, 1, 1]));
    let forced = |names: &[&str], force| story.lines(&story.try_plan(names, &[], true, force).unwrap());
    assert_eq!(forced(&["sum"], Force::Selected), ["sum: forced"]);
    assert_eq!(forced(&["doubled", "sum"], Force::Selected), ["doubled: forced", "sum: forced"]);
    assert_eq!(forced(&["sum"], Force::All), ["numbers: forced", "doubled: forced", "sum: forced"]);
}

#[test]
fn a_forced_input_makes_its_consumers_run() {
    let mut story = numbers();
    story.run();
    let plan = story.try_plan(&[], &[], true, Force::Selected).unwrap();
    assert_eq!(plan.jobs.len(), 4);
    // An invalidated result is one that is no longer known.
    story.latest.by_asset[1].clear();
    story.check(
        &["sum"],
        &[],
        &["numbers: never materialized", "doubled: input `numbers` will run", "sum: input `doubled` will run"],
    );
}

#[test]
fn every_part_of_a_recipe_has_its_reason() {
    let made = || {
        let mut story = numbers();
        story.run();
        story
    };
    let after = |change: &dyn Fn(&mut Story)| {
        let mut story = made();
        change(&mut story);
        story.lines(&story.plan(&["doubled"], &[]))
    };
    assert_eq!(after(&|story| story.asset("doubled").component = Digest::of(b"new")), ["doubled: code changed"]);
    let configure = |story: &mut Story| drop(story.asset("doubled").config.insert("factor".into(), 3.into()));
    assert_eq!(after(&configure), ["doubled: config changed"]);
    let paths = vec!["**".into()];
    let grant =
        DirectoryGrant { resource: "r".into(), access: Access::Read, paths, write_bytes: 1, entries: 1, mount: None };
    let grant = Grant::Files(grant);
    assert_eq!(after(&|story| story.asset("doubled").grants = vec![grant.clone()]), ["doubled: grant changed"]);
    let source = SourceFingerprint { resource: "r".into(), fingerprint: Digest::of(b"files") };
    assert_eq!(after(&|story| story.sources[2] = vec![source.clone()]), ["doubled: source files changed"]);
    let remake = |story: &mut Story| {
        let known = story.latest.by_asset[1].values_mut().next().unwrap();
        known.digest = Digest::of(b"other bytes");
    };
    assert_eq!(after(&remake), ["doubled: input `numbers` changed"]);
    // Limits and retries are not part of a recipe.
    assert!(after(&|story| story.asset("doubled").limits.fuel = 1).is_empty());
    assert!(after(&|story| story.asset("doubled").retry.max_attempts = 9).is_empty());
}

#[test]
fn an_input_that_was_remade_with_the_same_bytes_changes_nothing() {
    let mut story = numbers();
    story.constant = vec!["numbers"];
    story.run();
    story.asset("numbers").component = Digest::of(b"new");
    // Whether the bytes differ is not known before it has run.
    story.check(&["doubled"], &[], &["numbers: code changed", "doubled: input `numbers` will run"]);
    let only = story.plan(&["numbers"], &[]);
    story.carry_out(&only);
    story.check(&["sum"], &[], &[]);
}

#[test]
fn scenario_8_without_inputs_all_that_is_missing_is_named_and_nothing_runs() {
    let mut assets = vec![bound("a", &[]), bound("b", &[]), bound("c", &["a", "b", "d?"]), bound("d", &[])];
    assets[1].definition.dimensions = vec![list("k", &["x", "y"])];
    assets[2].definition.inputs[1].mapping = Mapping::All;
    let mut story = Story::new(assets);
    story.check_refused(
        &["c"],
        &[],
        false,
        "run without inputs, but `c` needs `a`, which has not been materialized; \
         `c` needs `b` x, which has not been materialized; `c` needs `b` y, which has not been materialized",
    );
    let only = story.plan(&["a", "b"], &[]);
    story.carry_out(&only);
    let plan = story.try_plan(&["c"], &[], false, Force::No).unwrap();
    assert_eq!(story.lines(&plan), ["c: never materialized"]);
    let sources: Vec<InputSource> = plan.jobs[0].inputs.iter().map(|input| input.from).collect();
    let pinned = |asset: usize, key: &str| {
        InputSource::Pinned(story.latest.get(asset, &key.parse().unwrap()).unwrap().materialization)
    };
    assert_eq!(sources, [pinned(0, "none"), pinned(1, "k=static:x"), pinned(1, "k=static:y"), InputSource::Absent]);
}

#[test]
fn without_inputs_what_is_there_is_pinned_even_when_it_is_stale() {
    let mut story = numbers();
    story.run();
    story.asset("numbers").component = Digest::of(b"new");
    assert!(story.try_plan(&["doubled"], &[], false, Force::No).unwrap().jobs.is_empty());
    let plan = story.try_plan(&["sum", "numbers"], &[], false, Force::Selected).unwrap();
    assert_eq!(story.lines(&plan), ["numbers: forced", "sum: forced"]);
    assert!(matches!(plan.jobs[1].inputs[0].from, InputSource::Pinned(_)));
}

#[test]
fn without_inputs_selected_assets_still_feed_each_other() {
    let story = numbers();
    let plan = story.try_plan(&["numbers", "doubled"], &[], false, Force::No).unwrap();
    assert_eq!(plan.jobs[1].inputs[0].from, InputSource::Upstream(0));
}

#[test]
fn scenario_13_an_optional_input_is_made_when_it_can_be_and_may_be_absent() {
    let story = Story::new(vec![bound("extra", &[]), bound("main", &["extra?"])]);
    story.check(&["main"], &[], &["extra: never materialized", "main: never materialized"]);
    let plan = story.plan(&["main"], &[]);
    assert!(plan.jobs[1].inputs[0].optional);
    let alone = story.try_plan(&["main"], &[], false, Force::No).unwrap();
    assert_eq!(alone.jobs[0].inputs[0].from, InputSource::Absent);
}

#[test]
fn an_optional_input_that_appears_makes_its_consumer_stale() {
    let mut story = Story::new(vec![bound("extra", &[]), bound("main", &["extra?"])]);
    let alone = story.try_plan(&["main"], &[], false, Force::No).unwrap();
    story.carry_out(&alone);
    assert!(story.try_plan(&["main"], &[], false, Force::No).unwrap().jobs.is_empty());
    let extra = story.plan(&["extra"], &[]);
    story.carry_out(&extra);
    let plan = story.try_plan(&["main"], &[], false, Force::No).unwrap();
    assert_eq!(story.lines(&plan), ["main: input `extra` changed"]);
}

#[test]
fn partitions_are_selected_and_what_they_need_follows_the_mappings() {
    let mut story = weather();
    assert_eq!(story.plan(&[], &[]).jobs.len(), 1 + 48 + 4 + 1);
    let one_year = story.plan(&["yearly"], &["2013"]);
    assert_eq!(one_year.jobs.len(), 1 + 12 + 1);
    assert_eq!(one_year.jobs[13].inputs.len(), 12);
    story.check(&["monthly"], &["2013-05"], &["raw: never materialized", "monthly 2013-05: never materialized"]);
    assert_eq!(story.plan(&["report"], &[]).jobs.len(), 54);
    story.run();
    assert_eq!(story.plan(&[], &[]).up_to_date, [1, 48, 4, 1]);
    // One month changes: its year and the report follow, and nothing else.
    let known = story.latest.by_asset[1].get_mut(&"month=month:2013-05".parse().unwrap()).unwrap();
    known.digest = Digest::of(b"corrected");
    story.check(&[], &[], &["yearly 2013: input `monthly` changed", "report: input `yearly` will run"]);
}

#[test]
fn scenario_38_one_partition_does_not_stand_for_another() {
    let mut story = weather();
    let one = story.plan(&["monthly"], &["2013-05"]);
    story.carry_out(&one);
    story.check(&["monthly"], &["2013-05"], &[]);
    story.check(&["monthly"], &["2013-06"], &["monthly 2013-06: never materialized"]);
}

#[test]
fn scenario_40_a_backfill_makes_what_is_new_and_skips_what_is_done() {
    let mut story = weather();
    let done = story.plan(&["monthly"], &["2013-05"]);
    story.carry_out(&done);
    let plan = story.plan(&["monthly"], &["2013-05..2013-06"]);
    assert_eq!((story.lines(&plan), plan.up_to_date[1]), (vec!["monthly 2013-06: never materialized".to_owned()], 1));
    story.carry_out(&plan);
    assert_eq!(story.plan(&["monthly"], &["2013-05..2013-06"]).up_to_date[1], 2);
    let forced = story.try_plan(&["monthly"], &["2013-05..2013-06"], true, Force::Selected).unwrap();
    assert_eq!(story.lines(&forced), ["monthly 2013-05: forced", "monthly 2013-06: forced"]);
}

#[test]
fn open_partitions_grow_with_time() {
    let mut daily = bound("daily", &[]);
    daily.definition.dimensions = vec![time("day", TimeUnit::Day, "2015-12-30", None)];
    let mut story = Story::new(vec![daily]);
    story.run();
    assert_eq!(story.plan(&[], &[]).up_to_date, [2]);
    story.now = at("2016-01-02T12:00:00Z");
    story.check(&[], &[], &["daily 2016-01-01: never materialized"]);
}

#[test]
fn what_needs_an_interval_that_has_not_ended_waits() {
    let (mut hourly, mut daily) = (bound("hourly", &["daily"]), bound("daily", &[]));
    hourly.definition.dimensions = vec![time("hour", TimeUnit::Hour, "2015-12-31T00", None)];
    daily.definition.dimensions = vec![time("day", TimeUnit::Day, "2015-12-31", None)];
    let mut after = bound("after", &["hourly"]);
    after.definition.dimensions = hourly.definition.dimensions.clone();
    let mut story = Story::new(vec![hourly, daily, after]);
    story.now = at("2016-01-01T03:00:00Z");
    let plan = story.plan(&[], &[]);
    assert_eq!((plan.jobs.len(), plan.not_yet), (24 + 1 + 24, vec![3, 0, 3]));
    story.check_refused(
        &["hourly"],
        &["2016-01-01T01"],
        true,
        "it is too early: `hourly` 2016-01-01T01 needs a partition of `daily` that does not exist yet",
    );
    // An optional input may not exist yet.
    story.asset("hourly").definition.inputs[0].optional = true;
    let plan = story.plan(&["hourly"], &["2016-01-01T01"]);
    assert_eq!(plan.jobs[0].inputs[0].from, InputSource::Absent);
}

#[test]
fn an_effectful_asset_is_never_reused_unless_its_result_stays_good() {
    let mut writer = bound("writer", &[]);
    writer.pure = false;
    let mut story = Story::new(vec![writer, bound("reader", &["writer"])]);
    story.run();
    story.check(&[], &[], &["writer: has effects", "reader: input `writer` will run"]);
    story.asset("writer").fresh_for_ms = Some(60_000);
    story.check(&[], &[], &[]);
    story.now = at("2016-01-01T00:00:59.999Z");
    story.check(&[], &[], &[]);
    story.now = at("2016-01-01T00:01:00Z");
    story.check(&[], &[], &["writer: no longer fresh", "reader: input `writer` will run"]);
    story.asset("writer").component = Digest::of(b"new");
    story.check(&["writer"], &[], &["writer: code changed"]);
}

#[test]
fn the_order_of_the_list_of_assets_does_not_matter() {
    let mut story = numbers();
    story.assets.reverse();
    assert_eq!(story.plan(&["sum"], &[]).jobs.len(), 3);
    story.run();
    story.check(&[], &[], &[]);
}

#[test]
fn a_plan_that_multiplies_without_end_is_refused() {
    let keys: Vec<String> = (0..10_000).map(|i| i.to_string()).collect();
    let keys: Vec<&str> = keys.iter().map(|key| &**key).collect();
    let (mut a, mut b) = (bound("a", &[]), bound("b", &["a"]));
    a.definition.dimensions = vec![list("k", &keys)];
    b.definition.dimensions = vec![list("l", &keys)];
    b.definition.inputs[0].mapping = Mapping::All;
    let mut story = Story::new(vec![a, b]);
    story.check_refused(&[], &[], true, "the plan would hold more than 10000000 inputs; select fewer partitions");
    let days = |name: &str| {
        let mut asset = bound(name, &[]);
        asset.definition.dimensions = vec![list("k", &keys), list("l", &keys[..100])];
        asset
    };
    story = Story::new(vec![days("a"), days("b"), days("c")]);
    story.check_refused(&[], &[], true, "the plan would hold more than 2000000 partitions; select fewer partitions");
}

#[test]
fn a_thousand_assets_of_a_hundred_partitions_are_planned() {
    let mut story = Story::new(layered(10, 100, 100));
    let plan = story.plan(&[], &[]);
    assert_eq!(plan.jobs.len(), 100_000);
    assert_eq!(plan.jobs.iter().map(|job| job.inputs.len()).sum::<usize>(), 900 * 100 * 3);
    story.carry_out(&plan);
    assert_eq!(story.plan(&[], &[]).up_to_date, vec![100; 1_000]);
}

/// Layers of assets, each of which reads three of the layer before; every asset has daily partitions.
fn layered(layers: usize, width: usize, partitions: u32) -> Vec<BoundAsset> {
    let last = KeySpace::new(&[time("day", TimeUnit::Day, "2015-01-01", None)], at(NOW)).unwrap();
    let last = last.partition(partitions - 1).remove(0).key;
    let mut assets = Vec::new();
    for layer in 0..layers {
        for i in 0..width {
            let inputs: Vec<String> = match layer {
                0 => Vec::new(),
                _ => (0..3).map(|k| format!("a{}_{}", layer - 1, (i + k) % width)).collect(),
            };
            let inputs: Vec<&str> = inputs.iter().map(|name| &**name).collect();
            let mut asset = bound(&format!("a{layer}_{i}"), &inputs);
            asset.definition.dimensions = vec![time("day", TimeUnit::Day, "2015-01-01", Some(&last))];
            assets.push(asset);
        }
    }
    assets
}
