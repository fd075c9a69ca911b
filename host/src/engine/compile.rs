//! Compiling a component, in a process of its own: the one place where uploaded bytes meet the compiler.
//!
//! A compiler can be made to take any time and any memory by what it compiles, so it runs where both are bounded and
//! where it can be killed. The child reads the component from its input, and writes the length of the machine code and
//! then the code to its output; both are pipes, so that no full disk keeps it from its work. It inherits no environment,
//! and before it reads anything it gives up files, network and other processes.

use std::{
    io::{Read as _, Write as _},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{ExitCode, ExitStatus, Stdio},
    sync::Once,
};

use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::ChildStdout,
};

use super::{config, confine::confine};
use crate::limit::{
    COMPILE_CPU_SECONDS_MAX, COMPILE_MEMORY_BYTES_MAX, COMPILE_TIMEOUT, COMPILED_BYTES_MAX, COMPONENT_BYTES_MAX,
    MESSAGE_BYTES_MAX,
};

/// The argument with which the program becomes a compiler.
pub const SUBCOMMAND: &str = "compile-component";

/// Before each line in which the child says what the kernel could not take away from it.
const UNCONFINED: &str = "unconfined: ";

/// Exit status of the child: the component cannot be compiled, and why is on its error output.
const REFUSED: u8 = 65;
/// Exit status of the child: it could not read, write or set its limits.
const CANNOT: u8 = 74;
/// Exit status of a Rust program that panicked.
const PANICKED: i32 = 101;

/// Why there is no machine code.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The component's fault: trying again would end the same way.
    #[error("{0}")]
    Refused(String),
    /// The compiler process could not be run or watched.
    #[error("cannot run the compiler process")]
    Run(#[source] std::io::Error),
    /// The compiler process failed for a reason that is not the component.
    #[error("the compiler process failed ({status}): {message}")]
    Failed {
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        message: String,
    },
}

/// The body of the hidden subcommand: component in, machine code out.
pub fn compile_child_main() -> ExitCode {
    match compile_child() {
        Ok(()) => ExitCode::SUCCESS,
        Err((status, message)) => {
            eprintln!("{message}");
            ExitCode::from(status)
        }
    }
}

fn compile_child() -> Result<(), (u8, String)> {
    let cannot = |error: std::io::Error| (CANNOT, error.to_string());
    limit_this_process().map_err(|error| cannot(error.into()))?;
    offer_this_process();
    for missing in confine().map_err(cannot)? {
        eprintln!("{UNCONFINED}{missing}");
    }
    let mut component = Vec::new();
    std::io::stdin().lock().take(COMPONENT_BYTES_MAX as u64 + 1).read_to_end(&mut component).map_err(cannot)?;
    let refused = |error: wasmtime::Error| (REFUSED, format!("{error:#}"));
    let config = config::compiling().map_err(|error| (CANNOT, format!("{error:#}")))?;
    let engine = wasmtime::Engine::new(&config).map_err(|error| (CANNOT, format!("{error:#}")))?;
    let code = engine.precompile_component(&component).map_err(refused)?;
    let (mut stdout, length) = (std::io::stdout().lock(), code.len() as u64);
    let told = stdout.write_all(&length.to_le_bytes()).and_then(|()| stdout.write_all(&code));
    told.and_then(|()| stdout.flush()).map_err(cannot)
}

/// First of all: no more memory and processor time than a compilation may take, nothing in any file, and no core file.
fn limit_this_process() -> rustix::io::Result<()> {
    for (resource, most) in [(Resource::As, COMPILE_MEMORY_BYTES_MAX), (Resource::Fsize, 0), (Resource::Core, 0)] {
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    }
    // A second apart, so that the first is met as a signal of its own and not as a kill that could be anybody's.
    let seconds = COMPILE_CPU_SECONDS_MAX;
    setrlimit(Resource::Cpu, Rlimit { current: Some(seconds), maximum: Some(seconds + 1) })
}

/// When the machine runs out of memory, the kernel is to take it from the compiler and not from what serves everybody:
/// several compilations within their limit may be more than there is.
fn offer_this_process() {
    // Where there is no /proc, the kernel decides by size.
    drop(std::fs::write("/proc/self/oom_score_adj", "1000"));
}

