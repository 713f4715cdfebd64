"""Run the benchmarks, print their tables in Markdown and record them.

The function `measure` of a benchmark takes MovieLens and returns a dict from title to DataFrame of text.

In the full profile on MovieLens 100K, the records go to benchmarks/results/, and from there into the pages that show
them. In the quick profile and on any other data they go to build/bench/, and no page changes.
"""

import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib import import_module, metadata
from pathlib import Path

from recbandits.notebook import quiet_tensorflow

os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # or the first of several processes takes a whole GPU
quiet_tensorflow()

from benchmarks import pages  # noqa: E402
from benchmarks.profiles import PROFILE, is_published  # noqa: E402
from recbandits.data import movielens  # noqa: E402

OUTPUT = Path("build/bench")
BENCHMARKS = ("quality", "offline_quality", "ranking_quality", "off_policy", "slate_off_policy", "gate", "simulation")
BENCHMARKS += ("ranking", "training", "serving", "serving_http", "serving_profile", "scaling", "accelerator")


def main():
    """Run the benchmarks named on the command line, or all of them."""
    names = sys.argv[1:] or BENCHMARKS
    for name in names:
        if name not in BENCHMARKS:
            sys.exit(f"benchmark must be one of {', '.join(BENCHMARKS)}, got {name!r}")
    data = movielens.load()
    output = pages.RESULTS if is_published(data) else OUTPUT
    output.mkdir(parents=True, exist_ok=True)
    for name in names:
        benchmark = import_module(f"benchmarks.{name}")
        environment = {
            "data": getattr(benchmark, "DATA", data.source.partition(" (")[0]),  # without where it was read from
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "profile": PROFILE,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("tensorflow", "tf-agents", "numpy")},
            "machine": name_processor(),
            "cores": os.cpu_count(),
            "load": round(os.getloadavg()[0], 1),  # of the machine before the benchmark: processes that wait or run
        }
        tables = benchmark.measure(data)
        if not tables:
            print(f"\n### {name}: not measured here")
            continue
        print(f"\n### {name}: {', '.join(f'{key} {value}' for key, value in environment.items())}")
        for title, table in tables.items():
            print(f"\n{title}\n\n{pages.as_markdown(table)}", flush=True)
        record = environment | {"tables": {title: table.to_dict("records") for title, table in tables.items()}}
        text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
        (output / f"{name}.json").write_text(text, encoding="utf-8")
    if is_published(data):
        pages.write()


def name_processor():
    """Return the name of the processor, from /proc/cpuinfo where there is one."""
    information = Path("/proc/cpuinfo")
    lines = information.read_text(encoding="utf-8").splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
