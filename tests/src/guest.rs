//! Components made from text in a test: what `describe` answers is whatever the test says, nonsense included.
//!
//! Their assets make nothing and succeed, unless a test gives them code. Guests that do more are in `tests/guests`, and those that attack the
//! sandbox from below Rust in the tests of the host.

use std::{fmt::Write as _, path::Path, sync::LazyLock};

use guest_wit_parser::{Resolve, WorldId};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

/// An asset as a component describes it.
#[derive(Clone, Debug, Default)]
pub struct Described {
    name: String,
    description: String,
    inputs: Vec<String>,
    requirements: Vec<String>,
}

impl Described {
    /// Without inputs and requirements.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// Says what it is.
    pub fn saying(mut self, description: &str) -> Self {
        self.description = description.into();
        self
    }

    /// Reads the output of this asset.
    pub fn reading(mut self, asset: &str) -> Self {
        self.inputs.push(asset.into());
        self
    }

    /// Requires the directory of this name.
    pub fn requiring(mut self, resource: &str) -> Self {
        self.requirements.push(resource.into());
        self
    }
}

/// A component that describes these assets.
pub fn component(assets: &[Described]) -> Vec<u8> {
    encode(assets, "", "")
}

/// The same, which imports `files` whether an asset requires them or not.
pub fn component_with_files(assets: &[Described]) -> Vec<u8> {
    encode(assets, r#"(import "flowstone:asset/files@0.1.0" "open" (func (param i32 i32 i32)))"#, "")
}

/// The same with these imports, whose assets all run this code and then succeed, unless it writes something else to 16.
/// What host functions return may go to 512; data that the code brings along goes from 8192 to 65536.
pub fn component_that(assets: &[Described], imports: &str, code: &str) -> Vec<u8> {
    encode(assets, imports, code)
}

fn encode(assets: &[Described], imports: &str, code: &str) -> Vec<u8> {
    let mut data = Data::default();
    let described = data.assets(assets);
    let pages = (BASE as usize + data.bytes.len()).div_ceil(65_536);
    let text = format!(
        r#"(module
        {imports}
        (memory (export "memory") {pages})
        (data (i32.const {BASE}) "{data}")
        (func (export "flowstone:asset/definitions@0.1.0#describe") (result i32) (i32.const {described}))
        (func (export "flowstone:asset/materializer@0.1.0#materialize") (param i32 i32) (result i32)
          {code}
          (i32.const {DONE}))
        ;; The host passes nothing but the asset's name.
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const {ARGUMENT})))"#,
        data = data.escaped(),
    );
    let mut module = wat::parse_str(&text).expect("the text is sound, whatever it describes");
    let (resolve, world) = &*WORLD;
    embed_component_metadata(&mut module, resolve, *world, StringEncoding::UTF8).expect("the world fits the module");
    let mut encoder = ComponentEncoder::default();
    encoder.module(&module).expect("the module names its world");
    encoder.encode().expect("the module exports what the world does")
}

/// Zeros: `ok(done)`.
const DONE: u32 = 16;
/// Where the asset's name goes.
const ARGUMENT: u32 = 1_024;
/// Where what is described begins.
const BASE: u32 = 65_536;

static WORLD: LazyLock<(Resolve, WorldId)> = LazyLock::new(|| {
    let mut resolve = Resolve::default();
    let contract = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit");
    let (package, _) = resolve.push_dir(contract).expect("the contract is sound");
    let world = resolve.select_world(&[package], Some("asset-with-files")).expect("the contract has this world");
    (resolve, world)
});

/// A memory from [`BASE`] on, laid out as the canonical ABI does: a record's fields in order, each list and string a
/// pointer and a length.
#[derive(Default)]
struct Data {
    bytes: Vec<u8>,
}

impl Data {
    /// Returns where the list's pointer and length are.
    fn assets(&mut self, assets: &[Described]) -> u32 {
        let records: Vec<[u32; 17]> = assets.iter().map(|asset| self.asset(asset)).collect();
        let list = self.words(&records.concat());
        self.words(&[list, assets.len() as u32])
    }

    fn asset(&mut self, asset: &Described) -> [u32; 17] {
        let [name, name_length] = self.text(&asset.name);
        let [description, description_length] = self.text(&asset.description);
        let [media_type, media_type_length] = self.text("text/plain");
        let inputs: Vec<[u32; 8]> = asset
            .inputs
            .iter()
            .map(|input| {
                let [text, length] = self.text(input);
                // Its name and its asset, not optional, from the same partition.
                [text, length, text, length, 0, 0, 0, 0]
            })
            .collect();
        let requirements: Vec<[u32; 5]> = asset
            .requirements
            .iter()
            .map(|resource| {
                let [text, length] = self.text(resource);
                // Of files, and without a reason.
                [text, length, 0, 0, 0]
            })
            .collect();
        let (inputs_at, requirements_at) = (self.words(&inputs.concat()), self.words(&requirements.concat()));
        let mut record = [0; 17];
        record[0..2].copy_from_slice(&[name, name_length]);
        record[2..4].copy_from_slice(&[description, description_length]);
        // 4 is the kind, 7 and 8 are the dimensions.
        record[5..7].copy_from_slice(&[inputs_at, inputs.len() as u32]);
        record[9..11].copy_from_slice(&[requirements_at, requirements.len() as u32]);
        record[11..13].copy_from_slice(&[media_type, media_type_length]);
        record
    }

    fn text(&mut self, text: &str) -> [u32; 2] {
        let at = self.end();
        self.bytes.extend(text.as_bytes());
        [at, text.len() as u32]
    }

    fn words(&mut self, words: &[u32]) -> u32 {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        let at = self.end();
        self.bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        at
    }

    fn end(&self) -> u32 {
        BASE + self.bytes.len() as u32
    }

    fn escaped(&self) -> String {
        let mut text = String::with_capacity(3 * self.bytes.len());
        for byte in &self.bytes {
            write!(text, "\\{byte:02x}").expect("writing to a string cannot fail");
        }
        text
    }
}
