//! Loading machine code that our own compiler process wrote: the one unsafe operation of the host, from its file in the
//! compiled cache, or from memory where it could not be written to one.

use std::path::Path;

use wasmtime::{Engine, component::Component};

/// Maps a file of the compiled cache and makes a component of it.
///
/// The path must be a file of [`super::cache::CompiledCache`]: nothing else may be passed here.
pub fn deserialize(engine: &Engine, path: &Path) -> wasmtime::Result<Component> {
    // Whoever writes this file decides what this process executes. It holds because
    // - the cache's directory belongs to this user and only this user can enter it: that is checked when it is opened;
    // - a file gets its final name only after our own compiler process, run on this machine, wrote all of it and it was
    //   synced; what a tenant uploads is the compiler's input, never a name or a byte of the output;
    // - the digest of its bytes is part of the file's name and was just compared, so that a damaged one is not loaded, and
    //   no one changes it afterwards: it is replaced by a rename or removed, which leaves a mapping of the old file as it
    //   was;
    // - wasmtime refuses a file of another version, configuration or processor.
    #[expect(unsafe_code, reason = "the argument is above; no safe way to load compiled code exists")]
    unsafe {
        Component::deserialize_file(engine, path)
    }
}

/// Makes a component of what the compiler process has just written to its pipe.
///
/// It must be the whole of what [`super::compile::compile`] returned: nothing else may be passed here.
pub fn deserialize_compiled(engine: &Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // The argument is the one above, without a file: these bytes came from our own compiler process, which ended well, and
    // only this process has had them since.
    #[expect(unsafe_code, reason = "the argument is above; no safe way to load compiled code exists")]
    unsafe {
        Component::deserialize(engine, code)
    }
}
