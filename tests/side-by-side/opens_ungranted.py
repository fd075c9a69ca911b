"""Opens a directory that it was never told of."""

print(open("vault/prices.csv").read())
