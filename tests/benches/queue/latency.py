"""One job at a time on an idle system: from its submission by another process to its first instruction."""

import random
import time

from bench import Bench
from flowstone import Workers
from table import percentile

# Of the command, which is a process each time, one for so many samples.
SAMPLES_A_COMMAND = 20
# Until each connection of either process has prepared and planned its statements: a worker that is up has.
WARM_UP = 50
JOB_SECONDS = 30


def measure(bench: Bench):
    site = bench.site("latency")
    samples = bench.samples
    with Workers(site, 1), site.submitter() as submitter, site.session() as session:
        submitted = []
        for n in range(WARM_UP + samples):
            rest()
            answer = submitter.submit("stamp")
            wait_for(session, answer["run"])
            if n >= WARM_UP:
                submitted.append(answer)
        began = began_ns(session)
        detached = []
        for _ in range(max(samples // SAMPLES_A_COMMAND, 2)):
            rest()
            asked_ns = time.time_ns()
            run = site.run("run", "queue", "stamp", "--detach")
            wait_for(session, run)
            detached.append((run, asked_ns))
        began_detached = began_ns(session)
    peer = bench.peers.latency_ms(bench.server, samples) if bench.peers else None

    def since(moment):
        return [(began[answer["run"]] - answer[moment]) / 1e6 for answer in submitted]

    for percent, target in ((50, 2.5), (99, 4.0)):
        beside = {}
        if peer:
            beside = {"beside": f"graphile-worker by NOTIFY, p{percent}", "other": percentile(peer, percent)}
        bench.row(
            f"submission to first instruction, p{percent}",
            percentile(since("planned_ns"), percent),
            "ms",
            at_most=target,
            **beside,
        )
    for what, moment in (("with its plan", "asked_ns"), ("from when it is submitted", "submitted_ns")):
        for percent in (50, 99):
            bench.row(f"the same, {what}, p{percent}", percentile(since(moment), percent), "ms")
    commands = [(began_detached[run] - asked_ns) / 1e6 for run, asked_ns in detached]
    bench.row("`run --detach` to first instruction, p50", percentile(commands, 50), "ms", note="from the process' start")


def rest():
    """Until nothing that follows the last job is under way, and not in step with anything that polls."""
    time.sleep(random.uniform(0.04, 0.12))


def wait_for(session, run: str):
    session.wait_until(f"select state <> 'running' from run where run_id = '{run}'", JOB_SECONDS, every=0.01)


def began_ns(session) -> dict[str, int]:
    """When the first instruction of each `stamp` ran, by its run."""
    rows = session.rows(
        """select run_id, field->>'value' as began from materialization, jsonb_array_elements(metadata) as field
           where field->>'name' = 'began'"""
    )
    return {row["run_id"]: int(row["began"]) for row in rows}
