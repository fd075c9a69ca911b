//! Binds what components describe to what the manifest decides, or says everything that is wrong.
//!
//! What a component describes is hostile input. What comes out of here is what is stored: sound, resolved, and in
//! topological order.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{
    asset::AssetDefinition,
    concurrency::Concurrency,
    definition::{definition_mistakes, is_name},
    diagnostic::{Diagnostic, bounded, did_you_mean, shown},
    grant::{grant_mistakes, is_pure},
    graph::{Graph, GraphError},
    manifest::Manifest,
    mapping::check_mapping,
    parameter::{configuration_mistakes, resolved},
    policy::{Limits, RetryPolicy, Route},
    recipe::{config_digest, reach_digest},
    resource::{Grant, Resource},
    schedule::schedule_mistakes,
};
use crate::{
    blob::Digest,
    limit::{ASSETS_PER_COMPONENT_MAX, ASSETS_PER_PIPELINE_MAX, DIAGNOSTICS_MAX},
};

/// A component and what its `describe` returned.
#[derive(Clone, Debug)]
pub struct DescribedComponent {
    /// As the manifest names it, for messages.
    pub path: String,
    /// Of its bytes.
    pub digest: Digest,
    /// As they were returned.
    pub assets: Vec<AssetDefinition>,
}

/// A pipeline that can be deployed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bound {
    /// The pipeline's name.
    pub name: String,
    /// By name.
    pub resources: std::collections::BTreeMap<String, Resource>,
    /// In topological order.
    pub assets: Vec<BoundAsset>,
}

/// An asset with everything that the manifest decides about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoundAsset {
    /// What its component describes.
    pub definition: AssetDefinition,
    /// The component that makes it.
    pub component: Digest,
    /// Sorted by resource.
    pub grants: Vec<Grant>,
    /// Given to the guest as its canonical JSON.
    pub config: serde_json::Map<String, serde_json::Value>,
    /// Of the configuration and of what the grants reach, as they were bound: a database may hold numbers otherwise.
    pub config_digest: Digest,
    /// Of the configuration and of what the grants reach, as they were bound: a database may hold numbers otherwise.
    pub grants_digest: Digest,
    /// Bounds of an attempt.
    pub limits: Limits,
    /// When a job is tried again.
    pub retry: RetryPolicy,
    /// Where its jobs queue.
    #[serde(default, skip_serializing_if = "Route::is_default")]
    pub route: Route,
    /// With what else it shares how many of its jobs run at once.
    #[serde(default, skip_serializing_if = "Concurrency::is_default")]
    pub concurrency: Concurrency,
    /// How long an effectful asset's result is as good as a new one, in milliseconds; none for a pure one.
    pub fresh_for_ms: Option<u64>,
    /// Whether its grants are all deterministic, so that a recipe decides the result.
    pub pure: bool,
}

/// Checks everything, then binds. The answer to mistakes names all of them, at most [`DIAGNOSTICS_MAX`].
pub fn validate(components: &[DescribedComponent], manifest: &Manifest) -> Result<Bound, Vec<Diagnostic>> {
    let mut diagnostics = Vec::new();
    let described = gather(components, manifest, &mut diagnostics);
    check_sections(&described, manifest, &mut diagnostics);
    let graph = check_graph(&described, manifest, &mut diagnostics);
    for described in described.iter().filter(|described| described.sound) {
        diagnostics.extend(grant_mistakes(described.definition, manifest));
        diagnostics.extend(configuration_mistakes(described.definition, manifest));
        diagnostics.extend(idle_freshness(described.definition, manifest));
    }
    let definitions: Vec<&AssetDefinition> = described.iter().map(|described| described.definition).collect();
    diagnostics.extend(schedule_mistakes(&definitions, manifest));
    match graph {
        Some(graph) if diagnostics.is_empty() => Ok(bind(&described, &graph, manifest)),
        _ => Err(bounded(diagnostics)),
    }
}

/// The first description of each name.
struct Described<'a> {
    component: &'a DescribedComponent,
    definition: &'a AssetDefinition,
    /// Whether it makes sense on its own; the others count as existing, and no more is asked of them.
    sound: bool,
}

