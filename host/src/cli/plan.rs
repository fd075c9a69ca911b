//! `flowstone plan`: what a run would do, and why, before anything runs.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::{Value, json};

use super::{
    Exit,
    arguments::{Plan as Args, Selection},
    deploy,
    figures::{job, plural},
    grants,
    print::{self, Column, one_line},
    session::Session,
};
use crate::{
    app::{Pipeline, PlanRequest, Wanted},
    limit::PLAN_JOBS_SHOWN_MAX,
    pipeline::plan::{Force, Plan, PlannedJob},
};

/// Plans and prints.
pub(super) async fn run(session: &Session, args: &Args) -> anyhow::Result<Exit> {
    // What a deploy changes about rights is seen here, before anything runs with them.
    let earlier = session.load_pipeline(&args.selection.pipeline).await.ok();
    let (pipeline, deployed) = session.app.resolve_pipeline(&args.selection.pipeline).await?;
    if let Some(deployed) = &deployed {
        deploy::tell(&session.talk, deployed);
    }
    let rights = Rights {
        gained: grants::missing_in(&pipeline, earlier.as_ref()),
        lost: earlier.as_ref().map(|earlier| grants::missing_in(earlier, Some(&pipeline))).unwrap_or_default(),
    };
    let plan = session.app.plan(&pipeline, &request(&args.selection)).await?;
    let view = View { rights, ..View::new(&pipeline, &plan) };
    if args.json {
        print::json(&view.json())?;
    } else {
        print::text(&view.render(args.jobs, print::is_terminal()))?;
    }
    Ok(Exit::Succeeded)
}

/// Prints how many jobs a plan has, and why, whatever their number.
pub(super) fn tell_counts(pipeline: &Pipeline, plan: &Plan, json: bool) -> anyhow::Result<()> {
    let view = View::new(pipeline, plan);
    if json { print::json(&view.counts_json()) } else { print::text(&view.render(false, print::is_terminal())) }
}

/// What was typed, as the planner takes it.
pub(super) fn request(selection: &Selection) -> PlanRequest {
    PlanRequest {
        wanted: Wanted::Named { assets: selection.assets.clone(), partitions: selection.partitions.clone() },
        with_inputs: !selection.no_inputs,
        force: match (selection.force, selection.force_all) {
            (_, true) => Force::All,
            (true, false) => Force::Selected,
            (false, false) => Force::No,
        },
    }
}

/// A plan and the names that its numbers stand for.
struct View<'a> {
    pipeline: &'a str,
    version: i32,
    assets: Vec<&'a str>,
    plan: &'a Plan,
    rights: Rights,
}

/// How the grants differ from those of the version before. All are gained where there was none.
#[derive(Default)]
struct Rights {
    gained: Vec<String>,
    lost: Vec<String>,
}

impl<'a> View<'a> {
    fn new(pipeline: &'a Pipeline, plan: &'a Plan) -> Self {
        let assets = pipeline.assets.iter().map(|asset| &*asset.bound.definition.name).collect();
        Self { pipeline: &pipeline.name, version: pipeline.number, assets, plan, rights: Rights::default() }
    }

    fn up_to_date(&self) -> u64 {
        self.plan.up_to_date.iter().map(|count| u64::from(*count)).sum()
    }

