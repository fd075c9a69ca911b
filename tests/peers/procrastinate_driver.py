"""procrastinate: one call of an empty function for each job. Finished jobs stay in its table, as they do by default."""

import asyncio
import json
import resource
import sys
import time

import procrastinate

CONCURRENCY = 24
DEFERRED_AT_ONCE = 5_000

app = procrastinate.App(connector=procrastinate.PsycopgConnector(min_size=4, max_size=CONCURRENCY + 2))


@app.task(name="noop")
async def noop(n):
    pass


async def fill(jobs):
    await app.schema_manager.apply_schema_async()
    for begin in range(0, jobs, DEFERRED_AT_ONCE):
        await noop.batch_defer_async(*({"n": n} for n in range(begin, min(begin + DEFERRED_AT_ONCE, jobs))))


async def work(jobs):
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    # Ends when nothing is left, and only after it has written how each job ended.
    await app.run_worker_async(concurrency=CONCURRENCY, wait=False, listen_notify=False, install_signal_handlers=False)
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    sql = "select count(*) as count from procrastinate_jobs where status in ('todo', 'doing')"
    left = (await app.connector.execute_query_one_async(sql))["count"]
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"jobs": jobs, "seconds": seconds, "left": left, "cpu_seconds": cpu}), flush=True)


async def main(verb, jobs):
    async with app.open_async():
        await {"fill": fill, "work": work}[verb](jobs)


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
