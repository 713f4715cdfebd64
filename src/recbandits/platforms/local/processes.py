"""A job as a directory: whoever has it can say how the job is doing, whichever process started it.

It has `job.json` (what was asked for), `log.txt`, `lock` (held by the job's processes as long as one of them lives),
`end.json` (how they ended), and what the job makes: `model`, `record.json`, `checkpoints`, `tensorboard`,
`metrics.jsonl`.
"""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import NamedTuple

from recbandits.platforms.local.supervisor import write_json
from recbandits.platforms.protocol import PlatformError

_POLL = 0.1  # seconds between two looks
_PATIENCE = 10  # seconds that a stopped job gets to end
_GLANCE = 0.5  # seconds after which a lock is not held by one who only looks


class Status(NamedTuple):
    """How a job is doing."""

    state: str  # "running", "succeeded", "failed", "stopped", or "interrupted": gone without a word
    started: datetime
    ended: datetime | None
    error: str


def start(directory, what, module, arguments, replicas, environment):
    """Start a job in processes that outlive this one.

    What an earlier attempt left in the directory stays, so that the job goes on from its checkpoints.

    Args:
      directory: `pathlib.Path`, made if missing.
      what: for sentences about it, such as "job a" or "trial 3 of b".
      module: that Python runs.
      arguments: of its command line.
      replicas: number of processes.
      environment: dict of variables for them, beside the directories that Vertex AI sets.

    Raises:
      PlatformError: the job is running, or the directory cannot be written.
    """
    job = {"what": what, "module": module, "arguments": list(arguments), "replicas": replicas}
    with _one_sentence(what):
        directory.mkdir(parents=True, exist_ok=True)
        with held(directory, what) as lock, (directory / "log.txt").open("ab") as log:
            for stale in ("end.json", "metrics.jsonl", "group"):
                (directory / stale).unlink(missing_ok=True)
            write_json(directory / "job.json", job | {"started": datetime.now(UTC).isoformat()})
            command = [sys.executable, "-m", "recbandits.platforms.local.supervisor", str(directory), str(lock)]
            process = subprocess.Popen(
                command,
                env=os.environ | _variables(directory) | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[lock],
                start_new_session=True,
            )
            (directory / "group").write_text(str(process.pid))
    _children.append(process)


def status(directory):
    """`Status` of the job in a directory."""
    running = is_held(directory)
    job = read_json(directory / "job.json")
    end = read_json(directory / "end.json")
    started = datetime.fromisoformat(job["started"])
    if running:
        return Status("running", started, None, "")
    if end is None:
        return Status("interrupted", started, None, _failure(directory, job["what"], None))
    error = _failure(directory, job["what"], end["code"]) if end["state"] == "failed" else ""
    return Status(end["state"], started, datetime.fromisoformat(end["ended"]), error)


def wait(directory, show=False):
    """Wait until the job in a directory runs no more; what it logs is written to stderr if `show`."""
    with contextlib.ExitStack() as stack:
        log = stack.enter_context((directory / "log.txt").open(errors="replace")) if show else None
        while True:
            running = is_held(directory)
            if log:
                sys.stderr.write(log.read())
            if not running:
                break
            time.sleep(_POLL)
    _children[:] = [process for process in _children if process.poll() is None]


def stop(directory):
    """Stop the job in a directory with everything it started; one that runs no more is no error."""
    if not is_held(directory):
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        _signal(directory, number)
        deadline = time.monotonic() + _PATIENCE
        while is_held(directory) and time.monotonic() < deadline:
            time.sleep(_POLL)
        if not is_held(directory):
            break
    if not (directory / "end.json").exists():
        end = {"state": "stopped", "code": -signal.SIGKILL, "ended": datetime.now(UTC).isoformat()}
        write_json(directory / "end.json", end)


@contextlib.contextmanager
def held(directory, what):
    """Hold the lock of a directory, as a file descriptor that other processes may be given.

    Raises:
      PlatformError: another process holds it.
    """
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if not _took(lock):
            raise PlatformError(f"{what} is running already")
        yield lock
    finally:
        os.close(lock)


def is_held(directory):
    """Whether a living process holds the lock of a directory."""
    try:
        lock = os.open(directory / "lock", os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def read_json(file):
    """What `write_json` wrote, or None where there is no such file."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def log_of(directory):
    """Text of a job's log."""
    file = directory / "log.txt"
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


def _took(lock):
    """Take a lock, unless it is held for longer than `is_held` has it to look."""
    deadline = time.monotonic() + _GLANCE
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)


def _signal(directory, number):
    """Send a signal to the processes of a job, which may be about to start.

    While the lock is held, the group has members, and its number belongs to nobody else.
    """
    group = directory / "group"
    while is_held(directory):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
            os.killpg(int(group.read_text()), number)
            return
        time.sleep(_POLL)


_children = []  # supervisors that this process started, to be asked whether they have ended


def _variables(directory):
    """What Vertex AI sets in a container, with directories of this machine."""
    return {
        "AIP_MODEL_DIR": str(directory / "model"),
        "AIP_CHECKPOINT_DIR": str(directory / "checkpoints"),
        "AIP_TENSORBOARD_LOG_DIR": str(directory / "tensorboard"),
        "CLOUD_ML_HP_METRIC_FILE": str(directory / "metrics.jsonl"),
        "PYTHONUNBUFFERED": "1",
    }


def _failure(directory, what, code):
    """One sentence about a job that failed: by which signal, or with which last words."""
    if code is None:
        return f"{what} ended without a word: it was killed, or the disk is full, or the machine went down"
    if code < 0:
        return f"{what} was killed by {signal.Signals(-code).name}"
    lines = [line.strip() for line in log_of(directory).splitlines() if line.strip()]
    return f"{what} failed with exit code {code}" + (f": {lines[-1]}" if lines else "")


@contextlib.contextmanager
def _one_sentence(what):
    try:
        yield
    except OSError as error:
        raise PlatformError(f"{what} could not be started: {error.strerror or error}") from error
