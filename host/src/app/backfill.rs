//! Backfills: starting one, releasing its next window, counting what ended, and telling how it stands.
//!
//! When which of them is looked at is the business of [`crate::scheduler`].

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::json;

use super::{
    App, AppError, Pipeline, PlanRequest,
    plan::{Wanted, parse_partition, usage},
};
use crate::{
    id::{BackfillId, JobId, RunId},
    limit::{BACKFILL_CAUSE_BYTES_MAX, BACKFILL_FAILURES_SHOWN_MAX, BACKFILL_RANGES_MAX, SCHEDULE_PLAN_TIMEOUT},
    pipeline::{
        asset::Dimension,
        backfill::{BackfillSettings, Order, Unmade, WindowOutcome, conclude, next_window, room, with_rest},
        keyspace::KeySpace,
        partition::PartitionKey,
        plan::{Force, Plan, key_spaces},
        quantity::duration_text,
        ranges::IndexRanges,
        selection::{SelectedAsset, SelectedPartitions, resolve_selection, select_keys},
        validate::BoundAsset,
    },
    store::{
        backfills::{BackfillPlace, BackfillRecord, BackfillScope, EndedWindow, NewBackfill, NewWindow},
        submissions::{InputOrigin, NewRun},
    },
};

/// What somebody wants a backfill of.
#[derive(Clone, Debug)]
pub struct BackfillRequest {
    /// By name; none means all that are partitioned.
    pub assets: Vec<String>,
    /// As typed; none means all.
    pub partitions: Vec<String>,
    /// Whether what the assets need is made too.
    pub with_inputs: bool,
    /// Whether what is up to date is made again.
    pub force: bool,
    /// Where it begins.
    pub order: Order,
    /// How many partitions may be in flight.
    pub concurrency: u32,
    /// After how many failures nothing more is released; none: it goes on.
    pub halt_after: Option<u32>,
}

/// A backfill that was started.
#[derive(Clone, Debug)]
pub struct StartedBackfill {
    /// Its id.
    pub id: BackfillId,
    /// Its assets.
    pub assets: Vec<String>,
    /// How many partitions it has.
    pub partitions: u32,
}

/// A backfill as it stands.
#[derive(Clone, Debug)]
pub struct BackfillState {
    /// Its row.
    pub record: BackfillRecord,
    /// What it makes.
    pub settings: BackfillSettings,
    /// The first ranges of what failed.
    pub failures: Vec<FailedPartitions>,
}

/// Partitions next to each other that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedPartitions {
    /// The first.
    pub first: PartitionKey,
    /// The last.
    pub last: PartitionKey,
    /// How many.
    pub count: u32,
    /// In which run.
    pub run: RunId,
    /// Why the first of them did.
    pub cause: String,
}

/// What a look at a backfill came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Released {
    /// A window, as this run.
    Run(RunId),
    /// Partitions that are up to date: there is nothing to wait for.
    UpToDate,
    /// Nothing more until somebody says so.
    Halted(String),
    /// Nothing, for good: its final state.
    Ended(String),
    /// Nothing now.
    Nothing,
}

/// Which partitions a backfill is about.
struct Scope {
    assets: Vec<String>,
    dimensions: Vec<Dimension>,
    selected: IndexRanges,
    as_of: Timestamp,
}

impl App {
    /// Starts a backfill: one row, whatever its size. Its windows are released by whoever is up.
    pub async fn start_backfill(
        &self,
        pipeline: &Pipeline,
        request: &BackfillRequest,
    ) -> Result<StartedBackfill, AppError> {
        let scope = self.resolve_backfill(pipeline, request).await?;
        let settings = BackfillSettings {
            assets: scope.assets.clone(),
            partitions: request.partitions.clone(),
            as_of_ms: scope.as_of.as_millisecond(),
            order: request.order,
            with_inputs: request.with_inputs,
            force: request.force,
        };
        let new = NewBackfill {
            id: BackfillId::new(),
            tenant: self.tenant.clone(),
            pipeline: pipeline.pipeline,
            settings: json!(settings),
            dimensions: json!(scope.dimensions),
            concurrency: request.concurrency,
            halt_after: request.halt_after,
            selected: scope.selected,
        };
        self.store.insert_backfill(&new).await?;
        Ok(StartedBackfill { id: new.id, assets: scope.assets, partitions: new.selected.len() })
    }

