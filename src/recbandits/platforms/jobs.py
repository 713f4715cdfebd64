"""The protocol of jobs, which run the training task and tune it, and their results."""

import re
from dataclasses import dataclass, field
from datetime import datetime
from numbers import Integral
from typing import NamedTuple, Protocol

from recbandits.checks import FINITE, Rule, check_fields, require, require_field, whole


@dataclass(frozen=True)
class Machine:
    """The machine of a replica of a job; this machine ignores it."""

    type: str  # machine type of Google Cloud
    accelerator: str = ""  # its accelerator type as Vertex AI names it, or empty
    accelerators: int = 0  # how many of it
    topology: str = ""  # how the chips of a TPU are laid out, or empty


MACHINES = {
    "cpu": Machine("n2-standard-8"),
    "t4": Machine("n1-standard-8", "NVIDIA_TESLA_T4", 1),
    "l4": Machine("g2-standard-8", "NVIDIA_L4", 1),
    "a100": Machine("a2-highgpu-1g", "NVIDIA_TESLA_A100", 1),
    "tpu": Machine("ct5lp-hightpu-4t", topology="2x2"),
}
NAME = Rule(  # of jobs, endpoints and functions, on all platforms
    "at most 63 lower-case letters, digits and single hyphens",
    lambda text: re.fullmatch(r"(?=.{1,63}$)[a-z](-?[a-z0-9])*", text),
    str,
)
_WHOLE = Rule("a whole number", lambda _: True, Integral)
_IMAGE = r"|[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+(:[\w][\w.-]*)?(@sha256:[0-9a-f]{64})?"


def check_name(name: str) -> str:
    """Return the name of a job, an endpoint and the like, if every platform takes it; else raise a ValueError."""
    require(NAME.accepts(name), "name", NAME.expected, name)
    return name


@dataclass(frozen=True)
class Job:
    """One run of `python -m recbandits.training.task` with its arguments.

    Reduction servers add up the gradients of several GPU replicas. They need an image with Google's plug-in for NCCL,
    which ours has not.
    """

    name: str  # at most 63 lower-case letters, digits and single hyphens; names the job permanently
    arguments: tuple[str, ...] = ()  # of the command line
    machine: str | Machine = "cpu"  # a key of `MACHINES`, or a `Machine`
    replicas: int = 1  # how many of it train together; one on this machine
    reduction_servers: int = 0
    spot: bool = False  # whether to take machines that are cheaper and may be taken away
    image: str = ""  # container image URI on Google Cloud; empty for ours, which has CUDA where there is a GPU

    def __post_init__(self):
        check_fields(self, name=NAME, replicas=whole(), reduction_servers=whole(0))
        texts = isinstance(self.arguments, tuple) and all(isinstance(text, str) for text in self.arguments)
        require_field(self, "arguments", texts, "a tuple of texts")
        known = isinstance(self.machine, Machine) or self.machine in MACHINES
        require_field(self, "machine", known, f"a Machine or one of {', '.join(MACHINES)}")
        uri = isinstance(self.image, str) and re.fullmatch(_IMAGE, self.image) is not None
        require_field(self, "image", uri, "a URI in lower case such as 'us-docker.pkg.dev/project/name/train:v1'")
        machine = MACHINES[self.machine] if isinstance(self.machine, str) else self.machine
        ours, servers = self.image == "", self.reduction_servers
        require_field(self, "image", not (ours and machine.topology), "one with libtpu on a TPU, where ours has none")
        helpful = not servers or (self.replicas > 1 and machine.accelerator != "")
        require_field(self, "reduction_servers", helpful, "0 unless there are several replicas, each with a GPU")
        expected = "one with Google's plug-in for NCCL where there are reduction servers"
        require_field(self, "image", not (ours and servers), expected)


class Record(NamedTuple):
    """The status of a job; its arguments are read back from the platform."""

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
        positive = FINITE.accepts(self.low) and (self.low > 0 or not self.log)
        require_field(self, "low", positive, "finite, and positive with log")
        above = FINITE.accepts(self.high) and self.low < self.high
        require_field(self, "high", above, f"finite and above low, {self.low}")


@dataclass(frozen=True)
class Integer:
    """Any whole number between two bounds, both included."""

    low: int
    high: int

    def __post_init__(self):
        check_fields(self, low=_WHOLE)
        above = _WHOLE.accepts(self.high) and self.low < self.high
        require_field(self, "high", above, f"a whole number above {self.low}")


@dataclass(frozen=True)
class Choice:
    """One of several values of one type: texts or numbers."""

    values: tuple

    def __post_init__(self):
        values = self.values if isinstance(self.values, tuple) else ()
        known = all(isinstance(each, str) or FINITE.accepts(each) for each in values)
        several = known and len(set(map(type, values))) == 1 and len(set(values)) == len(values) > 1
        require_field(self, "values", several, "a tuple of different texts, or of different numbers, of one type")


@dataclass(frozen=True)
class Study:
    """A search for the parameters with the best metric."""

    job: Job  # what a trial runs; each parameter is added to its arguments as `--name=value`
    parameters: dict = field(default_factory=dict)  # name to `Float`, `Integer` or `Choice`
    trials: int = 8  # how many are to finish
    parallel: int = 2  # how many run at a time
    metric: str = "mean_reward"  # tag under which the task reports it by cloudml-hypertune
    maximise: bool = True  # whether more is better
    seed: int = 0  # of the search

    def __post_init__(self):
        ranges = list(self.parameters.values()) if isinstance(self.parameters, dict) else []
        kinds = ranges != [] and all(isinstance(value, Float | Integer | Choice) for value in ranges)
        require_field(self, "parameters", kinds, "a dict to Float, Integer or Choice, at least one")
        check_fields(self, seed=whole(0), trials=whole(), parallel=whole())


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
        """Start a job and return its `Record`, when it has ended if `wait`.

        A job that failed or was stopped resumes from its checkpoints. One that has succeeded is not run again, and one
        that runs is waited for. PlatformError says that the name belongs to a study, or to a job with other arguments.
        """

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
