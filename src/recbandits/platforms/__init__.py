"""What the project asks of a platform: name its resources, make one, remove one.

Everything else (which of them are there already, which are ours, what clean-up may touch) is the same for all platforms
and lives in `recbandits.platforms.provisioning`.
"""

from typing import NamedTuple, Protocol

from recbandits.config import Config

MADE = "made"
FOUND = "found"


class Resource(NamedTuple):
    """One thing on a platform, named so that it can be removed whatever the configuration says by then."""

    kind: str
    name: str


class PlatformError(RuntimeError):
    """A platform refused; the message is one sentence that names the resource and the reason."""


class Platform(Protocol):
    """A place where the project keeps its things.

    Attributes:
      name: "local" or "gcp".
      config: the `Config` that it was made from.
    """

    name: str
    config: Config

    def plan(self):
        """List every `Resource` the project needs, in the order of making; calls nothing."""

    def make(self, resource):
        """Make a resource unless it is there.

        Returns:
          MADE when it exists because of this call and clean-up may remove it, FOUND when it was there before, or
          another word for something that clean-up leaves alone.

        Raises:
          PlatformError: it could not be made.
        """

    def remove(self, resource):
        """Remove a resource with everything in it; one that is gone already is no error.

        Raises:
          PlatformError: it could not be removed.
        """
