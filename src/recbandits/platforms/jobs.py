"""What the project asks of a platform's jobs: run the training task, tune it, look at what came of it."""

import math
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol


def check_name(name: str) -> str:
    """Return the name of a job, an endpoint and the like, if every platform takes it; else raise a ValueError."""
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        raise ValueError(f"name must be at most 63 lower-case letters, digits and single hyphens, got {name!r}")
    return name


def _require(owner, name, allowed, expected):
    if not allowed:
        raise ValueError(f"{type(owner).__name__}: {name} must be {expected}, got {getattr(owner, name)!r}")


def _is_count(value):
    return type(value) is int and value >= 1


def _is_finite(value):
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class Machine:
    """What a replica of a job runs on; a laptop takes what it has.

    Attributes:
      type: machine type of Google Cloud.
      accelerator: its accelerator type as Vertex AI names it, or empty.
      accelerators: how many of it.
      topology: how the chips of a TPU are laid out, or empty.
    """

    type: str
    accelerator: str = ""
    accelerators: int = 0
    topology: str = ""


MACHINES = {
    "cpu": Machine("n2-standard-8"),
    "t4": Machine("n1-standard-8", "NVIDIA_TESLA_T4", 1),
    "l4": Machine("g2-standard-8", "NVIDIA_L4", 1),
    "a100": Machine("a2-highgpu-1g", "NVIDIA_TESLA_A100", 1),
    "tpu": Machine("ct5lp-hightpu-4t", topology="2x2"),
}
NAME = r"(?=.{1,63}$)[a-z](-?[a-z0-9])*"  # of jobs and endpoints, on all platforms
_IMAGE = r"[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+(:[\w][\w.-]*)?(@sha256:[0-9a-f]{64})?"


@dataclass(frozen=True)
class Job:
    """One run of `python -m recbandits.training.task` with its arguments.

    Attributes:
      name: at most 63 lower-case letters, digits and single hyphens; names the job for good.
      arguments: of the command line.
      machine: a key of `MACHINES`, or a `Machine`.
      replicas: how many of it train together; one on this machine.
      reduction_servers: helpers that add the gradients of several GPU replicas; they need an image with Google's
        plug-in for NCCL, which ours has not.
      spot: whether to take machines that are cheaper and may be taken away.
      image: container image URI on Google Cloud; empty for ours, which has CUDA where there is a GPU.
    """

    name: str
    arguments: tuple[str, ...] = ()
    machine: str | Machine = "cpu"
    replicas: int = 1
    reduction_servers: int = 0
    spot: bool = False
    image: str = ""

    def __post_init__(self):
        named = isinstance(self.name, str) and re.fullmatch(NAME, self.name)
        _require(self, "name", named, "at most 63 lower-case letters, digits and single hyphens, a letter first")
        texts = isinstance(self.arguments, tuple) and all(isinstance(text, str) for text in self.arguments)
        _require(self, "arguments", texts, "a tuple of texts")
        _require(self, "replicas", _is_count(self.replicas), "a whole number of at least 1")
        known = isinstance(self.machine, Machine) or self.machine in MACHINES
        _require(self, "machine", known, f"a Machine or one of {', '.join(MACHINES)}")
        image = isinstance(self.image, str) and (not self.image or re.fullmatch(_IMAGE, self.image))
        _require(self, "image", image, "a URI in lower case such as 'us-central1-docker.pkg.dev/project/name/train:v1'")
        machine = MACHINES[self.machine] if isinstance(self.machine, str) else self.machine
        _require(self, "image", self.image or not machine.topology, "one with libtpu on a TPU, where ours has none")
        servers = type(self.reduction_servers) is int and self.reduction_servers >= 0
        _require(self, "reduction_servers", servers, "a whole number, 0 for none")
        helpful = not self.reduction_servers or (self.replicas > 1 and machine.accelerator)
        _require(self, "reduction_servers", helpful, "0 unless there are several replicas, each with a GPU")
        alone = not self.reduction_servers or self.image
        _require(self, "image", alone, "one with Google's plug-in for NCCL where there are reduction servers")


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
    own: dict  # what the job itself wrote down, its record.json, such as the metrics by seed; empty until it has


def measured(own: dict) -> dict:
    """Metrics in a job's own record: dict from name to a number, or to (mean, low, high)."""
    metrics = own.get("metrics", {})
    return {name: tuple(value) if isinstance(value, list) else value for name, value in metrics.items()}


@dataclass(frozen=True)
class Float:
    """Any number between two bounds, both included; on a logarithmic scale with `log`."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self):
        positive = _is_finite(self.low) and (self.low > 0 or not self.log)
        _require(self, "low", positive, "finite, and positive with log")
        _require(self, "high", _is_finite(self.high) and self.low < self.high, f"finite and above low, {self.low}")


@dataclass(frozen=True)
class Integer:
    """Any whole number between two bounds, both included."""

    low: int
    high: int

    def __post_init__(self):
        _require(self, "low", type(self.low) is int, "a whole number")
        _require(self, "high", type(self.high) is int and self.low < self.high, f"a whole number above {self.low}")


@dataclass(frozen=True)
class Choice:
    """One of several values of one type: texts or numbers."""

    values: tuple

    def __post_init__(self):
        good = isinstance(self.values, tuple) and all(isinstance(each, str) or _is_finite(each) for each in self.values)
        alike = good and len({type(value) for value in self.values}) == 1
        several = alike and len(set(self.values)) == len(self.values) > 1
        _require(self, "values", several, "a tuple of different texts, or of different numbers, of one type")


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

    def __post_init__(self):
        ranges = self.parameters.values() if isinstance(self.parameters, dict) else ()
        kinds = ranges and all(isinstance(value, Float | Integer | Choice) for value in ranges)
        _require(self, "parameters", kinds, "a dict to Float, Integer or Choice, at least one")
        _require(self, "seed", type(self.seed) is int and self.seed >= 0, "a whole number of 0 or more")
        for name in ("trials", "parallel"):
            _require(self, name, _is_count(getattr(self, name)), "a whole number of at least 1")


class Trial(NamedTuple):
    """One trial of a study; its parameters have the types of the study."""

    number: int
    state: str  # "running", "succeeded", "failed" or "stopped"
    parameters: dict
    value: float | None
    error: str = ""
    interval: tuple | None = None  # (low, high) of the value over the task's seeds, where its record is at hand


class Jobs(Protocol):
    """Jobs on one platform; what goes wrong is a `PlatformError` of one sentence, and no finished trial is lost."""

    def run(self, job: Job, wait: bool = True) -> Record:
        """Start a job and return its `Record`, when it has ended if `wait`."""

    def record(self, name: str) -> Record:
        """The `Record` of a job."""

    def stop(self, name: str) -> None:
        """Stop a job or a study, whose running trials are stopped."""

    def tune(self, study: Study) -> list[Trial]:
        """Run what is missing of a study, which may have been started before; a list of its `Trial`s."""

    def trials(self, name: str) -> list[Trial]:
        """List the `Trial`s of a study by its job's name, in order of number."""

    def best(self, name: str) -> Trial:
        """The succeeded `Trial` of a study with the best value, the first one on ties."""
