"""A server as a directory: whoever has it can start it, ask whether it runs, and stop it.

It has `server.json` (process, port, variables), `log.txt`, and `lock`, which the server holds as long as it lives: so
any process finds out whether it runs, and no number of a process that is long gone is mistaken for it. Whoever starts
or stops it holds `turn` meanwhile, so that others wait for the change.
"""

import contextlib
import fcntl
import functools
import os
import random
import signal
import socket
import subprocess
import time

from recbandits.platforms.local.files import held, is_held, read_json, write_json
from recbandits.platforms.protocol import PlatformError

_POLL = 0.02  # seconds between two looks
_START = 90  # seconds until a server must answer
_END = 20  # seconds that it gets to finish its work
_TRIES = 3  # ports, should another process take one first
_LAST_LINES = 15
# Below those that systems give to clients: one that calls a server that is away would at times be given the server's
# own port, connect to itself, and keep the server from coming back.
_PORTS = range(20_000, 32_768)
_children = []  # servers that this process started: nobody else may ask how they ended


def in_turn(file_of):
    """Decorate a method that no two threads or processes are in at once; `file_of` gives the object's lock file."""

    def decorate(method):
        @functools.wraps(method)
        def waiting(self, *arguments, **options):
            file = file_of(self)
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("w") as turn:
                fcntl.flock(turn, fcntl.LOCK_EX)
                return method(self, *arguments, **options)

        return waiting

    return decorate


def answers(port):
    """Whether something listens on a port of loopback."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


_in_turn = in_turn(lambda service: service.directory / "turn")


class Service:
    """One server process on loopback, found by its directory from every process.

    Args:
      directory: `pathlib.Path` of all that it has, made when it starts.
      what: for sentences about it, such as "warehouse" or "function log-rewards".

    Attributes:
      directory, what: as given.
    """

    def __init__(self, directory, what):
        self.directory, self.what = directory, what

    @_in_turn
    def start(self, command, variables=None, ready=answers):
        """Start the server unless it runs, and wait until it is ready; one that ran before gets its port again.

        Args:
          command: function of a port that gives the command line, a list.
          variables: dict for the environment, or a function of a port that gives one; None for none.
          ready: function of a port: whether the server there can be used.

        Raises:
          PlatformError: it did not start; the sentence ends with what it wrote last.
        """
        if self._wait(ready):
            return
        self._end()  # one that lives and is not ready all the same has to make room
        kept = self.port
        for attempt in range(_TRIES):
            port = kept if kept and attempt == 0 and _is_free(kept) else _free_port()
            begin = len(self.logs())
            self._spawn(command(port), (variables(port) if callable(variables) else variables) or {}, port)
            if self._wait(ready):
                return
            self._end()
            if _is_free(port):
                break
        last = "\n".join(self.logs()[begin:].splitlines()[-_LAST_LINES:])
        raise PlatformError(f"{self.what} did not start, the last it wrote was:\n{last}")

    @property
    def running(self):
        """Whether its process lives."""
        return is_held(self.directory)

    @property
    def port(self):
        """Where it listens, or did before it ended; None before its first start."""
        return self._about("port")

    @property
    def process(self):
        """Number of its process, None if it does not run."""
        return self._about("process") if self.running else None

    @property
    def variables(self):
        """Dict of what was added to the environment at its last start; empty before the first."""
        return self._about("variables") or {}

    @_in_turn
    def stop(self, patience=None):
        """Have it finish its work and end; one that does not is killed, one that does not run is no error.

        Args:
          patience: seconds that it gets to finish; None for those that suit a server.
        """
        self._end(patience)

    @_in_turn
    def kill(self):
        """End it and what it started with SIGKILL, in the middle of what it does."""
        self._signal(os.killpg, signal.SIGKILL)

    def logs(self):
        """All that it wrote, text."""
        file = self.directory / "log.txt"
        return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""

    def _about(self, what):
        return (read_json(self.directory / "server.json") or {}).get(what)

    def _end(self, patience=None):
        self._signal(os.kill, signal.SIGTERM, patience)
        self._signal(os.killpg, signal.SIGKILL)

    def _signal(self, send, number, patience=None):
        """Send a signal to what runs, and wait for its end for a while."""
        process = self._about("process")
        if is_held(self.directory):  # so the process lives, and its number belongs to nobody else
            with contextlib.suppress(ProcessLookupError):
                send(process, number)
        deadline = time.monotonic() + (_END if patience is None else patience)
        while is_held(self.directory) and time.monotonic() < deadline:
            time.sleep(_POLL)
        for child in _children:
            if child.pid == process and not is_held(self.directory):  # the lock is free a moment before it is gone
                child.wait()
        _forget_ended()

    def _spawn(self, command, variables, port):
        with held(self.directory) as lock, (self.directory / "log.txt").open("ab") as log:
            if lock is None:
                raise PlatformError(f"{self.what} is running already")
            process = subprocess.Popen(
                command,
                env=os.environ | {"PYTHONUNBUFFERED": "1"} | variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[lock],
                start_new_session=True,
            )
            write_json(self.directory / "server.json", {"process": process.pid, "port": port, "variables": variables})
        _children.append(process)

    def _wait(self, ready):
        """Whether there is a server that is ready, before it ends or time is up."""
        deadline = time.monotonic() + _START
        while is_held(self.directory) and time.monotonic() < deadline:
            if ready(self.port):
                return True
            time.sleep(_POLL)
        _forget_ended()
        return False


def _is_free(port):
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False


def _free_port():
    """A port of loopback that nobody listens on."""
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        if _is_free(port):
            return port
    raise PlatformError(f"no port is free from {_PORTS[0]} to {_PORTS[-1]}")


def _forget_ended():
    _children[:] = [process for process in _children if process.poll() is None]
