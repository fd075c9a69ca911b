"""Reads the environment."""

import os

print(dict(os.environ))
