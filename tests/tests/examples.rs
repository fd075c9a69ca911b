//! Every example runs, and its output is compared: with a text, with a digest, or with what this test computes itself
//! from the same data.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use flowstone_tests::{
    Database, Flowstone, Warehouse,
    pipeline::{ended, example, root},
    web::{Web, answer},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The folders of `examples/`, each with the tests that run it.
const TESTED: [(&str, &str); 9] = [
    ("hello", "examples.rs"),
    ("hostile", "hostile.rs"),
    ("weather", "examples.rs"),
    ("http", "http.rs"),
    ("sql", "sql/apply.rs"),
    ("files", "examples.rs"),
    ("visits", "key_value.rs"),
    ("foreign", "foreign.rs"),
    ("closing", "examples.rs"),
];

#[test]
fn every_example_is_run_by_a_test() {
    let folders = fs::read_dir(root().join("examples")).unwrap().map(|entry| entry.unwrap());
    let folders = folders.filter(|entry| entry.file_type().unwrap().is_dir());
    let folders: BTreeSet<String> = folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert_eq!(folders, TESTED.map(|(name, _)| name.to_owned()).into());
    for (name, file) in TESTED {
        let tests = fs::read_to_string(root().join("tests/tests").join(file)).unwrap();
        let run = [format!("examples/{name}\")"), format!("copy_of(\"{name}\")")];
        assert!(run.iter().any(|run| tests.contains(run)), "{file} does not run {name}");
    }
}

#[test]
fn hello_says_hello() {
    let flowstone = Flowstone::new();
    let folder = root().join("examples/hello");
    flowstone.run(["run", folder.to_str().unwrap()]).expect_status(0);
    assert_eq!(flowstone.run(["show", "hello", "greeting"]).expect_status(0).stdout, "Hello, World!");
    let source = fs::read_to_string(folder.join("src/lib.rs")).unwrap();
    assert!(source.lines().count() < 20, "it is to be short");
}

#[test]
fn files_keeps_a_shelf_in_step_with_an_inbox() {
    let files = copy_of("files");
    let shelf = files.folder.join("shelf");
    fs::create_dir(&shelf).unwrap();
    fs::write(shelf.join("gone.csv.txt"), "3 rows\n").unwrap();
    fs::write(shelf.join("keep.md"), "nobody's business").unwrap();
    assert_eq!(files.run(), ["inventory succeeded", "labels succeeded"]);
    assert_eq!(files.say("show", &["inventory"]), "file,rows\nfebruary.csv,1\njanuary.csv,2\n");
    assert_eq!(files.say("show", &["labels"]), "february.csv.txt 7\njanuary.csv.txt 7\n");
    let label = |name: &str| fs::read_to_string(shelf.join(name)).ok();
    assert_eq!(label("january.csv.txt").as_deref(), Some("2 rows\n"));
    assert_eq!((label("gone.csv.txt"), label("keep.md").as_deref()), (None, Some("nobody's business")));
    // The inbox is an input: what arrives in it is seen.
    fs::remove_file(files.folder.join("data/january.csv")).unwrap();
    assert_eq!(files.run(), ["inventory succeeded", "labels succeeded"]);
    assert_eq!((label("january.csv.txt"), label("february.csv.txt").as_deref()), (None, Some("1 rows\n")));
    let grants = files.say("grants", &[]);
    assert!(grants.contains("read *.csv, mounted at /inbox") && grants.contains("in 20 files"), "{grants}");
}

