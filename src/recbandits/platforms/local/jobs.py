"""Jobs on this machine: units with the environment that Vertex AI gives its containers.

A job is a directory below `runs/jobs` of the artifacts directory: that of its `Unit`, with what the job makes (`model`,
`record.json`, `checkpoints`, `tensorboard`, `metrics.jsonl`). A study is a directory there, too, see `study`.
"""

import builtins
import sys
from functools import partial

from recbandits.config import Config
from recbandits.platforms.jobs import Job, Record, Study, Trial, check_name, measured
from recbandits.platforms.local.files import names_with, read_json
from recbandits.platforms.local.study import STUDY_FILE, LocalStudy
from recbandits.platforms.local.units import Unit
from recbandits.platforms.protocol import PlatformError
from recbandits.platforms.tuning import best_trial

_METRICS = "metrics.jsonl"
_PATHS = {
    "AIP_MODEL_DIR": "model",
    "AIP_CHECKPOINT_DIR": "checkpoints",
    "AIP_TENSORBOARD_LOG_DIR": "tensorboard",
    "CLOUD_ML_HP_METRIC_FILE": _METRICS,
}
_FILES = {"job": "run.json", "study": STUDY_FILE}


class LocalJobs:
    """See `platforms.jobs.Jobs`; machine, accelerators, spot and image are not read here. Jobs run `module`."""

    def __init__(self, config: Config, module: str = "recbandits.training.task"):
        self._root, self._module = config.artifacts_dir / "runs" / "jobs", module

    def run(self, job: Job, wait: bool = True) -> Record:
        """See `Jobs.run`; a job outlives this process, whose first one waits until its `forkserver` is ready."""
        if job.replicas > 1:
            raise PlatformError(f"job {job.name}: replicas must be 1 on this machine, got {job.replicas}")
        unit = self.unit(job.name)
        if self._study(unit).request():
            raise PlatformError(f"{job.name} is a study: give the job a name of its own")
        self._start(unit, job.arguments, {"CLOUD_ML_JOB_ID": job.name}, ("succeeded",))
        request = unit.run["request"]
        if request != list(job.arguments):
            raise PlatformError(
                f"job {job.name} was started with other arguments, give the new one another name: {' '.join(request)}"
            )
        if wait:
            unit.wait()
        return self.record(job.name)

    def record(self, name: str) -> Record:
        """See `Jobs.record`; arguments and metrics are those in the job's own `record.json`, once it has written it."""
        unit = self._existing(name, "job")
        status = unit.status()
        own, model = read_json(unit.directory / "record.json") or {}, unit.directory / "model"
        state = "failed" if status.state == "interrupted" else status.state
        arguments, model_uri = tuple(own.get("arguments", unit.run["request"])), str(model) if model.is_dir() else ""
        return Record(name, state, arguments, model_uri, measured(own), status.started, status.ended, status.error, own)

    def list(self) -> builtins.list[str]:
        """Return the names of all jobs and studies, in order."""
        return names_with(self._root, *_FILES.values())

    def logs(self, name: str) -> str:
        """Return all that a job has printed so far."""
        return self._existing(name, "job").log()

    def stop(self, name: str) -> None:
        """See `Jobs.stop`; a study resumes the trials that were stopped when it is tuned again."""
        unit = self._existing(name, "job", "study")
        (self._study(unit) if (unit.directory / STUDY_FILE).exists() else unit).stop()

    def tune(self, study: Study) -> builtins.list[Trial]:
        """Run what is missing of a study; see `LocalStudy.tune`."""
        unit = self.unit(study.job.name)
        if unit.run:
            raise PlatformError(f"{study.job.name} is a job: give the study a name of its own")
        return self._study(unit).tune(study)

    def trials(self, name: str) -> builtins.list[Trial]:
        """See `Jobs.trials`."""
        return self._study(self._existing(name, "study")).trials()

    def best(self, name: str) -> Trial:
        """See `Jobs.best`."""
        study = self._study(self._existing(name, "study"))
        return best_trial(name, study.trials(), study.request()["maximise"])

    def unit(self, name: str) -> Unit:
        """Return the `Unit` of a job, which may not exist yet."""
        return Unit(self._root / check_name(name), f"job {name}")

    def _study(self, unit):
        return LocalStudy(unit.directory, partial(self._start, finished=("succeeded", "failed")))

    def _start(self, unit, arguments, variables, finished):
        """Start the module with the directories that Vertex AI sets, unless it runs or is in one of some states."""
        variables = {name: str(unit.directory / path) for name, path in _PATHS.items()} | variables
        command = [sys.executable, "-m", self._module, *arguments]
        unit.start(command, variables, request=list(arguments), finished=finished, stale=(_METRICS,))

    def _existing(self, name, *kinds):
        unit = self.unit(name)
        present = [kind for kind, file in _FILES.items() if read_json(unit.directory / file)]
        if present and not set(present) & set(kinds):
            raise PlatformError(f"{name} is a {present[0]}, a {kinds[0]} is expected")
        if not present:
            known = ", ".join(self.list()) or "none"
            raise PlatformError(f"there is no {' or '.join(kinds)} {name}; what there is: {known}")
        return unit
