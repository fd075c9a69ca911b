"""Adds elements to its list: a hundred times what a table may have, after which the test has seen enough."""

table = []
while len(table) < 10_000_000:
    table.extend([None] * 1_000)
print(f"{len(table)} elements")
