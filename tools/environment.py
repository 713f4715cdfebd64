"""Make `.venv` what the lock says it is: with uv when it is on the PATH, with plain pip otherwise.

Run by the Makefile before every command; only the standard library is at hand. A stamp in `.venv` holds a digest of all
that went into it, so that nothing is done when nothing changed; it also tells an installation that did not come to its
end.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "recbandits-stamp"
UNFINISHED, FAILED = "unfinished", "failed"
INPUTS = ["requirements.txt", "pyproject.toml"]


def digest():
    """Of everything that decides what is installed: the lock, the package's build, the place and the interpreter."""
    places = [str(ROOT).encode(), os.path.realpath(PYTHON).encode()]  # an upgrade of the system may move the link
    parts = [*places, (VENV / "pyvenv.cfg").read_bytes(), *((ROOT / name).read_bytes() for name in INPUTS)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def is_ready():
    """Return whether `.venv` is complete and up to date."""
    return PYTHON.exists() and STAMP.exists() and STAMP.read_text() == digest()


def is_usable():
    """Return whether `.venv` holds a suitable Python, and no installation was interrupted in it."""
    check = "import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))"
    if not (VENV / "pyvenv.cfg").exists() or (STAMP.exists() and STAMP.read_text() == UNFINISHED):
        return False
    return PYTHON.exists() and subprocess.run([PYTHON, "-c", check], capture_output=True).returncode == 0


def make_venv():
    """An empty `.venv`, in place of one that was left unfinished or whose Python is gone."""
    if (VENV / "pyvenv.cfg").exists() and not STAMP.exists():
        sys.exit(f"{VENV} was not made by make and has no Python 3.11 to 3.13: remove it, then run make again.")
    if VENV.exists():
        print("Removing a .venv that was left unfinished or lost its Python", flush=True)
        (VENV / "pyvenv.cfg").unlink(missing_ok=True)  # first, so that an interruption here is seen next time
        shutil.rmtree(VENV)
    VENV.mkdir()
    STAMP.write_text(UNFINISHED)
    venv.create(VENV, symlinks=True, prompt="recbandits")


def commands(uv):
    """The commands that fill `.venv`: the locked packages, then this package itself, editable."""
    if uv:
        pip, first = [uv, "pip", "install", "--python", str(PYTHON), "--compile-bytecode"], []
    else:
        pip = [str(PYTHON), "-m", "pip", "install", "--compile", "--progress-bar=off", "--disable-pip-version-check"]
        first = [[str(PYTHON), "-m", "ensurepip"]]
    return [
        *first,
        [*pip, "--no-deps", "--require-hashes", "-r", "requirements.txt"],
        [*pip, "--no-deps", "--no-build-isolation", "--editable", "."],
    ]


def run(command, log, lock):
    """Run `command`, its output in `log`; a terminal shows the seconds and the last line meanwhile.

    The process inherits `lock`: should this one be killed, no other process installs before that one has ended too.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    options = {"cwd": ROOT, "env": environment, "stdout": log, "stderr": subprocess.STDOUT, "pass_fds": [lock.fileno()]}
    started = time.monotonic()
    with subprocess.Popen(command, **options) as process:
        while process.poll() is None:
            time.sleep(0.1)
            show(f"{time.monotonic() - started:4.0f} s  {last_line(log.name)}")
    show("")
    if process.returncode:
        STAMP.write_text(FAILED)  # what is there is kept, as the network may be gone
        lines = Path(log.name).read_text(errors="replace").splitlines()[-15:]
        sys.exit("\n".join([*lines, f"The installation failed; {log.name} has the rest. Run make again to retry."]))


def last_line(path):
    lines = Path(path).read_bytes()[-1000:].decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def show(text):
    """Replace the line that the terminal shows; elsewhere, nothing."""
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns - 1
        print(f"\r{text[:width]:<{width}}\r", end="", file=sys.stderr, flush=True)


def install(lock):
    """Bring `.venv` up to date."""
    uv, started = shutil.which("uv"), time.monotonic()
    updating, installer = is_usable(), "uv" if uv else "pip"
    if not updating:
        make_venv()
    STAMP.write_text(UNFINISHED)
    print(
        f"Updating .venv with {installer}" if updating else f"Making .venv with {installer}: 4 GB, some minutes",
        flush=True,
    )
    with open(VENV / "install.log", "w") as log:
        for command in commands(uv):
            run(command, log, lock)
    STAMP.write_text(digest())
    print(f"Done in {time.monotonic() - started:.0f} s", flush=True)


def main():
    if is_ready():
        return
    with open(ROOT / ".venv.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("Another make is installing .venv right now: wait until it is done, then run make again.")
        try:
            install(lock)
        except KeyboardInterrupt:
            sys.exit("\nInterrupted while installing .venv: run make again, it starts the installation over.")


if __name__ == "__main__":
    main()
