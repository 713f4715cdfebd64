"""Python programs of tests, forked from a process that has imported TensorFlow: each starts without those seconds."""

import multiprocessing
import os
import runpy
import sys

from tools.processes import WARM

OTHER_USER = 65534  # a user and a group to whom no file of ours belongs


class ForkedPython(WARM.Process):
    """A forked process that runs a program as its main module; `poll` and `communicate` are as of `subprocess.Popen`.

    Args:
      program: path of a file, or the name of a module.
      arguments: of its command line.
      output: path of a file for all that it prints, or "/dev/null".
      variables: dict to be added to its environment.
    """

    def __init__(self, program, arguments, output, variables=None):
        super().__init__(target=_run, args=(str(program), [*map(str, arguments)], str(output), variables or {}))
        self.start()

    def poll(self):
        """Return its exit code, or None while it runs."""
        self.join(0)
        return self.exitcode

    def communicate(self, timeout=300):
        """Wait for its end."""
        self.join(timeout)
        assert self.exitcode is not None, f"it has not ended in {timeout} seconds"


def _run(program, arguments, output, variables):
    with open(output, "ab") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    os.environ.update(variables)
    sys.argv[1:] = arguments
    run = runpy.run_path if os.path.exists(program) else runpy.run_module
    run(program, run_name="__main__")


def run_unprivileged(function):
    """Return what a function returns in a forked process without the rights of root, "killed" if it does not return."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def run():
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(OTHER_USER)
            os.setuid(OTHER_USER)
        sender.send(function())

    process = context.Process(target=run)
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:
        return "killed"
    finally:
        process.join()
