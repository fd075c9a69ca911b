"""What every group is given: the server, the programs, how much to do, and where to say how it goes."""

import sys
from dataclasses import dataclass, field
from pathlib import Path

from flowstone import Programs, Site
from peers import Peers
from server import Server
from table import Row


@dataclass
class Bench:
    server: Server
    programs: Programs
    peers: Peers | None
    """None: they are not installed, and not asked for."""
    folder: Path
    """For the state of processes; removed at the end."""
    quick: bool
    jobs: int
    """Of a queue that is filled before."""
    samples: int
    """Of what is measured one by one."""
    minutes: float | None
    """Of the soak; None: as many as it takes by itself."""
    rows: list[Row] = field(default_factory=list)
    prefilled: dict[int, Site] = field(default_factory=dict)

    def row(self, what: str, value: float, unit: str, **more):
        row = Row(what, value, unit, **more)
        self.rows.append(row)
        self.say("  ".join(cell for cell in row.cells() if cell))

    def say(self, text: str):
        print(f"   {text}", file=sys.stderr, flush=True)

    def site(self, name: str) -> Site:
        """A deployed pipeline of its own."""
        state = self.folder / name
        state.mkdir()
        site = Site(self.server, self.programs, state, name)
        site.prepare()
        return site

    def filled(self, jobs: int) -> Site:
        """A database with so many jobs that wait, made once: what is measured is a copy of it. No worker may touch it."""
        if jobs not in self.prefilled:
            site = self.site(f"filled_{jobs}")
            self.say(f"{jobs:,} jobs with two inputs each are submitted")
            site.prefill(jobs)
            self.prefilled[jobs] = site
        return self.prefilled[jobs]
