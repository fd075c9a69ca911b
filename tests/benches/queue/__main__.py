"""What FlowStone promises of its queue, measured on one durable Postgres, beside other queues on the same one.

    scripts/bench queue [--quick] [--jobs N] [--samples N] [--minutes N] [--no-peers] [GROUP]...

`docs/benchmarks.md` says what each figure means. Nothing fails because of a figure: machines differ, and a busy one is
not wrong. A group that cannot be measured at all is an error, and the others go on.
"""

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from datetime import datetime, timezone
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import chain
import fairness
import fan
import latency
import memory
import soak
import throughput
from bench import Bench
from flowstone import ROOT, Programs, remove
from peers import Peers
from server import Server
from table import render

GROUPS = {
    "throughput": throughput.measure,
    "held": throughput.measure_held,
    "latency": latency.measure,
    "chain": chain.measure,
    "fan": fan.measure,
    "fairness": fairness.measure,
    "memory": memory.measure,
    "waiting": memory.measure_waiting,
    "soak": soak.measure,
}
JOBS, JOBS_QUICK = 200_000, 20_000
SAMPLES, SAMPLES_QUICK = 600, 100


def main() -> int:
    arguments = parse()
    # A signal ends it as an error does: the server and the workers go with it.
    for stop in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, lambda *_: sys.exit(1))
    jobs = arguments.jobs or (JOBS_QUICK if arguments.quick else JOBS)
    samples = arguments.samples or (SAMPLES_QUICK if arguments.quick else SAMPLES)
    peers = None if arguments.no_peers else Peers(arguments.peers)
    programs = Programs(arguments.programs)
    folder = Path(tempfile.mkdtemp(prefix="bench-queue-"))
    began = time.monotonic()
    failed = []
    server = Server(*postgres())
    bench = Bench(server, programs, peers, folder, arguments.quick, jobs, samples, arguments.minutes)
    try:
        for name in arguments.groups or GROUPS:
            print(f"\n== {name}", file=sys.stderr, flush=True)
            try:
                GROUPS[name](bench)
            except Exception:
                traceback.print_exc()
                failed.append(name)
    finally:
        server.close()
        remove(folder)
    print(f"{machine(began)}\n\n{render(bench.rows)}")
    if failed:
        print(f"\nnot measured: {', '.join(failed)}; see above why")
    return 1 if failed else 0


def parse():
    parser = argparse.ArgumentParser(prog="scripts/bench queue", description=__doc__.split("\n")[0])
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"{', '.join(GROUPS)} [default: all]")
    parser.add_argument("--quick", action="store_true", help="fewer jobs and samples: whether it works at all")
    parser.add_argument("--jobs", type=positive, help=f"of a queue that is filled before [default: {JOBS:,}]")
    parser.add_argument("--samples", type=positive, help=f"of what is measured one by one [default: {SAMPLES}]")
    parser.add_argument("--minutes", type=positive, help="of the soak [default: 30]")
    parser.add_argument("--no-peers", action="store_true", help="without the other queues")
    # What scripts/bench knows.
    parser.add_argument("--programs", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--peers", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    for unknown in set(arguments.groups) - set(GROUPS):
        parser.error(f"there is no group {unknown!r}; there are {', '.join(GROUPS)}")
    if not arguments.no_peers and not arguments.peers:
        parser.error("--peers says where they are, --no-peers that there are none")
    return arguments


def postgres() -> tuple[Path, str]:
    """Its programs, and who runs it."""
    found = '. "$0" && postgres_bin && server_account'
    library = ROOT / "scripts/lib/postgres"
    done = subprocess.run(["bash", "-c", found, library], capture_output=True, text=True, check=True)
    programs, account = done.stdout.split()
    return Path(programs), account


def positive(text: str) -> int:
    # As many hours as the asset `noop` has.
    if not text.isdigit() or not 0 < int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError("a number from 1 to 1000000")
    return int(text)


def machine(began: float) -> str:
    """Where and when."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = names[0].split(": ")[1] if names else platform.processor()
    load = Path("/proc/loadavg").read_text().split()[0]
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    took = (time.monotonic() - began) / 60
    return f"{now}, {os.cpu_count()} x {name}, load {load} at the end, {took:.0f} minutes"


if __name__ == "__main__":
    sys.exit(main())
