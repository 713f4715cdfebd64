"""Container images on Google Cloud: built by Cloud Build from the bucket, kept in Artifact Registry."""

import gzip
import hashlib
import io
import tarfile

from recbandits.platforms.gcp.errors import explained
from recbandits.platforms.images import build_options, check_image, checkout, context
from recbandits.platforms.protocol import PlatformError, Resource

BUILDER = "gcr.io/cloud-builders/docker"  # Google's own image with the docker command; ours never go to that registry
MACHINE = "E2_HIGHCPU_8"
TIMEOUT = 3600  # seconds


class GcpImages:
    """The images of a checkout, which is looked for from the working directory upwards."""

    def __init__(self, config, clients):
        self._config = config
        self._clients = clients

    def uri(self, name):
        """Where an image is kept in Artifact Registry, by its tag."""
        return self._config.image(name)

    def build(self, name):
        """Have Cloud Build make an image, and wait for it.

        Args:
          name: such as "train".

        Returns:
          Its URI with the digest in place of the tag, which names this very build for good.

        Raises:
          PlatformError: there is no such image, or Google Cloud refused; whether it could be built is said there.
        """
        root = checkout()
        check_image(name, root)
        with explained(Resource("image", self.uri(name)), "built"):
            source = self._upload(archive(root))
            operation = self._clients.builds.create_build(
                request={"parent": self._parent, "build": self._build(name, source)}, timeout=60
            )
            (image,) = operation.result(timeout=TIMEOUT).results.images
        return f"{self.uri(name).rpartition(':')[0]}@{image.digest}"

    def pinned(self, name):
        """Where an image is kept, by the digest of what its tag names now.

        Whatever remembers an image by its name, as a cache does, takes a mended one under the same tag for the faulty
        one. Functions ask this, too, and go without the client library of Artifact Registry.

        Args:
          name: such as "train".

        Returns:
          Its URI with the digest in place of the tag, as of `build`.

        Raises:
          PlatformError: it has not been built, or Google Cloud refused.
        """
        from google.api_core.exceptions import NotFound

        place, _, tag = self.uri(name).rpartition(":")
        path = f"v1/{self._parent}/repositories/{self._config.registry}/packages/{name}/tags/{tag}"
        with explained(Resource("image", self.uri(name)), "looked for"):
            try:
                found = self._clients.rest("artifactregistry", "GET", path)
            except NotFound as error:
                raise PlatformError(f"there is no image {self.uri(name)}: build it first") from error
        return f"{place}@{found['version'].rpartition('/')[2]}"

    @property
    def _parent(self):
        return f"projects/{self._config.project}/locations/{self._config.region}"

    def _upload(self, packed):
        """Keep the build context in the bucket under its digest; the same one is sent once."""
        source = {"bucket": self._config.bucket, "object": f"source/{hashlib.sha256(packed).hexdigest()[:16]}.tgz"}
        blob = self._clients.storage.bucket(source["bucket"]).blob(source["object"])
        if not blob.exists():
            blob.upload_from_string(packed, content_type="application/gzip")
        return source

    def _build(self, name, source):
        """What Cloud Build is asked for; dict in the shape of `google.cloud.devtools.cloudbuild_v1.Build`."""
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


def archive(root):
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
