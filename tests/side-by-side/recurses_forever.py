"""Calls itself forever, through C, where the interpreter does not count."""

import sys

sys.setrecursionlimit(1 << 30)


def descend(_):
    return list(map(descend, [0]))


descend(0)