fn component_mistake(component: &DescribedComponent, asset: &str, message: String) -> Diagnostic {
    Diagnostic { file: component.path.clone(), place: None, key: shown(asset), message, fix: None }
}

fn gather<'a>(
    components: &'a [DescribedComponent],
    manifest: &Manifest,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<Described<'a>> {
    let (mut described, mut owners) = (Vec::new(), HashMap::new());
    let total: usize = components.iter().map(|component| component.assets.len()).sum();
    if total > ASSETS_PER_PIPELINE_MAX {
        let message = format!("{total} assets are more than the {ASSETS_PER_PIPELINE_MAX} of a pipeline");
        diagnostics.push(manifest_mistake(manifest, "components", message, None));
        return described;
    }
    for component in components {
        let count = component.assets.len();
        if count == 0 {
            diagnostics.push(component_mistake(component, "", "the component describes no assets".to_owned()));
        }
        if count > ASSETS_PER_COMPONENT_MAX {
            let message = format!("{count} assets are more than the {ASSETS_PER_COMPONENT_MAX} of a component");
            diagnostics.push(component_mistake(component, "", message));
            continue;
        }
        for definition in &component.assets {
            let mistakes = definition_mistakes(definition);
            let sound = mistakes.is_empty();
            diagnostics
                .extend(mistakes.into_iter().map(|mistake| component_mistake(component, &definition.name, mistake)));
            if let Some(owner) = owners.insert(&definition.name, &component.path) {
                let message = match *owner == component.path {
                    true => "the component describes two assets of this name".to_owned(),
                    false => format!("{owner} and {} both describe an asset of this name", component.path),
                };
                diagnostics.push(component_mistake(component, &definition.name, message));
                continue;
            }
            described.push(Described { component, definition, sound });
        }
        // Enough to answer with; a component that describes nonsense describes a lot of it.
        if diagnostics.len() > DIAGNOSTICS_MAX {
            break;
        }
    }
    described
}

fn manifest_mistake(manifest: &Manifest, key: &str, message: String, fix: Option<String>) -> Diagnostic {
    Diagnostic { file: manifest.file.clone(), place: manifest.place(key), key: key.to_owned(), message, fix }
}