    fn render(&self, all_jobs: bool, terminal: bool) -> String {
        let jobs = &self.plan.jobs;
        let title = format!("{} v{}", self.pipeline, self.version);
        let mut text = match (jobs.len() as u64, self.up_to_date()) {
            (0, current) => format!("{title} is up to date: {}\n", plural(current, "partition")),
            (count, 0) => format!("{title}: {}\n", plural(count, "job")),
            (count, current) => format!("{title}: {}, {current} up to date\n", plural(count, "job")),
        };
        let mut line = |line: String| writeln!(text, "{line}").expect("writing to a string cannot fail");
        for (asset, count) in self.plan.not_yet.iter().enumerate().filter(|(_, count)| **count > 0) {
            let partitions = plural((*count).into(), "partition");
            line(format!("{partitions} of {} too early: what they need has not ended", one_line(self.assets[asset])));
        }
        if !self.rights.gained.is_empty() || !self.rights.lost.is_empty() {
            line("\ngrants that changed:".to_owned());
            self.rights.gained.iter().for_each(|grant| line(format!("  + {}", one_line(grant))));
            self.rights.lost.iter().for_each(|grant| line(format!("  - {}", one_line(grant))));
        }
        if jobs.is_empty() {
            return text;
        }
        line(format!("\n{}", self.table(terminal).trim_end_matches('\n')));
        if all_jobs || jobs.len() <= PLAN_JOBS_SHOWN_MAX {
            line("\njobs:".to_owned());
            for planned in jobs {
                let name = job(self.assets[planned.asset], planned.partition.as_str());
                line(format!("  {}: {}", one_line(&name), one_line(&planned.reason.to_string())));
            }
        }
        text
    }

    /// By asset: how many jobs, how many partitions are up to date, and the reasons with their counts.
    fn table(&self, terminal: bool) -> String {
        let mut reasons: Vec<BTreeMap<String, u64>> = vec![BTreeMap::new(); self.assets.len()];
        for planned in &self.plan.jobs {
            *reasons[planned.asset].entry(planned.reason.to_string()).or_default() += 1;
        }
        let columns =
            [Column::Text("asset"), Column::Number("jobs"), Column::Number("up to date"), Column::Text("why")];
        let rows = self.assets.iter().enumerate().filter_map(|(asset, name)| {
            let (jobs, current) = (reasons[asset].values().sum::<u64>(), self.plan.up_to_date[asset]);
            let why = match &reasons[asset].iter().collect::<Vec<_>>()[..] {
                [(only, _)] => (*only).clone(),
                several => {
                    several.iter().map(|(reason, count)| format!("{count} {reason}")).collect::<Vec<_>>().join(", ")
                }
            };
            (jobs > 0 || current > 0).then(|| vec![(*name).to_owned(), jobs.to_string(), current.to_string(), why])
        });
        print::table(&columns, rows, terminal)
    }

    /// By asset: jobs, and their reasons with their counts.
    fn counts_json(&self) -> Value {
        let assets = self.assets.iter().enumerate().filter_map(|(asset, name)| {
            let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
            for planned in self.plan.jobs.iter().filter(|planned| planned.asset == asset) {
                *reasons.entry(planned.reason.name()).or_default() += 1;
            }
            let (up_to_date, not_yet) = (self.plan.up_to_date[asset], self.plan.not_yet[asset]);
            (!reasons.is_empty() || up_to_date > 0 || not_yet > 0).then(|| {
                json!({
                    "asset": name,
                    "jobs": reasons.values().sum::<u64>(),
                    "reasons": reasons,
                    "up_to_date": up_to_date,
                    "not_yet": not_yet,
                })
            })
        });
        json!({ "pipeline": self.pipeline, "version": self.version, "assets": assets.collect::<Vec<_>>() })
    }

