"""Waiting for a condition, for tests."""

import time

import psutil


def until(condition, seconds=30):
    """Wait until a function without arguments returns something true; a test that waits too long fails."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} seconds in vain"
        time.sleep(0.01)


def is_gone(process):
    """Return whether a `psutil.Process` has ended, perhaps without a parent that reads its exit code."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
