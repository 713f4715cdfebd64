"""Waiting for a condition, for tests."""

import time


def until(condition, seconds=30):
    """Wait until a function without arguments returns something true; a test that waits too long fails."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} seconds in vain"
        time.sleep(0.01)
