"""The protocols of a platform and of its small services, their errors, and the values that a run keeps."""

from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from recbandits.checks import require
from recbandits.config import Config

if TYPE_CHECKING:
    import pandas as pd

    from recbandits.platforms.endpoints import Endpoints
    from recbandits.platforms.functions import Functions
    from recbandits.platforms.jobs import Jobs
    from recbandits.platforms.pipelines import Pipelines
    from recbandits.platforms.warehouse import Warehouse


class Outcome(NamedTuple):
    """The outcome of an operation on one resource."""

    kind: str
    name: str
    outcome: str


class PlatformError(RuntimeError):
    """A platform refused; the message is one sentence that names the resource and the reason."""


class Platform(Protocol):
    """Services and resources of the project.

    Attributes:
      name: its key in `config.PLATFORMS`, such as "local" or "gcp".
      config: the `Config` that it was made from.
      jobs: training jobs and studies.
      experiments: experiment tracking.
      pipelines: runs of compiled pipelines.
      endpoints: those that serve policies.
      messages: topics and subscriptions.
      functions: those that messages call.
      warehouse: decisions, rewards and verdicts.
    """

    name: str
    config: Config
    jobs: "Jobs"
    experiments: "Experiments"
    pipelines: "Pipelines"
    endpoints: "Endpoints"
    messages: "Messages"
    functions: "Functions"
    warehouse: "Warehouse"

    def create(self) -> list[Outcome]:
        """Create what the project needs and the platform lacks; a second call changes nothing.

        An `Outcome` is "created", "exists", or the platform's own word, such as "enabled". PlatformError if a resource
        could not be created, or is not ours to use.
        """

    def clean_up(self, dry_run: bool = True) -> list[Outcome]:
        """Remove what bears our mark, with everything in it, or in a dry run only say what would be removed.

        An `Outcome` is "would be removed" or "removed". PlatformError if a resource could not be removed; the next call
        finds what is left.
        """

    def share(self, directory: Path) -> str:
        """Give the files of a directory a place where every step of a pipeline finds them: a path, or a gs:// URI."""


class Run(Protocol):
    """One run of an experiment, for use in a `with` block."""

    def log_parameters(self, parameters: Mapping[str, str | float]) -> None:
        """Keep a dict of texts and numbers."""

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Keep a dict of numbers: how the run ended."""

    def log_artefact(self, name: str, uri: str) -> None:
        """Remember where something that the run made is."""


class Experiments(Protocol):
    """Experiments on one platform."""

    def run(self, experiment: str, run: str) -> Run:
        """Begin or go on with a `Run`."""

    def table(self, experiment: str) -> "pd.DataFrame":
        """Compare the runs: DataFrame indexed by run, with columns `param.*` and `metric.*` and the state."""


class Messages(Protocol):
    """Topics and subscriptions of one platform, named by the configuration; what goes wrong is a `PlatformError`.

    The full name of a topic is "projects/<project>/topics/<topic>", that of a subscription
    "projects/<project>/subscriptions/<subscription>".
    """

    def topic(self, name: str) -> str:
        """Find a topic, or make it; gives its full name."""

    def subscription(self, name: str, topic: str) -> str:
        """Find a subscription to a topic (full name), or make it: it keeps what is published from now on until read."""

    def publisher(self, topic: str) -> Any:
        """Sink of `serving.outbox.Outbox` for a topic: `send` takes a list of records with `event_id` and `to_json`."""

    def backlog(self, name: str) -> int:
        """Count the messages that a subscription, or all those of a topic, have not delivered; 0 if there is none."""

    def delete(self, name: str) -> None:
        """Remove a topic, and the subscription of the same name; what is gone already is no error."""


def plain_values(kind: str, values: Mapping) -> dict[str, str | float]:
    """Return values of the kind "parameter" (texts and numbers) or "metric" (numbers) in Python's own types."""
    types, expected = (Real, "a number") if kind == "metric" else (str | Real, "a text or a number")
    plain = {}
    for name, value in values.items():
        require(isinstance(value, types), f"{kind} {name!r}", expected, value)
        whole = isinstance(value, Integral) and not isinstance(value, bool)
        plain[name] = value if isinstance(value, str) else int(value) if whole else float(value)
    return plain
