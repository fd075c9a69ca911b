//! The two steps between a WIT package and a component that no C compiler does: declarations of what it imports and
//! exports, and the component around the core module that was linked.
//!
//! What `wit-bindgen c` and `wasm-tools component new` do, from the same libraries, so that neither must be installed.

use std::{env, fs, path::Path};

use anyhow::{Context, Result, bail};
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME as ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER as ADAPTER,
};
use wit_bindgen_core::{Files, wit_parser::Resolve};
use wit_component::ComponentEncoder;

const USAGE: &str = "usage: flowstone-c bindings WIT WORLD FOLDER
       flowstone-c component CORE.wasm COMPONENT.wasm";

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["bindings", wit, world, folder] => bindings(Path::new(wit), world, Path::new(folder)),
        ["component", core, component] => make_component(Path::new(core), Path::new(component)),
        _ => bail!("{USAGE}"),
    }
}

/// Writes `WORLD.h`, `WORLD.c` and `WORLD_component_type.o`, which tells [`make_component`] what the world is.
fn bindings(wit: &Path, world: &str, folder: &Path) -> Result<()> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(wit).with_context(|| format!("reading {}", wit.display()))?;
    let world = resolve.select_world(&[package], Some(world))?;
    let mut files = Files::default();
    wit_bindgen_c::Opts::default().build().generate(&mut resolve, world, &mut files)?;
    fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    for (name, bytes) in files.iter() {
        let path = folder.join(name);
        fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// Wraps a core module. What of WASI preview 1 the C library calls becomes calls of WASI 0.2.
fn make_component(core: &Path, component: &Path) -> Result<()> {
    let module = fs::read(core).with_context(|| format!("reading {}", core.display()))?;
    let mut encoder = ComponentEncoder::default();
    encoder.module(&module)?;
    encoder.adapter(ADAPTER_NAME, ADAPTER)?;
    let bytes = encoder.encode().with_context(|| format!("making a component of {}", core.display()))?;
    fs::write(component, bytes).with_context(|| format!("writing {}", component.display()))
}