    /// What a backfill would make if it were released at this moment, all of it. Writes nothing.
    pub async fn preview_backfill(&self, pipeline: &Pipeline, request: &BackfillRequest) -> Result<Plan, AppError> {
        let scope = self.resolve_backfill(pipeline, request).await?;
        let assets: Vec<BoundAsset> = pipeline.assets.iter().map(|asset| asset.bound.clone()).collect();
        let spaces = key_spaces(&assets, scope.as_of).map_err(usage)?;
        let is_selected = |asset: &BoundAsset| scope.assets.contains(&asset.definition.name);
        let numbers = assets.iter().enumerate().filter(|(_, asset)| is_selected(asset)).map(|(number, _)| number);
        let selection: Vec<SelectedAsset> = numbers
            .map(|asset| SelectedAsset { asset, partitions: SelectedPartitions::Possible(scope.selected.clone()) })
            .collect();
        let request = PlanRequest {
            wanted: Wanted::Named { assets: scope.assets.clone(), partitions: request.partitions.clone() },
            with_inputs: request.with_inputs,
            force: if request.force { Force::Selected } else { Force::No },
        };
        self.plan_selected(pipeline, &assets, &spaces, &selection, &request, scope.as_of).await
    }

    /// Lets a backfill release nothing more for now; what is in flight goes on.
    pub async fn pause_backfill(&self, id: BackfillId) -> Result<(), AppError> {
        if self.store.pause_backfill(&self.tenant, id).await? {
            return Ok(());
        }
        let state = self.find_backfill(id).await?.record.state;
        Err(AppError::Usage(format!("backfill {id} does not run: it {}", stands_as(&state))))
    }

    /// Lets a paused or halted backfill go on.
    pub async fn resume_backfill(&self, id: BackfillId) -> Result<(), AppError> {
        if self.store.resume_backfill(&self.tenant, id).await? {
            return Ok(());
        }
        let state = self.find_backfill(id).await?.record.state;
        Err(AppError::Usage(format!("backfill {id} is neither paused nor halted: it {}", stands_as(&state))))
    }

    /// Releases what failed once more, with what has not been released; returns how many partitions failed.
    pub async fn retry_backfill(&self, id: BackfillId) -> Result<u32, AppError> {
        let order = self.find_backfill(id).await?.settings.order;
        loop {
            let Some(rest) = self.store.find_backfill_rest(&self.tenant, id).await? else {
                return Err(AppError::Usage(format!(
                    "there is no backfill {id}; `flowstone backfill list` lists them"
                )));
            };
            let refused = match &*rest.state {
                _ if rest.failures.is_empty() => Some("nothing of it failed"),
                "paused" => Some("it is paused: resume it first"),
                "cancelled" if rest.in_flight => Some("its runs are being cancelled: try again when they have ended"),
                _ => None,
            };
            if let Some(why) = refused {
                return Err(AppError::Usage(format!("backfill {id} cannot be tried again: {why}")));
            }
            let selected = with_rest(&rest.selected, order, rest.cursor as u32, &rest.failures);
            // A window may have been released or counted since: then it is another rest.
            if self.store.retry_backfill(&self.tenant, id, &rest, &selected).await? {
                return Ok(rest.failures.len());
            }
        }
    }

    /// One backfill, with the first of what failed.
    pub async fn find_backfill(&self, id: BackfillId) -> Result<BackfillState, AppError> {
        let record = self.store.find_backfill(&self.tenant, id).await?;
        let scope = self.store.find_backfill_scope(&self.tenant, id).await?;
        let (Some(record), Some(scope)) = (record, scope) else {
            return Err(AppError::Usage(format!("there is no backfill {id}; `flowstone backfill list` lists them")));
        };
        let (settings, space) = read_scope(id, &scope)?;
        let failures = self.store.list_backfill_failures(&self.tenant, id, BACKFILL_FAILURES_SHOWN_MAX).await?;
        let failures = failures.into_iter().map(|failure| FailedPartitions {
            first: space.key(failure.first as u32),
            last: space.key(failure.last as u32),
            count: (failure.last - failure.first) as u32 + 1,
            run: failure.run,
            cause: failure.cause,
        });
        Ok(BackfillState { record, settings, failures: failures.collect() })
    }

