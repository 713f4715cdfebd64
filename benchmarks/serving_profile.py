"""Where the prediction server spends its time: a flame graph of its Python functions while clients ask.

py-spy, in an environment of its own, reads the stacks of the running server. A sample counts if the thread holds the
interpreter's lock, so waiting is left out. Functions in C count for the Python function that calls them.
"""

import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pandas as pd
from matplotlib.patches import Patch

from benchmarks.bound import as_share
from benchmarks.peer import install, python_of
from benchmarks.profiles import choose, is_published
from benchmarks.serving_http import load, prepare, serve_endpoint
from recbandits.plots.style import COLOURS, REFERENCE, figure

CLIENTS, SECONDS, SAMPLES = 8, choose(20, 3), 200  # samples a second
PICTURE = "serving-profile.png"
PACKAGES = dict(zip(("recbandits", "uvicorn", "starlette", "pydantic", "numpy"), COLOURS, strict=False))
NARROW = 0.003  # share of the samples below which a function is not drawn


def measure(data):
    """Sample the server of an exported policy, which logs its decisions; the picture goes where the record does.

    There is no table where py-spy does not run.
    """
    with tempfile.TemporaryDirectory() as folder:
        requests, _ = prepare(data, Path(folder))
        with serve_endpoint(Path(folder), requests) as server:
            load(server, CLIENTS, 1.0)
            stacks = sample(server, Path(folder, "stacks.txt"))
    if not stacks:
        return {}
    draw(stacks).savefig(Path("docs" if is_published(data) else "build/bench", PICTURE))
    shares = Counter()
    for stack, samples in stacks.items():
        shares[package_of(stack[-1])] += samples / sum(stacks.values())
    rows = [{"package": name, "share of the time": as_share(share)} for name, share in shares.most_common(8)]
    return {f"Time in the functions of each package, {CLIENTS} clients": pd.DataFrame(rows)}


def sample(server, file):
    """Count the stacks of a server while clients ask.

    Returns:
      dict from stack, a tuple of functions from the outermost, to number of samples.
    """
    if not install("py-spy", [["py-spy==0.4.3"]]):
        return {}
    command = [str(python_of("py-spy").with_name("py-spy")), "record", "--pid", str(server.process), "--gil"]
    command += ["--duration", str(SECONDS), "--rate", str(SAMPLES), "--format", "raw", "--function", "--threads"]
    process = subprocess.Popen([*command, "--output", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    load(server, CLIENTS, SECONDS + 1.0)
    _, errors = process.communicate()
    if process.returncode:
        print(f"py-spy does not run here: {errors.decode().strip()}", file=sys.stderr)
        return {}
    return parse(file.read_text())


def parse(text):
    """Read py-spy's raw format, a line a stack, without what is above the event loop, and with names of threads."""
    stacks = Counter()
    for line in text.splitlines():
        frames, _, samples = line.rpartition(" ")
        thread, *functions = frames.split(";")
        loops = [depth for depth, function in enumerate(functions) if function.startswith("Runner.run ")]
        stacks[(thread.partition(": ")[2], *functions[loops[0] if loops else 0 :])] += int(samples)
    return stacks


def package_of(function):
    """Return the package of a function, and for this one also the layer."""
    path = function.rpartition("(")[2].split("/")
    return ".".join(path[:2]) if path[0] == "recbandits" else path[0]


def lay_out(stacks, depth=0, start=0):
    """Place functions below their callers, those with most samples first.

    Yields:
      depth, samples to the left, samples, and name of each function.
    """
    callees = {}
    for stack, samples in stacks.items():
        if stack:
            callees.setdefault(stack[0], {})[stack[1:]] = samples
    for function, rest in sorted(callees.items(), key=lambda item: -sum(item[1].values())):
        samples = sum(rest.values())
        yield depth, start, samples, function
        yield from lay_out(rest, depth + 1, start)
        start += samples


def draw(stacks):
    """Draw the flame graph, callers on top; the width of a function is its share of the time."""
    total = sum(stacks.values())
    with figure(12.0, 7.0) as (fig, ax):
        for depth, start, samples, function in lay_out(stacks):
            if samples < NARROW * total:
                continue
            colour = PACKAGES.get(package_of(function).partition(".")[0], REFERENCE)
            ax.barh(depth, samples / total, 1.0, start / total, color=colour, alpha=0.6, edgecolor="white", lw=0.5)
            name, length = function.partition(" (")[0], int(samples / total * 180)  # characters
            label = name if len(name) <= length else name.rpartition(".")[2][:length]
            if length > 2:
                ax.text(start / total, depth, f" {label}", va="center", fontsize=6)
        ax.invert_yaxis()
        ax.set(xlim=(0, 1), xlabel="share of the time in Python", yticks=[])
        ax.grid(False)
        handles = [Patch(color=colour, alpha=0.6, label=name) for name, colour in PACKAGES.items()]
        ax.legend(handles=[*handles, Patch(color=REFERENCE, alpha=0.6, label="other")], loc="lower right")
    return fig
