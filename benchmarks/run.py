"""Run the benchmarks, print their tables in Markdown and record them.

On MovieLens 100K the records go to benchmarks/results/, and from there into the pages that show them. On any other data
they go to build/bench/ and no page changes.
"""

import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

from recbandits.notebook import quiet_tensorflow

tensorflow = quiet_tensorflow()

from benchmarks import (  # noqa: E402
    gate,
    off_policy,
    offline_quality,
    pages,
    quality,
    ranking,
    ranking_quality,
    scaling,
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
        "scaling": scaling,
    }
    names = sys.argv[1:] or list(benchmarks)
    for name in names:
        if name not in benchmarks:
            sys.exit(f"benchmark must be one of {', '.join(benchmarks)}, got {name!r}")
    data = movielens.load()
    output = pages.RESULTS if data.is_real else OUTPUT
    output.mkdir(parents=True, exist_ok=True)
    for name in names:
        metadata = {
            "data": data.source.partition(" (")[0],  # without where it was read from
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "python": platform.python_version(),
            "tensorflow": tensorflow.__version__,
            "cores": os.cpu_count(),
            "load": round(os.getloadavg()[0], 1),  # of the machine before the benchmark: processes that wait or run
        }
        tables = benchmarks[name].measure(data)
        print(f"\n### {name}: {', '.join(f'{key} {value}' for key, value in metadata.items())}")
        for title, table in tables.items():
            print(f"\n{title}\n\n{pages.as_markdown(table)}", flush=True)
        record = metadata | {"tables": {title: table.to_dict("records") for title, table in tables.items()}}
        text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
        (output / f"{name}.json").write_text(text, encoding="utf-8")
    if data.is_real:
        pages.write()


if __name__ == "__main__":
    main()
