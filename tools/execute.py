"""Execute one notebook: python -m tools.execute SOURCE TARGET PROFILE STEPS. Its own process, see `tools.processes`."""

import os
import sys
import threading
from pathlib import Path

import papermill

from tools.processes import groups_below, kill


def end_with_parent():
    """Kill the kernel and this process once standard input ends: the process that wanted the notebook is gone."""
    while os.read(0, 1):
        pass
    kill(groups_below(os.getpid()))
    os._exit(1)


def main(source, target, profile, steps):
    threading.Thread(target=end_with_parent, daemon=True).start()
    papermill.execute_notebook(
        source,
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
