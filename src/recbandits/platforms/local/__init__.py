"""This machine as a platform: directories and SQLite files below the artifacts directory, processes, no account.

A directory that the platform makes bears a mark, the file `.recbandits`. One that was there before does not, and stays
at clean-up.
"""

import os
import shutil
from functools import cached_property
from importlib import import_module
from pathlib import Path

from recbandits.config import Config
from recbandits.platforms.local.files import one_sentence
from recbandits.platforms.protocol import Outcome, PlatformError

DIRECTORIES = ("data", "runs", "policies", "metrics")  # of every project; the others are made when they are needed
MARK = ".recbandits"
_PARTS = (*DIRECTORIES, "warehouse", "messages", "functions", "endpoints", "pipelines")  # what is used before its user


def _service(module, name, directory=None, arguments=lambda platform: [platform.config]):
    """Return a property that makes a class of a module of this package, and its directory, when it is first read."""

    def make(platform):
        if directory:
            platform._make(directory)
        return getattr(import_module(f"{__name__}.{module}"), name)(*arguments(platform))

    return cached_property(make)


class LocalPlatform:
    """Directories for data, runs (jobs, checkpoints, TensorBoard logs), policies and metrics; SQLite files.

    Its services are those of `Platform`, and `images`: container images, built by Docker, Podman or Buildah.
    """

    name = "local"
    jobs = _service("jobs", "LocalJobs", "runs")
    experiments = _service("experiments", "LocalExperiments", "runs")
    pipelines = _service("pipelines", "LocalPipelines", "pipelines")
    endpoints = _service("endpoints", "LocalEndpoints", "endpoints")
    messages = _service("messages", "LocalMessages", "messages")
    functions = _service("functions", "LocalFunctions", "functions", lambda self: [self.config, self.messages])
    warehouse = _service(
        "warehouse", "LocalWarehouse", "warehouse", lambda self: [self._path("warehouse/warehouse.sqlite")]
    )
    images = _service("images", "LocalImages")

    def __init__(self, config: Config):
        if os.name == "nt":
            raise PlatformError("the local platform must run on Linux or macOS, got Windows: use WSL, or platform=gcp")
        self.config = config

    def create(self) -> list[Outcome]:
        """Make the directories of the project; see `Platform.create`."""
        return [Outcome("directory", name, self._make(name)) for name in DIRECTORIES]

    def clean_up(self, dry_run: bool = True) -> list[Outcome]:
        """End what runs in the directories that bear our mark, and remove them; see `Platform.clean_up`."""
        from recbandits.platforms.local.units import units_below

        with one_sentence("artifacts", "read"):
            names = [name for name in reversed(_PARTS) if (self._path(name) / MARK).is_file()]
        for service in () if dry_run else vars(self).keys() - {"config"}:
            delattr(self, service)  # it is made again with its directory, which then bears the mark
        for name in () if dry_run else names:
            with one_sentence(f"directory {self._path(name)}", "removed"):
                for unit in units_below(self._path(name)):
                    unit.stop()
                shutil.rmtree(self._path(name))
        return [Outcome("directory", name, "would be removed" if dry_run else "removed") for name in names]

    def share(self, directory: Path) -> str:
        """Return the directory itself, as text: steps on this machine find it where it is."""
        return str(directory)

    def _make(self, name):
        """Create a directory with a marker file and return "created", or "exists" if it was there."""
        path = self._path(name)
        with one_sentence(f"directory {name}", "created"):
            if path.is_dir():
                return "exists"
            try:
                path.mkdir(mode=0o700, parents=True)
            except FileExistsError:
                if path.is_dir():  # another process has made it meanwhile
                    return "exists"
                raise
            (path / MARK).touch(mode=0o600)
        return "created"

    def _path(self, name):
        return self.config.artifacts_dir / name
