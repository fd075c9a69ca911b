//! Schedules: what is declared, when it fires next, and the run of a fire.
//!
//! Which fires are due, and who submits which, is the business of [`crate::scheduler`].

use jiff::Timestamp;
use serde_json::json;

use super::{
    App, AppError, Pipeline, PlanRequest,
    plan::{Wanted, usage},
};
use crate::{
    id::RunId,
    limit::{FIRE_TRIES_MAX, SCHEDULE_PLAN_TIMEOUT},
    pipeline::{
        diagnostic::did_you_mean,
        fire_times::FireTimes,
        manifest::Manifest,
        plan::{Force, Plan, key_spaces},
        quantity::duration_text,
        schedule::{Schedule, select_partitions},
        validate::BoundAsset,
    },
    store::{
        StoreError,
        schedules::{NewSchedule, ScheduleRecord, TakenFire},
        submissions::NewRun,
    },
};

/// A schedule as it stands.
#[derive(Clone, Debug)]
pub struct ScheduleState {
    /// Its row.
    pub record: ScheduleRecord,
    /// As its pipeline declares it.
    pub schedule: Schedule,
    /// When it fires next; none while it is disabled.
    pub next: Option<Timestamp>,
}

/// What became of a fire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fired {
    /// Its run is submitted.
    Submitted(RunId),
    /// Nothing could be submitted, and that is recorded.
    Failed(String),
    /// Somebody else has seen to it.
    NotDue,
}

impl App {
    /// The schedules of one pipeline or of all.
    pub async fn list_schedules(&self, pipeline: Option<&str>) -> Result<Vec<ScheduleState>, AppError> {
        let now = self.database_time().await?;
        let records = self.store.list_schedules(&self.tenant, pipeline).await?;
        if let (true, Some(name)) = (records.is_empty(), pipeline) {
            // A pipeline without schedules is none that does not exist.
            self.load_pipeline(name).await?;
        }
        records.into_iter().map(|record| state(record, now)).collect()
    }

    /// One schedule.
    pub async fn find_schedule(&self, pipeline: &str, name: &str) -> Result<ScheduleState, AppError> {
        let schedules = self.list_schedules(Some(pipeline)).await?;
        let hint = did_you_mean(name, schedules.iter().map(|state| &*state.record.name));
        schedules.into_iter().find(|state| state.record.name == name).ok_or_else(|| {
            let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
            AppError::Usage(format!(
                "pipeline `{pipeline}` has no schedule `{name}`{hint}; `flowstone schedules {pipeline}` lists them"
            ))
        })
    }

    /// Lets a schedule fire by itself, from now on, or keeps it from that. False: it was so already.
    pub async fn set_schedule_enabled(&self, state: &ScheduleState, enabled: bool) -> Result<bool, AppError> {
        if state.record.enabled == enabled {
            return Ok(false);
        }
        if enabled {
            let next = times(&state.schedule)?.next_after(self.database_time().await?);
            self.store.enable_schedule(&self.tenant, state.record.id, next.map(Timestamp::as_second)).await?;
        } else {
            self.store.disable_schedule(&self.tenant, state.record.id).await?;
        }
        Ok(true)
    }

    /// The next times at which a schedule fires, or would if it were enabled.
    pub async fn list_fire_times(&self, schedule: &Schedule, count: usize) -> Result<Vec<Timestamp>, AppError> {
        Ok(times(schedule)?.after(self.database_time().await?).take(count).collect())
    }

    /// Submits a run of a schedule as if it fired at this moment, whether it is enabled or not.
    pub async fn fire_by_hand(&self, state: &ScheduleState) -> Result<RunId, AppError> {
        let now = self.database_time().await?;
        let pipeline = self.load_pipeline(&state.record.pipeline).await?;
        let (request, plan) = self.plan_fire(&pipeline, &state.schedule, now, now).await?;
        let run = self.run_of_fire(&pipeline, &request, &plan, &state.record.name, now);
        self.store.submit_by_hand(state.record.id, &run).await?;
        Ok(run.id)
    }

    /// Plans a due fire with the newest version of its pipeline and submits its run, once. What keeps it from being
    /// planned is recorded; an error is trouble with the database, after which the fire is due as before.
    pub async fn submit_fire(&self, fire: &TakenFire) -> Result<Fired, StoreError> {
        if fire.tries > FIRE_TRIES_MAX {
            return self
                .fail_fire(fire, &format!("given up after {FIRE_TRIES_MAX} tries; the log has their errors"))
                .await;
        }
        let submitted = async {
            let run = self.new_run_of_fire(fire).await?;
            let submitted = self.store.submit_fire(fire, &run).await?;
            Ok(if submitted { Fired::Submitted(run.id) } else { Fired::NotDue })
        };
        match submitted.await {
            Ok(fired) => Ok(fired),
            Err(AppError::Store(error)) if error.is_transient() => Err(error),
            Err(error) => self.fail_fire(fire, &super::bounded_chain(&error)).await,
        }
    }

