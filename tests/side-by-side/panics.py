"""Fails, and is heard."""

raise SystemError("this asset always panics")
