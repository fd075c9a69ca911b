//! `examples/foreign`, through the real command: components of Python, TypeScript and C that are built from the WIT
//! package alone, beside one of Rust. The contract means the same in each of them.

use std::{collections::BTreeMap, fs, os::unix::fs::symlink, path::PathBuf};

use flowstone_tests::{
    Flowstone,
    pipeline::{ended, root},
    web::{Web, answer},
};
use serde_json::{Value, json};

const LANGUAGES: [&str; 4] = ["rust", "python", "typescript", "c"];

/// Those whose components are made by the toolchains that `scripts/setup` brings.
const FOREIGN: [&str; 3] = ["python", "typescript", "c"];

fn component(language: &str) -> PathBuf {
    let path = root().join(format!("examples/foreign/target/{language}.wasm"));
    path.canonicalize().unwrap_or_else(|_| panic!("{} is missing: run scripts/build-examples", path.display()))
}

/// The example, with a shop that is there, in a folder that a test may change.
struct Invoices {
    flowstone: Flowstone,
    web: Web,
    manifest: String,
}

const PRICES: [(&str, &str); 4] =
    [("green+tea", "320"), ("cr%C3%A8me+br%C3%BBl%C3%A9e", "575"), ("%E3%81%8A%E8%8C%B6", "410"), ("paper+clip", "1")];

impl Invoices {
    fn new() -> Self {
        let web = Web::start(|_, seen| {
            let price = PRICES.iter().find(|(item, _)| seen.line == format!("GET /v1/price?item={item}"));
            price.map_or(answer(404, ""), |(_, cents)| answer(200, cents))
        });
        let flowstone = Flowstone::new();
        let (example, folder) = (root().join("examples/foreign"), flowstone.folder().join("foreign"));
        for language in FOREIGN {
            assert!(component(language).is_file());
        }
        fs::create_dir_all(folder.join("data")).unwrap();
        symlink(example.join("target"), folder.join("target")).unwrap();
        fs::copy(example.join("data/orders.csv"), folder.join("data/orders.csv")).unwrap();
        fs::write(folder.join("ca.pem"), web.ca()).unwrap();
        let text = fs::read_to_string(example.join("flowstone.toml")).unwrap();
        let there = format!("https://{}/v1\"\nca = \"ca.pem\"", web.authority());
        let manifest = text.replace("https://shop.example.com/v1\"", &there);
        let manifest = manifest.replace("networks = []", "networks = [\"127.0.0.0/8\", \"::1\"]");
        assert!(manifest.contains("ca.pem") && manifest.contains("127.0.0.0"));
        Self { flowstone, web, manifest }
    }

    /// Runs it with a manifest in which this stands for that: what ended how.
    #[track_caller]
    fn run(&self, from: &str, to: &str, status: i32) -> Vec<String> {
        let folder = self.flowstone.folder().join("foreign");
        let changed = self.manifest.replace(from, to);
        assert!(from == to || changed != self.manifest, "`{from}` is not in the manifest");
        fs::write(folder.join("flowstone.toml"), changed).unwrap();
        let run = self.flowstone.run(["run", folder.to_str().unwrap(), "--force-all", "--json"]).expect_status(status);
        ended(&run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>())
    }

    fn order(&self, orders: &str) {
        let path = self.flowstone.folder().join("foreign/data/orders.csv");
        fs::write(path, format!("item,quantity\n{orders}\n")).unwrap();
    }

    fn meta(&self, asset: &str) -> Value {
        let record = self.flowstone.run(["show", "foreign", asset, "--meta"]).expect_status(0).stdout;
        serde_json::from_str(&record).unwrap()
    }

    /// The first attempt of each language in the newest run.
    fn attempts(&self) -> BTreeMap<&'static str, Value> {
        let logs = self.flowstone.run(["logs", "latest", "--json"]).expect_status(0).stdout;
        let Value::Array(attempts) = serde_json::from_str(&logs).unwrap() else { panic!("{logs}") };
        let of = |language: &str| attempts.iter().find(|attempt| attempt["asset"] == format!("invoice_{language}"));
        LANGUAGES.into_iter().map(|language| (language, of(language).unwrap().clone())).collect()
    }
}

#[test]
fn four_languages_make_the_same_bytes_of_the_same_calls() {
    let invoices = Invoices::new();
    let all = ["invoice_c", "invoice_python", "invoice_rust", "invoice_typescript", "orders", "surroundings"];
    assert_eq!(invoices.run("", "", 0), all.map(|asset| format!("{asset} succeeded")));

    let expected = "item,quantity,cents,total\n\
                    green tea,12,320,3840\n\
                    crème brûlée,3,575,1725\n\
                    green tea,1,320,320\n\
                    お茶,2,410,820\n\
                    paper clip,9007199254740993,1,9007199254740993\n\
                    sum,,,9007199254747698\n";
    let rust = invoices.meta("invoice_rust");
    for language in LANGUAGES {
        let asset = format!("invoice_{language}");
        assert_eq!(invoices.flowstone.run(["show", "foreign", &asset]).stdout, expected, "{language}");
        let record = invoices.meta(&asset);
        for same in ["digest", "media_type", "metadata"] {
            assert_eq!(record[same], rust[same], "{language}: {same}");
        }
    }
    assert_eq!(
        (&rust["metadata"], &rust["media_type"]),
        (&json!([{ "name": "orders", "value": "5" }]), &json!("text/csv"))
    );
    // Each asked for each price once, and has used the same things as often.
    assert_eq!(invoices.web.lines().len(), LANGUAGES.len() * PRICES.len(), "{:?}", invoices.web.lines());
    let attempts = invoices.attempts();
    let uses = |language: &str| {
        let text = attempts[language]["uses"].to_string();
        text.replace(&format!("invoice_{language}/"), "")
    };
    for language in FOREIGN {
        assert_eq!(uses(language), uses("rust"), "{language}");
        assert_eq!(attempts[language]["log"][0]["message"], "priced", "{language}");
    }

    // The buckets remember: nobody is asked again.
    invoices.run("", "", 0);
    assert_eq!(invoices.web.lines().len(), LANGUAGES.len() * PRICES.len());
    let counted =
        "select key || ' ' || convert_from(value, 'UTF8') from bucket_entry where key like '%/asked' order by key";
    let counted = invoices.flowstone.database().ask(counted);
    assert_eq!(counted, ["c", "python", "rust", "typescript"].map(|language| format!("invoice_{language}/asked 4")));

    for language in FOREIGN {
        imports(&invoices, language);
    }
    surroundings(&invoices);
}

