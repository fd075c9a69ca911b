"""What a worker holds in memory: over very many jobs, and with a thousand guests that wait at once."""

import selectors
import socket
import threading
import time

from bench import Bench
from flowstone import ROOT, Workers, hours

JOBS, JOBS_QUICK = 1_000_000, 50_000
# Jobs of one run: a plan of a million is measured elsewhere.
RUN_JOBS = 200_000
WAITING, WAITING_QUICK = 1_000, 200
MEGABYTE = 1e6
LOOK_SECONDS = 0.25
WORK_SECONDS = 3_600
ARRIVE_SECONDS = 300


def measure(bench: Bench):
    """Resident memory while a worker does a million jobs, from the first tenth on: until then it fills what it keeps."""
    jobs = JOBS_QUICK if bench.quick else max(JOBS, bench.jobs)
    site = bench.site("memory")
    for first in range(0, jobs, RUN_JOBS):
        bench.say(f"{min(RUN_JOBS, jobs - first):,} jobs are submitted")
        site.prefill(min(RUN_JOBS, jobs - first), first=first)
    site.server.settle(site.database)
    seen = []
    with Workers(site, 1) as (worker,), site.session() as session:
        end = time.monotonic() + WORK_SECONDS
        while True:
            done = session.value("select sum(succeeded) as jobs from run where jobs > 2")
            seen.append((done, worker.resident_bytes() / MEGABYTE))
            if done >= jobs:
                break
            if time.monotonic() > end:
                raise TimeoutError(f"{done} of {jobs} jobs after {WORK_SECONDS} s")
            time.sleep(LOOK_SECONDS)
    tenths = [[held for done, held in seen if jobs * n / 10 <= done < jobs * (n + 1) / 10] for n in range(10)]
    most = [max(tenth) for tenth in tenths if tenth]
    if len(most) < 3:
        raise RuntimeError(f"{jobs} jobs were done in {len(seen)} looks: take more")
    bench.say("resident MB, the most of each tenth: " + " ".join(f"{held:.0f}" for held in most))
    bench.row(
        f"resident in the last tenth of {jobs:,} jobs", most[-1], "MB", beside="in the second tenth", other=most[1],
        note=f"at most {max(most[1:]):.0f} after the first tenth",
    )  # fmt: skip


def measure_waiting(bench: Bench):
    """Guests that wait for the answer of a server that gives none before all have asked."""
    guests = WAITING_QUICK if bench.quick else WAITING
    site = bench.site("waiting")
    server = Withholding(guests)
    folder = site.state / "waits"
    folder.mkdir()
    component = ROOT / "tests/guests/waiting/target/wasm32-wasip2/release/waiting_guests.wasm"
    (folder / "flowstone.toml").write_text(
        f"""[pipeline]
name = "waits"
[[components]]
path = "{component}"
[resources.api]
kind = "http"
url = "http://127.0.0.1:{server.port}"
networks = ["127.0.0.0/8"]
first_byte_timeout = "600s"
timeout = "600s"
[assets.waits]
grants.api = {{ paths = ["**"] }}
limits = {{ timeout = "900s" }}
"""
    )
    site.run("deploy", str(folder))
    with Workers(site, 1, "--concurrency", str(guests)) as (worker,), site.session() as session:
        idle = worker.resident_bytes() / MEGABYTE
        run = site.run("run", "waits", "waits", "--detach", "--partition", hours(0, guests))
        most = 0.0
        end = time.monotonic() + ARRIVE_SECONDS
        while not server.all_are_there.wait(LOOK_SECONDS):
            most = max(most, worker.resident_bytes() / MEGABYTE)
            if time.monotonic() > end:
                raise TimeoutError(f"{server.arrived} of {guests} guests have asked after {ARRIVE_SECONDS} s")
        most = max(most, worker.resident_bytes() / MEGABYTE)
        server.answer()
        session.wait_until(f"select state <> 'running' from run where run_id = '{run}'", ARRIVE_SECONDS, every=0.1)
        made = session.value(f"select succeeded from run where run_id = '{run}'")
    if made != guests:
        raise RuntimeError(f"{made} of {guests} guests had their answer")
    bench.row(
        f"resident while {guests:,} guests wait for an answer", most, "MB", at_most=1_074.0,
        beside="the worker before", other=idle, note=f"{(most - idle) * 1000 / guests:.0f} kB each",
    )  # fmt: skip


class Withholding:
    """A server that answers nobody until it is told to, when so many have asked."""

    def __init__(self, expected: int):
        self.expected, self.arrived = expected, 0
        self.all_are_there, self.may_answer = threading.Event(), threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=expected)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        asked = {}
        selector = selectors.DefaultSelector()
        selector.register(self.listener, selectors.EVENT_READ)
        while self.arrived < self.expected:
            for key, _ in selector.select():
                if key.fileobj is self.listener:
                    connection, _ = self.listener.accept()
                    asked[connection] = b""
                    selector.register(connection, selectors.EVENT_READ)
                    continue
                connection = key.fileobj
                asked[connection] += connection.recv(1 << 16)
                if b"\r\n\r\n" in asked[connection]:
                    self.arrived += 1
                    selector.unregister(connection)
        self.all_are_there.set()
        self.may_answer.wait()
        for connection in asked:
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            connection.close()

    def answer(self):
        self.may_answer.set()