    /// Ends a backfill, and asks for the end of the runs that it has in flight; returns how many.
    pub async fn cancel_backfill(&self, id: BackfillId) -> Result<u64, AppError> {
        if let Some(runs) = self.store.cancel_backfill(&self.tenant, id).await? {
            return Ok(runs);
        }
        let state = self.find_backfill(id).await?.record.state;
        Err(AppError::Usage(format!("backfill {id} is over: it {}", stands_as(&state))))
    }

    /// Counts the windows of a backfill whose runs are over.
    pub async fn settle_windows(&self, id: BackfillId) -> Result<(), AppError> {
        for window in self.store.list_ended_windows(&self.tenant, id).await? {
            let outcome = match window.all_made {
                true => WindowOutcome { made: window.selected.len(), ..WindowOutcome::default() },
                false => conclude(&window.selected, self.list_unmade_of_window(id, &window).await?),
            };
            self.store.settle_window(&self.tenant, id, window.run, &outcome).await?;
        }
        Ok(())
    }

    /// Releases the next window of a backfill, if there is room for it. What keeps it from being planned halts the
    /// backfill; an error is the host's trouble, after which it stands as before.
    pub async fn release_window(&self, id: BackfillId) -> Result<Released, AppError> {
        let Some(place) = self.store.find_backfill_place(&self.tenant, id).await? else { return Ok(Released::Nothing) };
        let left = place.selected - place.cursor;
        if left == 0 {
            let ended = if place.windows == 0 { self.store.end_backfill(&self.tenant, id).await? } else { None };
            return Ok(ended.map_or(Released::Nothing, Released::Ended));
        }
        match place.failed_max {
            Some(max) if place.failed >= max => {
                let failed = place.failed;
                let said = if failed == 1 { "1 partition".to_owned() } else { format!("{failed} partitions") };
                return self.halt(id, &place, format!("{said} failed")).await;
            }
            // Whether it is too many is known when what is in flight has ended.
            Some(max) if i64::from(place.failed) + place.failing >= i64::from(max) => return Ok(Released::Nothing),
            _ => {}
        }
        let in_flight = u32::try_from(place.in_flight).unwrap_or(u32::MAX);
        let count = room(place.concurrency as u32, in_flight, left as u32);
        if count == 0 {
            return Ok(Released::Nothing);
        }
        let (window, run) = match self.new_window(id, place, count).await {
            Ok(window) => window,
            Err(error) if error.is_users() => return self.halt(id, &place, super::bounded_chain(&error)).await,
            Err(error) => return Err(error),
        };
        if !self.store.release_window(&self.tenant, &window, run.as_ref()).await? {
            return Ok(Released::Nothing);
        }
        Ok(run.map_or(Released::UpToDate, |run| Released::Run(run.id)))
    }

    async fn halt(&self, id: BackfillId, place: &BackfillPlace, cause: String) -> Result<Released, AppError> {
        let halted = self.store.halt_backfill(&self.tenant, id, place, &cause).await?;
        Ok(if halted { Released::Halted(cause) } else { Released::Nothing })
    }