/// What a toolchain imports beside what the world says is of the baseline, and nothing else.
fn imports(invoices: &Invoices, language: &str) {
    let path = component(language);
    let said = invoices.flowstone.run(["inspect", path.to_str().unwrap(), "--json"]).expect_status(0).stdout;
    let said: Value = serde_json::from_str(&said).unwrap();
    let mut by_grant = Vec::new();
    let mut behind_nothing = 0;
    for import in said["imports"].as_array().unwrap() {
        let name = import["name"].as_str().unwrap();
        match import["class"].as_str().unwrap() {
            "by-grant" => by_grant.push(name),
            "baseline" => behind_nothing += usize::from(name.starts_with("wasi:")),
            class => {
                assert!(class == "always" && name.starts_with("flowstone:asset/"), "{language}: {name} is {class}")
            }
        }
    }
    assert_eq!(by_grant, ["flowstone:asset/http@0.1.0", "flowstone:asset/key-value@0.1.0"], "{language}");
    // So many interfaces, whether the code uses them or not.
    let expected = match language {
        "python" => 25,
        "typescript" => 18,
        _ => 8,
    };
    assert_eq!(behind_nothing, expected, "{language}");
}

/// What Python's standard library finds, with nothing behind WASI: no surprise, and nothing of this machine.
fn surroundings(invoices: &Invoices) {
    let found = invoices.flowstone.run(["show", "foreign", "surroundings"]).expect_status(0).stdout;
    insta::assert_snapshot!(found, @"
    environment: {}
    arguments: []
    input: ''
    a file: FileNotFoundError: [Errno 44] No such file or directory: '/etc/passwd'
    a folder: FileNotFoundError: [Errno 44] No such file or directory: '/'
    a temporary file: FileNotFoundError: [Errno 44] No usable temporary directory found in ['/tmp', '/var/tmp', '/usr/tmp', '/']
    a socket: PermissionError: [Errno 2] Permission denied
    a name: gaierror: [Errno -4] Non-recoverable error
    a process: OSError: [Errno 58] wasi does not support processes.
    a thread: RuntimeError: can't start new thread
    the time: 1970
    a long sleep: None
    randomness: 32
    a terminal: False
    ");
}

#[test]
fn what_goes_wrong_is_said_in_the_words_of_each_language() {
    let invoices = Invoices::new();

    // A denial is an error that the code can catch: each says what it was about, and fails as it means to.
    invoices.run(r#"paths = ["price"]"#, r#"paths = ["other"]"#, 1);
    for (language, attempt) in invoices.attempts() {
        assert_eq!(attempt["verdict"], "failed", "{language}: {attempt:#}");
        let message = attempt["message"].as_str().unwrap();
        assert!(message.contains("denied"), "{language}: {message}");
        assert!(language == "rust" || message == "the price of green tea: denied", "{language}: {message}");
        let denials = attempt["denials"].as_array().unwrap();
        assert_eq!(denials.len(), 1, "{language}");
        let remedy = format!(r#"[assets.invoice_{language}] grants = {{ shop = {{ paths = ["price"] }} }}"#);
        assert_eq!(denials[0]["remedy"], remedy, "{language}");
    }
    assert_eq!(invoices.web.lines(), [""; 0]);

    // So is a key that was not granted.
    invoices.run("/**\"", "/price/green tea\"", 1);
    for (language, attempt) in invoices.attempts() {
        assert_eq!(attempt["verdict"], "failed", "{language}: {attempt:#}");
        assert!(attempt["message"].as_str().unwrap().contains("denied"), "{language}: {attempt:#}");
    }

    // What the shop does not know is the asset's own failure, and a shop that is away may come back: tried again.
    invoices.order("a thing,1");
    invoices.run("", "", 1);
    for language in FOREIGN {
        let attempt = &invoices.attempts()[language];
        assert_eq!(attempt["verdict"], "failed", "{language}: {attempt:#}");
        assert_eq!(attempt["message"], "the price of a thing: status 404", "{language}");
    }

    // A quantity that is no number is met by no code: an exception in Python, a thrown error in TypeScript, an abort in
    // C. The verdict is the attempt's, the reason is in its log, and the host goes on.
    invoices.order("green tea,twelve");
    invoices.run("", "", 1);
    for (language, attempt) in invoices.attempts() {
        let (verdict, reason) = match language {
            "rust" => ("failed", "invalid digit"),
            "python" => ("trapped", "ValueError: invalid literal for int() with base 10: 'twelve'"),
            "typescript" => ("trapped", "invalid BigInt literal"),
            _ => ("trapped", "it is a number"),
        };
        assert_eq!(attempt["verdict"], verdict, "{language}: {attempt:#}");
        assert!(attempt.to_string().contains(reason), "{language}: {attempt:#}");
    }
    invoices.order("green tea,12");
    invoices.run("", "", 0);
}
