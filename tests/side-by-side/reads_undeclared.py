"""Reads an input that it did not declare: what another asset made."""

print(open("outputs/honest").read())
