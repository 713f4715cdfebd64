"""Container images on this machine: built by Docker, Podman or Buildah."""

import configparser
import contextlib
import os
import subprocess
from pathlib import Path

from recbandits.config import Config
from recbandits.platforms.images import build_options, check_image, checkout
from recbandits.platforms.protocol import PlatformError

# Each engine, with the command that shows that it works: Docker without its daemon does not.
ENGINES = {"docker": ["docker", "version"], "podman": ["podman", "info"], "buildah": ["buildah", "info"]}


class LocalImages:
    """The images of a checkout, which is looked for from the working directory upwards."""

    def __init__(self, config: Config):
        self._config = config

    def uri(self, name: str) -> str:
        """Return what an image is called on this machine: `<prefix>/<name>:<version>`."""
        return f"{self._config.prefix}/{name}:{self._config.version}"

    def command(self, name: str, engine: str = "docker", base: str | None = None) -> list[str]:
        """Return the command that builds an image at the root of the checkout; `base` replaces its first image."""
        check_image(name, checkout())
        options = build_options(name, self.uri(name), self._config)
        if base:
            options = ["--build-arg", f"BASE={base}", *options]
        if engine != "docker":  # HEALTHCHECK is part of Docker's format alone; layers are kept when asked for
            options = ["--format", "docker", "--layers", *_pip_settings(), *options]
        if engine == "buildah":  # this isolation needs neither a runtime nor cgroups
            options = ["--isolation", "chroot", *options]
        return [engine, "build", *options]

    def build(self, name: str, base: str | None = None) -> str:
        """Build an image by the first engine that works, which prints to standard error, and return the image's URI."""
        root = checkout()
        check_image(name, root)
        if (engine := find_engine()) is None:
            raise PlatformError(
                f"image {name} could not be built: install docker, podman or buildah and see that `docker version`, "
                "`podman info` or `buildah info` succeeds; the gcp platform builds by Cloud Build instead"
            )
        if code := subprocess.run(self.command(name, engine, base), cwd=root, stdout=2).returncode:
            raise PlatformError(f"image {name} could not be built: {engine} ended with exit code {code}, see above")
        return self.uri(name)


def find_engine() -> str | None:
    """Return the first of `ENGINES` that works on this machine, None where none does; a `docker` may be Podman."""
    for engine, question in ENGINES.items():
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):  # no such program, a daemon that hangs
            answer = subprocess.run(question, capture_output=True, text=True, timeout=60)
            if answer.returncode == 0 and not (engine == "docker" and "Podman" in answer.stdout + answer.stderr):
                return engine
    return None


def _pip_settings():
    """Return options by which pip in a build has the settings of this machine, and the certificate that they name."""
    file = Path(os.environ.get("PIP_CONFIG_FILE") or "/etc/pip.conf")
    if not file.is_file():
        return []
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(file)
    certificate = settings.get("global", "cert", fallback=None)
    mounts = [(file, "/etc/pip.conf"), *([(certificate, certificate)] if certificate else [])]
    return [word for outside, inside in mounts for word in ("--volume", f"{outside}:{inside}:ro")]
