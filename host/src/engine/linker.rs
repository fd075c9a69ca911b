//! What a guest's imports are connected to: one linker for each set of granted capabilities.
//!
//! Always there: our inert interfaces and the WASI 0.2 baseline with nothing behind it. A capability that was not
//! granted has no implementation in the linker: where a component imports it all the same, for another of its assets,
//! it finds an interface that grants nothing and whose first call ends the attempt.

use std::sync::OnceLock;

use wasmtime::{
    StoreContextMut,
    component::{HasData, HasSelf, Linker, Resource, ResourceTable},
};
use wasmtime_wasi::{
    filesystem::{WasiFilesystem, WasiFilesystemCtxView},
    p2::bindings::{cli, clocks, filesystem, random, sockets},
    sockets::{WasiSockets, WasiSocketsCtxView},
};
use wasmtime_wasi_http::{
    RequestOptions, WasiHttp, WasiHttpCtxView,
    p2::{bindings::http as wasi_http, types::HostOutgoingRequest},
};
use wasmtime_wasi_io::bindings::wasi::io;

use super::sandbox::State;
use crate::{
    bindings::flowstone::asset::{context, files, http, inputs, log, output, secrets, sql, types},
    capability::{
        Ungranted,
        clock::ClockView,
        context::Context,
        files::Files,
        http::{Http, deny_handle},
        inputs::Inputs,
        log::Log,
        output::Output,
        process::ProcessView,
        random::Random,
        secrets::Secrets,
        sql::Sql,
    },
    pipeline::asset::Capability,
};

/// A set of capabilities that have something behind them: what decides which linker an attempt gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Granted(usize);

/// The capabilities with an interface of their own, each a bit of the set. The others change what is behind the WASI
/// baseline, which is always linked.
const WITH_INTERFACE: [Capability; 4] = [Capability::Files, Capability::Secret, Capability::Http, Capability::Sql];

impl Granted {
    /// How many sets there are.
    const COUNT: usize = 1 << WITH_INTERFACE.len();

    /// The set of these.
    pub fn of(capabilities: impl IntoIterator<Item = Capability>) -> Self {
        let bit = |capability| WITH_INTERFACE.iter().position(|known| *known == capability).map_or(0, |bit| 1 << bit);
        Self(capabilities.into_iter().map(bit).fold(0, |set, bit| set | bit))
    }

    fn has(self, capability: Capability) -> bool {
        self.0 & Self::of([capability]).0 != 0
    }
}

/// Something for each set of capabilities, made when it is first asked for.
pub struct PerGrant<T>([OnceLock<T>; Granted::COUNT]);

impl<T> PerGrant<T> {
    /// What there is for a set; made now if it is the first to ask.
    pub fn get_or_try_make(
        &self,
        granted: Granted,
        make: impl FnOnce() -> wasmtime::Result<T>,
    ) -> wasmtime::Result<&T> {
        let slot = &self.0[granted.0];
        match slot.get() {
            Some(made) => Ok(made),
            None => {
                let made = make()?;
                // Somebody may have been faster; both made the same.
                Ok(slot.get_or_init(|| made))
            }
        }
    }
}

impl<T> Default for PerGrant<T> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| OnceLock::new()))
    }
}

/// The linkers of an engine, one for each set of granted capabilities.
pub struct Linkers {
    engine: wasmtime::Engine,
    made: PerGrant<Linker<State>>,
}

impl Linkers {
    /// None is made yet; filling one takes some hundred microseconds.
    pub fn new(engine: wasmtime::Engine) -> Self {
        Self { engine, made: PerGrant::default() }
    }

    /// The linker for a set.
    pub fn get(&self, granted: Granted) -> wasmtime::Result<&Linker<State>> {
        self.made.get_or_try_make(granted, || linker(&self.engine, granted))
    }
}

/// The linker for one set of granted capabilities.
pub fn linker(engine: &wasmtime::Engine, granted: Granted) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    let l = &mut linker;
    add_wasi(l)?;
    context::add_to_linker::<_, HasSelf<Context>>(l, |state| &mut state.context)?;
    inputs::add_to_linker::<_, HasSelf<Inputs>>(l, |state| &mut state.inputs)?;
    output::add_to_linker::<_, HasSelf<Output>>(l, |state| &mut state.output)?;
    log::add_to_linker::<_, HasSelf<Log>>(l, |state| &mut state.log)?;
    types::add_to_linker::<_, HasSelf<Output>>(l, |state| &mut state.output)?;
    match granted.has(Capability::Files) {
        true => files::add_to_linker::<_, HasSelf<Files>>(l, |state| &mut state.files)?,
        false => files::add_to_linker::<_, HasSelf<Ungranted>>(l, |state| &mut state.ungranted)?,
    }
    match granted.has(Capability::Secret) {
        true => secrets::add_to_linker::<_, HasSelf<Secrets>>(l, |state| &mut state.secrets)?,
        false => secrets::add_to_linker::<_, HasSelf<Ungranted>>(l, |state| &mut state.ungranted)?,
    }
    match granted.has(Capability::Http) {
        true => {
            http::add_to_linker::<_, HasSelf<Http>>(l, |state| &mut state.http)?;
            wasi_http::outgoing_handler::add_to_linker::<_, WasiHttp>(l, wasi_http_view)?;
        }
        false => {
            http::add_to_linker::<_, HasSelf<Ungranted>>(l, |state| &mut state.ungranted)?;
            let mut handler = l.instance(OUTGOING_HANDLER)?;
            type Arguments = (Resource<HostOutgoingRequest>, Option<Resource<RequestOptions>>);
            handler.func_wrap("handle", |mut store: StoreContextMut<'_, State>, (request, _): Arguments| {
                let state = store.data_mut();
                Ok((deny_handle(&mut state.ungranted, &mut state.table, request)?,))
            })?;
        }
    }
    // Values of requests and answers: they reach nothing.
    wasi_http::types::add_to_linker::<_, WasiHttp>(l, &wasi_http::types::LinkOptions::default(), wasi_http_view)?;
    match granted.has(Capability::Sql) {
        true => sql::add_to_linker::<_, HasSelf<Sql>>(l, |state| &mut state.sql)?,
        false => sql::add_to_linker::<_, HasSelf<Ungranted>>(l, |state| &mut state.ungranted)?,
    }
    Ok(linker)
}

