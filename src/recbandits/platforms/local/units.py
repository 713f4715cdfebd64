"""Processes of this machine, each found by its directory: jobs, trials, runs of pipelines, servers.

The directory of a unit has mode 0700 and these files:

- `lock`, held by the runner, the process above the command, and by the command;
- `run.json`, written under the lock at every start: command, variables, and a random name;
- `end.json`, written by the runner: the name of the start that ended, and how;
- `log.txt`, all that was printed.

Every process of a start has its name in the environment, those that `forkserver` forks too. A unit runs while its lock
is held or a process with the name of its last start lives. Signals go only to processes found by that name; no process
number is read from a file.

`python -m recbandits.platforms.local.units DIRECTORY LOCK` is a runner; LOCK is an inherited file descriptor.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from recbandits.platforms.local.files import held, is_held, one_sentence, private, read_json, require_local, write_json
from recbandits.platforms.local.forkserver import VARIABLE, Forkserver, get_forkserver, spawn
from recbandits.platforms.protocol import PlatformError

_POLL = 0.05  # seconds between two looks
_PATIENCE = 10.0  # seconds that processes get to end, or another start gets to show its processes
_READY = 90.0  # seconds until a server must be ready
_PROVED = 10.0  # seconds after which a server that fails is started again; one that was killed always is
_PAUSE = 0.2  # seconds before it is


class Status(NamedTuple):
    """State of a unit."""

    state: str  # "new", "running", "succeeded", "failed", "stopped", or "interrupted" where its end was not written
    started: datetime | None = None  # aware, as the next one
    ended: datetime | None = None
    error: str = ""  # one sentence, or empty


class Unit:
    """The processes of one directory, which is made at the first start; its label, as "job first", is for sentences."""

    def __init__(self, directory: str | os.PathLike, label: str):
        self.directory, self.label = Path(directory).absolute(), label

    def start(
        self,
        command: Sequence[str],
        variables: dict[str, str] | None = None,
        *,
        request: Any = None,
        restart: bool = False,
        finished: Sequence[str] = (),
        stale: Sequence[str] = (),
    ) -> bool:
        """Start a command in processes that outlive this one, unless it runs; return whether this call has started it.

        Args:
          command: list of words.
          variables: added to the environment.
          request: what JSON can say, kept in `run["request"]`; a unit that was started for another request stays as it
            is.
          restart: whether the runner starts a command again that was killed, or that failed after a while.
          finished: states in which the unit stays as it is, such as "succeeded".
          stale: names of files and folders that are removed before the start.

        Raises:
          PlatformError: a process that is not of the last start holds the lock, or the directory cannot be written.
        """
        environment = os.environ | {"PYTHONUNBUFFERED": "1"} | (variables or {})
        with one_sentence(self.label, "started"):
            require_local(private(self.directory))
            due = not self.running and self._is_due(request, finished)
            forkserver = get_forkserver(command, environment) if due else None  # before others wait for the lock
            with self._turn() as lock:
                if lock is None or not self._is_due(request, finished):
                    return False
                for path in (self.directory / name for name in stale):
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
                run = {"command": list(command), "restart": restart, "request": request, "label": self.label}
                run |= {"name": secrets.token_hex(16), "started": datetime.now(UTC).isoformat()}
                write_json(self.directory / "run.json", run | {"variables": variables or {}})
                self._spawn(lock, environment | {VARIABLE: run["name"]}, forkserver)
        return True

    @property
    def run(self) -> dict:
        """The content of `run.json`, of the last start; empty before the first."""
        return read_json(self.directory / "run.json") or {}

    @property
    def running(self) -> bool:
        """True until the last start has ended: the lock is held, or one of its processes lives."""
        return bool(self.run) and self._end() is None and (is_held(self.directory) or self._lives())

    def status(self) -> Status:
        """Return the `Status`."""
        running, run, end = self.running, self.run, self._end()  # in this order: a unit that ends meanwhile has an end
        if not run:
            return Status("new")
        started = datetime.fromisoformat(run["started"])
        if running:
            return Status("running", started)
        if end is None:
            reason = "it was killed, or the disk is full, or the machine went down"
            return Status("interrupted", started, None, f"{self.label} ended without a word: {reason}")
        error, code = "", end["code"]
        if end["state"] == "failed" and code < 0:
            error = f"{self.label} was killed by {_signal_name(-code)}"
        elif end["state"] == "failed":
            error = f"{self.label} failed with exit code {code}" + (f": {line}" if (line := self._last_line()) else "")
        return Status(end["state"], started, datetime.fromisoformat(end["ended"]), error)

    def wait(self) -> None:
        """Wait until it runs no more, and its runner has left the directory."""
        while self.running:
            time.sleep(_POLL)
        self._wait_for_runner()

    def wait_ready(self, ready: Callable[[], bool]) -> None:
        """Wait until a server passes a test; a PlatformError has the last line of one that ended or took too long."""
        deadline = time.monotonic() + _READY
        while not ready():
            if not self.running or time.monotonic() > deadline:
                raise PlatformError(f"{self.label} did not start: {self._last_line() or 'it printed nothing'}")
            time.sleep(_POLL)

    def stop(self, patience: float = _PATIENCE) -> None:
        """Send SIGTERM to its processes, and SIGKILL to those that are left after `patience` seconds; see `kill`."""
        deadline, reached = time.monotonic() + patience, False
        while self.running and time.monotonic() < deadline:
            reached = reached or self._signal(signal.SIGTERM)  # a start may be about to show its first process
            time.sleep(_POLL)
        self.kill()

    def kill(self) -> None:
        """Send SIGKILL to its processes until none is left; PlatformError if a process of no start holds the lock."""
        deadline = time.monotonic() + _PATIENCE
        while self.running:
            self._signal(signal.SIGKILL)
            if time.monotonic() > deadline:
                raise self._stranger()
            time.sleep(_POLL)
        self._wait_for_runner()
        if self.run:
            with held(self.directory) as lock:  # without the lock another start is in progress
                if lock is not None and self._end() is None and not self._lives():
                    with contextlib.suppress(OSError):  # on a full disk it remains "interrupted"
                        self._write_end("stopped", -signal.SIGKILL)

    def members(self) -> Iterator[psutil.Process]:
        """Yield the processes that have the name of the last start in their environment, without zombies."""
        name = self.run.get("name")
        for number in psutil.pids() if name else ():
            with contextlib.suppress(psutil.Error, OSError):  # it may vanish at any moment
                process = psutil.Process(number)
                if process.environ().get(VARIABLE) == name and process.status() != psutil.STATUS_ZOMBIE:
                    yield process

    def _write_end(self, state: str, code: int) -> None:
        end = {"name": self.run["name"], "state": state, "code": code, "ended": datetime.now(UTC).isoformat()}
        write_json(self.directory / "end.json", end)

    def log(self) -> str:
        """Return all that was printed so far."""
        file = self.directory / "log.txt"
        with one_sentence(self.label, "read"):
            return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""

    def execute(self, lock: int, fork: Callable[[Sequence[str]], psutil.Process] | None = None) -> None:
        """Run the command to its end, as its runner: by `fork`, which returns its process, or else by executing it.

        The descriptor of the lock is kept open by this process and the command.
        """
        request, stopped = self.run, threading.Event()
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
            while rest := [each for each in self.members() if each.pid != os.getpid()]:  # as a container does
                for process in rest:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
                time.sleep(0.01)
            proved = code < 0 or (code > 0 and time.monotonic() - start >= _PROVED)
            if not request["restart"] or not proved or stopped.is_set():
                break
            print(f"{self.label} ended with {code}, it is started again", file=sys.stderr, flush=True)
            stopped.wait(_PAUSE)
        self._write_end("stopped" if stopped.is_set() else "failed" if code else "succeeded", code)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[int | None]:
        """Yield the descriptor of the lock, or None where the unit runs.

        The lock of one that does not run may have another start, which is about to show its processes, or a runner that
        has just written the end.
        """
        deadline = time.monotonic() + _PATIENCE
        while True:
            with held(self.directory) as lock:
                running = self._end() is None and self._lives()
                if running or lock is not None:
                    yield None if running else lock
                    return
            if time.monotonic() > deadline:
                raise self._stranger()

    def _is_due(self, request: Any, finished: Sequence[str]) -> bool:
        """Return whether a unit that does not run is to be started for a request."""
        end = self._end()
        return not (self.run and self.run["request"] != request) and not (end and end["state"] in finished)

    def _spawn(self, lock: int, environment: dict[str, str], forkserver: Forkserver | None) -> None:
        command = [sys.executable, "-m", "recbandits.platforms.local.units", str(self.directory), str(lock)]
        descriptor = os.open(self.directory / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with open(descriptor, "ab") as log:
            if not (forkserver and forkserver.fork(self.directory, environment, lock, descriptor)):
                spawn(command, environment, log, lock)

    def _signal(self, number: int) -> bool:
        """Send a signal to the processes of the last start; return whether there was one."""
        reached = False
        for process in self.members():
            with contextlib.suppress(psutil.Error):  # psutil spares a process that took over the number
                process.send_signal(number)
                reached = True
        return reached

    def _wait_for_runner(self) -> None:
        """Wait until the lock is free, or of another start: a runner that has written the end is about to leave."""
        deadline = time.monotonic() + _PATIENCE
        while is_held(self.directory) and not self.running and time.monotonic() < deadline:
            time.sleep(_POLL / 10)

    def _lives(self) -> bool:
        return next(self.members(), None) is not None

    def _end(self) -> dict | None:
        end = read_json(self.directory / "end.json")
        return end if end and end["name"] == self.run.get("name") else None

    def _stranger(self) -> PlatformError:
        file = self.directory / "lock"
        return PlatformError(f"{self.label} must be the only one that locks {file}, another process holds it")

    def _last_line(self) -> str:
        return next((line.strip() for line in reversed(self.log().splitlines()) if line.strip()), "")


def _signal_name(number):
    try:
        return signal.Signals(number).name
    except ValueError:  # most real-time signals have none
        return f"signal {number}"


def units_below(directory: str | os.PathLike) -> Iterator[Unit]:
    """Yield the units that have been started in a directory and in those below it."""
    for folder, folders, names in os.walk(os.fspath(directory)):
        folders[:] = [name for name in folders if not name.startswith(".")]  # drafts of processes that were killed
        if "run.json" in names and (run := read_json(Path(folder, "run.json"))):
            yield Unit(folder, run["label"])


if __name__ == "__main__":
    next(units_below(sys.argv[1])).execute(int(sys.argv[2]))
