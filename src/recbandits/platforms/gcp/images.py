"""Container images on Google Cloud: built by Cloud Build from the bucket, kept in Artifact Registry."""

import gzip
import io
import tarfile
from pathlib import Path

from recbandits.config import Config
from recbandits.platforms.gcp import storage
from recbandits.platforms.gcp.cloud import explained, location, patiently, rest
from recbandits.platforms.images import build_options, check_image, checkout, context
from recbandits.platforms.protocol import PlatformError

BUILDER = "gcr.io/cloud-builders/docker"  # Google's own image with the docker command; ours never go to that registry
MACHINE = "E2_HIGHCPU_8"
TIMEOUT = 3600  # seconds


class GcpImages:
    """The images of a checkout, which is looked for from the working directory upwards."""

    def __init__(self, config: Config):
        self._config = config

    def uri(self, name: str) -> str:
        """Return the URI of an image in Artifact Registry, by its tag."""
        return self._config.image(name)

    def build(self, name: str) -> str:
        """Have Cloud Build make an image, and wait for it.

        Args:
          name: such as "train".

        Returns:
          Its URI with the digest in place of the tag, which names this very build for good.

        Raises:
          PlatformError: there is no such image, or Google Cloud refused.
        """
        from google.cloud.devtools.cloudbuild_v1 import CloudBuildClient

        root = checkout()
        check_image(name, root)
        with explained(f"image {self.uri(name)}"):
            build = self._build(name, storage.keep(self._config, archive(root), "source", ".tgz"))
            request = {"parent": location(self._config), "project_id": self._config.project, "build": build}
            operation = patiently(lambda: CloudBuildClient().create_build(request=request))
            (image,) = operation.result(timeout=TIMEOUT).results.images
        return f"{self.uri(name).rpartition(':')[0]}@{image.digest}"

    def pinned(self, name: str) -> str:
        """Return the URI of an image by the digest that its tag names now.

        Jobs, models and caches remember an image by this name: under its tag they would take a corrected image for the
        faulty one. The REST API is asked because a function that starts pipelines has no client of Artifact Registry.

        Args:
          name: such as "train".

        Raises:
          PlatformError: the image has not been built, or Google Cloud refused.
        """
        from google.api_core.exceptions import NotFound

        uri, _, tag = self.uri(name).rpartition(":")
        path = f"{location(self._config)}/repositories/{self._config.registry}/packages/{name}/tags/{tag}"
        with explained(f"image {self.uri(name)}"):
            try:
                version = rest("GET", f"https://artifactregistry.googleapis.com/v1/{path}")["version"]
            except NotFound as error:
                raise PlatformError(f"there is no image {self.uri(name)}: build it first") from error
        return f"{uri}@{version.rpartition('/')[2]}"

    def _build(self, name, source):
        """Return a dict in the shape of `google.cloud.devtools.cloudbuild_v1.Build`."""
        command = ["build", *build_options(name, self.uri(name), self._config)]
        return {
            "source": {"storage_source": source},
            "steps": [{"name": BUILDER, "args": command, "env": ["DOCKER_BUILDKIT=1"]}],
            "images": [self.uri(name)],
            "service_account": f"projects/{self._config.project}/serviceAccounts/{self._config.account('build')}",
            "options": {"logging": "CLOUD_LOGGING_ONLY", "machine_type": MACHINE},
            "tags": [self._config.prefix, self._config.version, name],
            "timeout": {"seconds": TIMEOUT},
        }


def archive(root: Path) -> bytes:
    """Pack the build context.

    Args:
      root: of the repository.

    Returns:
      bytes of a .tgz that depend on the files' names, contents and executable bits alone.
    """
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for path in context(root):
            tar.add(root / path, path, filter=_plain)
    return packed.getvalue()


def _plain(entry):
    """An entry of an archive without owner, time and umask."""
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755 if entry.mode & 0o100 else 0o644
    return entry
