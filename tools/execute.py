"""Execute one notebook in a process of its own (see `tools.processes`).

python -m tools.execute SOURCE TARGET PROFILE [solutions] STEPS, where `solutions` also executes those of its exercises.
"""

import os
import sys
import threading
from pathlib import Path

import nbformat
import papermill

from tools.notebooks import add_solutions, read
from tools.processes import groups_below, kill


def end_with_parent():
    """Kill the kernel and this process once standard input ends: the process that wanted the notebook is gone."""
    while os.read(0, 1):
        pass
    kill(groups_below(os.getpid()))
    os._exit(1)


def main(source, target, profile, *options):
    *options, steps = options
    threading.Thread(target=end_with_parent, daemon=True).start()
    if "solutions" in options:
        nbformat.write(add_solutions(read(source)), target)
    papermill.execute_notebook(
        target if "solutions" in options else source,
        target,
        parameters={"PROFILE": profile},
        kernel_name="python3",
        language="python",
        cwd=Path(source).parent,
        progress_bar=False,
        on_cell_executed=lambda **_: os.write(int(steps), b"."),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