    /// The next partitions of a backfill with the run that makes what is missing or stale of them, if anything is. It is
    /// planned with the newest version of the pipeline, as of now.
    async fn new_window(
        &self,
        id: BackfillId,
        place: BackfillPlace,
        count: u32,
    ) -> Result<(NewWindow, Option<NewRun>), AppError> {
        let Some(scope) = self.store.find_backfill_scope(&self.tenant, id).await? else {
            return Err(AppError::Usage(format!("there is no backfill {id}")));
        };
        let (settings, space) = read_scope(id, &scope)?;
        let released = next_window(&scope.selected, settings.order, place.cursor as u32, count);
        let keys: Vec<PartitionKey> = released.iter().map(|index| space.key(index)).collect();
        let partitions: BTreeMap<_, _> = settings.assets.iter().map(|name| (name.clone(), keys.clone())).collect();
        let pipeline = self.load_pipeline(&scope.pipeline).await?;
        let request = PlanRequest {
            wanted: Wanted::OfBackfill { backfill: id, partitions },
            with_inputs: settings.with_inputs,
            force: if settings.force { Force::Selected } else { Force::No },
        };
        let planned = self.plan_window(&pipeline, &request, instant(scope.now_ms)?);
        let plan = tokio::time::timeout(SCHEDULE_PLAN_TIMEOUT, planned).await.unwrap_or_else(|_| {
            Err(AppError::Usage(format!("planning took longer than {}", duration_text(SCHEDULE_PLAN_TIMEOUT))))
        })?;

        let is_selected: Vec<bool> =
            pipeline.assets.iter().map(|asset| settings.assets.contains(&asset.bound.definition.name)).collect();
        let mut selected = IndexRanges::default();
        for job in plan.jobs.iter().filter(|job| is_selected[job.asset]) {
            if let Some(index) = space.find_key(&job.partition) {
                selected.push(index..index + 1);
            }
        }
        selected.normalize();
        let idle = released.len() - selected.len();
        let not_yet = plan.not_yet.iter().zip(&is_selected).filter(|(_, selected)| **selected).map(|(count, _)| *count);
        let skipped = not_yet.max().unwrap_or(0).min(idle);
        let run = (!plan.jobs.is_empty()).then(|| {
            let mut run = self.new_run(&pipeline, &request, &plan, None);
            run.backfill = Some(id);
            if settings.order == Order::NewestFirst {
                reverse_order(&mut run);
            }
            run
        });
        let window = NewWindow {
            backfill: id,
            place,
            released: released.len() as i32,
            up_to_date: (idle - skipped) as i32,
            skipped: skipped as i32,
            selected,
        };
        Ok((window, run))
    }

    async fn plan_window(&self, pipeline: &Pipeline, request: &PlanRequest, now: Timestamp) -> Result<Plan, AppError> {
        let assets: Vec<BoundAsset> = pipeline.assets.iter().map(|asset| asset.bound.clone()).collect();
        let spaces = key_spaces(&assets, now).map_err(usage)?;
        let Wanted::OfBackfill { partitions, .. } = &request.wanted else {
            return Err(AppError::Usage("only partitions of a backfill are a window of one".to_owned()));
        };
        let mut selection = select_keys(&assets, &spaces, partitions).map_err(|errors| lines(&errors))?;
        for one in &mut selection {
            // What is too early is not asked for by name.
            if let SelectedPartitions::Only(ranges) = &mut one.partitions {
                one.partitions = SelectedPartitions::Possible(std::mem::take(ranges));
            }
        }
        self.plan_selected(pipeline, &assets, &spaces, &selection, request, now).await
    }

    async fn list_unmade_of_window(&self, id: BackfillId, window: &EndedWindow) -> Result<Vec<Unmade>, AppError> {
        if window.forgotten {
            let cause = "the record of its run is gone";
            let unmade = |index| Unmade { index, failed: true, cause: cause.to_owned() };
            return Ok(window.selected.iter().map(unmade).collect());
        }
        let Some(scope) = self.store.find_backfill_scope(&self.tenant, id).await? else { return Ok(Vec::new()) };
        let (settings, space) = read_scope(id, &scope)?;
        let mut unmade = Vec::new();
        for job in self.store.list_unmade_of_assets(&self.tenant, window.run, &settings.assets).await? {
            let Some(index) = space.find_key(&parse_partition(&job.partition_key)?) else { continue };
            let mut cause = job.cause;
            cause.truncate(cause.floor_char_boundary(BACKFILL_CAUSE_BYTES_MAX));
            unmade.push(Unmade { index, failed: job.failed, cause });
        }
        Ok(unmade)
    }

