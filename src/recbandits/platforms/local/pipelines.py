"""Pipelines on this machine: KFP's local runner in a process of its own, one directory for each run.

The directory has `run.json` (what was asked for), `pipeline.yaml`, `steps` (what the steps have made), `outputs.json`
once all of them have succeeded, and the files of a job, see `processes`. The runner starts each step as a process; a
step holds the lock of the run as long as it lives, so that a run whose runner was killed is not over, and not begun
again, before its last step has ended.

`python -m recbandits.platforms.local.pipelines DIRECTORY` is that process.
"""

import fcntl
import json
import os
import re
import shutil
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path

from recbandits.platforms.jobs import Job
from recbandits.platforms.local import processes
from recbandits.platforms.local.supervisor import write_json
from recbandits.platforms.pipelines import Run
from recbandits.platforms.protocol import PlatformError

_ERROR = r"\w+(\.\w+)*(Error|Exception|Interrupt|Exit): .*"
_FILES = 256  # numbers among which an inherited file is looked for


class LocalPipelines:
    """Runs below `pipelines` of the artifacts directory; see `platforms.pipelines.Pipelines`."""

    def __init__(self, config):
        self._root = config.artifacts_dir / "pipelines"

    def run(self, template, name, parameters=None):
        """See `Pipelines.run`; steps see the environment of this process.

        Raises:
          PlatformError: also where the template is no compiled pipeline.
        """
        text, pipeline = _read(template)
        directory, asked = self._directory(name), {"pipeline": pipeline, "parameters": parameters or {}}
        asked = json.loads(json.dumps(asked))
        with self._turn():
            begun = processes.read_json(directory / "run.json")
            if begun and (begun != asked or (directory / "pipeline.yaml").read_text(encoding="utf-8") != text):
                raise PlatformError(
                    f"pipeline run {name} was begun with another template or other parameters, "
                    "give the new one another name"
                )
            if (directory / "job.json").exists() and self.status(name).state in ("running", "succeeded"):
                return self.status(name)
            if other := self.running(pipeline):
                raise PlatformError(f"pipeline run {name} must wait: {other} of {pipeline} is running")
            directory.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(directory / "steps", ignore_errors=True)
            (directory / "pipeline.yaml").write_text(text, encoding="utf-8")
            write_json(directory / "run.json", asked)
            processes.start(directory, f"pipeline run {name}", __name__, [str(directory)], 1, {})
        return self.status(name)

    def status(self, name):
        """See `Pipelines.status`."""
        directory = self._existing(name)
        status = processes.status(directory)
        if status.state != "running" and (outputs := processes.read_json(directory / "outputs.json")) is not None:
            return Run(name, "succeeded", outputs, "")
        state = "failed" if status.state in ("interrupted", "succeeded") else status.state
        return Run(name, state, {}, status.error)

    def wait(self, name):
        """See `Pipelines.wait`."""
        processes.wait(self._existing(name))
        return self.status(name)

    def stop(self, name):
        """See `Pipelines.stop`."""
        processes.stop(self._existing(name))

    def running(self, pipeline):
        """See `Pipelines.running`."""
        for file in sorted(self._root.glob("*/run.json")):
            if processes.is_held(file.parent) and processes.read_json(file)["pipeline"] == pipeline:
                return file.parent.name
        return None

    def logs(self, name):
        """Everything the steps of a run have printed so far, as text."""
        return processes.log_of(self._existing(name))

    def _directory(self, name):
        return self._root / Job(name).name

    def _existing(self, name):
        directory = self._directory(name)
        if not (directory / "job.json").exists():
            known = ", ".join(sorted(file.parent.name for file in self._root.glob("*/run.json"))) or "none"
            raise PlatformError(f"there is no pipeline run {name}; what there is: {known}")
        return directory

    @contextmanager
    def _turn(self):
        """A context that one process at a time is in: between looking for a run and starting one there is no other."""
        self._root.mkdir(parents=True, exist_ok=True)
        with (self._root / "turn").open("w") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            yield


def execute(directory):
    """Run the pipeline in a directory to its end, step by step.

    Args:
      directory: `pathlib.Path` with `run.json` and `pipeline.yaml`.

    Raises:
      SystemExit: a step failed, with the sentence it ended with.
    """
    from kfp import local
    from kfp.components import load_component_from_file

    _lend_lock(directory)
    warnings.filterwarnings("ignore", message="You may be attemping to run a task that uses custom")
    runner = local.SubprocessRunner(use_venv=False)
    local.init(runner=runner, pipeline_root=str(directory / "steps"), raise_on_error=True)
    pipeline = load_component_from_file(str(directory / "pipeline.yaml"))
    parameters = processes.read_json(directory / "run.json")["parameters"]
    try:
        outputs = pipeline(**parameters).outputs
    except (RuntimeError, TypeError) as error:
        raise SystemExit(_sentence(str(error), processes.log_of(directory))) from None
    write_json(directory / "outputs.json", {name: getattr(value, "uri", value) for name, value in outputs.items()})


def _read(template):
    """Text of a compiled pipeline, and the pipeline's name."""
    import yaml

    try:
        text = Path(template).read_text(encoding="utf-8")
        return text, next(yaml.safe_load_all(text))["pipelineInfo"]["name"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, StopIteration, LookupError, TypeError) as error:
        raise PlatformError(f"template must be a compiled pipeline, got {template}: {error}") from error


def _lend_lock(directory):
    """Have every step inherit the lock of the run, as its standard input: the runner closes all other files."""
    lock = (directory / "lock").stat()
    for number in range(3, _FILES):
        try:
            if os.path.samestat(os.fstat(number), lock):
                os.dup2(number, 0)
                return
        except OSError:
            continue


def _sentence(error, log):
    """Which step failed, and with which last words in this attempt."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", error)
    step = re.search(r"Inner task failed: '?([\w-]+)", plain)
    attempt = log.rpartition("Running pipeline")[2]
    last = [line.strip() for line in attempt.splitlines() if re.fullmatch(_ERROR, line.strip())]
    return f"step {step[1]} failed" + (f": {last[-1]}" if last else "") if step else plain


if __name__ == "__main__":
    execute(Path(sys.argv[1]))
