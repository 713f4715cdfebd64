"""What the project asks of a platform's jobs: run the training task, tune it, look at what came of it."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol


@dataclass(frozen=True)
class Machine:
    """What a replica of a job runs on; a laptop takes what it has.

    Attributes:
      type: machine type of Google Cloud.
      accelerator: its accelerator type as Vertex AI names it, or empty.
      accelerators: how many of it.
    """

    type: str
    accelerator: str = ""
    accelerators: int = 0


@dataclass(frozen=True)
class Job:
    """One run of `python -m recbandits.training.task` with its arguments.

    Attributes:
      name: at most 63 lower-case letters, digits and single hyphens; names the job for good.
      arguments: of the command line.
      machine: a key of `MACHINES`, or a `Machine`.
      replicas: how many of it train together.
      reduction_servers: helpers that add the gradients of several GPU replicas.
      spot: whether to take machines that are cheaper and may be taken away.
      image: container image URI on Google Cloud; empty for the project's training image.
    """

    name: str
    arguments: tuple[str, ...] = ()
    machine: str | Machine = "cpu"
    replicas: int = 1
    reduction_servers: int = 0
    spot: bool = False
    image: str = ""


class Record(NamedTuple):
    """What a platform knows of a job; the arguments are read back from where it keeps them."""

    name: str
    state: str  # "running", "succeeded", "failed" or "stopped"
    arguments: tuple[str, ...]
    model: str  # directory or URI of the exported policy
    metrics: dict
    started: datetime | None
    ended: datetime | None
    error: str  # one sentence, or empty


@dataclass(frozen=True)
class Float:
    """Any number between two bounds, both included; on a logarithmic scale with `log`."""

    low: float
    high: float
    log: bool = False


@dataclass(frozen=True)
class Integer:
    """Any whole number between two bounds, both included."""

    low: int
    high: int


@dataclass(frozen=True)
class Choice:
    """One of several values of one type: texts or numbers."""

    values: tuple


@dataclass(frozen=True)
class Study:
    """A search for the parameters with the best metric.

    Attributes:
      job: what a trial runs; each parameter is added to its arguments as `--name=value`.
      parameters: name to `Float`, `Integer` or `Choice`.
      trials: how many are to finish.
      parallel: how many run at a time.
      metric: tag under which the task reports it by cloudml-hypertune.
      maximise: whether more is better.
      seed: of the search.
    """

    job: Job
    parameters: dict = field(default_factory=dict)
    trials: int = 8
    parallel: int = 2
    metric: str = "mean_reward"
    maximise: bool = True
    seed: int = 0


class Trial(NamedTuple):
    """One trial of a study; its parameters have the types of the study."""

    number: int
    state: str  # "running", "succeeded", "failed" or "stopped"
    parameters: dict
    value: float | None
    error: str = ""


class Jobs(Protocol):
    """Jobs on one platform; what goes wrong is a `PlatformError` of one sentence, and no finished trial is lost."""

    def run(self, job, wait=True):
        """Start a job and return its `Record`, when it has ended if `wait`."""

    def record(self, name):
        """The `Record` of a job."""

    def stop(self, name):
        """Stop a job or a study, whose running trials are stopped."""

    def tune(self, study):
        """Run what is missing of a study, which may have been begun before; a list of its `Trial`s."""

    def trials(self, name):
        """List the `Trial`s of a study by its job's name, in order of number."""

    def best(self, name):
        """The succeeded `Trial` of a study with the best value, the first one on ties."""
