"""The Postgres that everything is measured on: one of its own, durable, for the length of the benchmark.

Not the embedded one: peers and several workers share it, and `shared_buffers` is what an operator would set.
"""

import json
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

# Beside Postgres' own defaults, fsync and synchronous_commit among them. A checkpoint is made before each measurement,
# and with this much log none falls into one.
SETTINGS = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "512MB",
    "max_wal_size": "8GB",
    "jit": "off",
}
USER = "flowstone"
# For a statement that does not answer: the benchmark is wrong then, and says so.
STATEMENT_SECONDS = 600
END = "-- this statement has ended --"


class Server:
    """Dropped by `close`, with all that was in it."""

    def __init__(self, bin: Path, account: str):
        self.bin = bin
        # Under /tmp alone everybody can reach a folder that another account made; the data is as large as the benchmark.
        base = Path("/var/lib/flowstone") if os.getuid() == 0 else None
        if base:
            base.mkdir(exist_ok=True)
        self.home = Path(tempfile.mkdtemp(prefix="bench-queue-", dir=base))
        self.socket = Path(tempfile.mkdtemp(prefix="flowstone-"))
        self.account = {}
        if os.getuid() == 0:
            entry = pwd.getpwnam(account)
            self.account = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
            for folder in (self.home, self.socket):
                os.chown(folder, entry.pw_uid, entry.pw_gid)
        self.data = self.home / "data"
        self.call("initdb", "-D", self.data, "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        settings = " ".join(f"-c {name}='{value}'" for name, value in SETTINGS.items())
        log = self.home / "server.log"
        self.call(
            "pg_ctl", "-D", self.data, "-l", log, "-w", "-s", "start",
            "-o", f"{settings} -c unix_socket_directories={self.socket}",
        )  # fmt: skip
        self.postmaster = int((self.data / "postmaster.pid").read_text().split("\n")[0])

    def call(self, program: str, *arguments):
        command = [str(self.bin / program), *map(str, arguments)]
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=120, **self.account)
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr or done.stdout}")

    def close(self):
        try:
            self.call("pg_ctl", "-D", self.data, "-m", "immediate", "-w", "-s", "stop")
        finally:
            shutil.rmtree(self.home, ignore_errors=True)
            shutil.rmtree(self.socket, ignore_errors=True)

    def url(self, database: str) -> str:
        return f"postgres:///{database}?host={self.socket}&user={USER}"

    def variables(self, database: str) -> dict:
        """For clients that read libpq's variables."""
        return {"PGHOST": str(self.socket), "PGUSER": USER, "PGDATABASE": database}

    def session(self, database: str = "postgres") -> "Session":
        return Session(self, database)

    def create(self, database: str, template: str = "template1"):
        """A copy of another database, to which nobody may be connected."""
        with self.session() as session:
            session.run(f"drop database if exists {database} with (force)")
            session.run(f"create database {database} template {template}")

    def drop(self, database: str):
        with self.session() as session:
            session.run(f"drop database if exists {database} with (force)")

    def settle(self, database: str):
        """Statistics as an autovacuum leaves them, and no checkpoint due: for everybody the same."""
        with self.session(database) as session:
            session.run("vacuum analyze")
            session.run("checkpoint")

    def cpu_seconds(self) -> float:
        """Of the server and all its processes, those that have ended included."""
        total = 0.0
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                fields = process_fields(int(entry))
                if fields and int(entry) == self.postmaster:
                    total += sum(map(int, fields[11:15]))
                elif fields and int(fields[1]) == self.postmaster:
                    total += sum(map(int, fields[11:13]))
        return total / os.sysconf("SC_CLK_TCK")


class Session:
    """One connection, over psql: nothing else is needed to ask."""

    def __init__(self, server: Server, database: str):
        command = [str(server.bin / "psql"), "-qXAt", "-v", "ON_ERROR_STOP=1"]
        environment = {"PATH": os.environ["PATH"], **server.variables(database)}
        environment["PGOPTIONS"] = f"-c statement_timeout={STATEMENT_SECONDS}s"
        pipe = subprocess.PIPE
        self.statements = 0
        """So many commits of the database are ours."""
        self.psql = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.psql.stdin.close()
        try:
            self.psql.wait(10)
        except subprocess.TimeoutExpired:
            self.psql.kill()
            self.psql.wait()

    def run(self, statement: str) -> list[str]:
        self.statements += 1
        self.psql.stdin.write(f"{statement};\n\\echo '{END}'\n")
        self.psql.stdin.flush()
        lines = []
        for line in self.psql.stdout:
            if line.rstrip("\n") == END:
                return lines
            lines.append(line.rstrip("\n"))
        raise RuntimeError(f"{statement}: {self.psql.stderr.read()}")

    def rows(self, query: str) -> list[dict]:
        return [json.loads(line) for line in self.run(f"select row_to_json(answer) from ({query}) as answer")]

    def value(self, query: str):
        """The only column of the only row."""
        (row,) = self.rows(query)
        (value,) = row.values()
        return value

    def wait_until(self, query: str, seconds: float, every: float = 0.02):
        """Until the query says true; a benchmark that waits for ever tells nothing."""
        end = time.monotonic() + seconds
        while self.value(query) is not True:
            if time.monotonic() > end:
                raise TimeoutError(f"after {seconds:.0f} s it is still not so that: {query}")
            time.sleep(every)


@dataclass
class Spent:
    """What the server did between two moments."""

    commits: float
    wal_bytes: float
    wal_fpi: float
    server_cpu: float


class Meter:
    """Counts what one database and the server spend, from now on. Read it when the others have disconnected: a session
    reports its commits when it ends, at the latest."""

    def __init__(self, server: Server, database: str):
        self.server, self.database = server, database
        self.start = self.read()

    def read(self):
        # From another database, so that asking is not counted.
        with self.server.session() as session:
            (row,) = session.rows(
                f"""select xact_commit as commits, (select wal_bytes from pg_stat_wal) as wal_bytes,
                    (select wal_fpi from pg_stat_wal) as wal_fpi
                    from pg_stat_database where datname = '{self.database}'"""
            )
        return Spent(row["commits"], row["wal_bytes"], row["wal_fpi"], self.server.cpu_seconds())

    def spent(self) -> Spent:
        now, start = self.read(), self.start
        return Spent(
            now.commits - start.commits,
            now.wal_bytes - start.wal_bytes,
            now.wal_fpi - start.wal_fpi,
            now.server_cpu - start.server_cpu,
        )


def process_fields(pid: int):
    """Of `/proc/<pid>/stat`, from the state on; none when it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    except (OSError, IndexError):
        return None


def process_cpu(pid: int) -> float:
    """Seconds that a process and its threads have computed."""
    fields = process_fields(pid)
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def resident_bytes(pid: int) -> int:
    """What a process holds in memory now."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0
