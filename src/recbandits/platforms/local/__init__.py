"""This machine as a platform: directories and SQLite files below the artifacts directory, processes, no account.

A directory that the platform makes bears a mark, the file `.recbandits`. One that was there before does not, and stays
at clean-up.
"""

import os
import shutil
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from recbandits.config import Config
from recbandits.platforms.protocol import Outcome, PlatformError

if TYPE_CHECKING:
    from recbandits.platforms.local.endpoints import LocalEndpoints
    from recbandits.platforms.local.experiments import LocalExperiments
    from recbandits.platforms.local.functions import LocalFunctions
    from recbandits.platforms.local.images import LocalImages
    from recbandits.platforms.local.jobs import LocalJobs
    from recbandits.platforms.local.messages import LocalMessages
    from recbandits.platforms.local.pipelines import LocalPipelines
    from recbandits.platforms.local.warehouse import LocalWarehouse

DIRECTORIES = ("data", "runs", "policies", "metrics")  # of every project; the others are made when they are needed
MARK = ".recbandits"
_PARTS = (*DIRECTORIES, "warehouse", "messages", "functions", "endpoints", "pipelines")  # what is used before its user


class LocalPlatform:
    """Directories for data, runs (jobs, checkpoints, TensorBoard logs), policies and metrics; SQLite files."""

    name = "local"

    def __init__(self, config: Config):
        if os.name == "nt":
            raise PlatformError("the local platform must run on Linux or macOS, got Windows: use WSL, or platform=gcp")
        self.config = config

    def create(self) -> list[Outcome]:
        """Make the directories of the project; see `Platform.create`."""
        return [Outcome("directory", name, self._make(name)) for name in DIRECTORIES]

    def clean_up(self, dry_run: bool = True) -> list[Outcome]:
        """End what runs in the directories that bear our mark, and remove them; see `Platform.clean_up`."""
        names = [name for name in reversed(_PARTS) if (self._path(name) / MARK).is_file()]
        for name in () if dry_run else names:
            with _one_sentence(name, "removed"):
                _stop_all(self._path(name))
                shutil.rmtree(self._path(name))
        return [Outcome("directory", name, "would be removed" if dry_run else "removed") for name in names]

    @cached_property
    def jobs(self) -> "LocalJobs":
        """`platforms.jobs.Jobs`: processes of this machine."""
        from recbandits.platforms.local.jobs import LocalJobs

        return LocalJobs(self.config)

    @cached_property
    def experiments(self) -> "LocalExperiments":
        """`platforms.experiments.Experiments`: a SQLite file."""
        from recbandits.platforms.local.experiments import LocalExperiments

        return LocalExperiments(self.config)

    @cached_property
    def endpoints(self) -> "LocalEndpoints":
        """`platforms.endpoints.Endpoints`: the prediction server on a UNIX socket."""
        from recbandits.platforms.local.endpoints import LocalEndpoints

        self._make("endpoints")
        return LocalEndpoints(self.config)

    @cached_property
    def images(self) -> "LocalImages":
        """Container images, built by Docker."""
        from recbandits.platforms.local.images import LocalImages

        return LocalImages(self.config)

    @cached_property
    def pipelines(self) -> "LocalPipelines":
        """`platforms.pipelines.Pipelines`: KFP's local runner."""
        from recbandits.platforms.local.pipelines import LocalPipelines

        self._make("pipelines")
        return LocalPipelines(self.config)

    @cached_property
    def messages(self) -> "LocalMessages":
        """`platforms.messages.Messages`: an SQLite file."""
        from recbandits.platforms.local.messages import LocalMessages

        self._make("messages")
        return LocalMessages(self.config)

    @cached_property
    def functions(self) -> "LocalFunctions":
        """`platforms.functions.Functions`: a process for each, which reads the messages of its topic."""
        from recbandits.platforms.local.functions import LocalFunctions

        self._make("functions")
        return LocalFunctions(self.config, self.messages)

    @cached_property
    def warehouse(self) -> "LocalWarehouse":
        """`platforms.warehouse.Warehouse`: records in SQLite, BigQuery's SQL on DuckDB."""
        from recbandits.platforms.local.warehouse import LocalWarehouse

        self._make("warehouse")
        return LocalWarehouse(self.config.artifacts_dir / "warehouse" / "warehouse.sqlite")

    def share(self, directory: Path) -> str:
        """The directory itself, as text: steps on this machine find it where it is."""
        return str(directory)

    def _make(self, name):
        """Create a directory with a marker file and return "created", or "exists" if it was there."""
        path = self._path(name)
        with _one_sentence(name, "created"):
            if path.is_dir():
                return "exists"
            path.mkdir(parents=True)
            (path / MARK).touch(mode=0o600)
        return "created"

    def _path(self, name):
        return self.config.artifacts_dir / name


def _stop_all(path):
    """End the servers, runs and jobs whose directories are below a path."""
    from recbandits.platforms.local.units import units_below

    for unit in units_below(path):
        unit.stop()


@contextmanager
def _one_sentence(name, done):
    try:
        yield
    except OSError as error:
        raise PlatformError(f"directory {name} could not be {done}: {error.strerror or error}") from error
