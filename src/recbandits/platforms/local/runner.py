"""The process above the command of one unit: runs it, ends what it leaves behind, writes down how it ended.

`python -m recbandits.platforms.local.runner DIRECTORY LOCK`, where LOCK is an inherited file descriptor.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence

import psutil

from recbandits.platforms.local.units import Unit, units_below

_PROVED = 10.0  # seconds after which a server that fails is started again; one that was killed always is
_PAUSE = 0.2  # seconds before it is


def run(unit: Unit, lock: int, fork: Callable[[Sequence[str]], psutil.Process] | None = None) -> None:
    """Run the command of a unit to its end: `fork` forks it and returns its process, and without that it is executed.

    The descriptor of the unit's lock is kept open by this process and the command.
    """
    request, stopped = unit.run, threading.Event()
    children: list[psutil.Process] = []

    def stop(*_):
        stopped.set()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.terminate()

    signal.signal(signal.SIGTERM, stop)
    code = 0
    while not stopped.is_set():
        start, command = time.monotonic(), request["command"]
        children[:] = [fork(command) if fork else subprocess.Popen(command, pass_fds=[lock])]
        if stopped.is_set():
            stop()
        code = children[0].wait()
        while rest := [each for each in unit.members() if each.pid != os.getpid()]:  # as the end of a container does
            for process in rest:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            time.sleep(0.01)
        proved = code < 0 or (code > 0 and time.monotonic() - start >= _PROVED)
        if not request["restart"] or not proved or stopped.is_set():
            break
        print(f"{unit.label} ended with {code}, it is started again", file=sys.stderr, flush=True)
        stopped.wait(_PAUSE)
    unit.write_end("stopped" if stopped.is_set() else "failed" if code else "succeeded", code)


if __name__ == "__main__":
    run(next(units_below(sys.argv[1])), int(sys.argv[2]))
