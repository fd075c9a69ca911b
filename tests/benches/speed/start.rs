//! A new process: how soon a component that was compiled before runs its first instruction.

use std::time::Duration;

use crate::{
    guests::Deployed,
    table::Row,
    watched::{spawn, watch},
};

const ROUNDS: usize = 21;

/// `flowstone run` of an asset that does nothing, with a server that is up, beside the start of another interpreter.
pub fn measure() -> Vec<Row> {
    let deployed = Deployed::new("bench");
    let (mut began, mut ended, mut python) = (Vec::new(), Vec::new(), Vec::new());
    time_run(&deployed);
    for _ in 0..ROUNDS {
        let (start, end) = time_run(&deployed);
        began.push(millis(start));
        ended.push(millis(end));
        python.push(millis(spawn("python3", &["-c", "pass"])));
    }
    vec![
        Row::new("process start to first attempt", "ms", began)
            .against("python3 -c pass", python.clone())
            .at_most(150.0),
        Row::new("process start to its end", "ms", ended).against("python3 -c pass", python),
    ]
}

fn time_run(deployed: &Deployed) -> (Duration, Duration) {
    let mut began = None;
    let watched = watch(deployed.command("run", &["noop", "--force", "--json"]), |line, at, _| {
        if line.starts_with(r#"{"event":"job.started""#) {
            began = Some(at);
        }
    });
    (began.expect("the job was started"), watched.took)
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
