"""A tenant with very many jobs, and another with one at a time: how long the one waits.

Only what was begun while the first tenant still had jobs that nobody had claimed is counted.
"""

import time
from random import uniform

from bench import Bench
from flowstone import Workers, hours
from table import median, percentile

BEFORE = 40
"""Samples of the idle system, to compare with."""
JOB_SECONDS = 60
BEGIN_SECONDS = 600
GREAT = "great"


def measure(bench: Bench):
    site = bench.site("fairness")
    with site.submitter() as small, site.submitter(GREAT) as great, site.session() as session:
        great.deploy()
        with Workers(site, 1):
            ready = great.submit("left")["run"], great.submit("right")["run"]
            for run in ready:
                wait_for(session, run)
            idle = [sample(session, small) for _ in range(BEFORE)]
        backlog = great.submit("noop", hours(0, bench.jobs))["run"]
        site.server.settle(site.database)
        loaded = []
        with Workers(site, 1):
            # The first moments are those of a process that has just begun.
            session.wait_until(f"select succeeded > 1000 from run where run_id = '{backlog}'", BEGIN_SECONDS, every=0.1)
            while True:
                asked = sample(session, small)
                left = session.value(
                    f"select exists (select from job_ready where tenant_id = '{GREAT}') as has_jobs_left"
                )
                if not left:
                    break
                loaded.append(asked)
        began = began_ns(session)
        waits = [(began[run] - submitted) / 1e6 for run, submitted in loaded]
        idle = [(began[run] - submitted) / 1e6 for run, submitted in idle]
        if not waits:
            raise RuntimeError(f"{bench.jobs} jobs of the other tenant were done before one was measured: take more")
        batch = session.value(
            f"""select count(*)::float8 / count(distinct token) as jobs from attempt
                where tenant_id = '{GREAT}' and verdict = 'succeeded'"""
        )
        # Of the great tenant, how much was begun while the small one waited.
        passed = [
            session.value(
                f"""select count(distinct token) as claims from attempt where tenant_id = '{GREAT}'
                    and started_at between to_timestamp({submitted / 1e9:.6f}) and to_timestamp({began[run] / 1e9:.6f})"""
            )
            for run, submitted in loaded[: 20 if bench.quick else 100]
        ]
    for percent in (50, 99):
        bench.row(
            f"one job beside {bench.jobs:,} of another tenant, p{percent}", percentile(waits, percent), "ms",
            beside="the same, idle", other=percentile(idle, percent), note=f"{len(waits)} samples",
        )  # fmt: skip
    bench.row(
        "claims of the other tenant that went on meanwhile", median(passed), "", at_most=5.0,
        note=f"at most {max(passed)}; a claim took {batch:.0f} jobs on average",
    )  # fmt: skip


def sample(session, submitter) -> tuple[str, int]:
    """One job from its submission to its end: its run, and when it was submitted."""
    time.sleep(uniform(0.02, 0.08))
    answer = submitter.submit("stamp")
    wait_for(session, answer["run"])
    return answer["run"], answer["planned_ns"]


def wait_for(session, run: str):
    session.wait_until(f"select state <> 'running' from run where run_id = '{run}'", JOB_SECONDS, every=0.01)


def began_ns(session) -> dict[str, int]:
    rows = session.rows(
        """select run_id, field->>'value' as began from materialization, jsonb_array_elements(metadata) as field
           where tenant_id = 'default' and field->>'name' = 'began'"""
    )
    return {row["run_id"]: int(row["began"]) for row in rows}