/// Compiles a component: its machine code. Dropping the future kills the compiler.
pub async fn compile(compiler: &Path, component: &[u8]) -> Result<Vec<u8>, CompileError> {
    let mut child = tokio::process::Command::new(compiler)
        .arg(SUBCOMMAND)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(CompileError::Run)?;
    let (Some(mut stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        unreachable!("all are piped")
    };
    let feed = async {
        // A child that stops reading says why in its status.
        let fed = stdin.write_all(component).await;
        drop(stdin);
        fed
    };
    let mut message = Vec::new();
    let mut stderr = stderr.take(MESSAGE_BYTES_MAX as u64);
    let watch = async {
        let (_, code, said) = tokio::join!(feed, read_code(stdout), stderr.read_to_end(&mut message));
        said?;
        Ok((code, child.wait().await?))
    };
    let Ok(ended) = tokio::time::timeout(COMPILE_TIMEOUT, watch).await else {
        let seconds = COMPILE_TIMEOUT.as_secs();
        return Err(CompileError::Refused(format!("compiling it takes more than {seconds} seconds")));
    };
    let (code, status) = ended.map_err(CompileError::Run)?;
    let Some(code) = code.transpose() else {
        return Err(CompileError::Refused(format!("it compiles to more than {COMPILED_BYTES_MAX} bytes")));
    };
    let message = String::from_utf8_lossy(&message);
    verdict(status, without_notes(&message).trim())?;
    code.map_err(CompileError::Run)
}

/// The length of the code, then the code; none when it is too large. Memory is taken once, for what is there, and the
/// output is closed at the end, so that no compiler waits for a reader of what is too much.
async fn read_code(mut stdout: ChildStdout) -> std::io::Result<Option<Vec<u8>>> {
    let length = stdout.read_u64_le().await?;
    if length > COMPILED_BYTES_MAX {
        return Ok(None);
    }
    let mut code = vec![0; length as usize];
    stdout.read_exact(&mut code).await?;
    Ok(Some(code))
}

/// Tells once for each process what the kernel lacks; what the compiler itself said is left.
fn without_notes(message: &str) -> String {
    static TOLD: Once = Once::new();
    let (notes, said): (Vec<&str>, Vec<&str>) = message.lines().partition(|line| line.starts_with(UNCONFINED));
    if !notes.is_empty() {
        TOLD.call_once(|| {
            let missing: Vec<&str> = notes.iter().map(|note| &note[UNCONFINED.len()..]).collect();
            tracing::warn!(missing = missing.join("; "), "the compiler process is confined less than it could be");
        });
    }
    said.join("\n")
}

fn verdict(status: ExitStatus, message: &str) -> Result<(), CompileError> {
    let refused = |why: String| Err(CompileError::Refused(why));
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) if code == i32::from(REFUSED) => refused(format!("it cannot be compiled: {message}")),
        (Some(PANICKED), _) => refused(format!("the compiler failed on it: {message}")),
        (None, Some(signal)) if signal != Signal::KILL.as_raw() => refused(died_of(signal, message)),
        _ => Err(CompileError::Failed { status, message: message.to_owned() }),
    }
}

/// What a signal means, given the limits under which the child runs.
fn died_of(signal: i32, message: &str) -> String {
    match signal {
        _ if signal == Signal::XCPU.as_raw() => {
            format!("compiling it takes more than {COMPILE_CPU_SECONDS_MAX} seconds of processor time")
        }
        // An allocation that fails aborts, and a stack that overflows is a fault.
        _ => format!(
            "the compiler died on it (signal {signal}), perhaps for want of more than {COMPILE_MEMORY_BYTES_MAX} bytes: {message}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_of_the_compiler_is_somebodys_fault() {
        let refused = |raw: i32, expected: &str| {
            let Err(CompileError::Refused(why)) = verdict(ExitStatus::from_raw(raw), "because") else {
                panic!("{raw}")
            };
            assert!(why.contains(expected), "{why}");
        };
        let exit = |code: u8| i32::from(code) << 8;
        assert!(verdict(ExitStatus::from_raw(0), "").is_ok());
        refused(exit(REFUSED), "it cannot be compiled: because");
        refused(exit(101), "the compiler failed on it");
        refused(24, "processor time");
        refused(6, "perhaps for want of");
        for host in [exit(CANNOT), exit(2), exit(127), 9] {
            assert!(matches!(verdict(ExitStatus::from_raw(host), ""), Err(CompileError::Failed { .. })), "{host}");
        }
    }

    #[test]
    fn what_the_kernel_lacks_is_no_part_of_what_the_compiler_said() {
        assert_eq!(without_notes("unconfined: no landlock\nerror: bad\nat 3"), "error: bad\nat 3");
        assert_eq!(without_notes(""), "");
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_not_the_components_fault() {
        let nowhere = compile(Path::new("/nonexistent/flowstone"), b"").await;
        assert!(matches!(nowhere, Err(CompileError::Run(_))), "{nowhere:?}");
    }

    #[tokio::test]
    async fn a_program_that_is_no_compiler_is_not_the_components_fault() {
        let other = compile(Path::new("/bin/false"), b"component").await;
        assert!(matches!(other, Err(CompileError::Failed { .. })), "{other:?}");
    }
}
