"""FlowStone as it is deployed: the program, a database, blobs, and any number of workers and submitters."""

import json
import os
import select
import shutil
import signal
import subprocess
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path

from server import Server, process_cpu, resident_bytes

ROOT = Path(__file__).resolve().parents[3]
GUEST = ROOT / "tests/guests/queue"
FIRST_HOUR = datetime(1900, 1, 1)
# For a command that only asks, deploys or submits; a million jobs are planned and inserted in some minutes.
COMMAND_SECONDS = 900
# A worker is ready in a fraction of a second, and stops when its guests have.
WORKER_SECONDS = 60


class Programs:
    """What was built."""

    def __init__(self, folder: Path):
        self.flowstone = folder / "flowstone"
        self.submit = folder / "submit"
        for program in (self.flowstone, self.submit):
            if not program.exists():
                raise SystemExit(f"error: {program} is missing: run this with scripts/bench queue")


class Site:
    """A database with the pipeline `queue` deployed, and the state directory that its processes share."""

    def __init__(self, server: Server, programs: Programs, state: Path, database: str):
        self.server, self.programs, self.state, self.database = server, programs, state, database

    def on(self, database: str) -> "Site":
        """The same files with another database, which is a copy of this one's."""
        return Site(self.server, self.programs, self.state, database)

    def environment(self) -> dict:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        return {
            **kept,
            "DATABASE_URL": self.server.url(self.database),
            "FLOWSTONE_STATE": str(self.state),
            "FLOWSTONE_MANIFEST_RESOURCES": "allow",
        }

    def run(self, *arguments: str) -> str:
        """A command to its end, which must be a success."""
        command = [str(self.programs.flowstone), "--quiet", *arguments]
        done = subprocess.run(
            command, env=self.environment(), cwd=self.state, capture_output=True, text=True, timeout=COMMAND_SECONDS
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}{done.stdout}")
        return done.stdout.strip()

    def prepare(self):
        """Deploys, and makes what the others read."""
        self.server.create(self.database)
        self.run("deploy", str(GUEST))
        self.run("run", "queue", "left", "right")

    def deploy_as(self, name: str):
        """The same assets once more, as another pipeline."""
        text = (GUEST / "flowstone.toml").read_text().replace('name = "queue"', f'name = "{name}"')
        folder = self.state / name
        folder.mkdir()
        (folder / "flowstone.toml").write_text(text.replace('path = "target', f'path = "{GUEST}/target'))
        self.run("deploy", str(folder))
        self.run("run", name, "left", "right")

    def prefill(self, jobs: int, asset: str = "noop", first: int = 0, pipeline: str = "queue") -> str:
        """Submits so many jobs, with no worker up; returns the run."""
        return self.run("run", pipeline, asset, "--detach", "--no-inputs", "--partition", hours(first, jobs))

    def session(self):
        return self.server.session(self.database)

    def work(self, *flags: str) -> "Worker":
        return Worker(self, flags)

    def submitter(self, tenant: str = "default") -> "Submitter":
        return Submitter(self, tenant)


def hours(first: int, count: int) -> str:
    """So many partitions of an hourly asset, from this one on."""
    ends = (FIRST_HOUR + timedelta(hours=place) for place in (first, first + count - 1))
    return "..".join(end.strftime("%Y-%m-%dT%H") for end in ends)


class Worker:
    """`flowstone work`, from the moment on in which it takes jobs. Its log is kept, for when it dies."""

    def __init__(self, site: Site, flags=(), verb: str = "work"):
        command = [str(site.programs.flowstone), verb, *flags]
        self.process = subprocess.Popen(
            command, env=site.environment(), cwd=site.state, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self.log = []
        self.ready = threading.Event()
        self.ready_at = 0.0
        """By the machine's clock, which is the database's too."""
        threading.Thread(target=self.read, daemon=True).start()
        end = time.monotonic() + WORKER_SECONDS
        while not self.ready.wait(0.01):
            if self.process.poll() is not None or time.monotonic() > end:
                self.process.kill()
                raise RuntimeError(f"a worker does not start: {''.join(self.log)}")

    def read(self):
        for line in self.process.stderr:
            self.log.append(line)
            if "takes jobs" in line:
                self.ready_at = time.time()
                self.ready.set()

    @property
    def pid(self) -> int:
        return self.process.pid

    def cpu_seconds(self) -> float:
        return process_cpu(self.pid)

    def resident_bytes(self) -> int:
        return resident_bytes(self.pid)

    def stop(self):
        """As an operator does; a worker that does not stop is an error."""
        self.process.send_signal(signal.SIGINT)
        try:
            status = self.process.wait(WORKER_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise RuntimeError(f"a worker does not stop: {''.join(self.log)}") from None
        if status:
            raise RuntimeError(f"a worker ended with {status}: {''.join(self.log)}")

    def kill(self):
        """For whoever is in trouble already."""
        self.process.kill()
        self.process.wait()


class Workers:
    """Some workers, which are gone afterwards whatever happens."""

    def __init__(self, site: Site, count: int, *flags: str):
        self.workers = []
        try:
            for _ in range(count):
                self.workers.append(site.work(*flags))
        except BaseException:
            self.kill()
            raise

    def __enter__(self):
        return self.workers

    def __exit__(self, kind, *_):
        if kind:
            self.kill()
        else:
            for worker in self.workers:
                worker.stop()

    def kill(self):
        for worker in self.workers:
            worker.kill()


class Submitter:
    """Another process, which stays connected and submits when it is told."""

    def __init__(self, site: Site, tenant: str):
        command = [str(site.programs.submit), tenant, str(site.programs.flowstone), str(site.state)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, env=site.environment(), stdin=pipe, stdout=pipe, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        try:
            self.process.wait(WORKER_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def ask(self, **request) -> dict:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], COMMAND_SECONDS)[0]:
            raise TimeoutError(f"the submitter does not answer to {request}")
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the submitter ended at {request}")
        return json.loads(line)

    def deploy(self, manifest: Path = GUEST):
        self.ask(deploy=str(manifest))

    def submit(self, asset: str, partitions: str | None = None, force: bool = False) -> dict:
        """Returns the run, its jobs, and when it was asked for, planned and submitted, in ns since 1970."""
        return self.ask(
            pipeline="queue", assets=[asset], partitions=[partitions] if partitions else [], force=force
        )


def remove(folder: Path):
    shutil.rmtree(folder, ignore_errors=True)
