"""Computes forever."""

turns = 0
while True:
    turns += 1
