"""Google Cloud as a platform; the client library of a service is imported when the service is first used."""

from functools import cached_property


class GcpPlatform:
    """The services of one project under the names and labels of a `Config`."""

    name = "gcp"

    def __init__(self, config):
        self.config = config

    def create(self):
        """Set up the project; see `Platform.create`. Services are "enabled", and never disabled again."""
        from recbandits.platforms.gcp.project import set_up

        return set_up(self.config)

    def clean_up(self, dry_run=True):
        """Remove what bears our labels or names; see `Platform.clean_up`."""
        from recbandits.platforms.gcp.cleanup import clean_up

        return clean_up(self.config, dry_run)

    def share(self, directory):
        """Copy the files of a directory, a `pathlib.Path`, into the bucket and return its gs:// URI."""
        from recbandits.platforms.gcp import storage
        from recbandits.platforms.gcp.cloud import explained

        with explained(f"directory {directory.name}"):
            return storage.upload(self.config, directory, directory.name)

    @cached_property
    def jobs(self):
        """`platforms.jobs.Jobs`: training and tuning jobs of Vertex AI."""
        from recbandits.platforms.gcp.jobs import GcpJobs

        return GcpJobs(self.config)

    @cached_property
    def experiments(self):
        """`platforms.experiments.Experiments`: Vertex AI Experiments."""
        from recbandits.platforms.gcp.experiments import GcpExperiments

        return GcpExperiments(self.config)

    @cached_property
    def endpoints(self):
        """`platforms.endpoints.Endpoints`: endpoints of Vertex AI."""
        from recbandits.platforms.gcp.endpoints import GcpEndpoints

        return GcpEndpoints(self.config)

    @cached_property
    def messages(self):
        """Topics and subscriptions of Pub/Sub."""
        from recbandits.platforms.gcp.messages import GcpMessages

        return GcpMessages(self.config)

    @cached_property
    def functions(self):
        """`platforms.functions.Functions`: Cloud Functions that topics or addresses call."""
        from recbandits.platforms.gcp.functions import GcpFunctions

        return GcpFunctions(self.config)

    @cached_property
    def schedules(self):
        """`platforms.schedules.Schedules`: jobs of Cloud Scheduler."""
        from recbandits.platforms.gcp.schedules import GcpSchedules

        return GcpSchedules(self.config)

    @cached_property
    def pipelines(self):
        """`platforms.pipelines.Pipelines`: Vertex AI Pipelines."""
        from recbandits.platforms.gcp.pipelines import GcpPipelines

        return GcpPipelines(self.config)

    @cached_property
    def images(self):
        """Container images, built by Cloud Build and kept in Artifact Registry."""
        from recbandits.platforms.gcp.images import GcpImages

        return GcpImages(self.config)

    @cached_property
    def warehouse(self):
        """`platforms.warehouse.Warehouse`: tables of BigQuery."""
        from recbandits.platforms.gcp.warehouse import BigQueryWarehouse

        return BigQueryWarehouse(self.config)
