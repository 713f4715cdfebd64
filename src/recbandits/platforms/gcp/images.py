"""Container images on Google Cloud: built by Cloud Build from the bucket, kept in Artifact Registry."""

import gzip
import io
import tarfile
from pathlib import Path

from google.api_core.exceptions import NotFound

from recbandits.platforms.gcp.cloud import Service, explained, keep, location, patiently, rest
from recbandits.platforms.images import build_options, check_image, checkout, context
from recbandits.platforms.protocol import PlatformError

BUILDER = "gcr.io/cloud-builders/docker"  # Google's own image with the docker command; ours never go to that registry
MACHINE = "E2_HIGHCPU_8"
TIMEOUT = 3600  # seconds


class GcpImages(Service):
    """The images of a checkout, which is looked for from the working directory upwards."""

    def build(self, name: str) -> str:
        """Have Cloud Build make an image, such as "train", wait for it, and return its URI.

        It has the digest in place of the tag, and names this build permanently. PlatformError if there is no such
        image, or Google Cloud refuses.
        """
        from google.cloud.devtools.cloudbuild_v1 import CloudBuildClient

        config, root = self._config, checkout()
        check_image(name, root)
        uri = config.image(name)
        with explained(f"image {uri}"):
            command = ["build", *build_options(name, uri, config)]
            build = {
                "source": {"storage_source": keep(config, archive(root), "source", ".tgz")},
                "steps": [{"name": BUILDER, "args": command, "env": ["DOCKER_BUILDKIT=1"]}],
                "images": [uri],
                "service_account": f"projects/{config.project}/serviceAccounts/{config.account('build')}",
                "options": {"logging": "CLOUD_LOGGING_ONLY", "machine_type": MACHINE},
                "tags": [config.prefix, config.version, name],
                "timeout": {"seconds": TIMEOUT},
            }
            request = {"parent": location(config), "project_id": config.project, "build": build}
            operation = patiently(lambda: CloudBuildClient().create_build(request=request))
            (image,) = operation.result(timeout=TIMEOUT).results.images
        return f"{uri.rpartition(':')[0]}@{image.digest}"

    def pinned(self, name: str) -> str:
        """Return the URI of an image, such as "train", by the digest that its tag names now.

        Jobs, models and caches remember an image by this name: under its tag they would take a corrected image for the
        faulty one. The REST API is asked because a function that starts pipelines has no client of Artifact Registry.
        PlatformError if the image has not been built, or Google Cloud refuses.
        """
        full = self._config.image(name)
        uri, _, tag = full.rpartition(":")
        path = f"{location(self._config)}/repositories/{self._config.registry}/packages/{name}/tags/{tag}"
        with explained(f"image {full}"):
            try:
                version = rest("GET", f"https://artifactregistry.googleapis.com/v1/{path}")["version"]
            except NotFound as error:
                raise PlatformError(f"there is no image {full}: build it first") from error
        return f"{uri}@{version.rpartition('/')[2]}"


def archive(root: Path) -> bytes:
    """Pack the build context of a checkout as a .tgz that depends on the files and their executable bits alone."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for path in context(root):
            tar.add(root / path, path, filter=_plain)
    return packed.getvalue()


def _plain(entry):
    """Return an entry of an archive without owner, time and umask."""
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755 if entry.mode & 0o100 else 0o644
    return entry
