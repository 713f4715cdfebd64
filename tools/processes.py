"""Run a command that can neither outlive its time limit nor leave a process behind."""

import contextlib
import os
import signal
import subprocess
import time

import psutil


def run_bounded(command, limit, on_steps, stop=None, **options):
    """Run `command` in a session of its own and kill everything that it started when it ends, for any reason.

    Args:
      command: list of arguments; the number of a file descriptor is added to them. The command writes one byte to it
        after each step, and reads standard input, which ends when this process does.
      limit: seconds after which it is killed.
      on_steps: called several times a second with the number of steps done since the last call.
      stop: threading.Event after which it is killed; None for none.
      **options: passed on to `subprocess.Popen`.

    Returns:
      The exit code, or None when it was killed.
    """
    steps, theirs = os.pipe()
    os.set_blocking(steps, False)
    deadline = time.monotonic() + limit
    options |= {"stdin": subprocess.PIPE, "pass_fds": [theirs], "start_new_session": True}
    process = subprocess.Popen([*command, str(theirs)], **options)
    os.close(theirs)
    groups = {process.pid}
    try:
        while process.poll() is None and time.monotonic() < deadline and not (stop and stop.is_set()):
            groups |= groups_below(process.pid)
            on_steps(_drain(steps))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.2)
        on_steps(_drain(steps))
        return process.poll()
    finally:
        kill(groups)
        process.communicate()
        os.close(steps)


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


def _drain(descriptor):
    with contextlib.suppress(BlockingIOError):
        return len(os.read(descriptor, 4096))
    return 0
