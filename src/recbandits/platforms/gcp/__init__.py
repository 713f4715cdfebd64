"""Google Cloud as a platform; the client library of a service is imported when the service is first used."""

from functools import cached_property
from importlib import import_module
from pathlib import Path

from recbandits.config import Config
from recbandits.platforms.protocol import Outcome


def _service(module, name):
    """Return a property that makes a class of a module of this package from the configuration when it is first read."""

    def make(platform):
        return getattr(import_module(f"{__name__}.{module}"), name)(platform.config)

    return cached_property(make)


class GcpPlatform:
    """The services of one project under the names and labels of a `Config`.

    Attributes:
      jobs: `platforms.jobs.Jobs`, training and tuning jobs of Vertex AI.
      experiments: `platforms.experiments.Experiments`, Vertex AI Experiments.
      pipelines: `platforms.pipelines.Pipelines`, Vertex AI Pipelines.
      endpoints: `platforms.endpoints.Endpoints`, endpoints of Vertex AI.
      messages: `platforms.messages.Messages`, topics and subscriptions of Pub/Sub.
      functions: `platforms.functions.Functions`, Cloud Functions that topics or addresses call.
      schedules: `platforms.schedules.Schedules`, jobs of Cloud Scheduler.
      warehouse: `platforms.warehouse.Warehouse`, tables of BigQuery.
      images: container images, built by Cloud Build and kept in Artifact Registry.
    """

    name = "gcp"
    jobs = _service("jobs", "GcpJobs")
    experiments = _service("experiments", "GcpExperiments")
    pipelines = _service("pipelines", "GcpPipelines")
    endpoints = _service("endpoints", "GcpEndpoints")
    messages = _service("messages", "GcpMessages")
    functions = _service("functions", "GcpFunctions")
    schedules = _service("schedules", "GcpSchedules")
    warehouse = _service("warehouse", "BigQueryWarehouse")
    images = _service("images", "GcpImages")

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
        from recbandits.platforms.gcp import storage
        from recbandits.platforms.gcp.cloud import explained

        with explained(f"directory {directory.name}"):
            return storage.upload(self.config, directory, directory.name)
