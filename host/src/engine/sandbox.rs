//! One attempt: a fresh store, the guest's limits, the call, and a report. Nothing survives it but what is reported.
//!
//! The limits are set before the first instruction of the guest. Instantiation runs guest code too and has an
//! allowance of its own; the job's fuel is set after it, so that what is counted does not depend on how memory was
//! initialised. The guest is stopped where it yields (by its fuel) and where it calls the host.

use std::{
    any::Any,
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;
use wasmtime::{
    CallHook, Store,
    component::{Instance, ResourceTable},
};
use wasmtime_wasi::sockets::WasiSocketsCtx;

use super::{
    Attempt, Engine,
    limiter::Limiter,
    linker::Granted,
    report::{Report, Timings},
    verdict::{Circumstances, Ended, Verdict, judge},
};
use crate::{
    bindings::{Everything, EverythingPre},
    blob::BlobStore,
    capability::{
        Abort, Calls, Interrupt, Masks, Reach, Ungranted,
        clock::Clock,
        config::Config,
        context::Context,
        files::Files,
        http::{Http, HttpReach},
        inputs::{InputGrant, Inputs},
        key_value::KeyValue,
        log::Log,
        output::Output,
        random::Random,
        secrets::{GrantedSecret, Secrets},
        sql::Sql,
    },
    limit::{
        FUEL_YIELD_INTERVAL, HANDLES_MAX, HOST_RESOURCES_MAX, HOSTCALL_BYTES_MAX, INSTANTIATE_FUEL,
        INSTANTIATE_TIMEOUT, TIMEOUT_MAX,
    },
    pipeline::policy::Limits,
};

/// What a guest's host functions work on: made for one attempt, gone after it.
pub struct State {
    pub(super) context: Context,
    pub(super) config: Config,
    pub(super) inputs: Inputs,
    pub(super) output: Output,
    pub(super) log: Log,
    pub(super) files: Files,
    pub(super) http: Http,
    pub(super) key_value: KeyValue,
    pub(super) ungranted: Ungranted,
    pub(super) clock: Clock,
    pub(super) random: Random,
    pub(super) secrets: Secrets,
    pub(super) masks: Masks,
    pub(super) sql: Sql,
    pub(super) no_sockets: WasiSocketsCtx,
    pub(super) table: ResourceTable,
    pub(super) limiter: Limiter,
    pub(super) interrupt: Interrupt,
}

/// What a state is made of.
pub(super) struct Ingredients<'a> {
    pub context: Context,
    pub inputs: Vec<InputGrant>,
    pub reach: Reach,
    pub limits: &'a Limits,
    pub media_type: String,
    pub log: Log,
    pub seed: [u8; 32],
    pub tenant: String,
    pub blobs: BlobStore,
    pub interrupt: Interrupt,
}

impl State {
    pub(super) fn new(of: Ingredients<'_>) -> Result<Self, String> {
        let mut table = ResourceTable::new();
        table.set_max_capacity(HOST_RESOURCES_MAX);
        let asset = of.context.asset.clone();
        let (blobs, tenant) = (of.blobs, of.tenant);
        let Reach { directories, secrets, clock, random, http, databases, buckets, is_timed: _ } = of.reach;
        let masks = Masks::of(secrets.iter().map(GrantedSecret::named).chain(http.iter().flat_map(HttpReach::secrets)));
        Ok(Self {
            clock: clock.map_or_else(|| Clock::at(of.context.logical_time_ms), Clock::real),
            config: Config::new(of.context.config.clone()),
            context: of.context,
            output: Output::new(&blobs, &tenant, of.limits.output_bytes, of.media_type),
            inputs: Inputs::new(of.inputs, blobs.clone(), tenant.clone()),
            log: of.log.open(of.limits.log_bytes, masks.clone()),
            files: Files::new(asset.clone(), directories, blobs, tenant, of.interrupt.clone())
                .map_err(|error| format!("a granted glob is not one: {error}"))?,
            http: Http::new(asset.clone(), http, of.interrupt.clone())?,
            key_value: KeyValue::new(asset.clone(), buckets, of.interrupt.clone()),
            secrets: Secrets::new(asset.clone(), secrets),
            sql: Sql::new(asset.clone(), databases, of.interrupt.clone()),
            ungranted: Ungranted::new(asset),
            random: Random::new(of.seed, random),
            masks,
            no_sockets: WasiSocketsCtx::default(),
            table,
            limiter: Limiter::new(of.limits.memory_bytes),
            interrupt: of.interrupt,
        })
    }
}

