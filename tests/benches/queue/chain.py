"""A hundred assets in a row, each of which waits for the one before: what one step costs when nothing can be shared."""

from bench import Bench
from flowstone import Workers
from table import median

STEPS = 100
# One chain for so many samples of what is measured one by one.
SAMPLES_A_ROUND = 30
RUN_SECONDS = 120


def measure(bench: Bench):
    site = bench.site("chain")
    with Workers(site, 1), site.session() as session:
        for _ in range(max(bench.samples // SAMPLES_A_ROUND, 1)):
            run = site.run("run", "queue", f"step_{STEPS - 1}", "--detach", "--force-all")
            session.wait_until(f"select state <> 'running' from run where run_id = '{run}'", RUN_SECONDS)
        took = session.rows(
            f"""select extract(epoch from max(r.finished_at) - min(a.started_at)) * 1000 / {STEPS} as ms
                from run r join job j using (tenant_id, run_id) join attempt a using (tenant_id, job_id)
                where r.jobs = {STEPS} and r.succeeded = {STEPS} group by run_id"""
        )
    steps = [row["ms"] for row in took]
    bench.row(
        f"a chain of {STEPS}, a step", median(steps), "ms", at_most=5.0,
        note=f"{min(steps):.2f} to {max(steps):.2f} in {len(steps)} runs",
    )  # fmt: skip
