"""Reads a file above its directory, by `..`."""

import os

print(open(os.path.join("vault", "../secret.csv")).read())
