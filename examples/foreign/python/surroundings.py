"""What the standard library finds around an asset: an interpreter that believes in a machine, and none behind it."""

import encodings.idna  # What is not imported when the component is made cannot be imported later.
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable

PROBES: dict[str, Callable[[], object]] = {
    "environment": lambda: dict(os.environ),
    "arguments": lambda: sys.argv,
    "input": lambda: sys.stdin.read(),
    "a file": lambda: open("/etc/passwd").read(),
    "a folder": lambda: os.listdir("/"),
    "a temporary file": lambda: tempfile.TemporaryFile(),
    "a socket": lambda: socket.socket().connect(("127.0.0.1", 80)),
    "a name": lambda: socket.getaddrinfo("localhost", 80),
    "a process": lambda: subprocess.run(["true"]),
    "a thread": lambda: threading.Thread(target=print).start(),
    "the time": lambda: time.gmtime().tm_year,
    "a long sleep": lambda: time.sleep(3600),
    "randomness": lambda: len(random.SystemRandom().randbytes(16) + uuid.uuid4().bytes),
    "a terminal": lambda: sys.stderr.isatty(),
}


def write(line: Callable[[str], None]) -> None:
    for name, probe in PROBES.items():
        try:
            found = repr(probe())
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
        line(f"{name}: {found}\n")
