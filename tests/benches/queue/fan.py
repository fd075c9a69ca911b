"""Ten thousand assets behind one: how long the jobs of another run stand still while they are released.

The other run is a queue that was filled before and goes on beyond both ends of what is looked at: with nothing of it
left, there would be no pause to see.
"""

from bench import Bench
from flowstone import Workers

FAN = 10_000
# Of the other run, whose pipeline takes turns with the fan's: it has ten thousand jobs' time before the fan, as much
# beside it, and more afterwards.
BESIDE = 60_000
# Jobs of the other run that are left at the fan's end.
MARGIN = 2_000
RUN_SECONDS = 600


def measure(bench: Bench):
    site = bench.site("fan")
    site.deploy_as("beside")
    beside = site.prefill(BESIDE, pipeline="beside")
    site.server.settle(site.database)
    with Workers(site, 1), site.session() as session:
        far = f"select succeeded > {FAN} from run where run_id = '{beside}'"
        session.wait_until(far, RUN_SECONDS, every=0.1)
        fan = site.run("run", "queue", "fan", "--detach")
        session.wait_until(f"select state <> 'running' from run where run_id = '{fan}'", RUN_SECONDS, every=0.1)
        (left,) = session.rows(f"select succeeded, jobs - succeeded > {MARGIN} as goes_on from run where run_id = '{beside}'")
        if not left["goes_on"]:
            raise RuntimeError(f"the other run was over before the fan: {BESIDE} jobs are too few for this machine")
        # A pause at the fan's end has an end too.
        beyond = f"select succeeded > {left['succeeded']} + {MARGIN // 2} from run where run_id = '{beside}'"
        session.wait_until(beyond, RUN_SECONDS, every=0.1)
        (window,) = session.rows(
            f"""select min(e.ended_at)::text as began, max(e.ended_at)::text as ended, count(*) as jobs,
                    extract(epoch from max(e.ended_at) - min(e.ended_at)) as seconds, min(r.created_at)::text as asked
                from job_end e join job using (tenant_id, job_id) join run r using (tenant_id, run_id)
                where run_id = '{fan}' and e.state = 'succeeded'"""
        )
        before = longest_pause(session, beside, "-infinity", window["asked"])
        during = longest_pause(session, beside, window["began"], window["ended"])
    if window["jobs"] != FAN + 1:
        raise RuntimeError(f"{window['jobs']} jobs of the fan were made")
    note = f"of another run, from the root's end to the fan's, {window['seconds']:.1f} s; {during['ends']} commits seen"
    bench.row(
        f"a fan of {FAN:,}: longest pause", during["ms"], "ms", at_most=50.0,
        beside="the same run before it", other=before["ms"], note=note,
    )  # fmt: skip


def longest_pause(session, run: str, began: str, ended: str) -> dict:
    """Between two ends of jobs of a run, of those pauses of which any part lies between these moments. All jobs of a
    commit end at once."""
    (pause,) = session.rows(
        f"""select count(*) as ends, coalesce(max(extract(epoch from next - ended_at)) * 1000, 0) as ms
            from (select ended_at, lead(ended_at) over (order by ended_at) as next
                  from (select distinct ended_at from job_end join job using (tenant_id, job_id)
                        where run_id = '{run}') as ends) as pauses
            where next >= '{began}' and ended_at <= '{ended}'"""
    )
    return pause
