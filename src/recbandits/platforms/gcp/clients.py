"""Google's own clients over REST, each made when it is first asked for."""

import logging
import os
from contextlib import contextmanager
from functools import cached_property

_EMULATOR = "PUBSUB_EMULATOR_HOST"


class Clients:
    """The clients of one project, signed in with the application default credentials.

    Args:
      project: Google Cloud project id.
      endpoint: None for Google's services, else the base address of a `Rehearsal`, which needs no credentials.
      region: of Vertex AI.
    """

    def __init__(self, project, endpoint=None, region="us-central1"):
        self._project = project
        self._endpoint = endpoint
        self._region = region
        self._vertex = {}

    @cached_property
    def storage(self):
        """`google.cloud.storage.Client`."""
        from google.cloud import storage

        return storage.Client(self._project, **self._access)

    @cached_property
    def bigquery(self):
        """`google.cloud.bigquery.Client`."""
        from google.cloud import bigquery

        return bigquery.Client(self._project, **self._access)

    @cached_property
    def artifact_registry(self):
        """`google.cloud.artifactregistry_v1.ArtifactRegistryClient`."""
        from google.cloud.artifactregistry_v1 import ArtifactRegistryClient

        return ArtifactRegistryClient(transport="rest", **self._access)

    @cached_property
    def service_usage(self):
        """`google.cloud.service_usage_v1.ServiceUsageClient`."""
        from google.cloud.service_usage_v1 import ServiceUsageClient

        return ServiceUsageClient(transport="rest", **self._access)

    @cached_property
    def projects(self):
        """`google.cloud.resourcemanager_v3.ProjectsClient`."""
        from google.cloud.resourcemanager_v3 import ProjectsClient

        return ProjectsClient(transport="rest", **self._access)

    @cached_property
    def builds(self):
        """`google.cloud.devtools.cloudbuild_v1.CloudBuildClient`."""
        from google.cloud.devtools.cloudbuild_v1 import CloudBuildClient

        return CloudBuildClient(transport="rest", **self._access)

    @cached_property
    def publisher(self):
        """`google.pubsub_v1.PublisherClient`, which makes and removes topics, and publishes a request at a time."""
        from google.pubsub_v1 import PublisherClient

        return self._pubsub(PublisherClient)

    @cached_property
    def subscriber(self):
        """`google.pubsub_v1.SubscriberClient`."""
        from google.pubsub_v1 import SubscriberClient

        return self._pubsub(SubscriberClient)

    @cached_property
    def functions(self):
        """`google.cloud.functions_v2.FunctionServiceClient`."""
        from google.cloud.functions_v2 import FunctionServiceClient

        return FunctionServiceClient(transport="rest", **self._access)

    @cached_property
    def scheduler(self):
        """`google.cloud.scheduler_v1.CloudSchedulerClient`."""
        from google.cloud.scheduler_v1 import CloudSchedulerClient

        return CloudSchedulerClient(transport="rest", **self._access)

    def at(self, region):
        """These clients where Vertex AI's are of another region; themselves for their own."""
        return self if region == self._region else Clients(self._project, self._endpoint, region)

    def vertex(self, service):
        """A client of Vertex AI in the region.

        Args:
          service: "Job", "Model", "Endpoint", "Prediction", "Tensorboard" or another one of
            `google.cloud.aiplatform_v1.<service>ServiceClient`.
        """
        from google.cloud import aiplatform_v1

        if service not in self._vertex:
            client = getattr(aiplatform_v1, f"{service}ServiceClient")
            access = {"client_options": {"api_endpoint": self._vertex_host}} | self._access
            self._vertex[service] = client(transport="rest", **access)
        return self._vertex[service]

    def raw_predict(self, endpoint, body, headers):
        """Send bytes to an endpoint of Vertex AI as they are.

        Args:
          endpoint: resource name.
          body: bytes.
          headers: dict.

        Returns:
          (status, bytes).
        """
        address = self._endpoint or f"https://{self._vertex_host}"
        response = self._session.post(f"{address}/v1/{endpoint}:rawPredict", data=body, headers=headers)
        return response.status_code, response.content

    @contextmanager
    def sdk(self):
        """Vertex AI's SDK of resources, `google.cloud.aiplatform`, set up while a `with` block lasts.

        Its settings are global, and so is what it tells about its progress; afterwards both are as they were.
        """
        from google.cloud import aiplatform
        from google.cloud.aiplatform import initializer

        settings = vars(initializer.global_config)
        before = dict(settings)
        credentials = {name: value for name, value in self._access.items() if name == "credentials"}
        address = {"api_endpoint": self._endpoint or self._vertex_host, "api_transport": "rest"}
        quiet = logging.root.manager.disable
        logging.disable(max(quiet, logging.WARNING))
        try:
            aiplatform.init(project=self._project, location=self._region, **address, **credentials)
            yield aiplatform
        finally:
            settings.clear()
            settings.update(before)
            logging.disable(quiet)

    def iam(self, method, path, body=None):
        """One request to the IAM service, whose client library speaks no REST; `path` is what follows `/v1/`."""
        return self.rest("iam", method, f"v1/{path}", body=body)

    def rest(self, service, method, path, query=None, body=None):
        """One request to a service without a client library here.

        Args:
          service: such as "eventarc", which stands for https://eventarc.googleapis.com.
          method: HTTP method.
          path: with the version, without a slash in front.
          query: dict of parameters.
          body: JSON-serialisable request.

        Returns:
          dict, the answer.

        Raises:
          google.api_core.exceptions.GoogleAPICallError: any status but 2xx.
        """
        from google.api_core.exceptions import from_http_response

        address = self._endpoint or f"https://{service}.googleapis.com"
        response = self._session.request(method, f"{address}/{path}", params=query, json=body)
        if not response.ok:
            raise from_http_response(response)
        return response.json()

    @property
    def _vertex_host(self):
        return f"{self._region}-aiplatform.googleapis.com"

    @cached_property
    def _session(self):
        import google.auth
        from google.auth.transport.requests import AuthorizedSession

        scopes = ["https://www.googleapis.com/auth/cloud-platform"]
        return AuthorizedSession(self._access.get("credentials") or google.auth.default(scopes)[0])

    @cached_property
    def _access(self):
        return _access_to(self._endpoint) if self._endpoint else {}

    def _pubsub(self, client):
        """Make a client of Pub/Sub; of Google's emulator where the environment names one, as its documentation says."""
        emulator = os.environ.pop(_EMULATOR, "")  # the constructor itself supports an emulator over gRPC alone
        try:
            access = _access_to(f"http://{emulator}") if emulator and not self._endpoint else self._access
            return client(transport="rest", **access)
        finally:
            if emulator:
                os.environ[_EMULATOR] = emulator


def _access_to(address):
    """Return the options of a client for a server that needs no credentials."""
    from google.auth.credentials import AnonymousCredentials

    return {"credentials": AnonymousCredentials(), "client_options": {"api_endpoint": address}}