/// Sections about assets that nobody describes.
fn check_sections(described: &[Described<'_>], manifest: &Manifest, diagnostics: &mut Vec<Diagnostic>) {
    // What was cut off or refused whole would make every section look like a mistake.
    if described.is_empty() {
        return;
    }
    let names: std::collections::HashSet<&str> =
        described.iter().map(|described| &*described.definition.name).collect();
    for section in manifest.assets.keys().filter(|name| !names.contains(&***name)) {
        let candidates: Vec<&str> = match diagnostics.len() {
            0..DIAGNOSTICS_MAX => names.iter().copied().filter(|name| is_name(name)).collect(),
            _ => Vec::new(),
        };
        let fix = did_you_mean(section, candidates.iter().copied()).unwrap_or_else(|| "remove the section".to_owned());
        let message = "no component describes an asset of this name".to_owned();
        diagnostics.push(manifest_mistake(manifest, &format!("assets.{section}"), message, Some(fix)));
    }
}

/// Inputs that lead nowhere or round in a circle, and mappings that do not fit.
fn check_graph(described: &[Described<'_>], manifest: &Manifest, diagnostics: &mut Vec<Diagnostic>) -> Option<Graph> {
    let graph = match Graph::new(described.iter().map(|described| described.definition)) {
        Ok(graph) => Some(graph),
        Err(errors) => {
            diagnostics.extend(errors.into_iter().map(|error| graph_mistake(error, described, manifest)));
            None
        }
    };
    let by_name: HashMap<&str, &Described<'_>> = described.iter().map(|d| (&*d.definition.name, d)).collect();
    for consumer in described.iter().filter(|described| described.sound) {
        for input in &consumer.definition.inputs {
            let Some(producer) = by_name.get(&*input.asset).filter(|producer| producer.sound) else { continue };
            let (from, to) = (&consumer.definition.dimensions, &producer.definition.dimensions);
            if let Err(error) = check_mapping(&input.mapping, from, to, !input.optional) {
                let message = format!("the input `{}` from `{}`: {error}", input.name, input.asset);
                diagnostics.push(component_mistake(consumer.component, &consumer.definition.name, message));
            }
        }
    }
    graph
}

fn graph_mistake(error: GraphError, described: &[Described<'_>], manifest: &Manifest) -> Diagnostic {
    let message = error.to_string();
    let GraphError::Unknown { asset, .. } = error else { return manifest_mistake(manifest, "", message, None) };
    let consumer = described.iter().find(|described| described.definition.name == asset);
    component_mistake(consumer.expect("the graph was built from these").component, &asset, message)
}

/// `fresh_for` says when an effectful result is reused; a pure one always is.
fn idle_freshness(definition: &AssetDefinition, manifest: &Manifest) -> Option<Diagnostic> {
    let settings = manifest.assets.get(&definition.name)?;
    let idle = settings.fresh_for_ms.is_some() && is_pure(&settings.grants);
    idle.then(|| {
        let message = "changes nothing: the asset has no effects, and its results are always reused".to_owned();
        let key = format!("assets.{}.fresh_for", definition.name);
        manifest_mistake(manifest, &key, message, Some("remove it".to_owned()))
    })
}

fn bind(described: &[Described<'_>], graph: &Graph, manifest: &Manifest) -> Bound {
    let bound = |asset: &usize| {
        let Described { component, definition, .. } = &described[*asset];
        let settings = manifest.assets.get(&definition.name).cloned().unwrap_or_default();
        let concurrency = Concurrency { of_pipeline: manifest.max_concurrent, ..settings.concurrency };
        let config = resolved(definition, settings.config);
        BoundAsset {
            definition: (*definition).clone(),
            component: component.digest,
            pure: is_pure(&settings.grants),
            config_digest: config_digest(&config),
            grants_digest: reach_digest(&settings.grants),
            grants: settings.grants,
            config,
            limits: settings.limits,
            retry: settings.retry,
            route: settings.route,
            concurrency,
            fresh_for_ms: settings.fresh_for_ms,
        }
    };
    let assets = graph.topological_order().iter().map(bound).collect();
    Bound { name: manifest.name.clone(), resources: manifest.resources.clone(), assets }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            asset::{AssetKind, Capability, Mapping, Parameter, ParameterKind, Requirement, TimeUnit},
            graph::tests::asset,
            keyspace::tests::time,
            manifest::parse_manifest,
        },
        *,
    };

    const MANIFEST: &str = "[pipeline]\nname = \"p\"\n[[components]]\npath = \"a.wasm\"\n[[components]]\npath = \"b.wasm\"\n\
                            [resources.station]\nkind = \"directory\"\npath = \"data\"\naccess = \"read-write\"\n";

    fn component(path: &str, assets: Vec<AssetDefinition>) -> DescribedComponent {
        DescribedComponent { path: path.into(), digest: Digest::of(path.as_bytes()), assets }
    }

    fn manifest(lines: &str) -> Manifest {
        parse_manifest("flowstone.toml", &format!("{MANIFEST}{lines}"), &Default::default()).unwrap()
    }

    fn answer(components: &[DescribedComponent], lines: &str) -> Vec<String> {
        match validate(components, &manifest(lines)) {
            Ok(_) => Vec::new(),
            Err(diagnostics) => diagnostics.iter().map(ToString::to_string).collect(),
        }
    }

    /// What is said about one component with these assets, and a manifest with these lines from line 11 on.
    #[track_caller]
    fn check(assets: Vec<AssetDefinition>, lines: &str, expected: &[&str]) {
        assert_eq!(answer(&[component("a.wasm", assets)], lines), expected);
    }

    fn needing(name: &str, resource: &str) -> AssetDefinition {
        let requirement = Requirement {
            resource_name: resource.into(),
            capability: Capability::Files,
            reason: "the readings".into(),
        };
        AssetDefinition { requirements: vec![requirement], ..asset(name, &[]) }
    }

    #[test]
    fn scenario_23_assets_are_bound_in_topological_order_with_their_settings() {
        let components =
            [component("a.wasm", vec![asset("clean", &["raw"])]), component("b.wasm", vec![needing("raw", "station")])];
        let lines = "[assets.raw]\ngrants.station = { paths = [\"*.csv\"] }\nlimits.fuel = \"7\"\nconfig.a = 1\n";
        let bound = validate(&components, &manifest(lines)).unwrap();
        let names: Vec<&str> = bound.assets.iter().map(|asset| &*asset.definition.name).collect();
        assert_eq!(names, ["raw", "clean"]);
        let [raw, clean] = &bound.assets[..] else { panic!("two assets are bound") };
        assert_eq!((raw.component, clean.component), (Digest::of(b"b.wasm"), Digest::of(b"a.wasm")));
        assert_eq!((raw.limits.fuel, &raw.config["a"], raw.grants.len()), (7, &1.into(), 1));
        assert_eq!(clean.limits, Limits::default());
        assert!(raw.pure && clean.pure);
        let stored = serde_json::to_string(&bound).unwrap();
        assert_eq!(serde_json::from_str::<Bound>(&stored).unwrap(), bound);
    }

    fn configured(parameters: &[(&str, ParameterKind, Option<serde_json::Value>)]) -> AssetDefinition {
        let parameter = |(name, kind, default): &(&str, ParameterKind, Option<serde_json::Value>)| Parameter {
            name: (*name).into(),
            kind: *kind,
            default: default.clone(),
            description: "what it is for".into(),
        };
        AssetDefinition { parameters: parameters.iter().map(parameter).collect(), ..asset("report", &[]) }
    }

    #[test]
    fn a_configuration_is_held_to_the_parameters_and_completed_by_their_defaults() {
        let report = configured(&[
            ("city", ParameterKind::Text, None),
            ("units", ParameterKind::Text, Some("metric".into())),
            ("days", ParameterKind::Integer, Some(30.into())),
            ("scale", ParameterKind::Number, Some(1.into())),
            ("on", ParameterKind::Boolean, Some(true.into())),
            ("colours", ParameterKind::Json, Some(serde_json::json!(["red"]))),
        ]);
        let bound = |lines: &str| {
            let bound = validate(&[component("a.wasm", vec![report.clone()])], &manifest(lines)).unwrap();
            bound.assets.into_iter().next().unwrap()
        };
        let plain = bound("[assets.report]\nconfig = { city = \"Seattle\", days = 7 }\n");
        let expected = serde_json::json!({
            "city": "Seattle", "units": "metric", "days": 7, "scale": 1, "on": true, "colours": ["red"],
        });
        assert_eq!(serde_json::Value::Object(plain.config.clone()), expected);
        let said = bound("[assets.report]\nconfig = { days = 7, city = \"Seattle\", units = \"metric\" }\n");
        assert_eq!(said.config_digest, plain.config_digest, "a default that is written out changes nothing");
        let other = bound("[assets.report]\nconfig = { city = \"Seattle\", days = 8 }\n");
        assert_ne!(other.config_digest, plain.config_digest);

        check(
            vec![report.clone()],
            "[assets.report]\nconfig = { citty = \"Seattle\", days = 1.5, on = \"yes\", scale = true }\n",
            &[
                "flowstone.toml:12:12: assets.report.config.citty: the asset has no parameter `citty`; did you mean `city`?",
                "flowstone.toml:12:31: assets.report.config.days: must be a whole number (\"what it is for\"); write days = 1",
                "flowstone.toml:12:43: assets.report.config.on: must be true or false (\"what it is for\"); write on = true",
                "flowstone.toml:12:55: assets.report.config.scale: must be a number (\"what it is for\"); write scale = 1.5",
                "flowstone.toml:11:9: assets.report.config.city: the asset needs a value for `city` (\"what it is for\"); write in [assets.report]: config.city = \"...\"",
            ],
        );
        let none = configured(&[]);
        check(vec![none], "[assets.report]\nconfig.anything = 1\n", &[]);
        let wrong = configured(&[("a", ParameterKind::Text, Some(1.into())), ("a", ParameterKind::Json, None)]);
        check(
            vec![wrong],
            "",
            &[
                "a.wasm: report: there are two parameters called `a`",
                "a.wasm: report: the default of the parameter `a` is of another kind",
            ],
        );
    }

    #[test]
    fn an_asset_that_may_write_is_effectful() {
        let lines =
            "[assets.raw]\ngrants.station = { access = \"read-write\", paths = [\"**\"] }\nfresh_for = \"1h\"\n";
        let bound = validate(&[component("a.wasm", vec![needing("raw", "station")])], &manifest(lines)).unwrap();
        assert_eq!((bound.assets[0].pure, bound.assets[0].fresh_for_ms), (false, Some(3_600_000)));
    }

    #[test]
    fn scenario_24_cycles_are_refused_with_their_path() {
        check(
            vec![asset("a", &["b"]), asset("b", &["a"])],
            "",
            &["flowstone.toml: the assets need each other: a -> b -> a"],
        );
        check(vec![asset("a", &["a"])], "", &["flowstone.toml: the assets need each other: a -> a"]);
    }

    #[test]
    fn scenario_31_unknown_and_duplicate_assets_are_refused() {
        check(
            vec![asset("raw_weather", &[]), asset("clean", &["raw_wether"])],
            "",
            &[
                "a.wasm: clean: the input `raw_wether` reads the asset `raw_wether`, which does not exist; did you mean `raw_weather`?",
            ],
        );
        check(
            vec![asset("raw", &[]), asset("raw", &[])],
            "",
            &["a.wasm: raw: the component describes two assets of this name"],
        );
        let components = [component("a.wasm", vec![asset("raw", &[])]), component("b.wasm", vec![asset("raw", &[])])];
        assert_eq!(answer(&components, ""), ["b.wasm: raw: a.wasm and b.wasm both describe an asset of this name"]);
    }

    #[test]
    fn scenario_26_a_router_is_refused() {
        let router = AssetDefinition { kind: AssetKind::Router, ..asset("branch", &[]) };
        check(
            vec![router, asset("a", &["branch"])],
            "",
            &["a.wasm: branch: assets of the kind `router` are not supported yet"],
        );
    }

    #[test]
    fn a_requirement_without_a_grant_names_the_line_that_would_grant_it() {
        check(
            vec![needing("raw", "station")],
            "",
            &[
                "flowstone.toml: assets.raw.grants.station: the asset needs the directory `station` (\"the readings\"), \
               and nothing grants it; write in [assets.raw]: grants.station = { access = \"read\", paths = [\"**\"] }",
            ],
        );
        check(
            vec![needing("raw", "other")],
            "[assets.raw]\n",
            &[
                "flowstone.toml:11:9: assets.raw.grants.other: the asset needs the directory `other` (\"the readings\"), \
               and nothing grants it; write in [assets.raw]: grants.other = { access = \"read\", paths = [\"**\"] }, \
               and declare [resources.other] with kind = \"directory\" and path = \"...\"",
            ],
        );
    }

    #[test]
    fn the_line_that_would_grant_a_requirement_grants_it() {
        let assets = vec![needing("raw", "station")];
        let [mistake] = &answer(&[component("a.wasm", assets.clone())], "")[..] else { panic!("one mistake") };
        let (_, line) = mistake.split_once("write in [assets.raw]: ").unwrap();
        check(assets, &format!("[assets.raw]\n{line}\n"), &[]);
    }

    #[test]
    fn a_grant_without_a_requirement_is_refused() {
        check(
            vec![asset("raw", &[])],
            "[assets.raw]\ngrants.station.paths = [\"**\"]\n",
            &["flowstone.toml:12:8: assets.raw.grants.station: the asset does not ask for `station`; remove the grant"],
        );
        let mistakes = answer(
            &[component("a.wasm", vec![needing("raw", "staton")])],
            "[assets.raw]\ngrants.station.paths = [\"**\"]\n",
        );
        assert!(mistakes[0].contains("add to the grants of [assets.raw]: staton = {"), "{mistakes:?}");
        assert!(mistakes[1].ends_with("does not ask for `station`; did you mean `staton`?"), "{mistakes:?}");
    }

    #[test]
    fn a_section_for_no_asset_is_refused() {
        check(
            vec![asset("raw_weather", &[])],
            "[assets.raw_wether]\n[assets.elsewhere]\n",
            &[
                "flowstone.toml:12:9: assets.elsewhere: no component describes an asset of this name; remove the section",
                "flowstone.toml:11:9: assets.raw_wether: no component describes an asset of this name; \
                 did you mean `raw_weather`?",
            ],
        );
    }

    #[test]
    fn freshness_of_a_pure_asset_changes_nothing_and_is_refused() {
        check(
            vec![asset("raw", &[])],
            "[assets.raw]\nfresh_for = \"1h\"\n",
            &["flowstone.toml:12:1: assets.raw.fresh_for: changes nothing: the asset has no effects, \
               and its results are always reused; remove it"],
        );
    }

    #[test]
    fn mappings_that_do_not_fit_are_refused() {
        let mut yearly = asset("yearly", &["monthly"]);
        yearly.dimensions = vec![time("year", TimeUnit::Year, "2012", None)];
        let mut monthly = asset("monthly", &[]);
        monthly.dimensions = vec![time("month", TimeUnit::Month, "2012-01", None)];
        check(
            vec![yearly.clone(), monthly.clone()],
            "",
            &[
                "a.wasm: yearly: the input `monthly` from `monthly`: `same` cannot lead from a year to a month; map with `within`",
            ],
        );
        yearly.inputs[0].mapping = Mapping::Within;
        check(vec![yearly, monthly], "", &[]);
    }

    #[test]
    fn a_component_that_describes_nothing_is_refused() {
        check(vec![], "", &["a.wasm: the component describes no assets"]);
    }

    #[test]
    fn a_component_that_describes_nonsense_is_answered_shortly() {
        let many = |count: usize| (0..count).map(|i| asset(&format!("a{i}"), &[])).collect::<Vec<_>>();
        check(many(1_025), "", &["a.wasm: 1025 assets are more than the 1024 of a component"]);
        let components: Vec<_> = (0..10).map(|i| component(&format!("{i}.wasm"), many(1_024))).collect();
        assert_eq!(
            answer(&components, ""),
            ["flowstone.toml: components: 10240 assets are more than the 10000 of a pipeline"]
        );
        // A thousand assets with a thousand mistakes each, and names of a megabyte.
        let mut nonsense = asset(&"\u{1b}[2J".repeat(1 << 18), &["nowhere"; 64]);
        nonsense.tags = vec![super::super::asset::Field { name: String::new(), value: "\u{7}".into() }; 64];
        let answer = answer(&[component("a.wasm", vec![nonsense; 20])], "");
        assert_eq!(answer.len(), DIAGNOSTICS_MAX + 1);
        assert!(answer.iter().all(|line| line.len() < 2_000 && !line.chars().any(char::is_control)));
    }

    #[test]
    fn mistakes_of_all_kinds_are_in_one_answer() {
        let mut bad = asset("bad", &["raw"]);
        bad.media_type = "nonsense".into();
        let assets =
            vec![bad, needing("raw", "station"), asset("clean", &["rww"]), asset("c", &["d"]), asset("d", &["c"])];
        let answer = answer(&[component("a.wasm", assets)], "[assets.rw]\n");
        insta::assert_snapshot!(answer.join("\n"), @r#"
        a.wasm: bad: `nonsense` is not a media type; write one such as `application/json`
        flowstone.toml:11:9: assets.rw: no component describes an asset of this name; did you mean `raw`?
        a.wasm: clean: the input `rww` reads the asset `rww`, which does not exist; did you mean `raw`?
        flowstone.toml: the assets need each other: c -> d -> c
        flowstone.toml: assets.raw.grants.station: the asset needs the directory `station` ("the readings"), and nothing grants it; write in [assets.raw]: grants.station = { access = "read", paths = ["**"] }
        "#);
    }
}