/// A bank behind HTTPS with an authority of its own, a shop's database on another server, a directory, and the secrets
/// in the environment: what each asset was granted, it reaches.
#[tokio::test(flavor = "multi_thread")]
async fn closing_uses_everything_that_can_be_granted() {
    const VARIABLES: [(&str, &str); 2] =
        [("FLOWSTONE_SECRET_BANK_KEY", "let-me-in-please"), ("FLOWSTONE_SECRET_AUDITOR", "wax-and-signet-ring")];
    let bank = Web::start(|_, seen| match seen.header("authorization") {
        Some("Bearer let-me-in-please") => answer(200, r#"{ "EUR": 10000, "USD": 9000 }"#),
        _ => answer(401, ""),
    });
    let warehouse = Warehouse::new("drop schema shop; drop table public.flowstone_applied;").await;
    let login = warehouse.role().replace("role", "till");
    let source = root().join("examples/closing");
    warehouse.execute(fs::read_to_string(source.join("setup.sql")).unwrap().replace("shop_login", &login)).await;
    let flowstone = Flowstone::owning(Database::new().await);
    let manifest = flowstone.folder().join("flowstone.toml");
    let text = fs::read_to_string(source.join("flowstone.toml")).unwrap();
    let origin = format!("https://{}/v1\"\nca = \"ca.pem\"", bank.authority());
    let text = text
        .replace("target/wasm32-wasip2/release/closing.wasm", &example("closing").display().to_string())
        .replace("https://bank.example.com/v1\"", &origin)
        .replace("networks = []", "networks = [\"127.0.0.0/8\", \"::1\"]");
    fs::write(&manifest, text).unwrap();
    fs::write(flowstone.folder().join("ca.pem"), bank.ca()).unwrap();
    let books = flowstone.folder().join("books");
    fs::create_dir(&books).unwrap();

    let shop = warehouse.url_in(warehouse.socket_folder(), &login);
    let variables = VARIABLES.into_iter().chain([("FLOWSTONE_SQL_SHOP", &*shop)]);
    let run = flowstone.start_with(["run", manifest.to_str().unwrap(), "--json"], variables).wait().expect_status(0);
    let events: Vec<Value> = run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(ended(&events).len(), 12);
    let show =
        |asset: &str, day: &str| flowstone.run(["show", "closing", asset, "--partition", day]).expect_status(0).stdout;
    let days = ["2024-01-01", "2024-01-02", "2024-01-03"];
    let closings = days.map(|day| serde_json::from_str::<Value>(&show("closing", day)).unwrap());
    assert_eq!(closings.clone().map(|closing| closing["cents"].as_i64()), [1_388, 138, 11_138].map(Some));
    assert_eq!(closings.clone().map(|closing| closing["orders"].as_i64()), [2, 1, 2].map(Some));
    // Whichever day was committed first has seen a customer first: nobody is new twice.
    assert_eq!(closings.iter().filter_map(|closing| closing["new_customers"].as_i64()).sum::<i64>(), 3);

    let receipts = days.map(|day| show("receipt", day));
    for (day, receipt) in days.iter().zip(&receipts) {
        let kept = fs::read_to_string(books.join(format!("{day}.txt"))).unwrap();
        assert_eq!(kept, format!("{receipt}\n{}\n", hmac(VARIABLES[1].1, receipt)));
        let stamp: i64 = receipt.split(' ').nth(1).unwrap().parse().unwrap();
        assert!((jiff::Timestamp::now().as_second() - stamp).abs() < 600, "{receipt}");
    }
    assert!(receipts[0].ends_with("2 orders, 13.88 USD"), "{}", receipts[0]);
    let numbers: BTreeSet<&str> = receipts.iter().filter_map(|receipt| receipt.split(' ').next()).collect();
    assert_eq!(numbers.len(), 3);

    let used = "select distinct use->>'capability' from attempt, jsonb_array_elements(uses) as use order by 1";
    assert_eq!(flowstone.database().ask(used), ["clock", "files", "http", "key-value", "random", "secret", "sql"]);
    let tree = flowstone.run(["lineage", "closing", "receipt", "--partition", days[0]]).expect_status(0).stdout;
    for source in ["http `bank`", "sql `shop`", "key-value `customers`"] {
        assert!(tree.contains(source), "{source}: {tree}");
    }
    let grants = flowstone.run(["grants", "closing"]).expect_status(0).stdout;
    for resource in
        ["bank ", "shop", "customers", "books", "auditor", "wall", "dice", "use, as the header authorization"]
    {
        assert!(grants.contains(resource), "{resource}: {grants}");
    }
    warehouse.execute(format!("drop owned by {login}; drop role {login}")).await;
}

/// RFC 2104, of a key that is no longer than a block.
fn hmac(key: &str, message: &str) -> String {
    let padded = |with: u8| -> Vec<u8> { (0..64).map(|n| key.as_bytes().get(n).unwrap_or(&0) ^ with).collect() };
    let inner = Sha256::digest([&padded(0x36), message.as_bytes()].concat());
    let outer = Sha256::digest([&padded(0x5c)[..], &inner].concat());
    outer.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A copy of an example that a test may change.
struct Copy {
    flowstone: Flowstone,
    name: &'static str,
    folder: PathBuf,
}

fn copy_of(name: &'static str) -> Copy {
    let flowstone = Flowstone::new();
    let folder = flowstone.folder().join(name);
    let release = folder.join("target/wasm32-wasip2/release");
    fs::create_dir_all(&release).unwrap();
    fs::copy(example(name), release.join(format!("{name}.wasm"))).unwrap();
    let source = root().join("examples").join(name);
    fs::copy(source.join("flowstone.toml"), folder.join("flowstone.toml")).unwrap();
    fs::create_dir(folder.join("data")).unwrap();
    for file in fs::read_dir(source.join("data")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), folder.join("data").join(file.file_name())).unwrap();
    }
    Copy { flowstone, name, folder }
}

