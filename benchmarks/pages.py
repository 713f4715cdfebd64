"""Write recorded tables into the pages that show them: python -m benchmarks.pages.

A page names a table in a comment, `<!-- bench quality 1 -->` for the first table of benchmarks/results/quality.json,
and everything from there to `<!-- end bench -->` is generated. `<!-- bench speed -->` is a table of one row per task.
"""

import json
import re
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGES = (
    "README.md",
    "docs/benchmarks.md",
    "docs/scaling.md",
    "learning/agents.md",
    "learning/mlops-for-bandits.md",
    "learning/off-policy-evaluation.md",
    "learning/ranking.md",
    "learning/training-and-profiling.md",
)
BLOCK = re.compile(r"^<!-- bench (\w+)(?: (\d+))? -->\n.*?^<!-- end bench -->$", re.M | re.S)

# Task, which may name columns of its row; benchmark and row of its first table; columns of the speed here, of the
# compared speed and of their ratio; what is compared. Where each contender has a row, the compared speed is in the next
# one of that name.
_SIMULATION = ("simulation", 6, "interactions", "interactions", "ratio")
SPEED = [
    ("LinUCB, interactions; batch {batch}, {arms} actions", *_SIMULATION, "TF-Agents"),
    ("the same", *_SIMULATION, "contextualbandits"),
    ("the same", *_SIMULATION, "MABWiser"),
    ("the same, by SquareCB and gradient steps", *_SIMULATION, "Vowpal Wabbit"),
    ("ranking agent, batches of {batch}; {items} items", "ranking", 1, "here", "TF-Agents", "ratio", "TF-Agents"),
    (
        "reward network, examples/s; batch {batch}; the log is read and the graph compiled before",
        "training",
        1,
        "one graph, XLA",
        "each record parsed",
        "last to first",
        "TF-Agents' `train`, each record parsed",
    ),
    (
        "IPS, SNIPS, DR with intervals, a million decisions; the log is made before",
        "off_policy",
        1,
        "here",
        "Open Bandit Pipeline",
        "ratio",
        "Open Bandit Pipeline",
    ),
]


def as_markdown(table):
    """Give a DataFrame of text as a Markdown table."""
    rows = [table.columns, ["---"] * table.shape[1], *table.to_numpy()]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


def load(name):
    """Read the record of a benchmark.

    Returns:
      dict with the keys data, date, cores and tables (dict from title to list of rows), and others on the environment.
    """
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def render(name, number):
    """Return a recorded table with its title above, and below it where and when it was measured.

    Args:
      name: of the benchmark, or "speed".
      number: of its table, from 1.

    Returns:
      str
    """
    if name == "speed":
        dates = sorted(load(benchmark)["date"] for _, benchmark, *_ in SPEED)
        table = as_markdown(pd.DataFrame([_speed(*row) for row in SPEED]))
        return f"{table}\n\n<sub>measured {dates[0]} to {dates[-1]}: `make bench PROFILE=full`</sub>"
    record = load(name) if (RESULTS / f"{name}.json").exists() else {"tables": {}}
    if len(record["tables"]) < number:
        return f"*Not measured yet: `.venv/bin/python -m benchmarks.run {name}` measures it.*"
    title, rows = list(record["tables"].items())[number - 1]
    load_average = f", load {record['load']}" if record.get("load", 0) > 1 else ""
    source = (
        f"{record['data']}, {record['cores']} cores{load_average}, {record['date']}: `make bench PROFILE=full`, {name}"
    )
    return f"**{title}**\n\n{as_markdown(pd.DataFrame(rows))}\n\n<sub>{source}</sub>"


def _speed(task, name, number, own_column, peer_column, ratio_column, peer):
    rows = next(iter(load(name)["tables"].values()))[number:]
    own_row, peer_row = rows[0], next(row for row in rows if row.get("project", peer) == peer)
    speeds = {"here": own_row[own_column], "compared with": peer, "there": peer_row[peer_column]}
    return {"task": task.format(**own_row)} | speeds | {"ratio": peer_row[ratio_column]}


def fill(text):
    """Replace the generated blocks of a page by the tables as they are recorded."""
    return BLOCK.sub(
        lambda block: f"{block[0].splitlines()[0]}\n{render(block[1], int(block[2] or 1))}\n<!-- end bench -->", text
    )


def write():
    """Put the recorded tables into the pages."""
    for name in PAGES:
        page = ROOT / name
        page.write_text(fill(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    write()
