"""Exported policies as models of Vertex AI: a directory in the bucket, and the container that serves it."""

import hashlib
import json
import tempfile
from contextlib import contextmanager
from pathlib import Path

from recbandits.platforms.gcp.errors import explained
from recbandits.platforms.gcp.images import GcpImages
from recbandits.platforms.protocol import PlatformError, Resource
from recbandits.platforms.provisioning import expect
from recbandits.serving.policy import load

_PATIENCE = 1800  # seconds until a model must be there


class Models:
    """The versions of the one model of a configuration: each is a policy in a container.

    Args:
      config: Config
      clients: `Clients`
    """

    def __init__(self, config, clients):
        self._config, self._clients = config, clients

    def version(self, policy):
        """The version of an exported policy.

        Args:
          policy: its directory, or the gs:// URI of one.

        Raises:
          ValueError: there is no exported policy.
        """
        with self._local(policy) as directory:
            return load(directory).version

    def upload(self, policy, topic=None):
        """Make a version of the model, unless the same policy in the same container is one.

        The container is told by its digest, for Vertex AI keeps a copy of the image that it finds now.

        Args:
          policy: directory of an exported policy, which is copied to the bucket, or the gs:// URI of one.
          topic: "projects/<project>/topics/<topic>", where decisions are logged; None for no log.

        Returns:
          Resource name of the version.

        Raises:
          PlatformError: it was refused, or the image for serving has not been built.
        """
        version = self.version(policy)
        container = container_spec(GcpImages(self._config, self._clients).pinned("serve"), topic)
        alias = f"policy-{version}-{hashlib.sha256(json.dumps(container).encode()).hexdigest()[:8]}"
        self.expect()
        with explained(Resource("model", self._config.base), "uploaded"):
            found = self._find(f"{self._name}@{alias}")
            if found:
                return f"{found.name}@{found.version_id}"
            uri = str(policy) if _is_uri(policy) else self._send(policy, f"policies/{version}")
            request = self._request(alias, uri, container, version)
            made = self._clients.vertex("Model").upload_model(request=request, timeout=60).result(timeout=_PATIENCE)
        return f"{made.model}@{made.model_version_id}"

    def expect(self):
        """Put the model on the manifest, unless somebody else has made it; it is there with its first version.

        Raises:
          PlatformError: it cannot be said whether it is there.
        """
        resource = Resource("model", self._name)
        with explained(resource, "looked for"):
            expect(self._config, resource, lambda _: self._find(self._name))

    @property
    def _parent(self):
        return f"projects/{self._config.project}/locations/{self._config.region}"

    @property
    def _name(self):
        return f"{self._parent}/models/{self._config.base}"

    def _find(self, name):
        from google.api_core.exceptions import NotFound

        try:
            return self._clients.vertex("Model").get_model(name=name)
        except NotFound:
            return None

    def _request(self, alias, uri, container, version):
        """The first upload names the model, later ones add versions to it."""
        model = {
            "display_name": self._config.base,
            "artifact_uri": uri,
            "container_spec": container,
            "version_aliases": [alias],
            "version_description": f"policy {version}",
            "labels": self._config.labels,
        }
        place = {"parent_model": self._name} if self._find(self._name) else {"model_id": self._config.base}
        return {"parent": self._parent, "model": model, **place}

    def _send(self, directory, prefix):
        """Copy a directory to the bucket; gives its URI."""
        bucket = self._clients.storage.bucket(self._config.bucket)
        for path in sorted(Path(directory).rglob("*")):
            if path.is_file():
                blob = bucket.blob(f"{prefix}/{path.relative_to(directory).as_posix()}")
                blob.upload_from_filename(path, checksum="md5")
        return f"gs://{self._config.bucket}/{prefix}"

    @contextmanager
    def _local(self, policy):
        """The directory itself, or a temporary one with what is in the bucket."""
        if not _is_uri(policy):
            yield Path(policy)
            return
        bucket, _, prefix = str(policy).removeprefix("gs://").rstrip("/").partition("/")
        with tempfile.TemporaryDirectory() as folder:
            with explained(Resource("policy", policy), "read"):
                for blob in self._clients.storage.list_blobs(bucket, prefix=f"{prefix}/"):
                    path = Path(folder, "policy", blob.name.removeprefix(f"{prefix}/"))
                    path.parent.mkdir(parents=True, exist_ok=True)
                    blob.download_to_filename(path)
            if not Path(folder, "policy").exists():
                raise PlatformError(f"there is no policy at {policy}")
            yield Path(folder, "policy")


def container_spec(image, topic=None):
    """The project's serving image and its variables, in the shape of Vertex AI's ModelContainerSpec.

    Args:
      image: its URI.
      topic: as of `Models.upload`.
    """
    variables = {
        "HANDLER_MODULE": "recbandits.serving.predictor",
        "HANDLER_CLASS": "BanditHandler",
        "PREDICTOR_MODULE": "recbandits.serving.predictor",
        "PREDICTOR_CLASS": "BanditPredictor",
    }
    variables |= {"RECBANDITS_EVENT_TOPIC": topic} if topic else {}
    return {
        "image_uri": image,
        "env": [{"name": name, "value": value} for name, value in variables.items()],
        "ports": [{"container_port": 8080}],
        "predict_route": "/predict",
        "health_route": "/health",
    }


def _is_uri(policy):
    return str(policy).startswith("gs://")
