"""The protocol of a platform, and its errors."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from recbandits.config import Config

if TYPE_CHECKING:
    from recbandits.platforms.endpoints import Endpoints
    from recbandits.platforms.experiments import Experiments
    from recbandits.platforms.functions import Functions
    from recbandits.platforms.jobs import Jobs
    from recbandits.platforms.messages import Messages
    from recbandits.platforms.pipelines import Pipelines
    from recbandits.platforms.warehouse import Warehouse


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

    @property
    def jobs(self) -> "Jobs":
        """Training jobs and studies."""

    @property
    def experiments(self) -> "Experiments":
        """Experiment tracking."""

    @property
    def pipelines(self) -> "Pipelines":
        """Runs of compiled pipelines."""

    @property
    def endpoints(self) -> "Endpoints":
        """Endpoints that serve policies."""

    @property
    def messages(self) -> "Messages":
        """Topics and subscriptions."""

    @property
    def functions(self) -> "Functions":
        """Functions that messages call."""

    @property
    def warehouse(self) -> "Warehouse":
        """Decisions, rewards and verdicts."""

    def create(self) -> list[Outcome]:
        """Create what the project needs and the platform lacks; a second call changes nothing.

        Returns:
          list of `Outcome`: "created", "exists", or the platform's own word, such as "enabled".

        Raises:
          PlatformError: a resource could not be created, or is not ours to use.
        """

    def clean_up(self, dry_run: bool = True) -> list[Outcome]:
        """Remove what bears our mark, with everything in it.

        Args:
          dry_run: only say what would be removed.

        Returns:
          list of `Outcome`: "would be removed" or "removed".

        Raises:
          PlatformError: a resource could not be removed; the next call finds what is left.
        """

    def share(self, directory: Path) -> str:
        """Give the files of a directory a place where every step of a pipeline finds them: a path, or a gs:// URI."""
