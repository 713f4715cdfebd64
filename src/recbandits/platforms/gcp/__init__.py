"""Google Cloud as a platform; its client libraries are imported when a resource is made, not before."""

from functools import cached_property

from recbandits.platforms.gcp import resources
from recbandits.platforms.gcp.clients import Clients
from recbandits.platforms.gcp.errors import explained, patient
from recbandits.platforms.protocol import NotMadeError, PlatformError, Resource


class GcpPlatform:
    """Services, bucket, dataset, image repository, service account and its roles in one Google Cloud project."""

    name = "gcp"
    lasting = frozenset({"service"})

    def __init__(self, config, endpoint=None):
        """Take a `Config` with a project; `endpoint` is the address of a `Rehearsal` instead of Google's."""
        self.config = config
        self._clients = Clients(config.project, endpoint, config.region)

    @cached_property
    def jobs(self):
        """`platforms.jobs.Jobs`: training and tuning jobs of Vertex AI."""
        from recbandits.platforms.gcp.jobs import GcpJobs

        return GcpJobs(self.config, self._clients)

    @cached_property
    def experiments(self):
        """`platforms.experiments.Experiments`: Vertex AI Experiments."""
        from recbandits.platforms.gcp.experiments import GcpExperiments

        return GcpExperiments(self.config, self._clients)

    @cached_property
    def endpoints(self):
        """`platforms.endpoints.Endpoints`: endpoints of Vertex AI."""
        from recbandits.platforms.gcp.endpoints import GcpEndpoints

        return GcpEndpoints(self.config, self._clients)

    @cached_property
    def messages(self):
        """Topics and subscriptions of Pub/Sub."""
        from recbandits.platforms.gcp.messages import GcpMessages

        return GcpMessages(self.config, self._clients)

    @cached_property
    def functions(self):
        """`platforms.functions.Functions`: Cloud Functions that topics or addresses call."""
        from recbandits.platforms.gcp.functions import GcpFunctions

        return GcpFunctions(self.config, self._clients)

    @cached_property
    def schedules(self):
        """`platforms.schedules.Schedules`: jobs of Cloud Scheduler."""
        from recbandits.platforms.gcp.schedules import GcpSchedules

        return GcpSchedules(self.config, self._clients)

    @cached_property
    def pipelines(self):
        """`platforms.pipelines.Pipelines`: Vertex AI Pipelines."""
        from recbandits.platforms.gcp.pipelines import GcpPipelines

        return GcpPipelines(self.config, self._clients)

    @cached_property
    def images(self):
        """Container images, built by Cloud Build and kept in Artifact Registry."""
        from recbandits.platforms.gcp.images import GcpImages

        return GcpImages(self.config, self._clients)

    @cached_property
    def warehouse(self):
        """`platforms.warehouse.Warehouse`: tables of BigQuery."""
        from recbandits.platforms.gcp.warehouse import BigQueryWarehouse

        return BigQueryWarehouse(self.config, self._clients)

    def share(self, directory):
        """Copy the files of a directory, a `pathlib.Path`, into the bucket; gives its gs:// URI."""
        bucket = self._clients.storage.bucket(self.config.bucket)
        with explained(Resource("directory", directory.name), "copied"):
            for file in sorted(path for path in directory.iterdir() if path.is_file()):
                bucket.blob(f"{directory.name}/{file.name}").upload_from_filename(str(file))
        return f"gs://{self.config.bucket}/{directory.name}"

    def plan(self):
        """Every resource of the project under its full name."""
        return resources.plan(self.config)

    def exists(self, resource):
        """Whether a resource is there; see `Platform.exists`."""
        with explained(resource, "looked for", PlatformError):
            return patient(resources.exists)(self._clients, resource)

    def make(self, resource):
        """Make a resource; see `Platform.make`. A service is "enabled", and never disabled again."""
        with explained(resource, "made", NotMadeError):
            return patient(resources.make)(self._clients, self.config, resource)

    def remove(self, resource):
        """Remove a resource; see `Platform.remove`."""
        with explained(resource, "removed", PlatformError):
            patient(resources.remove)(self._clients, resource)
