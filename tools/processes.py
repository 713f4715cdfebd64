"""Run a function in a warm process that can neither outlive its time limit nor leave a process behind.

Warm means forked from a process that has imported what most notebooks import, which takes each of them 5 s otherwise.
"""

import contextlib
import multiprocessing
import os
import signal
import time

import psutil

WARM = multiprocessing.get_context("forkserver")
WARM.set_forkserver_preload(["tools.warm"])


def run_bounded(function, arguments, limit, on_steps, stop=None):
    """Call a function in a session of its own and kill everything that it started when it ends, for any reason.

    Args:
      function: of a module. Beside the arguments it takes a `multiprocessing.connection.Connection`, to which it sends
        one byte after each step. It has to end with the process that called it, `multiprocessing.parent_process()`.
      arguments: list of what can be pickled.
      limit: seconds after which it is killed; the first call waits for the imports before them.
      on_steps: called several times a second with the number of steps done since the last call.
      stop: threading.Event after which it is killed; None for none.

    Returns:
      The exit code, or None when it was killed.
    """
    steps, theirs = WARM.Pipe(duplex=False)
    process = WARM.Process(target=_run, args=(function, *arguments, theirs))
    process.start()
    theirs.close()
    deadline = time.monotonic() + limit
    groups = {process.pid}
    try:
        while process.is_alive() and time.monotonic() < deadline and not (stop and stop.is_set()):
            groups |= groups_below(process.pid)
            on_steps(_drain(steps))
            process.join(0.2)
        on_steps(_drain(steps))
        return process.exitcode
    finally:
        kill(groups)
        process.kill()  # where it leads no group yet
        process.join()
        steps.close()


def _run(function, *arguments):
    os.setsid()
    function(*arguments)


def groups_below(pid):
    """The process groups of all descendants of a process: Jupyter gives each kernel its own."""
    groups = set()
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(ProcessLookupError):
                groups.add(os.getpgid(child.pid))
    return groups


def kill(groups):
    """End all processes of these groups; those that are gone already are no error."""
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


def _drain(connection):
    """Count the bytes that have come."""
    count = 0
    with contextlib.suppress(EOFError):
        while connection.poll():
            count += len(connection.recv_bytes())
    return count
