"""Private folders, lock files and JSON files that many processes of this machine use at once."""

import contextlib
import json
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recbandits import checks
from recbandits.platforms.protocol import PlatformError

_GLANCE = 0.5  # seconds for which others may hold a lock to see whether it is held
_TURN = 300.0  # seconds to wait for others who change an endpoint or a function
_REMOTE = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afpfs", "drvfs", "fuse.sshfs"}
_SHARED_MEMORY, _LEAST = Path("/dev/shm"), 16 * 2**20  # bytes; TensorFlow's and Python's workers share memory there


def private(directory: Path) -> Path:
    """Create a directory that only its owner can read; PermissionError where it belongs to another user."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    return directory


@contextlib.contextmanager
def held(directory: Path, patience: float = _GLANCE) -> Iterator[int | None]:
    """Hold the lock of a directory: yield its descriptor, which other processes may be given.

    Where another process still holds it after so many seconds, None is yielded.
    """
    with one_sentence("lock", "taken"):
        lock, deadline = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600), time.monotonic() + patience
    try:
        while not (taken := _take(lock)) and time.monotonic() < deadline:
            time.sleep(0.001)
        yield lock if taken else None
    finally:
        os.close(lock)


@contextlib.contextmanager
def in_turn(directory: Path, label: str) -> Iterator[None]:
    """Hold the lock in `<name>.turn` beside a directory, which is made and removed; PlatformError if others keep it."""
    with one_sentence(label, "changed"):
        turn = private(directory.with_name(f"{directory.name}.turn"))
    with held(turn, _TURN) as lock:
        if lock is None:
            raise PlatformError(f"{label} is being changed by another process")
        yield


def is_held(directory: Path) -> bool:
    """Return whether a process holds the lock of a directory."""
    with one_sentence("lock", "read"):
        try:
            with open(directory / "lock") as lock:
                return not _take(lock.fileno(), shared=True)
        except (FileNotFoundError, NotADirectoryError):
            return False


def names_with(directory: Path, *files: str) -> list[str]:
    """Return the names of the folders of a directory that have one of some files, or cannot be searched, in order."""
    with one_sentence(f"directory {directory.name}", "read"):
        folders = [path for path in sorted(directory.iterdir()) if path.is_dir()] if directory.exists() else []
        return [
            each.name
            for each in folders
            if not os.access(each, os.X_OK) or any((each / name).exists() for name in files)
        ]


def write_json(file: Path, value: Any) -> None:
    """Write a JSON file that only its owner can read, completely or not at all."""
    with checks.replacing(file) as draft:
        draft.touch(0o600)
        draft.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def read_json(file: Path) -> Any:
    """Return what `write_json` wrote, or None where there is no such file; a PlatformError says why it is not read."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError, OSError) as error:  # copied in part, or of another user
        raise PlatformError(f"{file} cannot be read: {checks.reason(error)}") from error


@contextlib.contextmanager
def one_sentence(label: str, action: str) -> Iterator[None]:
    """Raise a PlatformError that something could not be started, written or the like, in place of an OSError."""
    try:
        yield
    except OSError as error:
        path = f"{error.filename}: " if error.filename else ""
        raise PlatformError(f"{label} could not be {action}: {path}{checks.reason(error)}") from error


def require_local(directory: Path, shared_memory: Path = _SHARED_MEMORY) -> None:
    """Raise a PlatformError if a directory, absolute, is on a network share, or the shared memory is too small."""
    import psutil  # a function in the cloud, which reads JSON by this module, has none

    mounts = {Path(mount.mountpoint): mount.fstype for mount in psutil.disk_partitions(all=True)}
    mounts = {folder: kind for folder, kind in mounts.items() if folder in (directory, *directory.parents)}
    kind = mounts[max(mounts, key=lambda folder: len(folder.parts))] if mounts else ""
    if kind in _REMOTE or (kind == "9p" and "microsoft" in platform.release().lower()):  # a share of Windows
        raise PlatformError(f"artifacts must be on a disk of this machine, got {directory} on a share ({kind})")
    if shared_memory.is_dir() and (size := psutil.disk_usage(str(shared_memory)).total) < _LEAST:
        raise PlatformError(f"{shared_memory} must have at least {_LEAST} bytes, got {size}: give the container more")


def _take(lock: int, shared: bool = False) -> bool:
    import fcntl  # not on Windows, where this module is imported before the platform is refused

    try:
        fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
