"""The laptop as a platform: plain directories and SQLite files below the artifacts directory, processes, no account.

A directory that a part of the platform makes while it runs is on the manifest from when that part is first asked for.
"""

import os
import shutil
from contextlib import contextmanager
from functools import cached_property

from recbandits.platforms.protocol import FOUND, MADE, NotMadeError, PlatformError, Resource
from recbandits.platforms.provisioning import expect

DIRECTORIES = ("data", "runs", "policies", "metrics")


class LocalPlatform:
    """Directories for data, runs (jobs, checkpoints, TensorBoard logs), policies and metrics; SQLite files."""

    name = "local"
    lasting = frozenset()

    def __init__(self, config):
        if os.name == "nt":
            raise PlatformError("the local platform must run on Linux or macOS, got Windows: use WSL, or platform=gcp")
        self.config = config

    @cached_property
    def jobs(self):
        """`platforms.jobs.Jobs`: processes of this machine."""
        from recbandits.platforms.local.jobs import LocalJobs

        return LocalJobs(self.config)

    @cached_property
    def experiments(self):
        """`platforms.experiments.Experiments`: a SQLite file."""
        from recbandits.platforms.local.experiments import LocalExperiments

        return LocalExperiments(self.config)

    @cached_property
    def endpoints(self):
        """`platforms.endpoints.Endpoints`: the prediction server on a UNIX socket."""
        from recbandits.platforms.local.endpoints import LocalEndpoints

        self._expect("endpoints")
        return LocalEndpoints(self.config)

    @cached_property
    def images(self):
        """Container images, built by Docker."""
        from recbandits.platforms.local.images import LocalImages

        return LocalImages(self.config)

    @cached_property
    def pipelines(self):
        """`platforms.pipelines.Pipelines`: KFP's local runner."""
        from recbandits.platforms.local.pipelines import LocalPipelines

        self._expect("pipelines")
        return LocalPipelines(self.config)

    @cached_property
    def messages(self):
        """`platforms.messages.Messages`: an SQLite file."""
        from recbandits.platforms.local.messages import LocalMessages

        self._expect("messages")
        return LocalMessages(self.config)

    @cached_property
    def functions(self):
        """`platforms.functions.Functions`: a process for each, which reads the messages of its topic."""
        from recbandits.platforms.local.functions import LocalFunctions

        self._expect("functions")
        return LocalFunctions(self.config, self.messages)

    @cached_property
    def warehouse(self):
        """`platforms.warehouse.Warehouse`: records in SQLite, BigQuery's SQL on DuckDB."""
        from recbandits.platforms.local.warehouse import LocalWarehouse

        self._expect("warehouse")
        return LocalWarehouse(self.config.artifacts_dir / "warehouse" / "warehouse.sqlite")

    def share(self, directory):
        """The directory itself, as text: steps on this machine find it where it is."""
        return str(directory)

    def plan(self):
        """One "directory" for each part, named relative to the artifacts directory."""
        return [Resource("directory", name) for name in DIRECTORIES]

    def exists(self, resource):
        """Whether a directory is there; see `Platform.exists`."""
        return self._path(resource).is_dir()

    def make(self, resource):
        """Make a directory; see `Platform.make`."""
        path = self._path(resource)
        with _one_sentence(resource, "made", NotMadeError):
            if path.is_dir():
                return FOUND
            path.mkdir(parents=True)
            return MADE

    def remove(self, resource):
        """Remove a directory and what is in it, which runs no more then; see `Platform.remove`."""
        path = self._path(resource)
        with _one_sentence(resource, "removed", PlatformError):
            if path.exists():
                _stop_all(path)
                shutil.rmtree(path)

    def _expect(self, name):
        expect(self.config, Resource("directory", name), self.exists)

    def _path(self, resource):
        root = self.config.artifacts_dir
        path = root / resource.name
        if root not in path.parents or ".." in path.parts:
            raise PlatformError(f"directory {resource.name!r} is not inside the artifacts directory")
        return path


def _stop_all(path):
    """End the servers, runs and jobs whose directories are below a path."""
    from recbandits.platforms.local.units import units_below

    for unit in units_below(path):
        unit.stop()


@contextmanager
def _one_sentence(resource, done, refusal):
    try:
        yield
    except OSError as error:
        raise refusal(f"{resource.kind} {resource.name} could not be {done}: {error.strerror or error}") from error
