"""Reads a file above its directory, through a link that somebody left in it."""

import os

print(open(os.path.join("vault", "way_out.csv")).read())