/// A store with every limit set, and the allowance of instantiation as its fuel.
pub(super) fn store(engine: &wasmtime::Engine, state: State) -> wasmtime::Result<Store<State>> {
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.limiter);
    store.set_hostcall_fuel(HOSTCALL_BYTES_MAX);
    store.set_max_component_handles(HANDLES_MAX);
    store.set_fuel(INSTANTIATE_FUEL)?;
    store.fuel_async_yield_interval(Some(FUEL_YIELD_INTERVAL))?;
    store.call_hook(|store, hook| match hook {
        CallHook::CallingHost => Ok(store.data().interrupt.enter()?),
        _ => Ok(()),
    });
    Ok(store)
}

/// Instantiates a guest within the allowance of instantiation, or until the attempt's deadline if that is sooner.
/// `None` when it took too long.
pub(super) async fn instantiate(
    store: &mut Store<State>,
    guest: &EverythingPre<State>,
    until: &Interrupt,
) -> Option<wasmtime::Result<Everything>> {
    within_allowance(store, until, async |store| guest.instantiate_async(store).await).await
}

/// The same, and returns the instance itself, which may export more than every guest does.
pub(super) async fn start(
    store: &mut Store<State>,
    guest: &EverythingPre<State>,
    until: &Interrupt,
) -> Option<wasmtime::Result<Instance>> {
    within_allowance(store, until, async |store| guest.instance_pre().instantiate_async(store).await).await
}

async fn within_allowance<T>(
    store: &mut Store<State>,
    until: &Interrupt,
    instantiate: impl AsyncFnOnce(&mut Store<State>) -> wasmtime::Result<T>,
) -> Option<wasmtime::Result<T>> {
    let soon = until.sooner(Instant::now() + INSTANTIATE_TIMEOUT);
    let deadline = soon.deadline();
    store.data_mut().interrupt = soon;
    let instance = tokio::time::timeout_at(deadline.into(), instantiate(store)).await;
    store.data_mut().interrupt = until.clone();
    instance.ok()
}

/// Runs one attempt to its end, whatever it is.
pub(super) async fn run(engine: &Engine, attempt: Attempt, cancel: CancellationToken) -> Report {
    let started = Instant::now();
    let Attempt { component, context, inputs, reach, limits, media_type, log, seed, tenant, blobs } = attempt;
    let deadline = started + Duration::from_millis(limits.timeout_ms).min(TIMEOUT_MAX);
    let calls = reach.is_timed.then(Calls::default);
    let interrupt = Interrupt::new(deadline, cancel.clone()).timing(calls.clone());
    let granted = Granted::of(reach.capabilities());
    let guest = match component.linked(engine.linkers(), granted) {
        Ok(guest) => guest,
        Err(error) => return Report::empty(Verdict::Trapped(super::verdict::link_problem(&error))),
    };
    let asset = context.asset.clone();
    let ingredients = Ingredients {
        context,
        inputs,
        reach,
        limits: &limits,
        media_type,
        log,
        seed,
        tenant,
        blobs,
        interrupt: interrupt.clone(),
    };
    let state = match State::new(ingredients) {
        Ok(state) => state,
        Err(error) => return Report::empty(Verdict::HostFault(error)),
    };
    let mut store = match store(engine.running(), state) {
        Ok(store) => store,
        Err(error) => return Report::empty(Verdict::HostFault(format!("{error:#}"))),
    };

    let mut timings = Timings::default();
    let guest_runs = run_guest(&mut store, guest, &asset, limits.fuel, &interrupt, &mut timings);
    let ended = tokio::select! {
        biased;
        () = cancel.cancelled() => Ended::Cancelled,
        ended = caught(guest_runs) => ended.unwrap_or_else(Ended::Panicked),
    };
    timings.total = started.elapsed();
    let ended = match (ended, store.data().inputs.wait_for_store()) {
        (Ended::Late, Some(waited)) => {
            let why = format!("the blob store had not answered for {} s at the attempt's deadline", waited.as_secs());
            Ended::Errored(Abort::HostFault(why).into())
        }
        (ended, _) => ended,
    };

    let is_started = timings.instantiate.is_some();
    let fuel_left = store.get_fuel().unwrap_or(0);
    let fuel_used = if is_started { limits.fuel.saturating_sub(fuel_left) } else { 0 };
    let state = store.into_data();
    let circumstances = Circumstances {
        limits: &limits,
        is_cancelled: cancel.is_cancelled(),
        is_output_too_large: state.output.is_too_large(),
        exhausted: state.limiter.exhausted(),
        is_started,
        masks: &state.masks,
    };
    let (verdict, explanation) = judge(ended, &circumstances);
    let (mut report, unfinished) = Report::of(state, verdict, explanation, fuel_used, &timings);
    if report.verdict == Verdict::Succeeded {
        // On the heap: most of what can be waited for here is larger than all the rest of the attempt.
        Box::pin(report.finish(unfinished, &cancel)).await;
    }
    report.calls = calls.map(|calls| calls.take()).unwrap_or_default();
    report
}

