"""Execute one notebook in this process, which is for nothing else, and its kernel in one that is forked from it."""

import atexit
import contextlib
import multiprocessing
import os
import sys
import threading

import nbformat
import pandas
import papermill
import psutil
import threadpoolctl
from ipykernel.kernelapp import IPKernelApp
from jupyter_client import AsyncKernelManager

from tools.notebooks import ROOT, add_solutions, read
from tools.processes import groups_below, kill


class ForkedKernel(psutil.Process):
    """A kernel that waits for the arguments of its command, with what Jupyter asks of a `subprocess.Popen`.

    Args:
      directory: pathlib.Path of the notebook's folder.
    """

    stdin = stdout = stderr = None

    def __init__(self, directory):
        theirs, self._arguments = multiprocessing.Pipe(duplex=False)
        pid = os.fork()
        if not pid:
            self._arguments.close()
            _become_kernel(directory, theirs)
        theirs.close()
        super().__init__(pid)

    def start(self, arguments):
        """Let it begin with the arguments, list of text."""
        self._arguments.send(arguments)
        return self

    def poll(self):
        """Return the exit code, or None while it runs."""
        with contextlib.suppress(psutil.TimeoutExpired):
            return self.wait(0)


def _become_kernel(directory, connection):
    os.setsid()
    os.chdir(directory)
    pandas.set_option("display.max_columns", 20)  # as in a kernel: it was imported in a process that had none
    sys.path = ["", *(path for path in sys.path if path not in ("", str(ROOT)))]
    try:
        arguments = connection.recv()
        sys.argv[:] = ["ipykernel_launcher", *arguments]
        IPKernelApp.launch_instance([*arguments, f"--IPKernelApp.parent_handle={os.getppid()}"])
    finally:
        atexit._run_exitfuncs()
        os._exit(0)


def main(source, target, profile, solutions, environment, cores, log, steps):
    """Execute a notebook with papermill.

    Args:
      source: pathlib.Path.
      target: pathlib.Path of the executed copy.
      profile: "quick" or "full".
      solutions: whether to execute the solutions of its exercises, too.
      environment: dict of variables.
      cores: for how many its libraries start threads; None for all.
      log: pathlib.Path that takes what its processes say.
      steps: connection that takes a byte after each cell.
    """
    with open(log, "ab") as output:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(output.fileno(), stream.fileno())
    os.environ.clear()
    os.environ.update(environment)
    threadpoolctl.threadpool_limits(cores)
    kernel = ForkedKernel(source.parent)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    class Manager(AsyncKernelManager):
        async def _async_launch_kernel(self, kernel_cmd, **_):
            self.provisioner.process = kernel.start(kernel_cmd[kernel_cmd.index("-f") :])
            self.provisioner.pgid = kernel.pid

    if solutions:
        nbformat.write(add_solutions(read(source)), target)
    papermill.execute_notebook(
        target if solutions else source,
        target,
        parameters={"PROFILE": profile},
        kernel_name="python3",
        language="python",
        kernel_manager_class=Manager,
        cwd=source.parent,
        progress_bar=False,
        on_cell_executed=lambda **_: steps.send_bytes(b"."),
    )


def _end_with_parent():
    """Kill the kernel and this process once the process that wanted the notebook is gone."""
    multiprocessing.parent_process().join()
    kill(groups_below(os.getpid()))
    os._exit(1)
