"""Steady mixed load for a long time: the last minute does as much as the first, and nothing is left undone.

Each second so many jobs with two inputs, jobs whose first attempt fails, and jobs of their own, submitted by another
process while the worker works: about a tenth of what one worker can do on 2 cores. Whoever falls behind has fewer ends
in the last minute, and more left. More would fill the disk: a job with its inputs, edges and record takes some 7 kB.
"""

import time

from bench import Bench
from flowstone import Workers, hours

MINUTES, MINUTES_QUICK = 30, 2
MINUTE = 60.0
# The process loads what it needs, and its tables get their statistics.
WARM_UP_SECONDS = 15.0
# What is submitted at a time, and how often.
RUN_JOBS, FAILING_JOBS = 900, 100
RUN_SECONDS = 1.0
# As many hours as the assets have.
HOURS = 1_000_000


def measure(bench: Bench):
    minutes = bench.minutes or (MINUTES_QUICK if bench.quick else MINUTES)
    site = bench.site("soak")
    with Workers(site, 1) as (worker,), site.submitter() as submitter, site.session() as session:
        first, began = 0, time.time()
        end = began + WARM_UP_SECONDS + minutes * MINUTE
        resident = worker.resident_bytes()
        turn = 0
        while (now := time.time()) < end:
            due = began + turn * RUN_SECONDS
            if now < due:
                time.sleep(due - now)
            # After all hours it begins anew: what is made again is work all the same.
            submitter.submit("noop", hours(first, RUN_JOBS), force=True)
            submitter.submit("fails", hours(first, FAILING_JOBS), force=True)
            submitter.submit("stamp")
            first = (first + RUN_JOBS) % (HOURS - RUN_JOBS)
            turn += 1
        left = session.value("select coalesce(sum(jobs - succeeded), 0) as jobs from run where state = 'running'")
        resident = worker.resident_bytes() - resident
        begin = began + WARM_UP_SECONDS
        ended = [
            session.value(
                f"""select count(*) as jobs from job_end where state = 'succeeded'
                    and ended_at >= to_timestamp({begin + minute * MINUTE:.3f})
                    and ended_at < to_timestamp({begin + (minute + 1) * MINUTE:.3f})"""
            )
            for minute in range(int(minutes))
        ]
        dead = session.value("select coalesce(sum(n_dead_tup), 0) as dead from pg_stat_user_tables")
        retried = session.value("select count(*) as attempts from attempt where verdict = 'failed'")
    bench.say("jobs in each minute: " + " ".join(map(str, ended)))
    bench.row(
        f"soak of {minutes:.0f} minutes: jobs/s of the last minute", ended[-1] / MINUTE, "jobs/s",
        beside="of the first", other=ended[0] / MINUTE,
        note=f"ratio >= 0.95 {'met' if ended[-1] >= 0.95 * ended[0] else 'MISSED'}; {sum(ended):,} jobs, of which"
        f" {retried:,} needed a second attempt; {left:,} left, {dead:,} dead tuples at the end;"
        f" resident +{resident / 1e6:.0f} MB",
    )  # fmt: skip
