"""The protocol of a platform, and its errors."""

from typing import NamedTuple, Protocol

from recbandits.config import Config


class Outcome(NamedTuple):
    """What happened to one resource."""

    kind: str
    name: str
    outcome: str


class PlatformError(RuntimeError):
    """A platform refused; the message is one sentence that names the resource and the reason."""


class Platform(Protocol):
    """A place where the project keeps its things.

    Attributes:
      name: its key in `config.PLATFORMS`, such as "local" or "gcp".
      config: the `Config` that it was made from.
    """

    name: str
    config: Config

    def create(self):
        """Create what the project needs and the platform lacks; a second call changes nothing.

        Returns:
          list of `Outcome`: "created", "exists", or the platform's own word, such as "enabled".

        Raises:
          PlatformError: a resource could not be created, or is not ours to use.
        """

    def clean_up(self, dry_run=True):
        """Remove what bears our mark, with everything in it.

        Args:
          dry_run: only say what would be removed.

        Returns:
          list of `Outcome`: "would be removed" or "removed".

        Raises:
          PlatformError: a resource could not be removed; the next call finds what is left.
        """

    def share(self, directory):
        """Give the files of a directory a place where every step of a pipeline finds them: a path, or a gs:// URI."""
