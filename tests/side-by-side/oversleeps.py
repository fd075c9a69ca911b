"""Sleeps for a day."""

import time

time.sleep(86_400)
