"""contextualbandits' LinUCB on a given stream, in a process and an environment of its own.

The package comes as source only and asks for a compiler; where it does not install, its figures are NaN.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ENVIRONMENT = Path("build/peers")
REQUIREMENTS = ["contextualbandits==0.3.30", "numpy", "pandas", "scipy", "joblib", "scikit-learn", "setuptools"]

PROGRAM = """
import json, sys, time
import numpy as np
from contextualbandits.online import LinUCB

stream = np.load(sys.argv[1])
observations, rewards = stream["observations"].astype("float64"), stream["rewards"].astype("float64")
alpha, tikhonov, limit = map(float, sys.argv[2:])
for _ in sys.stdin:
    agent = LinUCB(
        nchoices=rewards.shape[2], alpha=alpha, lambda_=tikhonov, fit_intercept=False, beta_prior=None,
        ucb_from_empty=True, random_state=1, njobs=1,
    )
    start, done, earned = time.perf_counter(), 0, 0.0
    for x, reward in zip(observations, rewards):
        action = agent.predict(x).astype(int)
        revealed = reward[np.arange(len(x)), action]
        agent.partial_fit(x, action, revealed)
        earned += revealed.sum()
        done += len(x)
        if time.perf_counter() - start > limit:
            break
    print(json.dumps(done / (time.perf_counter() - start)), flush=True)
"""


class Peer:
    """Call it to run contextualbandits once more; it returns interactions per second, NaN where it is not to be had."""

    def __init__(self, observations, rewards, parameters, limit=2.0):
        self._process = None
        if not _installed():
            return
        self._folder = tempfile.TemporaryDirectory()
        file = Path(self._folder.name) / "stream.npz"
        np.savez(file, observations=observations, rewards=rewards)
        arguments = [str(file), str(parameters.alpha), str(parameters.tikhonov), str(limit)]
        self._process = subprocess.Popen(
            [str(ENVIRONMENT / "bin" / "python"), "-W", "ignore", "-c", PROGRAM, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def __call__(self):
        if self._process is None:
            return float("nan")
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        return json.loads(answer) if answer else float("nan")


def _installed():
    """Make the peer's environment, once; say so when it cannot be made."""
    if (ENVIRONMENT / "ready").exists():
        return True
    uv = str(Path(sys.executable).with_name("uv"))
    commands = [
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(ENVIRONMENT)],
        [uv, "pip", "install", "--quiet", "--python", str(ENVIRONMENT / "bin" / "python"), *REQUIREMENTS],
    ]
    for command in commands:
        if subprocess.run(command, capture_output=True, check=False).returncode:
            print("contextualbandits does not install here: its columns stay empty", file=sys.stderr)
            return False
    (ENVIRONMENT / "ready").touch()
    return True