    async fn resolve_backfill(&self, pipeline: &Pipeline, request: &BackfillRequest) -> Result<Scope, AppError> {
        let as_of = instant(self.store.tell_time().await?)?;
        let assets: Vec<BoundAsset> = pipeline.assets.iter().map(|asset| asset.bound.clone()).collect();
        let spaces = key_spaces(&assets, as_of).map_err(usage)?;
        let mut selection = resolve_selection(&assets, &spaces, &request.assets, &request.partitions)
            .map_err(|errors| lines(&errors))?;
        let definition = |selected: &SelectedAsset| &assets[selected.asset].definition;
        if request.assets.is_empty() {
            selection.retain(|selected| !definition(selected).dimensions.is_empty());
        }
        let Some(first) = selection.first() else {
            return Err(AppError::Usage(format!(
                "no asset of `{}` is partitioned: `flowstone run {0}` makes it",
                pipeline.name
            )));
        };
        let dimensions = definition(first).dimensions.clone();
        for selected in &selection {
            let (name, first) = (&definition(selected).name, &definition(first).name);
            if definition(selected).dimensions.is_empty() {
                return Err(AppError::Usage(format!(
                    "asset `{name}` is not partitioned: leave it out, and make it with `flowstone run`"
                )));
            }
            if definition(selected).dimensions != dimensions {
                return Err(AppError::Usage(format!(
                    "assets `{first}` and `{name}` have different partitions: name assets that have the same, and start \
                     a backfill for each kind"
                )));
            }
        }
        let selected = match &first.partitions {
            SelectedPartitions::All => IndexRanges::from(0..spaces[first.asset].len()),
            SelectedPartitions::Only(ranges) | SelectedPartitions::Possible(ranges) => ranges.clone(),
        };
        let name = &definition(first).name;
        if selected.is_empty() {
            return Err(AppError::Usage(format!("asset `{name}` has no partition yet: no interval of it has ended")));
        }
        if selected.ranges().len() > BACKFILL_RANGES_MAX {
            return Err(AppError::Usage(format!(
                "these partitions of `{name}` are {} separate ranges, and a backfill has at most {BACKFILL_RANGES_MAX}: \
                 select fewer, or all keys of the last dimension",
                selected.ranges().len()
            )));
        }
        let assets = selection.iter().map(|selected| definition(selected).name.clone()).collect();
        Ok(Scope { assets, dimensions, selected, as_of })
    }
}

/// `succeeded`, `is paused`, `was cancelled`: what follows "it".
fn stands_as(state: &str) -> String {
    match state {
        "succeeded" | "failed" => state.to_owned(),
        "cancelled" => "was cancelled".to_owned(),
        state => format!("is {state}"),
    }
}

/// A backfill's settings, and the partitions that its numbers count in.
fn read_scope(id: BackfillId, scope: &BackfillScope) -> Result<(BackfillSettings, KeySpace), AppError> {
    let unreadable = |error: Box<dyn std::error::Error + Send + Sync>| {
        AppError::host(format!("read backfill {id}, which another version of flowstone wrote"), error)
    };
    let settings: BackfillSettings =
        serde_json::from_value(scope.settings.clone()).map_err(|error| unreadable(error.into()))?;
    let dimensions: Vec<Dimension> =
        serde_json::from_value(scope.dimensions.clone()).map_err(|error| unreadable(error.into()))?;
    let space = settings.key_space(&dimensions).map_err(|error| unreadable(error.into()))?;
    Ok((settings, space))
}

/// Jobs that are ready at the same time are claimed in the order of their ids.
fn reverse_order(run: &mut NewRun) {
    let reversed: BTreeMap<JobId, JobId> =
        run.jobs.iter().map(|job| job.id).zip(run.jobs.iter().rev().map(|job| job.id)).collect();
    for job in &mut run.jobs {
        job.id = reversed[&job.id];
        for input in &mut job.inputs {
            if let InputOrigin::Job(upstream) = &mut input.origin {
                *upstream = reversed[upstream];
            }
        }
    }
}

fn instant(ms: i64) -> Result<Timestamp, AppError> {
    Timestamp::from_millisecond(ms).map_err(|error| AppError::host("understand the database's clock", error))
}

fn lines(errors: &[impl ToString]) -> AppError {
    AppError::Usage(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
}
