"""Reads a secret that it was not granted."""

print(open("token.txt").read())