    fn json(&self) -> Value {
        let mut counts = vec![0_u64; self.assets.len()];
        self.plan.jobs.iter().for_each(|planned| counts[planned.asset] += 1);
        let planned = |planned: &PlannedJob| {
            let label = planned.partition.label();
            json!({
                "asset": self.assets[planned.asset],
                "partition": (!label.is_empty()).then_some(label),
                "partition_key": planned.partition.as_str(),
                "reason": planned.reason.name(),
                "input": planned.reason.input(),
            })
        };
        let assets = self.assets.iter().enumerate().map(|(asset, name)| {
            json!({
                "asset": name,
                "jobs": counts[asset],
                "up_to_date": self.plan.up_to_date[asset],
                "not_yet": self.plan.not_yet[asset],
            })
        });
        json!({
            "pipeline": self.pipeline,
            "version": self.version,
            "assets": assets.collect::<Vec<_>>(),
            "grants": { "gained": self.rights.gained, "lost": self.rights.lost },
            "jobs": self.plan.jobs.iter().map(planned).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::plan::Reason;

    fn planned(asset: usize, partition: &str, reason: Reason) -> PlannedJob {
        PlannedJob { asset, partition: partition.parse().unwrap(), reason, inputs: vec![] }
    }

    fn a_plan() -> Plan {
        let changed = || Reason::InputWillRun { input: "raw".into() };
        Plan {
            jobs: vec![
                planned(0, "none", Reason::CodeChanged),
                planned(1, "month=month:2012-01", changed()),
                planned(1, "month=month:2012-02", Reason::NeverMaterialized),
                planned(1, "month=month:2012-03", changed()),
            ],
            up_to_date: vec![0, 45, 1],
            not_yet: vec![0, 2, 0],
        }
    }

    fn view(plan: &Plan) -> View<'_> {
        View {
            pipeline: "weather",
            version: 3,
            assets: vec!["raw", "monthly", "report"],
            plan,
            rights: Rights::default(),
        }
    }

    #[test]
    fn a_small_plan_names_every_job_with_its_reason() {
        insta::assert_snapshot!(view(&a_plan()).render(false, false), @"
        weather v3: 4 jobs, 46 up to date
        2 partitions of monthly too early: what they need has not ended

        asset    jobs  up to date  why
        raw         1           0  code changed
        monthly     3          45  2 input `raw` will run, 1 never materialized
        report      0           1

        jobs:
          raw: code changed
          monthly[2012-01]: input `raw` will run
          monthly[2012-02]: never materialized
          monthly[2012-03]: input `raw` will run
        ");
    }

    #[test]
    fn a_large_plan_is_counted_unless_every_job_is_asked_for() {
        let job = planned(0, "none", Reason::Forced);
        let plan = Plan { jobs: vec![job; PLAN_JOBS_SHOWN_MAX + 1], up_to_date: vec![0; 3], not_yet: vec![0; 3] };
        let lines = |all| view(&plan).render(all, false).lines().count();
        assert!(lines(false) < 10);
        assert!(lines(true) > PLAN_JOBS_SHOWN_MAX);
    }

    #[test]
    fn a_plan_without_jobs_is_one_line() {
        let plan = Plan { jobs: vec![], up_to_date: vec![1, 48, 1], not_yet: vec![0; 3] };
        assert_eq!(view(&plan).render(true, false), "weather v3 is up to date: 50 partitions\n");
    }

    #[test]
    fn json_has_every_job() {
        let value = view(&a_plan()).json();
        assert_eq!(value["jobs"].as_array().unwrap().len(), 4);
        assert_eq!(value["jobs"][1]["reason"], "input-will-run");
        assert_eq!(value["jobs"][1]["input"], "raw");
        assert_eq!((&value["jobs"][0]["partition"], &value["jobs"][1]["partition"]), (&Value::Null, &json!("2012-01")));
        assert_eq!((&value["assets"][1]["jobs"], &value["assets"][1]["up_to_date"]), (&json!(3), &json!(45)));
    }

    #[test]
    fn counts_are_told_by_reason() {
        let value = view(&a_plan()).counts_json();
        let monthly = json!({
            "asset": "monthly", "jobs": 3, "up_to_date": 45, "not_yet": 2,
            "reasons": { "input-will-run": 2, "never-materialized": 1 },
        });
        assert_eq!((value["assets"].as_array().unwrap().len(), &value["assets"][1]), (3, &monthly));
    }

    #[test]
    fn flags_become_a_request() {
        let selection = |force, force_all| Selection {
            pipeline: "weather".into(),
            assets: vec!["report".into()],
            partitions: vec![],
            no_inputs: force,
            force,
            force_all,
        };
        assert_eq!(request(&selection(false, false)).force, Force::No);
        assert_eq!(request(&selection(true, false)).force, Force::Selected);
        assert_eq!(request(&selection(false, true)).force, Force::All);
        assert!(request(&selection(false, false)).with_inputs);
        assert!(!request(&selection(true, false)).with_inputs);
    }
}