    async fn fail_fire(&self, fire: &TakenFire, error: &str) -> Result<Fired, StoreError> {
        let failed = self.store.fail_fire(fire, error).await?;
        Ok(if failed { Fired::Failed(error.to_owned()) } else { Fired::NotDue })
    }

    async fn new_run_of_fire(&self, fire: &TakenFire) -> Result<NewRun, AppError> {
        let schedule: Schedule = serde_json::from_value(fire.settings.clone())
            .map_err(|error| AppError::host("read a schedule, which another version of flowstone wrote", error))?;
        let (fire_at, now) = (Timestamp::from_second(fire.fire_s), Timestamp::from_millisecond(fire.now_ms));
        let (Ok(fire_at), Ok(now)) = (fire_at, now) else {
            return Err(AppError::Usage("the calendar ends before that".to_owned()));
        };
        let planned = async {
            let pipeline = self.load_pipeline(&fire.pipeline).await?;
            let (request, plan) = self.plan_fire(&pipeline, &schedule, fire_at, now).await?;
            Ok(self.run_of_fire(&pipeline, &request, &plan, &fire.name, fire_at))
        };
        tokio::time::timeout(SCHEDULE_PLAN_TIMEOUT, planned).await.unwrap_or_else(|_| {
            Err(AppError::Usage(format!("planning took longer than {}", duration_text(SCHEDULE_PLAN_TIMEOUT))))
        })
    }

    /// What a schedule runs for an instant, as of now. Both are the database's: a worker's clock may be an hour off.
    async fn plan_fire(
        &self,
        pipeline: &Pipeline,
        schedule: &Schedule,
        fire_at: Timestamp,
        now: Timestamp,
    ) -> Result<(PlanRequest, Plan), AppError> {
        let assets: Vec<BoundAsset> = pipeline.assets.iter().map(|asset| asset.bound.clone()).collect();
        let spaces = key_spaces(&assets, now).map_err(usage)?;
        let (selection, partitions) = select_partitions(&assets, &spaces, schedule, fire_at).map_err(usage)?;
        let request = PlanRequest {
            wanted: Wanted::Named { assets: schedule.assets.clone(), partitions },
            with_inputs: true,
            force: Force::No,
        };
        let plan = self.plan_selected(pipeline, &assets, &spaces, &selection, &request, now).await?;
        Ok((request, plan))
    }

    /// Nobody waits for it; who asked for it is in the request.
    fn run_of_fire(
        &self,
        pipeline: &Pipeline,
        request: &PlanRequest,
        plan: &Plan,
        schedule: &str,
        fire_at: Timestamp,
    ) -> NewRun {
        let mut run = self.new_run(pipeline, request, plan, None);
        run.request["schedule"] = json!(schedule);
        run.request["fire_at_ms"] = json!(fire_at.as_millisecond());
        run
    }

    /// A manifest's schedules as the rows that they become.
    pub(super) async fn new_schedules(&self, manifest: &Manifest) -> Result<Vec<NewSchedule>, AppError> {
        if manifest.schedules.is_empty() {
            return Ok(Vec::new());
        }
        let now = self.database_time().await?;
        let new = |(name, schedule): (&String, &Schedule)| {
            let settings = serde_json::to_value(schedule)
                .map_err(|error| AppError::host(format!("store schedule `{name}`"), error))?;
            let next_fire_s = times(schedule)?.next_after(now).map(Timestamp::as_second);
            Ok(NewSchedule { name: name.clone(), settings, next_fire_s })
        };
        manifest.schedules.iter().map(new).collect()
    }

    async fn database_time(&self) -> Result<Timestamp, AppError> {
        let now = Timestamp::from_millisecond(self.store.tell_time().await?);
        now.map_err(|error| AppError::host("understand the database's clock", error))
    }
}

fn state(record: ScheduleRecord, now: Timestamp) -> Result<ScheduleState, AppError> {
    let schedule: Schedule = serde_json::from_value(record.settings.clone()).map_err(|error| {
        AppError::host(format!("read schedule `{}`, which another version of flowstone wrote", record.name), error)
    })?;
    let next = if record.enabled { times(&schedule)?.next_after(now) } else { None };
    Ok(ScheduleState { record, schedule, next })
}

fn times(schedule: &Schedule) -> Result<FireTimes, AppError> {
    FireTimes::new(&schedule.cron, &schedule.time_zone)
        .map_err(|error| AppError::host(format!("understand the pattern \"{}\"", schedule.cron), error))
}