/// Instantiates and calls the guest, until the deadline.
async fn run_guest(
    store: &mut Store<State>,
    guest: &EverythingPre<State>,
    asset: &str,
    fuel: u64,
    interrupt: &Interrupt,
    timings: &mut Timings,
) -> Ended {
    let started = Instant::now();
    let instance = match instantiate(store, guest, interrupt).await {
        Some(Ok(instance)) => instance,
        Some(Err(error)) => return Ended::Errored(error),
        None => return Ended::Late,
    };
    if let Err(error) = store.set_fuel(fuel) {
        return Ended::Errored(error);
    }
    timings.instantiate = Some(started.elapsed());
    let call = instance.flowstone_asset_materializer().call_materialize(&mut *store, asset);
    match tokio::time::timeout_at(interrupt.deadline().into(), call).await {
        // The last call into the host may have outlived the deadline, and then nothing looked at it again.
        Ok(Ok(_)) if Instant::now() >= interrupt.deadline() => Ended::Late,
        Ok(Ok(outcome)) => Ended::Returned(outcome),
        Ok(Err(error)) => Ended::Errored(error),
        Err(_) => Ended::Late,
    }
}

/// The future's output, or the message of the panic that ended it: after one it is dropped and never looked at again. Not
/// an `async fn`, which would keep room for the future twice, and each attempt is moved with all its room.
pub(crate) fn caught<F: Future>(future: F) -> impl Future<Output = Result<F::Output, String>> {
    AssertUnwindSafe(future).catch_unwind().map(|ended| ended.map_err(|panic| panic_message(&*panic)))
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use wasmtime::Trap;

    use super::*;
    use crate::{
        capability::Abort,
        engine::{config, linker::linker},
    };

    #[tokio::test]
    async fn a_panic_is_caught_with_its_message() {
        assert_eq!(caught(async { 1 }).await, Ok(1));
        let panics = std::future::poll_fn(|_| -> std::task::Poll<()> { panic!("after {}", 1) });
        assert_eq!(caught(panics).await, Err("after 1".into()));
    }

    /// Two components in one: the inner takes a long string, again and again. Moving it between them costs no fuel.
    const LONG_STRINGS: &str = r#"(component
      (component $callee
        (core module $m
          (memory (export "memory") 1200)
          (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536))
          (func (export "take") (param i32 i32)))
        (core instance $i (instantiate $m))
        (func (export "take") (param "text" string)
          (canon lift (core func $i "take") (memory (core memory $i "memory"))
            (realloc (core func $i "realloc")) string-encoding=utf16)))
      (instance $callee (instantiate $callee))
      (component $caller
        (import "take" (func $take (param "text" string)))
        (core module $memory (memory (export "memory") 600))
        (core instance $memory (instantiate $memory))
        (core func $take (canon lower (func $take) (memory (core memory $memory "memory"))))
        (core module $m
          (import "callee" "take" (func $take (param i32 i32)))
          (func (export "run") (loop $again (call $take (i32.const 0) (i32.const 30000000)) (br $again))))
        (core instance $i (instantiate $m (with "callee" (instance (export "take" (func $take))))))
        (func (export "run") (canon lift (core func $i "run"))))
      (instance $caller (instantiate $caller (with "take" (func $callee "take"))))
      (export "run" (func $caller "run")))"#;

    #[tokio::test]
    async fn moving_strings_between_components_does_not_outlive_the_deadline() {
        // A compiling engine, in this process: the component is ours, and exports nothing that an attempt would call.
        let engine = wasmtime::Engine::new(&config::compiling().unwrap()).unwrap();
        let bytes = wat::parse_str(LONG_STRINGS).unwrap();
        let component = wasmtime::component::Component::from_binary(&engine, &bytes).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let allowed = Duration::from_millis(300);
        let interrupt = Interrupt::new(Instant::now() + allowed, CancellationToken::new());
        let state = State::new(Ingredients {
            context: Context::default(),
            inputs: vec![],
            reach: Reach::default(),
            limits: &Limits::default(),
            media_type: String::new(),
            log: Log::default(),
            seed: [0; 32],
            tenant: "t".into(),
            blobs: BlobStore::open(folder.path()).unwrap(),
            interrupt,
        });
        let mut store = store(&engine, state.unwrap()).unwrap();
        let linker = linker(&engine, Granted::default()).unwrap();
        let instance = linker.instantiate_async(&mut store, &component).await.unwrap();
        store.set_fuel(1 << 40).unwrap();
        let run = instance.get_typed_func::<(), ()>(&mut store, "run").unwrap();
        let started = Instant::now();
        let error = run.call_async(&mut store, ()).await.unwrap_err();
        assert_eq!(error.downcast_ref(), Some(&Abort::Interrupted), "{error:?}");
        assert_eq!(error.downcast_ref::<Trap>(), None);
        assert!(started.elapsed() < allowed + Duration::from_millis(200), "{:?}", started.elapsed());
    }
}
