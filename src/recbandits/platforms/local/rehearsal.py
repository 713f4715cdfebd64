"""The steps of a Dockerfile, carried out without Docker.

Files are copied into a directory that stands for the image's file system, commands run there, one after the other, in a
virtual environment that begins with pip and nothing else. So a file that is not in the build context is missing, a
package that is not in the lock is not found, and the project is what its wheel brings. Three things are not as in a
container. The locked packages are not downloaded again: those of the running environment are made visible, and pip
confirms each pin. There is one environment for all stages. And commands see the rest of this machine and run as its
user: `useradd` only makes the home directory.
"""

import shutil
import socket
import subprocess
import sysconfig
import time
import venv
from contextlib import contextmanager
from pathlib import Path

from recbandits.platforms.images import context, instructions
from recbandits.platforms.local.stages import Builder, environment_of, last_line
from recbandits.platforms.protocol import PlatformError


class RehearsedImage:
    """An image whose steps have been carried out; its commands can be run.

    Attributes:
      stage: the last `Stage`.
      python: the interpreter of its virtual environment.
      log: file with all that its commands have said.
    """

    def __init__(self, stage, python, log):
        self.stage = stage
        self.python = python
        self.log = log

    def run(self, *arguments, environment=None):
        """Run the image to its end, as `docker run` does.

        Args:
          arguments: instead of those in the Dockerfile.
          environment: dict of variables, added to those of the image.

        Returns:
          subprocess.CompletedProcess with texts.
        """
        options = {"capture_output": True, "text": True}
        return subprocess.run(self._command(arguments), **self.place(environment), **options)

    def execute(self, code):
        """Run Python code in the image, as `docker run --entrypoint python` does: subprocess.CompletedProcess."""
        return subprocess.run([self.python, "-c", code], **self.place(), capture_output=True, text=True)

    @contextmanager
    def start(self, *arguments, environment=None, patience=60):
        """Start the image and wait until its health check passes; for use in a `with` block, which ends with SIGTERM.

        Args:
          arguments: instead of those in the Dockerfile.
          environment: dict of variables, added to those of the image.
          patience: seconds to wait.

        Yields:
          subprocess.Popen.

        Raises:
          PlatformError: it ended, or did not become healthy in time.
        """
        with open(self.log, "a") as log:
            options = {"stdout": log, "stderr": log, "stdin": subprocess.DEVNULL}
            process = subprocess.Popen(self._command(arguments), **self.place(environment), **options)
        try:
            deadline = time.monotonic() + patience
            while not self.is_healthy(environment):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise PlatformError(f"the image did not become healthy; the last it said: {last_line(self.log)}")
                time.sleep(0.2)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def is_healthy(self, environment=None):
        """Whether the health check of the Dockerfile passes, run as Docker runs it in the container."""
        return subprocess.run(self.stage.health, **self.place(environment), capture_output=True).returncode == 0

    def _command(self, arguments):
        return [*self.stage.entrypoint, *(arguments or self.stage.command)]

    def place(self, environment=None):
        """Where a process of the image runs, and with which variables: keywords of `subprocess`."""
        variables = environment_of(self.stage, self.python) | (environment or {})
        return {"cwd": self.stage.place("."), "env": variables}


def rehearse(file, root, folder):
    """Carry out the steps of a Dockerfile.

    Args:
      file: the Dockerfile.
      root: of the build context.
      folder: for what is made, a directory that is empty or not there.

    Returns:
      `RehearsedImage`.

    Raises:
      PlatformError: a step failed, or is not one that can be carried out here.
    """
    folder.mkdir(exist_ok=True)
    python = _empty_environment(folder / "environment")
    _copy_context(root, folder / "context")
    builder = Builder(folder, python)
    for number, (keyword, value) in enumerate(instructions(file.read_text(encoding="utf-8")), 1):
        step = getattr(builder, f"do_{keyword.lower()}", None)
        if step is None:
            raise PlatformError(f"step {number} of {file.name}, {keyword}, cannot be carried out without Docker")
        try:
            step(value)
        except (OSError, ValueError, KeyError) as error:
            raise PlatformError(f"step {number} of {file.name}, {keyword} {value}, failed: {error}") from error
    return RehearsedImage(builder.stage, python, builder.log)


def free_port():
    """A port of this machine that nobody listens on right now, as text for a variable."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return str(probe.getsockname()[1])


def _copy_context(root, target):
    for path in context(root):
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / path, target / path)


def _empty_environment(folder):
    """A virtual environment with pip, to which the locked packages of the running one are visible; its interpreter."""
    try:
        venv.create(folder, symlinks=True, with_pip=True)
    except subprocess.CalledProcessError as error:
        raise PlatformError("a virtual environment could not be made: this Python lacks ensurepip") from error
    locked = folder / "locked"
    locked.mkdir()
    for installed in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for path in Path(installed).iterdir():
            if "recbandits" not in path.name and not (locked / path.name).exists():
                (locked / path.name).symlink_to(path)
    site = sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)})
    # First in line, so that what Python itself brings along, such as an old setuptools, does not hide the lock's.
    first = f"sys.path.insert(sys.path.index({site!r}), {str(locked)!r})"
    Path(site, "locked.pth").write_text(f"import site, sys; {first}; site.addsitedir({str(locked)!r})\n")
    share = Path(sysconfig.get_path("data"), "share")
    if share.is_dir():
        (folder / "share").symlink_to(share)
    return folder / "bin" / "python"
