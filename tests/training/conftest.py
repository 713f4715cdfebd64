"""What tests of trainings that are killed have in common."""

import os
import signal
import time

import pytest


@pytest.fixture
def kill_when():
    """Function that kills a process as soon as a condition holds, and fails if it ended before."""

    def kill(process, condition, seconds=120):
        deadline = time.monotonic() + seconds
        while not condition():
            assert process.poll() is None, "the process ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()

    return kill