impl Copy {
    /// Runs it to its end: what ended how.
    #[track_caller]
    fn run(&self) -> Vec<String> {
        let output = self.flowstone.run(["run", self.folder.to_str().unwrap(), "--json"]).expect_status(0);
        let events: Vec<Value> = output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        ended(&events)
    }

    #[track_caller]
    fn say(&self, command: &str, arguments: &[&str]) -> String {
        self.flowstone.run([&[command, self.name], arguments].concat()).expect_status(0).stdout
    }

    #[track_caller]
    fn json(&self, command: &str, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.say(command, arguments)).unwrap()
    }

    /// Replaces text that stands once in a file.
    #[track_caller]
    fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.folder.join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.matches(from).count(), 1, "`{from}` in {file}");
        fs::write(&path, text.replace(from, to)).unwrap();
    }
}

#[test]
fn weather_makes_the_same_bytes_on_every_machine() {
    let weather = copy_of("weather");
    assert_eq!(weather.run().len(), 1 + 1 + 48 + 4 + 1);
    let digest = |arguments: &[&str]| {
        let record = weather.json("show", &[arguments, &["--meta"]].concat());
        format!("{:<35} {}", arguments.join(" "), record["digest"].as_str().unwrap())
    };
    let digests = [
        digest(&["raw_weather"]),
        digest(&["clean_weather"]),
        digest(&["monthly_weather", "--partition", "2012-01"]),
        digest(&["yearly_weather", "--partition", "2015"]),
        digest(&["weather_report"]),
    ];
    insta::assert_snapshot!(digests.join("\n"), @"
    raw_weather                         0845078a290b48e3149ab8639966824110a251db4e06fc144c06ebb534af23be
    clean_weather                       0845078a290b48e3149ab8639966824110a251db4e06fc144c06ebb534af23be
    monthly_weather --partition 2012-01 b72a7ada4ec0520139ca882b8516aa9923c3bf138091f5294e469f0d854249e7
    yearly_weather --partition 2015     cae239951299f54416fcef9c1ab837ea2e16f7a14d629bc26202e8b4de16f08e
    weather_report                      accb4a1bf7dd16a477c52ccb205d37d1284370c3cc5d86829181fddbe074fc76
    ");
    let csv = root().join("examples/weather/data/seattle-weather.csv");
    assert_eq!(weather.say("show", &["raw_weather"]), fs::read_to_string(csv).unwrap());
}

/// A day of the file: its date, precipitation, highest and lowest temperature, wind, kind.
type Day<'a> = (&'a str, f64, f64, f64, f64, &'a str);

fn days<'a>(csv: &'a str, period: &str) -> Vec<Day<'a>> {
    let number = |text: &str| text.parse().unwrap();
    let row = |line: &'a str| {
        let [date, rain, max, min, wind, kind] = line.split(',').collect::<Vec<_>>()[..] else { panic!("{line}") };
        (date, number(rain), number(max), number(min), number(wind), kind)
    };
    csv.lines().skip(1).map(row).filter(|day| day.0.starts_with(period)).collect()
}

