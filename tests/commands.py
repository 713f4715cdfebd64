"""Commands that tests run and that must succeed."""

import subprocess
import sys


def run(*command, **options):
    """Run a command to its end, and return what it printed; the test fails with that if the command fails."""
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def run_python(code, *arguments):
    """Run Python code in a process of its own, and return what it printed."""
    return run(sys.executable, "-c", code, *arguments)
