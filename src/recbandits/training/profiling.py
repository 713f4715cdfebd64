"""Profiles of training steps: traces of TensorFlow's profiler, read without TensorBoard."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from recbandits.tf import tf

import pandas as pd

_PARTS = {"infeedTimeMs": "input", "hostComputeTimeMs": "compute", "otherTimeMs": "other", "stepTimeMs": "total"}
_WARM_UP = 3


class Profile(NamedTuple):
    """The time of training steps, from a trace, and the `conclusion` of the profiler, a sentence.

    `steps` is indexed by number of the step, in milliseconds: input (waiting for a batch), compute, other (mostly
    Python) and total, which on a GPU also contains the time of the device. `stages` is indexed by stage of the input
    pipeline, longest first: count of its calls, and ms, the time spent in it; stages run in parallel, so that the sum
    may be longer than the steps.
    """

    steps: pd.DataFrame
    stages: pd.DataFrame
    conclusion: str

    @property
    def input_share(self) -> float:
        """Share in [0, 1] of the time of all steps that was spent waiting for input."""
        return float(self.steps["input"].sum() / self.steps["total"].sum())


def trace(batches: Iterable, train: Callable[..., tf.Tensor], directory: str | Path, steps: int = 20) -> Profile:
    """Trace training steps, each from the request for its batch until its loss is known, and read the trace.

    `train` is a function from a batch, one of `batches` such as a `tf.data.Dataset`, to its loss. There are five
    batches more than `steps`: three before the trace, for graphs and buffers, and those of its first and last step,
    which the profiler leaves out. TensorBoard finds the trace in the directory. ValueError for too few batches, or if
    another profile is running.
    """
    iterator = iter(batches)
    try:
        for _ in range(_WARM_UP):
            train(next(iterator)).numpy()
        with watch(directory, threading.TIMEOUT_MAX):
            for number in range(steps + 2):
                with tf.profiler.experimental.Trace("train", step_num=number, _r=1):
                    train(next(iterator)).numpy()
    except StopIteration:
        raise ValueError("batches must be enough for all steps and the warm-up before them, they ended") from None
    profile = _read_profile(directory)
    return profile._replace(steps=profile.steps.loc[1:steps])


@contextlib.contextmanager
def watch(directory: str | Path, seconds: float) -> Iterator[None]:
    """Trace the body of a `with` statement into a directory, but no longer than some seconds: traces are large.

    ValueError if another profile is running.
    """
    try:
        tf.profiler.experimental.start(str(directory))
    except tf.errors.AlreadyExistsError:
        raise ValueError("only one profile can run at a time, stop the other one first") from None
    once = threading.Lock()

    def stop():
        if once.acquire(blocking=False):
            tf.profiler.experimental.stop()

    timer = threading.Timer(seconds, stop)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        stop()
        timer.join()  # if the timer stops the profiler, until the trace is written


def read_operations(directory: str | Path) -> pd.DataFrame:
    """Read the time of TensorFlow's operations from the latest trace in a directory of `trace` or `watch`.

    Returns a DataFrame indexed by type of operation (MatMul, ...), longest first: count, and ms, the time spent in it
    without waiting for others. Operations run in parallel, so that the sum may be longer than the elapsed time.
    FileNotFoundError if there is no trace.
    """
    host, *_ = _analyse(directory, "framework_op_stats")
    table = _make_frame(host)
    table = table[(table["host_or_device"] == "Host") & (table["operation"] != "IDLE")]
    sums = table.groupby("type")[["occurrences", "total_self_time"]].sum().rename_axis("operation")
    sums = pd.DataFrame({"count": sums["occurrences"].astype(int), "ms": sums["total_self_time"] / 1000})
    return sums.sort_values("ms", ascending=False)


def _read_profile(directory):
    """Read the latest trace in a directory of `trace`."""
    _, steps, stages, *_ = _analyse(directory, "input_pipeline_analyzer")
    frame = _make_frame(steps)
    frame.index = frame["stepnum"].str.split().str[-1].astype(int).rename("step")
    stages = _make_frame(stages).set_index("opName").rename_axis("stage").rename(columns={"timeInMs": "ms"})
    stages = stages[["count", "ms"]].astype({"count": int})
    return Profile(frame[list(_PARTS)].rename(columns=_PARTS), stages, steps["p"]["input_conclusion"])


def _analyse(directory, tool):
    """Analyse the latest trace by one of the profiler's tools, and return its tables."""
    files = sorted(Path(directory).glob("plugins/profile/*/*.xplane.pb"))
    if not files:
        raise FileNotFoundError(f"{Path(directory).name} must hold a trace of the profiler, it has no *.xplane.pb")
    from xprof.convert import raw_to_tool_data  # large, and only readers of traces need it

    return json.loads(raw_to_tool_data.xspace_to_tool_data([str(files[-1])], tool, {})[0])


def _make_frame(table):
    """Make a DataFrame of a table of the Google Charts API."""
    columns = [column["id"] for column in table["cols"]]
    return pd.DataFrame([[cell["v"] for cell in row["c"]] for row in table["rows"]], columns=columns)