/// What the example says about a period, computed in another way.
fn statistics(days: &[Day<'_>], period: &str) -> Value {
    let rounded = |value: f64| (value * 100.0).round() / 100.0;
    let mean = |of: fn(&Day<'_>) -> f64| rounded(days.iter().map(of).sum::<f64>() / days.len() as f64);
    let record = |of: fn(&Day<'_>) -> f64, sign: f64| {
        let mut sorted: Vec<_> = days.iter().collect();
        // Stable: of equal days, the first stays first.
        sorted.sort_by(|one, other| (sign * of(one)).total_cmp(&(sign * of(other))));
        json!({ "date": sorted[0].0, "value": of(sorted[0]) })
    };
    let count = |kind: &str| days.iter().filter(|day| day.5 == kind).count();
    json!({
        "period": period,
        "days": days.len(),
        "temp_max_mean": mean(|day| day.2),
        "temp_min_mean": mean(|day| day.3),
        "hottest": record(|day| day.2, -1.0),
        "coldest": record(|day| day.3, 1.0),
        "wettest": record(|day| day.1, -1.0),
        "precipitation": rounded(days.iter().map(|day| day.1).sum()),
        "wet_days": days.iter().filter(|day| day.1 >= 1.0).count(),
        "wind_mean": mean(|day| day.4),
        "weather": (["sun", "fog", "drizzle", "rain", "snow"].map(count)),
    })
}

#[test]
fn weather_says_what_the_data_says() {
    let weather = copy_of("weather");
    weather.run();
    let csv = fs::read_to_string(root().join("examples/weather/data/seattle-weather.csv")).unwrap();
    for month in ["2012-02", "2013-07", "2015-12"] {
        let made = weather.json("show", &["monthly_weather", "--partition", month]);
        assert_eq!(made, statistics(&days(&csv, month), month));
    }
    // The example makes a year from its months, whose means are rounded: within a hundredth of the days' own.
    let mut made = weather.json("show", &["yearly_weather", "--partition", "2012"]);
    let mut expected = statistics(&days(&csv, "2012"), "2012");
    for mean in ["temp_max_mean", "temp_min_mean", "wind_mean"] {
        let [made, expected] = [&mut made, &mut expected].map(|value| value[mean].take().as_f64().unwrap());
        assert!((made - expected).abs() < 0.011, "{mean}: {made}, {expected}");
    }
    assert_eq!(made, expected);
}

#[test]
fn the_report_is_one_page_that_needs_nothing_else() {
    let weather = copy_of("weather");
    weather.run();
    let page = weather.say("show", &["weather_report"]);
    assert!(page.starts_with("<!doctype html>") && page.trim_end().ends_with("</html>"));
    for reference in ["http://", "https://", "<script", "<link", "<img", "@import", "url(", " src=", "<iframe"] {
        // A name of SVG, and a gradient of the page itself.
        let found = page.replace("http://www.w3.org/2000/svg", "").replace("url(#", "");
        assert!(!found.contains(reference), "the page has {reference}");
    }
    assert_eq!(page.matches("class=\"rain bar\"").count(), 48, "a bar for each month");
    for year in ["2012", "2013", "2014", "2015"] {
        assert!(page.contains(year));
    }
    assert!(page.contains("Seattle") && page.contains("°C"));
    let record = weather.json("show", &["weather_report", "--meta"]);
    assert_eq!(record["media_type"].as_str().unwrap().split(';').next(), Some("text/html"));
}

#[test]
fn the_reports_lineage_leads_to_the_file_in_every_format() {
    let weather = copy_of("weather");
    weather.run();
    let lineage = |format: &str| weather.say("lineage", &["weather_report", "--format", format]);
    let tree = lineage("tree");
    assert!(tree.starts_with("weather_report  "), "{tree}");
    for words in
        ["monthly_weather[2012-01]", "yearly_weather[2015]", "clean_weather", "raw_weather", "directory `station`"]
    {
        assert!(tree.contains(words), "{words} is not in\n{tree}");
    }
    let (mermaid, dot) = (lineage("mermaid"), lineage("dot"));
    assert!(mermaid.starts_with("graph TD\n") && mermaid.contains(" --> "), "{mermaid}");
    assert!(dot.starts_with("digraph lineage {") && dot.trim_end().ends_with('}'), "{dot}");
    let json: Value = serde_json::from_str(&lineage("json")).unwrap();
    let nodes = json["nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 55, "every output went into the report");
    for picture in [&mermaid, &dot] {
        let drawn = nodes.iter().filter(|node| picture.contains(&node["digest"].as_str().unwrap()[..12])).count();
        assert_eq!(drawn, 55, "{picture}");
    }
    // 48 months and 4 years into the report, 12 months into each year, the rows into each month, the file into the rows.
    assert_eq!(json["edges"].as_array().unwrap().len(), 48 + 4 + 48 + 48 + 1);
    let down: Value = weather.json("lineage", &["raw_weather", "--down", "--format", "json"]);
    assert_eq!(down["nodes"].as_array().unwrap().len(), 55);
}

#[test]
fn only_what_really_changed_is_made_anew() {
    let weather = copy_of("weather");
    let folder = weather.folder.to_str().unwrap();
    weather.run();
    let again = weather.flowstone.run(["run", folder]).expect_status(0);
    assert_eq!(again.stdout, "weather is up to date\n");
    assert_eq!(
        weather.flowstone.run(["plan", folder]).expect_status(0).stdout,
        "weather v1 is up to date: 55 partitions\n"
    );

    // For whom the report is, concerns the report only.
    weather.edit("flowstone.toml", "units = \"metric\"", "units = \"imperial\"");
    insta::assert_snapshot!(weather.flowstone.run(["plan", folder]).expect_status(0).stdout, @"
    weather v2: 1 job, 54 up to date

    asset            jobs  up to date  why
    raw_weather         0           1
    clean_weather       0           1
    monthly_weather     0          48
    yearly_weather      0           4
    weather_report      1           0  config changed

    jobs:
      weather_report: config changed
    ");
    assert_eq!(weather.run(), ["weather_report succeeded"]);
    let page = weather.say("show", &["weather_report"]);
    assert!(page.contains("°F") && !page.contains("°C"));

    // The same number written otherwise: the rows come out the same, and nothing that reads them is made.
    weather.edit("data/seattle-weather.csv", "2012-01-02,10.9,", "2012-01-02,10.90,");
    let made = weather.run();
    assert_eq!(
        made.iter().filter(|job| !job.ends_with(", reused")).collect::<Vec<_>>(),
        ["clean_weather succeeded", "raw_weather succeeded"]
    );

    // Another number: every month looks at the rows again, and only the one that differs goes on.
    weather.edit("data/seattle-weather.csv", "2012-01-02,10.90,", "2012-01-02,11.9,");
    let made = weather.run();
    let made: Vec<&String> = made.iter().filter(|job| !job.ends_with(", reused")).collect();
    let months = made.iter().filter(|job| job.starts_with("monthly_weather[")).count();
    assert_eq!(months, 48);
    assert_eq!(
        made.iter().filter(|job| !job.starts_with("monthly_weather[")).collect::<Vec<_>>(),
        [
            &"clean_weather succeeded",
            &"raw_weather succeeded",
            &"weather_report succeeded",
            &"yearly_weather[2012] succeeded"
        ]
    );
}

#[test]
fn weather_runs_where_it_is() {
    let flowstone = Flowstone::new();
    let folder: &Path = &root().join("examples/weather");
    flowstone.run(["run", folder.to_str().unwrap(), "yearly_weather", "--partition", "2014"]).expect_status(0);
    let shown = flowstone.run(["show", "weather", "yearly_weather", "--partition", "2014"]).expect_status(0);
    assert!(shown.stdout.starts_with("{\"period\":\"2014\",\"days\":365,"), "{}", shown.stdout);
}
