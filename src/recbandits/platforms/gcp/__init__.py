"""Google Cloud as a platform; the client library of a service is imported when the service is first used."""

from functools import cached_property
from importlib import import_module
from pathlib import Path

from recbandits.config import Config
from recbandits.platforms.protocol import Outcome


def _service(module, name):
    """Return a property that makes a class of a module of this package from the configuration when it is first read."""
    return cached_property(lambda self: getattr(import_module(f"{__name__}.{module}"), name)(self.config))


class GcpPlatform:
    """The services of one project under the names and labels of a `Config`; see `platforms.protocol.Platform`."""

    name = "gcp"
    jobs = _service("jobs", "GcpJobs")  # of Vertex AI, as are experiments, pipelines and endpoints
    experiments = _service("experiments", "GcpExperiments")
    pipelines = _service("pipelines", "GcpPipelines")
    endpoints = _service("endpoints", "GcpEndpoints")
    messages = _service("messages", "GcpMessages")  # Pub/Sub
    functions = _service("functions", "GcpFunctions")  # Cloud Functions that topics or addresses call
    schedules = _service("functions", "GcpSchedules")  # jobs of Cloud Scheduler
    warehouse = _service("warehouse", "BigQueryWarehouse")
    images = _service("images", "GcpImages")  # built by Cloud Build and kept in Artifact Registry

    def __init__(self, config: Config):
        self.config = config

    def create(self) -> list[Outcome]:
        """Set up the project; see `Platform.create`. Services are "enabled", and never disabled again."""
        from recbandits.platforms.gcp.project import set_up

        return set_up(self.config)

    def clean_up(self, dry_run: bool = True) -> list[Outcome]:
        """Remove what is ours; see `Platform.clean_up`."""
        from recbandits.platforms.gcp.cleanup import clean_up

        return clean_up(self.config, dry_run)

    def share(self, directory: Path) -> str:
        """Copy the files of a directory, a `pathlib.Path`, into the bucket and return its gs:// URI."""
        from recbandits.platforms.gcp.cloud import explained, upload

        with explained(f"directory {directory.name}"):
            return upload(self.config, directory, directory.name)
