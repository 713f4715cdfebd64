"""Where the time of a training step goes: TensorFlow's profiler, read without TensorBoard."""

import contextlib
import json
import threading
from pathlib import Path
from typing import NamedTuple

from recbandits.tf import tf

import pandas as pd
from xprof.convert import raw_to_tool_data

_PARTS = {"infeedTimeMs": "input", "hostComputeTimeMs": "compute", "otherTimeMs": "other", "stepTimeMs": "total"}


class Profile(NamedTuple):
    """What a trace says.

    Attributes:
      steps: DataFrame indexed by number of the step, in milliseconds: input (waiting for a batch), compute, other
        (mostly Python) and total, which on a GPU also contains what the device did.
      stages: DataFrame indexed by stage of the input pipeline, longest first: count, how often it was called, and ms,
        the time spent in it; stages run beside each other, so that the sum may be longer than the steps.
      conclusion: the profiler's own, a sentence.
    """

    steps: pd.DataFrame
    stages: pd.DataFrame
    conclusion: str

    @property
    def input_share(self):
        """Share of the time of all steps that was spent waiting for input, in [0, 1]."""
        return float(self.steps["input"].sum() / self.steps["total"].sum())


def trace(batches, train, directory, steps=20, warm_up=3):
    """Profile some training steps; a step begins when it asks for its batch and ends when its loss is there.

    Args:
      batches: iterable of what `train` takes, such as a `tf.data.Dataset`: `warm_up + steps + 2` of them, because the
        profiler does without the first and the last step of a trace.
      train: function from a batch to its loss, a tensor.
      directory: where the trace goes; TensorBoard finds it there too.
      steps: how many to profile.
      warm_up: steps before them, which trace graphs and fill buffers.

    Returns:
      Profile

    Raises:
      ValueError: too few batches, or another profile is running.
    """
    iterator = iter(batches)
    for _ in range(warm_up):
        train(_next(iterator)).numpy()
    _start(directory)
    try:
        for number in range(steps + 2):
            with tf.profiler.experimental.Trace("train", step_num=number, _r=1):
                train(_next(iterator)).numpy()
    finally:
        tf.profiler.experimental.stop()
    profile = read_profile(directory)
    return profile._replace(steps=profile.steps.loc[1:steps])


@contextlib.contextmanager
def watch(directory, seconds):
    """Profile whatever is done in a `with` block, from its start and no longer than some seconds: traces are large.

    Args:
      directory: where the trace goes; TensorBoard finds it there too.
      seconds: after which the profiler stops, if the block has not ended before.

    Raises:
      ValueError: another profile is running.
    """
    _start(directory)
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
        timer.join()  # where it was first, until the trace is written


def read_operations(directory):
    """What TensorFlow's operations took, in the latest trace in a directory.

    Args:
      directory: of `trace` or `watch`.

    Returns:
      DataFrame indexed by type of operation (MatMul, ...), longest first: count, and ms, the time spent in it without
      what it waited for others to do. Operations run beside each other, so the sum may be longer than the clock says.

    Raises:
      FileNotFoundError: there is no trace.
    """
    host, *_ = json.loads(_tool(directory, "framework_op_stats"))
    table = _frame(host)
    table = table[(table["host_or_device"] == "Host") & (table["operation"] != "IDLE")]
    sums = table.groupby("type")[["occurrences", "total_self_time"]].sum().rename_axis("operation")
    sums = pd.DataFrame({"count": sums["occurrences"].astype(int), "ms": sums["total_self_time"] / 1000})
    return sums.sort_values("ms", ascending=False)


def read_profile(directory):
    """Read the latest trace in a directory.

    Args:
      directory: of `trace`, or the log directory of a `tf.keras.callbacks.TensorBoard(profile_batch=...)`.

    Returns:
      Profile

    Raises:
      FileNotFoundError: there is no trace.
      ValueError: the trace has no steps.
    """
    _, steps, stages, *_ = json.loads(_tool(directory, "input_pipeline_analyzer"))
    frame = _frame(steps)
    if frame.empty:
        raise ValueError(
            f"the trace in {Path(directory).name} must have steps: wrap them in tf.profiler.experimental.Trace"
        )
    frame.index = frame["stepnum"].str.split().str[-1].astype(int).rename("step")
    stages = _frame(stages).set_index("opName").rename_axis("stage")
    return Profile(
        frame[list(_PARTS)].rename(columns=_PARTS),
        stages.rename(columns={"timeInMs": "ms"})[["count", "ms"]].astype({"count": int}),
        steps["p"]["input_conclusion"],
    )


def _start(directory):
    try:
        tf.profiler.experimental.start(str(directory))
    except tf.errors.AlreadyExistsError:
        raise ValueError("only one profile can run at a time, stop the other one first") from None


def _tool(directory, name):
    """What one of the profiler's tools says of the latest trace, JSON."""
    files = sorted(Path(directory).glob("plugins/profile/*/*.xplane.pb"))
    if not files:
        raise FileNotFoundError(f"{Path(directory).name} must hold a trace of the profiler, it has no *.xplane.pb")
    return raw_to_tool_data.xspace_to_tool_data([str(files[-1])], name, {})[0]


def _next(iterator):
    try:
        return next(iterator)
    except StopIteration:
        raise ValueError("batches must be enough for all steps and the warm-up before them, they ended") from None


def _frame(table):
    """A table of the Google Charts API as a DataFrame."""
    columns = [column["id"] for column in table["cols"]]
    return pd.DataFrame([[cell["v"] for cell in row["c"]] for row in table["rows"]], columns=columns)
