"""Run every benchmark, print its table in Markdown and write its figures to build/bench/."""

import json
import os
import platform
import sys
from pathlib import Path

from recbandits.notebook import quiet_tensorflow

tensorflow = quiet_tensorflow()

from benchmarks import (  # noqa: E402
    gate,
    off_policy,
    offline_quality,
    quality,
    ranking,
    ranking_quality,
    serving,
    serving_http,
    simulation,
    slate_off_policy,
    training,
)
from recbandits.data import movielens  # noqa: E402

OUTPUT = Path("build/bench")


def main():
    """Run the benchmarks named on the command line, or all of them."""
    benchmarks = {
        "quality": quality,
        "offline_quality": offline_quality,
        "ranking_quality": ranking_quality,
        "off_policy": off_policy,
        "slate_off_policy": slate_off_policy,
        "gate": gate,
        "simulation": simulation,
        "ranking": ranking,
        "training": training,
        "serving": serving,
        "serving_http": serving_http,
    }
    chosen = sys.argv[1:] or list(benchmarks)
    for name in chosen:
        if name not in benchmarks:
            sys.exit(f"benchmark must be one of {', '.join(benchmarks)}, got {name!r}")
    data = movielens.load()
    where = {
        "data": data.source,
        "python": platform.python_version(),
        "tensorflow": tensorflow.__version__,
        "cores": os.cpu_count(),
    }
    OUTPUT.mkdir(parents=True, exist_ok=True)
    for name in chosen:
        tables = benchmarks[name].measure(data)
        print(f"\n### {name}: {', '.join(f'{key} {value}' for key, value in where.items())}")
        for title, table in tables.items():
            print(f"\n{title}\n\n{as_markdown(table)}", flush=True)
        record = where | {"tables": {title: table.to_dict("records") for title, table in tables.items()}}
        (OUTPUT / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def as_markdown(table):
    """Give a DataFrame of text as a Markdown table."""
    rows = [table.columns, ["---"] * table.shape[1], *table.to_numpy()]
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)


if __name__ == "__main__":
    main()
