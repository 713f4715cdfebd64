"""A process that has imported TensorFlow and forks jobs and pipelines, which start without the seconds of that import.

A process that starts jobs has at most one forkserver, with its environment, working directory and umask. When one of
them changes, another forkserver replaces it: TensorFlow and OpenBLAS read variables when they are imported. Variables
that no import reads go to each job. A forkserver ends with the process that uses it, or when it has been idle; the jobs
go on. The imports start no thread but those of OpenBLAS and jemalloc, which support forks.

A forkserver forks the runner of a unit, and the runner forks the command, both with the unit's lock. A forked process
shows the system the environment of its forkserver. So the runner overwrites the name of its start in its memory, where
the system reads it; what it forks has a copy of that memory.

`python -m recbandits.platforms.local.forkserver SOCKET MODULE...` is a forkserver, which imports the modules.
"""

import contextlib
import ctypes
import functools
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil

VARIABLE = "RECBANDITS_START"  # name of a start, in the environment of its processes
FORKED = ("recbandits.training.", "recbandits.platforms.local.pipelines")  # how the names of forked modules begin
# What they import; the estimators of a job import scikit-learn when they are called.
MODULES = ("recbandits.training.experiments", "recbandits.serving.saved_model", "sklearn.linear_model", "tyro")
_PER_JOB = ("AIP_", "CLOUD_ML_", "RECBANDITS_")  # prefixes of variables that no import reads, VARIABLE among them
# Prefixes of those that TensorFlow, h5py and pygame set when they are imported, there as here.
_BY_IMPORTS = ("ENABLE_RUNTIME_UPTIME_TELEMETRY", "TF2_BEHAVIOR", "TPU_ML_PLATFORM", "HDF5_PLUGIN_PATH", "PYGAME_HIDE")
_NO_NAME = "0" * 32  # as long as a name
_IDLE = 600.0  # seconds without a request after which a forkserver ends
_LOCK = threading.Lock()


def spawn(command: Sequence[str], environment: dict[str, str], output: Any, descriptor: int) -> None:
    """Start a process in a session of its own, which inherits a descriptor."""
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output}
    process = subprocess.Popen(command, env=environment, pass_fds=[descriptor], start_new_session=True, **streams)
    threading.Thread(target=process.wait, daemon=True).start()  # so that it leaves no zombie


class Forkserver:
    """A connection to a forkserver, which ends with the connection; it is `ready` if it has imported the modules."""

    def __init__(self, environment: dict[str, str]):
        self._connection, end = socket.socketpair()
        with end:
            command = [sys.executable, "-m", __name__, str(end.fileno()), *MODULES]
            spawn(command, environment | {VARIABLE: _NO_NAME}, subprocess.DEVNULL, end.fileno())
        self.ready = self._connection.recv(1) != b""

    def __del__(self):
        self._connection.close()

    def fork(self, directory: Path, environment: dict[str, str], lock: int, log: int) -> bool:
        """Fork the runner of the unit in a directory, given the descriptors of its lock and log.

        Return whether it has started. If not, the forkserver has ended, and no process has the lock from here.
        """
        variables = {name: value for name, value in environment.items() if name.startswith(_PER_JOB)}
        connection, other = socket.socketpair()
        with connection, contextlib.suppress(OSError):
            with other:
                socket.send_fds(self._connection, [b"f"], [other.fileno(), lock, log])
            connection.sendall(json.dumps([str(directory), variables]).encode())
            connection.shutdown(socket.SHUT_WR)
            if connection.recv(1):  # empty once no process has the other end
                return True
        _connect.cache_clear()  # the next unit has another forkserver
        return False


def get_forkserver(command: Sequence[str], environment: dict[str, str]) -> Forkserver | None:
    """Return the forkserver of this process for a command, or None where it must be executed.

    On macOS everything is executed: its libraries for linear algebra do not work in a forked process.
    """
    python = list(command[:2]) == [sys.executable, "-m"] and command[2].startswith(FORKED)
    if not python or sys.platform != "linux":
        return None
    umask = os.umask(0o077)
    os.umask(umask)
    left_out = _PER_JOB + _BY_IMPORTS
    variables = tuple(sorted(item for item in environment.items() if not item[0].startswith(left_out)))
    with _LOCK:  # a second thread waits for the forkserver of the first one
        forkserver = _connect(variables, os.getcwd(), umask, os.getpid())
    return forkserver if forkserver.ready else None


@functools.lru_cache(maxsize=1)
def _connect(variables, *_):
    """Start a forkserver, which has the variables, directory and umask of this process."""
    return Forkserver(dict(variables))


def main(connection: socket.socket, modules: Sequence[str]) -> None:
    """Import modules, then fork a runner for each request until the connection is closed or idle."""
    for module in modules:
        import_module(module)
    gc.freeze()  # what is here already is not looked at again, so that forks need no copy of its memory
    connection.send(b"r")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system removes runners that have ended
    while select.select([connection], [], [], _IDLE)[0]:
        request, descriptors, _, _ = socket.recv_fds(connection, 1, 3)
        if not request:
            break
        if os.fork() == 0:
            connection.close()  # a request that this forkserver does not take must find it closed
            _run(*descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _run(reply, lock, log):
    """Become the runner of a unit."""
    from recbandits.platforms.local.units import units_below

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    with socket.socket(fileno=reply) as starter, starter.makefile() as file:
        directory, variables = json.load(file)
        _show_name(variables[VARIABLE])
        os.environ.update(variables)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(log, stream.fileno())
        os.close(log)
        starter.send(b"r")
    next(units_below(directory)).execute(lock, _fork_command)
    sys.stdout.flush()
    os._exit(0)  # the end of the interpreter would take a second, for which those who wait for the unit would wait


def _show_name(name):
    """Overwrite the name in the environment that this process was executed with."""
    getenv = ctypes.CDLL(None).getenv
    getenv.restype = ctypes.c_void_p
    ctypes.memmove(getenv(VARIABLE.encode()), name.encode(), len(_NO_NAME))
    if psutil.Process().environ().get(VARIABLE) != name:
        sys.exit()  # the starter sees that, and executes the unit


def _fork_command(command):
    """Fork the command of a unit, `python -m MODULE ARGUMENT...`; its end is that of the interpreter."""
    number = os.fork()
    if number:
        return psutil.Process(number)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.argv[:] = command[2:]
    runpy.run_module(command[2], run_name="__main__", alter_sys=True)
    sys.exit()


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])
