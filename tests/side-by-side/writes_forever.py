"""Writes its output: sixteen times its limit, after which the test has seen enough."""

block = b"x" * (1 << 20)
with open("output", "wb", buffering=0) as output:
    for _ in range(64):
        output.write(block)
