//! An asset's configuration, through the real command and a real component: the ways to read it, its parameters and
//! their defaults, and what a change of it makes stale. The guest is that of `tests/guests/config`.

use std::fs;

use flowstone_tests::{Flowstone, Output, pipeline::guest};

struct Configured {
    flowstone: Flowstone,
}

impl Configured {
    fn new() -> Self {
        Self { flowstone: Flowstone::new() }
    }

    /// The command with the manifest, whose configurations are these lines.
    fn command(&self, command: &[&str], assets: &str) -> Output {
        let text = format!(
            "[pipeline]\nname = \"configured\"\n[[components]]\npath = \"{}\"\n{assets}",
            guest("config").display()
        );
        fs::write(self.flowstone.folder().join("flowstone.toml"), text).unwrap();
        self.flowstone.run([&command[..1], &["./flowstone.toml"], &command[1..]].concat())
    }

    fn show(&self, asset: &str) -> String {
        self.flowstone.run(["show", "configured", asset]).expect_status(0).stdout
    }
}

const STRICT: &str = "[assets.strict]\nconfig = { city = \"Seattle\", days = 7 }\n";

#[test]
fn every_interface_has_the_same_configuration_completed_by_defaults() {
    let configured = Configured::new();
    configured.command(&["run", "strict"], STRICT).expect_status(0);
    let expected = r#"{"city":"Seattle","colours":["red",{"r":1}],"days":7,"on":true,"scale":1.5,"units":"metric \"SI\""}
city Some(Value::Text("Seattle"))
colours Some(Value::Json("[\"red\",{\"r\":1}]"))
days Some(Value::Integer(7))
on Some(Value::Boolean(true))
scale Some(Value::Number(1.5))
units Some(Value::Text("metric \"SI\""))
absent None Ok(None)
Ok([("city", "Seattle"), ("colours", "[\"red\",{\"r\":1}]"), ("days", "7"), ("on", "true"), ("scale", "1.5"), ("units", "metric \"SI\"")])
city=Seattle true
colours=["red",{"r":1}] true
days=7 true
on=true true
scale=1.5 true
units=metric "SI" true
"#;
    assert_eq!(configured.show("strict"), expected);
    // Without parameters, whatever the manifest says.
    let lax = format!("{STRICT}[assets.lax]\nconfig = {{ b = {{ c = [] }}, a = \"x\" }}\n");
    configured.command(&["run", "lax"], &lax).expect_status(0);
    assert!(configured.show("lax").contains("a=x true\nb={\"c\":[]} true\n"), "{}", configured.show("lax"));
    configured.command(&["run", "lax"], STRICT).expect_status(0);
    assert_eq!(configured.show("lax"), "{}\nabsent None Ok(None)\nOk([])\n");
}

#[test]
fn a_changed_value_makes_its_asset_stale_and_another_spelling_of_the_same_does_not() {
    let configured = Configured::new();
    configured.command(&["run"], STRICT).expect_status(0);
    // The default, written out, and another order.
    let same = "[assets.strict.config]\non = true\ndays = 7\ncity = \"Seattle\"\n";
    let plan = configured.command(&["plan"], same).expect_status(0).stdout;
    assert!(plan.contains("up to date"), "{plan}");
    let plan = configured.command(&["plan"], &same.replace("true", "false")).expect_status(0).stdout;
    assert!(plan.contains("  strict: config changed") && !plan.contains("  lax: "), "{plan}");
    configured.command(&["run"], &same.replace("true", "false")).expect_status(0);
    assert!(configured.show("strict").contains("on=false true"));
}

#[test]
fn a_configuration_that_does_not_fit_stops_the_deploy_with_every_mistake() {
    let configured = Configured::new();
    let wrong = "[assets.strict.config]\nunit = \"metric\"\ndays = \"7\"\nscale = 2\non = 1\n";
    let said = configured.command(&["deploy"], wrong).expect_status(2).stderr;
    for words in [
        "assets.strict.config.unit: the asset has no parameter `unit`; did you mean `units`?",
        "assets.strict.config.days: must be a whole number (\"how many are shown\")",
        "assets.strict.config.on: must be true or false",
        "assets.strict.config.city: the asset needs a value for `city` (\"where the station stands\"); \
         write in [assets.strict]: config.city = \"...\"",
    ] {
        assert!(said.contains(words), "{words} is not in {said}");
    }
    assert!(!said.contains("scale"), "a whole number is a number: {said}");
    assert_eq!(configured.flowstone.database().ask("select count(*)::text from pipeline_version"), ["0"]);
    let nul = "[assets.strict.config]\ncity = \"a\\u0000b\"\n";
    let said = configured.command(&["deploy"], nul).expect_status(2).stderr;
    assert!(said.contains("assets.strict.config.city: holds a NUL"), "{said}");
}
