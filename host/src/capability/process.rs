//! `wasi:cli`, inert: no environment, no arguments, no terminal, an input that is closed, an output that is the log.
//!
//! Sockets of the baseline need nothing of ours: wasmtime's own context holds none by default, and the engine links
//! that. Directories are there when the manifest mounts some, see [`super::files`].

use wasmtime::component::{Resource, ResourceTable};
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream,
    bindings::cli::{
        environment, exit, stderr, stdin, stdout, terminal_input, terminal_output, terminal_stderr, terminal_stdin,
        terminal_stdout,
    },
    pipe::ClosedInputStream,
};

use super::{
    Abort,
    log::{Level, Log},
};

/// What a guest sees of a process.
pub struct ProcessView<'a> {
    /// Where its output goes.
    pub log: &'a Log,
    /// Of the store.
    pub table: &'a mut ResourceTable,
}

impl environment::Host for ProcessView<'_> {
    fn get_environment(&mut self) -> wasmtime::Result<Vec<(String, String)>> {
        Ok(vec![])
    }

    fn get_arguments(&mut self) -> wasmtime::Result<Vec<String>> {
        Ok(vec![])
    }

    fn initial_cwd(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(None)
    }
}

impl exit::Host for ProcessView<'_> {
    fn exit(&mut self, status: Result<(), ()>) -> wasmtime::Result<()> {
        Err(Abort::Exited(status.is_err().into()).into())
    }

    fn exit_with_code(&mut self, status: u8) -> wasmtime::Result<()> {
        Err(Abort::Exited(status).into())
    }
}

impl stdin::Host for ProcessView<'_> {
    fn get_stdin(&mut self) -> wasmtime::Result<Resource<DynInputStream>> {
        Ok(self.table.push(Box::new(ClosedInputStream) as DynInputStream)?)
    }
}

impl stdout::Host for ProcessView<'_> {
    fn get_stdout(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        Ok(self.table.push(Box::new(self.log.stream(Level::Info, "stdout")) as DynOutputStream)?)
    }
}

impl stderr::Host for ProcessView<'_> {
    fn get_stderr(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        Ok(self.table.push(Box::new(self.log.stream(Level::Error, "stderr")) as DynOutputStream)?)
    }
}

impl terminal_stdin::Host for ProcessView<'_> {
    fn get_terminal_stdin(&mut self) -> wasmtime::Result<Option<Resource<terminal_input::TerminalInput>>> {
        Ok(None)
    }
}

impl terminal_stdout::Host for ProcessView<'_> {
    fn get_terminal_stdout(&mut self) -> wasmtime::Result<Option<Resource<terminal_output::TerminalOutput>>> {
        Ok(None)
    }
}

impl terminal_stderr::Host for ProcessView<'_> {
    fn get_terminal_stderr(&mut self) -> wasmtime::Result<Option<Resource<terminal_output::TerminalOutput>>> {
        Ok(None)
    }
}

// No guest has a terminal, so none is ever dropped.
impl terminal_input::Host for ProcessView<'_> {}
impl terminal_input::HostTerminalInput for ProcessView<'_> {
    fn drop(&mut self, _terminal: Resource<terminal_input::TerminalInput>) -> wasmtime::Result<()> {
        Ok(())
    }
}
impl terminal_output::Host for ProcessView<'_> {}
impl terminal_output::HostTerminalOutput for ProcessView<'_> {
    fn drop(&mut self, _terminal: Resource<terminal_output::TerminalOutput>) -> wasmtime::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::capability::Masks;
    use environment::Host as _;
    use exit::Host as _;
    use stderr::Host as _;
    use stdin::Host as _;
    use stdout::Host as _;

    use super::*;

    #[test]
    fn a_guest_finds_no_environment_and_a_closed_input() {
        let (log, mut table) = (Log::default().open(100, Masks::default()), ResourceTable::new());
        let mut process = ProcessView { log: &log, table: &mut table };
        assert!(process.get_environment().unwrap().is_empty());
        assert!(process.get_arguments().unwrap().is_empty());
        assert_eq!(process.initial_cwd().unwrap(), None);
        let stdin = process.get_stdin().unwrap();
        assert!(table.get_mut(&stdin).unwrap().read(10).is_err());
    }

    #[test]
    fn what_a_guest_prints_is_logged() {
        let (log, mut table) = (Log::default().open(1_000, Masks::default()), ResourceTable::new());
        let mut process = ProcessView { log: &log, table: &mut table };
        let (out, err) = (process.get_stdout().unwrap(), process.get_stderr().unwrap());
        table.get_mut(&out).unwrap().write("said\n".into()).unwrap();
        table.get_mut(&err).unwrap().write("cried\n".into()).unwrap();
        let lines = log.take().lines;
        assert_eq!((lines[0].level, lines[0].message.as_str()), (Level::Info, "said"));
        assert_eq!((lines[1].level, lines[1].message.as_str()), (Level::Error, "cried"));
    }

    #[test]
    fn exit_ends_the_attempt_with_its_status() {
        let (log, mut table) = (Log::default().open(100, Masks::default()), ResourceTable::new());
        let mut process = ProcessView { log: &log, table: &mut table };
        for (ended, status) in [(process.exit(Ok(())), 0), (process.exit(Err(())), 1), (process.exit_with_code(7), 7)] {
            assert_eq!(ended.unwrap_err().downcast_ref::<Abort>(), Some(&Abort::Exited(status)));
        }
    }

    #[test]
    fn the_table_bounds_how_many_streams_a_guest_opens() {
        let (log, mut table) = (Log::default().open(100, Masks::default()), ResourceTable::new());
        table.set_max_capacity(3);
        let mut process = ProcessView { log: &log, table: &mut table };
        let opened = (0..10).filter(|_| process.get_stdout().is_ok()).count();
        assert!(opened <= 3, "{opened}");
    }
}
