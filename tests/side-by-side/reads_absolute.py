"""Reads a file of the machine, by its absolute path below its directory."""

import os

print(open(os.path.join("vault", "/etc/passwd")).read())
