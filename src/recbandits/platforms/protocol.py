"""The protocol of a platform: name its resources, look for one, make one, remove one; and its errors.

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


class NotMadeError(PlatformError):
    """A platform refused, and it is certain that nothing was made."""


class Platform(Protocol):
    """A place where the project keeps its things.

    Attributes:
      name: "local" or "gcp".
      config: the `Config` that it was made from.
      lasting: kinds of resources that clean-up leaves alone.
    """

    name: str
    config: Config
    lasting: frozenset

    def plan(self):
        """List every `Resource` the project needs, in the order of making; calls nothing."""

    def exists(self, resource):
        """Whether a resource is there; not asked about lasting ones.

        Raises:
          PlatformError: this cannot be said, or the resource is not for us to use.
        """

    def make(self, resource):
        """Make a resource unless it is there; the request is never repeated once it may have had an effect.

        Returns:
          MADE when it exists because of this call, FOUND when it was there before, or another word for something
          lasting.

        Raises:
          NotMadeError: it was refused.
          PlatformError: it could not be made, or nobody knows.
        """

    def remove(self, resource):
        """Remove a resource with everything in it; one that is gone already is no error.

        Raises:
          PlatformError: it could not be removed.
        """

    def share(self, directory):
        """Give the files of a directory a place where every step of a pipeline finds them: a path, or a gs:// URI."""
