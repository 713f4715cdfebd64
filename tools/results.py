"""The result of running a notebook, and its checks."""

from dataclasses import dataclass
from pathlib import Path

from tools.notebooks import code_cells


@dataclass(frozen=True)
class Result:
    """One executed notebook.

    Attributes:
      name: its id.
      copy: path of the executed copy.
      notebook: that copy, as far as it got; None when it did not start.
      seconds: wall-clock time.
      record: what it wrote with `record_metrics`; empty when it did not.
      problem: a sentence without its subject, or "" when the notebook passed.
    """

    name: str
    copy: Path
    notebook: object
    seconds: float
    record: dict
    problem: str

    @property
    def metrics(self):
        return self.record.get("metrics", {})


def find_problem(notebook, record, exit_code, limit, profile, log):
    """Why a notebook failed.

    Args:
      notebook: the executed copy, or None.
      record: what it wrote with `record_metrics`, or {}.
      exit_code: of the process that executed it; None when it was killed.
      limit: the seconds that it had.
      profile: the profile that was asked for.
      log: what the process said.

    Returns:
      A sentence without its subject, or "" when nothing is wrong.
    """
    cells = code_cells(notebook, solutions=True) if notebook else []
    failed = [(number, cell, _error(cell)) for number, cell in enumerate(cells, 1) if _error(cell)]
    if exit_code is None:
        running = next((f", in {_place(n, cell)}" for n, cell in enumerate(cells, 1) if _is_running(cell)), "")
        return f"was killed after {limit:g} seconds{running}"
    if failed:
        number, cell, error = failed[0]
        return f"failed in {_place(number, cell)}: {error.ename}: {error.evalue}"
    if exit_code:
        said = (log.strip() or "it said nothing").splitlines()[-1]
        return f"ended with exit code {exit_code} before its last cell: {said}"
    if not any(cell.outputs for cell in cells):
        return "finished without a single output"
    if not record.get("metrics"):
        return "recorded no metric: its last code cell must call record_metrics"
    if record["profile"] != profile:
        return f"recorded metrics of the profile {record['profile']!r} instead of {profile!r}"
    return ""


def _error(cell):
    return next((output for output in cell.outputs if output.output_type == "error"), None)


def _is_running(cell):
    return cell.metadata.get("papermill", {}).get("status") == "running"


def _place(number, cell):
    line = next((line for line in cell.source.splitlines() if line.strip()), "")
    return f"code cell {number} ({line.strip()!r})"


def summary(results):
    """The table for the terminal: each notebook with its result and time, its metrics below it."""
    width = max(
        [len(f"  {metric}") for result in results for metric in result.metrics] + [len(r.name) for r in results]
    )
    lines = []
    for result in results:
        lines.append(f"{result.name:<{width}}  {'FAILED' if result.problem else 'passed'}  {result.seconds:6.1f} s")
        lines += [f"  {metric:<{width}}{value:>14.6g}" for metric, value in result.metrics.items()]
    return "\n".join(lines)
