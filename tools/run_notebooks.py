"""Execute notebooks headless: executed copies, HTML, metrics and an index page in build/, a summary in the terminal.

They run side by side, one more than there are processors, because each waits at times. Each has a process of its own
under a hard time limit, with a configuration and artifacts of its own: none reads what another has written, and
no other files are touched. One that fails does not keep the others from running; the exit code is 1 then.
"""

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from nbconvert import HTMLExporter
from tqdm import tqdm

from recbandits.config import Config, count_cores
from recbandits.notebook import check_profile
from tools import execute, index_page
from tools.notebooks import ROOT, find_notebooks, read
from tools.processes import run_bounded
from tools.results import Result, find_problem, summary

LIMITS = {"quick": 600, "full": 4 * 3600}  # seconds
_THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")


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


def run_all(sources, profile, build, root=ROOT, limit=None, solutions=False, workers=None):
    """Execute notebooks side by side and write the index page.

    Those at the root start first, which check the machine and fetch the data; then the last one, which takes longest.

    Args:
      sources: list of pathlib.Path under `root`.
      profile: "quick" or "full".
      build: directory that takes everything the run makes.
      root: what the paths of the executed copies are relative to.
      limit: seconds that each may take; None takes the profile's.
      solutions: whether to execute the solutions of the exercises, too.
      workers: how many run at a time; None for one more than there are processors.

    Returns:
      list of Result, one for each source.
    """
    workers = workers or min(count_cores() + 1, len(sources))
    started, stop, running = time.monotonic(), threading.Event(), []
    steps = sum(_count_steps(source) for source in sources)
    looks = {"bar_format": "{bar} {n}/{total} cells  {elapsed}  {desc}", "leave": False}
    with tqdm(total=steps, disable=None, **looks) as bar, ThreadPoolExecutor(workers) as pool:

        def show(count):
            bar.update(count)
            bar.refresh()  # the time goes on during a long cell, too

        def run(source):
            running.append(source.stem)
            bar.set_description_str(", ".join(running))
            copy = build / "notebooks" / source.relative_to(root)
            options = {"cores": max(1, count_cores() // workers), "on_steps": show, "stop": stop}
            result = run_one(source, copy, profile, build, limit or LIMITS[profile], solutions, **options)
            running.remove(source.stem)
            return result

        queue = [source for source in sources if source.parent == root]
        queue += [source for source in reversed(sources) if source.parent != root]
        submitted = {source: pool.submit(run, source) for source in queue}
        try:
            results = [_report(submitted[source].result(), bar) for source in sources]
        finally:  # after Ctrl-C those that run are killed
            stop.set()
            pool.shutdown(cancel_futures=True)
    index_page.write(results, build, time.monotonic() - started)
    return results


def _report(result, bar):
    """Print how a notebook fared, in the order of the notebooks, and return it."""
    with bar.external_write_mode():
        print(f"{result.name}  {result.seconds:.1f} s", flush=True)
        if result.problem:
            print(f"{result.name} {result.problem}", file=sys.stderr, flush=True)
    return result


def _count_steps(source):
    """Count the code cells, with the parameters that papermill puts in."""
    return sum(cell.cell_type == "code" for cell in read(source).cells) + 1


def run_one(source, copy, profile, build, limit, solutions=False, cores=None, on_steps=lambda count: None, stop=None):
    """Execute one notebook; its copy, the copy as HTML and a log of all that its processes said stay in `build`.

    Args:
      source: pathlib.Path of the notebook.
      copy: pathlib.Path of the executed copy.
      profile: "quick" or "full".
      build: directory that takes everything the run makes.
      limit: seconds that it may take.
      solutions: whether to execute the solutions of the exercises, too.
      cores: for how many its libraries start threads; None for all.
      on_steps: called with the number of cells that were executed since the last call.
      stop: threading.Event that ends it; None for none.

    Returns:
      Result.
    """
    own, log = build / "runs" / source.stem, build / "logs" / f"{source.stem}.log"
    recorded = own / "artifacts" / "metrics" / f"{source.stem}.json"
    shutil.rmtree(own, ignore_errors=True)  # else a job or a study of the last run would be read back
    for stale in (copy, copy.with_suffix(".html")):
        stale.unlink(missing_ok=True)
    for file in (copy, log):
        file.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")  # else a process that ends before it writes would be explained by the last run
    Config(artifacts="artifacts").write(own / "recbandits.toml")
    environment = os.environ | {"RECBANDITS_CONFIG": str(own / "recbandits.toml")}
    environment.pop("MPLBACKEND", None)  # the kernel's own shows the pictures
    if cores:
        environment |= dict.fromkeys(_THREADS, str(cores))
    arguments = [source, copy, profile, solutions, environment, cores, log]
    started = time.monotonic()
    exit_code = run_bounded(execute.main, arguments, limit, on_steps, stop)
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
        for leftover in ("notebooks", "logs"):
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
