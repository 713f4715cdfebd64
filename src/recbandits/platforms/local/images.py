"""Container images on this machine: built by Docker, or their steps carried out without it."""

import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

from recbandits.platforms.images import checkout, dockerfile
from recbandits.platforms.local.rehearsal import rehearse
from recbandits.platforms.protocol import PlatformError


class LocalImages:
    """The images of a checkout, which is looked for from the working directory upwards."""

    def __init__(self, config):
        self._config = config

    def uri(self, name):
        """What an image is called on this machine: `<prefix>/<name>:<version>`."""
        return f"{self._config.prefix}/{name}:{self._config.version}"

    def command(self, name):
        """The command that builds an image, to be run at the root of the repository: list of words.

        Raises:
          PlatformError: there is no such image, or no checkout.
        """
        root = checkout()
        file = dockerfile(name, root).relative_to(root).as_posix()
        labels = [word for item in self._config.labels.items() for word in ("--label", "=".join(item))]
        return ["docker", "build", "--file", file, "--tag", self.uri(name), *labels, "."]

    def build(self, name):
        """Build an image with Docker, whose messages go to standard error.

        Args:
          name: such as "train".

        Returns:
          Its URI on this machine.

        Raises:
          PlatformError: there is no such image, no Docker daemon, or a step failed.
        """
        command = self.command(name)
        if not has_docker():
            raise PlatformError(
                f"image {name} could not be built: no Docker daemon answers; `rehearse({name!r})` carries out its "
                "steps without one, and the gcp platform has Cloud Build do it"
            )
        if code := subprocess.run(command, cwd=checkout()).returncode:
            raise PlatformError(f"image {name} could not be built: docker ended with exit code {code}, see above")
        return self.uri(name)

    @contextmanager
    def rehearse(self, name):
        """Carry out the steps of an image's Dockerfile in a fresh virtual environment; for use in a `with` block.

        Args:
          name: such as "train".

        Yields:
          `recbandits.platforms.local.rehearsal.RehearsedImage`, removed at the end of the block.

        Raises:
          PlatformError: there is no such image, or a step failed.
        """
        root = checkout()
        file = dockerfile(name, root)
        with tempfile.TemporaryDirectory(prefix="image-") as folder:
            yield rehearse(file, root, Path(folder).resolve())


def has_docker():
    """Whether a Docker daemon answers on this machine."""
    if not shutil.which("docker"):
        return False
    return subprocess.run(["docker", "version"], capture_output=True, timeout=30).returncode == 0
