//! Taking away from the compiler process all that compiling does not need: files, network, other processes.
//!
//! Its limits bound what a component can make it cost; this bounds what a component could do with it if it found a
//! hole in the compiler. Landlock closes the file system and TCP, and a seccomp filter leaves the few system calls of
//! a program that computes in threads. Where the kernel lacks one of them, the rest holds.

use std::{collections::BTreeMap, io};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _, RulesetStatus,
    Scope,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// Confines this thread and all that it starts, for good. Returns what the kernel could not do, in words.
pub(super) fn confine() -> io::Result<Vec<&'static str>> {
    let mut missing = Vec::new();
    if close_files_and_network().map_err(io::Error::other)? != RulesetStatus::FullyEnforced {
        missing.push("landlock does not close all of the file system and the network");
    }
    match filter_system_calls() {
        Ok(()) => {}
        Err(seccompiler::Error::Prctl(_) | seccompiler::Error::Seccomp(_)) => {
            missing.push("seccomp filters cannot be installed");
        }
        Err(error) => return Err(io::Error::other(error)),
    }
    Ok(missing)
}

/// No rule allows anything, so that everything that landlock knows of is closed. What is open already stays open.
fn close_files_and_network() -> Result<RulesetStatus, landlock::RulesetError> {
    let newest = ABI::V6;
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(newest))?
        .handle_access(AccessNet::from_all(newest))?
        .scope(Scope::from_all(newest))?
        .create()?;
    Ok(rules.restrict_self()?.ruleset)
}

/// Every other system call fails with `EPERM`: code that can do without goes on, and an attack does not.
fn filter_system_calls() -> Result<(), seccompiler::Error> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    // Its flags are in memory, where no filter can look: told that there is no such call, the C library uses `clone`.
    let no_clone3 = BTreeMap::from([(libc::SYS_clone3, vec![])]);
    let errno = |number: i32| SeccompAction::Errno(number as u32);
    let no_clone3 = SeccompFilter::new(no_clone3, SeccompAction::Allow, errno(libc::ENOSYS), arch)?;
    let few = SeccompFilter::new(allowed()?, errno(libc::EPERM), SeccompAction::Allow, arch)?;
    for filter in [few, no_clone3] {
        let program: BpfProgram = filter.try_into()?;
        seccompiler::apply_filter(&program)?;
    }
    Ok(())
}

/// What a program needs that reads, writes, allocates and computes in threads.
fn allowed() -> Result<BTreeMap<i64, Vec<SeccompRule>>, seccompiler::Error> {
    let plain = [
        libc::SYS_brk,
        libc::SYS_clock_gettime,
        libc::SYS_clock_nanosleep,
        // See above: it never gets this far.
        libc::SYS_clone3,
        libc::SYS_close,
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_fstat,
        libc::SYS_futex,
        libc::SYS_getcpu,
        libc::SYS_getpid,
        libc::SYS_getrandom,
        libc::SYS_gettid,
        libc::SYS_lseek,
        libc::SYS_madvise,
        libc::SYS_membarrier,
        libc::SYS_mmap,
        libc::SYS_mprotect,
        libc::SYS_mremap,
        libc::SYS_munmap,
        libc::SYS_nanosleep,
        libc::SYS_ppoll,
        // For the second filter.
        libc::SYS_prctl,
        libc::SYS_seccomp,
        libc::SYS_read,
        libc::SYS_restart_syscall,
        libc::SYS_rseq,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sched_getaffinity,
        libc::SYS_sched_yield,
        libc::SYS_set_robust_list,
        libc::SYS_sigaltstack,
        // To abort, and nobody else: there is nobody else in its process.
        libc::SYS_tgkill,
        libc::SYS_write,
        libc::SYS_writev,
    ];
    let mut allowed: BTreeMap<i64, Vec<SeccompRule>> = plain.into_iter().map(|call| (call, vec![])).collect();
    // Threads, no processes.
    let thread = libc::CLONE_THREAD as u64;
    let is_thread = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(thread), thread)?;
    allowed.insert(libc::SYS_clone, vec![SeccompRule::new(vec![is_thread])?]);
    Ok(allowed)
}

#[cfg(test)]
mod tests {
    use std::{fs, net, process::Command, thread};

    use super::*;

    /// Set for the process that confines itself: confinement cannot be undone, so it is not for the tests' own.
    const INSIDE: &str = "FLOWSTONE_TEST_CONFINED";

    /// What a confined thread can do, one word for each.
    fn abilities() -> Vec<String> {
        let able = |what: &str, can: bool| format!("{what}={}", if can { "yes" } else { "no" });
        let folder = std::env::temp_dir().join("flowstone-confined");
        vec![
            able("allocate", vec![1_u8; 64 << 20].iter().all(|byte| *byte == 1)),
            able("thread", thread::spawn(|| 1).join().is_ok()),
            able("read", fs::read("/etc/hostname").is_ok() || fs::read_dir("/").is_ok()),
            able("write", fs::create_dir(folder).is_ok()),
            able("process", Command::new("/bin/true").status().is_ok()),
            able(
                "connect",
                net::TcpStream::connect("127.0.0.1:9")
                    .is_err_and(|error| error.raw_os_error() == Some(libc::ECONNREFUSED)),
            ),
            able("listen", net::TcpListener::bind("127.0.0.1:0").is_ok()),
            able("datagram", net::UdpSocket::bind("127.0.0.1:0").is_ok()),
            able(
                "kill",
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::CONT).is_ok(),
            ),
        ]
    }

    #[test]
    fn inside() {
        if std::env::var_os(INSIDE).is_none() {
            return;
        }
        let missing = confine().unwrap();
        println!("confined: {} {missing:?}", abilities().join(" "));
    }

    #[test]
    fn a_confined_process_computes_and_does_nothing_else() {
        let unconfined = abilities().join(" ");
        drop(fs::remove_dir(std::env::temp_dir().join("flowstone-confined")));
        assert!(unconfined.contains("process=yes") && unconfined.contains("listen=yes"), "{unconfined}");
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "engine::confine::tests::inside", "--nocapture"]).env(INSIDE, "1");
        let output = child.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said} {}", String::from_utf8_lossy(&output.stderr));
        let expected = "confined: allocate=yes thread=yes read=no write=no process=no connect=no listen=no datagram=no \
                        kill=no";
        assert!(said.contains(expected), "{said}");
    }
}
