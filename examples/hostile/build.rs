//! Makes components of the core modules `table.wat` and `garbage.wat`, and puts them beside the one that cargo makes of
//! this crate.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

fn main() -> Result<(), Box<dyn Error>> {
    let contract = Path::new("../../wit");
    println!("cargo::rerun-if-changed={}", contract.display());
    // <target>/wasm32-wasip2/release/build/hostile-<hash>/out
    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    let beside = out_dir.ancestors().nth(3).ok_or("cargo's folders have another shape")?;
    for name in ["table", "garbage"] {
        let source = format!("{name}.wat");
        println!("cargo::rerun-if-changed={source}");
        let component = make_component(&wat::parse_file(&source)?, contract)?;
        fs::write(beside.join(format!("{name}.wasm")), component)?;
    }
    Ok(())
}

/// Wraps a core module whose exports are named as the contract's world has them.
fn make_component(module: &[u8], contract: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(contract)?;
    let world = resolve.select_world(&[package], Some("asset"))?;
    let mut module = module.to_vec();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    Ok(ComponentEncoder::default().module(&module)?.validate(true).encode()?)
}
