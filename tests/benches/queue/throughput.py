"""A queue that was filled before: how many jobs a second, and what each costs. `held` is the same while somebody holds a
transaction open."""

from contextlib import contextmanager
from dataclasses import dataclass

from bench import Bench
from flowstone import Site, Workers
from peers import PEERS
from server import Meter, Spent

WORKERS = (1, 2, 4)
# For a queue of any size that is measured here.
QUEUE_SECONDS = 1_800


@dataclass
class Course:
    """What became of a filled queue."""

    jobs: int
    seconds: float
    middle_rate: float
    """Of the jobs between the first and the last tenth, for every worker has its first moments."""
    worker_cpu: float
    spent: Spent
    dead: int
    """Dead tuples of all tables, at the end."""


@contextmanager
def free(_server, _database):
    """Nobody holds anything."""
    yield


@contextmanager
def held(server, database):
    """A transaction that sees the database as it is now, and keeps vacuum from removing what others delete."""
    with server.session(database) as session:
        session.run("begin isolation level repeatable read")
        session.run("select count(*) from pg_class")
        yield
        session.run("rollback")


def measure(bench: Bench):
    against(bench, free, "")


def measure_held(bench: Bench):
    against(bench, held, ", held")


def against(bench: Bench, holding, suffix: str):
    filled = bench.filled(bench.jobs)
    first = None
    for workers in WORKERS:
        course = follow(filled, bench.jobs, workers, holding)
        rate = course.jobs / course.seconds
        name = f"FlowStone, {workers} worker{'s' if workers > 1 else ''}{suffix}"
        beside = {"beside": f"1 worker{suffix}", "other": first} if first else {}
        bench.row(name, rate, "jobs/s", at_least=15_000 if workers == 1 else None, **beside, note=costs(course))
        bench.row(f"{name}: middle eight tenths", course.middle_rate, "jobs/s")
        if first is None:
            first = rate
            bench.row(f"{name}: WAL", course.spent.wal_bytes / course.jobs, "bytes/job", at_most=1_536)
            bench.row(f"{name}: commits", course.spent.commits / course.jobs, "a job", at_most=0.02)
            bench.row(f"{name}: dead tuples at the end", course.dead / course.jobs, "a job")
    if not bench.peers:
        bench.say("the peers are left out")
        return
    for peer in PEERS:
        bench.say(f"{peer.name} fills its queue")
        done = bench.peers.measure(bench.server, peer, bench.jobs, holding)
        note = (
            f"{done.jobs:,} jobs; CPU us/job: {micros(done.cpu_seconds, done.jobs)} its process,"
            f" {micros(done.spent.server_cpu, done.jobs)} Postgres; WAL {done.spent.wal_bytes / done.jobs:,.0f} B/job,"
            f" {done.spent.commits / done.jobs:.4f} commits/job"
        )
        bench.row(
            f"FlowStone, 1 worker{suffix}", first, "jobs/s", beside=peer.name, other=done.jobs / done.seconds, note=note
        )


def micros(seconds: float, jobs: int) -> str:
    return f"{seconds * 1e6 / jobs:.0f}"


def costs(course: Course) -> str:
    spent, jobs = course.spent, course.jobs
    return (
        f"CPU us/job: {micros(course.worker_cpu, jobs)} workers, {micros(spent.server_cpu, jobs)} Postgres;"
        f" {course.worker_cpu / course.seconds:.2f} and {spent.server_cpu / course.seconds:.2f} cores;"
        f" WAL {spent.wal_bytes / jobs:,.0f} B/job of which {spent.wal_fpi / jobs:.3f} full pages;"
        f" {spent.commits / jobs:.4f} commits/job; {course.dead:,} dead tuples"
    )


def follow(filled: Site, jobs: int, workers: int, holding=free) -> Course:
    """So many workers on a copy of the filled queue, from when the first one takes jobs to the end of the run."""
    site = filled.on("measured")
    server = site.server
    server.create(site.database, filled.database)
    try:
        server.settle(site.database)
        with holding(server, site.database):
            meter = Meter(server, site.database)
            with Workers(site, workers) as running:
                with site.session() as session:
                    over = "select not exists (select from run where state = 'running')"
                    session.wait_until(over, QUEUE_SECONDS, every=0.1)
                    asked = session.statements
                worker_cpu = sum(worker.cpu_seconds() for worker in running)
                began = running[0].ready_at
            spent = meter.spent()
            spent.commits -= asked
        with site.session() as session:
            ended, dead = session.value("select extract(epoch from max(finished_at)) from run"), dead_tuples(session)
            # What has been written since was never counted, and the next question would take hours on what is known.
            session.run("analyze job, job_end, run")
            middle = middle_rate(session, jobs)
        return Course(jobs, ended - began, middle, worker_cpu, spent, dead)
    finally:
        server.drop(site.database)


def dead_tuples(session) -> int:
    return session.value("select coalesce(sum(n_dead_tup), 0) as dead from pg_stat_user_tables")


def middle_rate(session, jobs: int) -> float:
    """By the times of the commits; that the queue was worked on, and not passed over, is looked at here."""
    (ends,) = session.rows(
        f"""select count(*) as made,
                extract(epoch from max(ended_at) filter (where place = {jobs * 9 // 10})
                    - max(ended_at) filter (where place = {jobs // 10})) as seconds
            from (select ended_at, row_number() over (order by ended_at) as place
                  from job_end e join job using (tenant_id, job_id) join run using (tenant_id, run_id)
                  where run.jobs = {jobs} and e.state = 'succeeded' and not e.reused) as ended"""
    )
    if ends["made"] != jobs:
        raise RuntimeError(f"{ends['made']} of {jobs} jobs were made")
    return jobs * 0.8 / ends["seconds"] if ends["seconds"] else 0.0
