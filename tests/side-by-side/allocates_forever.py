"""Takes memory: eight times what its asset has, after which the test has seen enough."""

blocks = []
while len(blocks) < 256:
    blocks.append(b"\1" * (1 << 20))
print(f"{len(blocks)} MiB")
