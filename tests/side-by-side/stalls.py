"""Computes forever, and does not care for being asked to stop."""

import signal

signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
while True:
    pass