/// With the version that the library binds; later and earlier ones of 0.2 are the same to the linker.
const OUTGOING_HANDLER: &str = "wasi:http/outgoing-handler@0.2.12";

fn wasi_http_view(state: &mut State) -> WasiHttpCtxView<'_> {
    state.http.wasi_view(&mut state.table)
}

struct Tables;
impl HasData for Tables {
    type Data<'a> = &'a mut ResourceTable;
}

struct Clocks;
impl HasData for Clocks {
    type Data<'a> = ClockView<'a>;
}

struct Process;
impl HasData for Process {
    type Data<'a> = ProcessView<'a>;
}

fn clocks(state: &mut State) -> ClockView<'_> {
    ClockView { clock: &mut state.clock, table: &mut state.table }
}

fn process(state: &mut State) -> ProcessView<'_> {
    ProcessView { log: &state.log, table: &mut state.table }
}

fn no_directories(state: &mut State) -> WasiFilesystemCtxView<'_> {
    WasiFilesystemCtxView { ctx: &mut state.no_directories, table: &mut state.table }
}

fn no_sockets(state: &mut State) -> WasiSocketsCtxView<'_> {
    WasiSocketsCtxView { ctx: &mut state.no_sockets, table: &mut state.table }
}

fn add_wasi(l: &mut Linker<State>) -> wasmtime::Result<()> {
    io::error::add_to_linker::<_, Tables>(l, |state| &mut state.table)?;
    io::poll::add_to_linker::<_, Tables>(l, |state| &mut state.table)?;
    io::streams::add_to_linker::<_, Tables>(l, |state| &mut state.table)?;

    clocks::wall_clock::add_to_linker::<_, Clocks>(l, clocks)?;
    clocks::monotonic_clock::add_to_linker::<_, Clocks>(l, clocks)?;
    random::random::add_to_linker::<_, HasSelf<Random>>(l, |state| &mut state.random)?;
    random::insecure::add_to_linker::<_, HasSelf<Random>>(l, |state| &mut state.random)?;
    random::insecure_seed::add_to_linker::<_, HasSelf<Random>>(l, |state| &mut state.random)?;

    cli::environment::add_to_linker::<_, Process>(l, process)?;
    cli::exit::add_to_linker::<_, Process>(l, process)?;
    cli::stdin::add_to_linker::<_, Process>(l, process)?;
    cli::stdout::add_to_linker::<_, Process>(l, process)?;
    cli::stderr::add_to_linker::<_, Process>(l, process)?;
    cli::terminal_input::add_to_linker::<_, Process>(l, process)?;
    cli::terminal_output::add_to_linker::<_, Process>(l, process)?;
    cli::terminal_stdin::add_to_linker::<_, Process>(l, process)?;
    cli::terminal_stdout::add_to_linker::<_, Process>(l, process)?;
    cli::terminal_stderr::add_to_linker::<_, Process>(l, process)?;

    filesystem::types::add_to_linker::<_, WasiFilesystem>(l, no_directories)?;
    filesystem::preopens::add_to_linker::<_, WasiFilesystem>(l, no_directories)?;

    let none = sockets::network::LinkOptions::default();
    sockets::network::add_to_linker::<_, WasiSockets>(l, &none, no_sockets)?;
    sockets::instance_network::add_to_linker::<_, WasiSockets>(l, no_sockets)?;
    sockets::ip_name_lookup::add_to_linker::<_, WasiSockets>(l, no_sockets)?;
    sockets::tcp::add_to_linker::<_, WasiSockets>(l, no_sockets)?;
    sockets::tcp_create_socket::add_to_linker::<_, WasiSockets>(l, no_sockets)?;
    sockets::udp::add_to_linker::<_, WasiSockets>(l, no_sockets)?;
    sockets::udp_create_socket::add_to_linker::<_, WasiSockets>(l, no_sockets)?;
    Ok(())
}
