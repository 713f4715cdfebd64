"""Execute notebooks headless: executed copies, HTML, metrics and an index page in build/, a summary in the terminal.

Each runs in a process of its own, in order, under a hard time limit. One that fails does not keep the others from
running; the exit code is 1 then. The build directory has its own configuration and artifacts: nobody's work is touched.
"""

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import sys
import time

from nbconvert import HTMLExporter
from tqdm import tqdm

from recbandits.config import Config
from recbandits.notebook import check_profile
from tools import index_page
from tools.notebooks import ROOT, code_cells, find_notebooks, read
from tools.processes import run_bounded
from tools.results import Result, find_problem, summary

LIMITS = {"quick": 600, "full": 4 * 3600}  # seconds


@contextlib.contextmanager
def sole_run(build):
    """Keep the build directory for this process; the lock goes when the process does, however it ends."""
    build.mkdir(parents=True, exist_ok=True)
    with open(build / ".lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            sys.exit(f"Another run (process {lock.read()}) is at work in {build.name}/: wait until it is done.")
        lock.truncate(0)
        print(os.getpid(), end="", file=lock, flush=True)
        yield


def run_all(sources, profile, build, root=ROOT, limit=None, solutions=False):
    """Execute notebooks one after the other and write the index page.

    Args:
      sources: list of pathlib.Path under `root`.
      profile: "quick" or "full".
      build: directory that takes everything the run makes.
      root: what the paths of the executed copies are relative to.
      limit: seconds that each may take; None takes the profile's.
      solutions: whether to execute the solutions of the exercises, too.

    Returns:
      list of Result, one for each source.
    """
    Config(artifacts="artifacts").write(build / "recbandits.toml")
    results = []
    for source in sources:
        copy = build / "notebooks" / source.relative_to(root)
        result = run_one(source, copy, profile, build, limit or LIMITS[profile], solutions)
        print(f"{result.name}  {result.seconds:.1f} s", flush=True)
        if result.problem:
            print(f"{result.name} {result.problem}", file=sys.stderr, flush=True)
        results.append(result)
    index_page.write(results, build)
    return results


def run_one(source, copy, profile, build, limit, solutions=False):
    """Execute one notebook; its copy, the copy as HTML and a log of all that its processes said stay in `build`."""
    recorded, log = build / "artifacts" / "metrics" / f"{source.stem}.json", build / "logs" / f"{source.stem}.log"
    for stale in (recorded, copy, copy.with_suffix(".html")):
        stale.unlink(missing_ok=True)
    for file in (copy, log):
        file.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"RECBANDITS_CONFIG": str(build / "recbandits.toml")}
    environment.pop("MPLBACKEND", None)  # the kernel's own shows the pictures
    command = [sys.executable, "-m", "tools.execute", str(source), str(copy), profile]
    if solutions:
        command.append("solutions")
    steps = len(code_cells(read(source))) + 1  # and the parameters that papermill puts in
    started = time.monotonic()
    looks = {"desc": source.stem, "bar_format": "{desc}  {bar} {n}/{total} cells  {elapsed}", "leave": False}
    with tqdm(total=steps, disable=None, **looks) as bar, open(log, "w") as output:
        options = {"cwd": ROOT, "env": environment, "stdout": output, "stderr": output}
        exit_code = run_bounded(command, limit, lambda count: (bar.update(count), bar.refresh()), **options)
    seconds = time.monotonic() - started
    notebook = _read_copy(copy)
    record = json.loads(recorded.read_text()) if recorded.exists() else {}
    if notebook:
        copy.with_suffix(".html").write_text(HTMLExporter().from_notebook_node(notebook)[0], encoding="utf-8")
    problem = find_problem(notebook, record, exit_code, limit, profile, log.read_text(errors="replace"))
    return Result(source.stem, copy, notebook, seconds, record, problem)


def _read_copy(copy):
    """The executed copy, or None where papermill was killed before it had written a whole one."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        return read(copy)


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Execute the notebooks headless.")
    parser.add_argument("--profile", default="quick", help="quick (default) or full")
    parser.add_argument("--notebooks", default="*", help="shell patterns for paths or names, apart by spaces")
    options = parser.parse_args(arguments)
    try:
        check_profile(options.profile)
        sources = find_notebooks(patterns=options.notebooks)
    except ValueError as error:
        sys.exit(str(error))
    build = ROOT / "build"
    with sole_run(build):
        for leftover in ("notebooks", "logs", *(["artifacts"] if sources == find_notebooks() else [])):
            shutil.rmtree(build / leftover, ignore_errors=True)
        try:
            results = run_all(sources, options.profile, build)
        except KeyboardInterrupt:
            sys.exit("\nInterrupted: all that the run had started is gone, run it again at any time.")
    print(f"\n{summary(results)}\n\nLook at build/index.html")
    failed = [result.name for result in results if result.problem]
    if failed:
        sys.exit(f"{len(failed)} of {len(results)} notebooks failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
