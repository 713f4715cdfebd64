"""Pipelines on this machine: KFP's local runner as the command of a unit, one directory for each run.

The directory has the files of its `Unit`, `steps` (what the steps have made) and, once all of them have succeeded,
`outputs.json`. KFP starts each step as a process of the unit: where KFP was killed, the run is over, and can be started
again, when its last step has ended. `python -m recbandits.platforms.local.pipelines DIRECTORY` is the command. Where a
`forkserver` has forked it, it forks the steps, which then start without the seconds of importing TensorFlow.
"""

import json
import multiprocessing
import os
import re
import runpy
import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path

from recbandits.config import Config
from recbandits.platforms.jobs import check_name
from recbandits.platforms.local.files import held, names_with, one_sentence, private, read_json, write_json
from recbandits.platforms.local.units import Unit
from recbandits.platforms.pipelines import Run, read_template
from recbandits.platforms.protocol import PlatformError

_ERROR = r"\w+(\.\w+)*(Error|Exception|Interrupt|Exit): .*"
_OUTPUTS, _STEPS = "outputs.json", "steps"
_EXECUTOR = "kfp.dsl.executor_main"  # the module that runs the function of a step
_PATIENCE = 60.0  # seconds to wait for others that start a run


class LocalPipelines:
    """Runs below `pipelines` of the artifacts directory; see `platforms.pipelines.Pipelines`."""

    def __init__(self, config: Config):
        self._root = config.artifacts_dir / "pipelines"

    def run(self, template: str | Path, name: str, parameters: dict | None = None) -> Run:
        """See `Pipelines.run`; steps see the environment of this process."""
        text, _, pipeline = read_template(template)
        unit = self._unit(name)
        request = {"pipeline": pipeline, "template": text, "parameters": json.loads(json.dumps(parameters or {}))}
        # held between looking for a run and starting one
        with one_sentence(unit.label, "started"), held(private(self._root), _PATIENCE) as lock:
            if lock is None:
                raise PlatformError(f"pipeline run {name} must wait: another process starts one")
            if (other := self.running(pipeline)) not in (None, name):
                raise PlatformError(f"pipeline run {name} must wait: {other} of {pipeline} is running")
            command = [sys.executable, "-m", __name__, str(unit.directory)]
            unit.start(command, request=request, finished=("succeeded",), stale=(_OUTPUTS, _STEPS))
        if unit.run["request"] != request:
            raise PlatformError(
                f"pipeline run {name} was started with another template or other parameters, "
                "give the new one another name"
            )
        return self.status(name)

    def status(self, name: str) -> Run:
        """See `Pipelines.status`."""
        unit = self._existing(name)
        status = unit.status()
        outputs = read_json(unit.directory / _OUTPUTS) if status.state == "succeeded" else {}
        return Run(name, "failed" if status.state == "interrupted" else status.state, outputs, status.error)

    def wait(self, name: str) -> Run:
        """See `Pipelines.wait`."""
        self._existing(name).wait()
        return self.status(name)

    def stop(self, name: str) -> None:
        """See `Pipelines.stop`."""
        self._existing(name).stop()

    def running(self, pipeline: str) -> str | None:
        """See `Pipelines.running`."""
        for name in names_with(self._root, "run.json"):
            unit = self._unit(name)
            if unit.running and unit.run["request"]["pipeline"] == pipeline:
                return name
        return None

    def logs(self, name: str) -> str:
        """Return all that the steps of a run have printed so far."""
        return self._existing(name).log()

    def _unit(self, name):
        return Unit(self._root / check_name(name), f"pipeline run {name}")

    def _existing(self, name):
        unit = self._unit(name)
        if not unit.run:
            known = ", ".join(names_with(self._root, "run.json")) or "none"
            raise PlatformError(f"there is no pipeline run {name}; what there is: {known}")
        return unit


def execute(unit: Unit) -> None:
    """Run the pipeline of a unit to its end, step by step; a failed step is a SystemExit with its sentence."""
    from kfp import local
    from kfp.components import load_component_from_text
    from kfp.local import subprocess_task_handler

    warnings.filterwarnings("ignore", message="You may be attemping to run a task that uses custom")
    if "tensorflow" in sys.modules:
        subprocess_task_handler.run_local_subprocess = partial(_fork, subprocess_task_handler.run_local_subprocess)
    runner, folder = local.SubprocessRunner(use_venv=False), str(unit.directory / _STEPS)
    local.init(runner=runner, pipeline_root=folder, raise_on_error=True)
    request = unit.run["request"]
    pipeline = load_component_from_text(request["template"])
    try:
        outputs = pipeline(**request["parameters"]).outputs
    except (RuntimeError, TypeError) as error:
        raise SystemExit(_sentence(str(error), unit.log())) from None
    write_json(unit.directory / _OUTPUTS, {name: getattr(value, "uri", value) for name, value in outputs.items()})


def _fork(execute_step, full_command):
    """Fork a step that is a function alone; execute one that also installs packages. Return its exit code.

    The command of the former is `sh -ec SCRIPT SOURCE ARGUMENT...`, where the script writes the source into a file for
    the executor.
    """
    shell, option, script, source, *arguments = full_command
    if (shell, option) != ("sh", "-ec") or _EXECUTOR not in script:
        return execute_step(full_command)
    step = multiprocessing.get_context("fork").Process(target=_run_step, args=(source, arguments))
    step.start()
    step.join()
    return step.exitcode


def _run_step(source, arguments):
    os.environ["_KFP_RUNTIME"] = "true"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "ephemeral_component.py")
        file.write_text(source, encoding="utf-8")
        sys.argv[1:] = ["--component_module_path", str(file), *arguments]
        runpy.run_module(_EXECUTOR, run_name="__main__", alter_sys=True)


def _sentence(error, log):
    """Name the step that failed, with the last line that it printed in this attempt."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", error)
    step = re.search(r"Inner task failed: '?([\w-]+)", plain)
    attempt = log.rpartition("Running pipeline")[2]
    last = [line.strip() for line in attempt.splitlines() if re.fullmatch(_ERROR, line.strip())]
    return f"step {step[1]} failed" + (f": {last[-1]}" if last else "") if step else plain


if __name__ == "__main__":
    execute(Unit(sys.argv[1], Path(sys.argv[1]).name))
