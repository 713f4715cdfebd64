"""Jobs on this machine: processes of their own, with the environment that Vertex AI gives its containers."""

import sys

from recbandits.platforms.jobs import Job, Record, measured
from recbandits.platforms.local import processes
from recbandits.platforms.local.study import LocalStudy
from recbandits.platforms.protocol import PlatformError
from recbandits.platforms.tuning import best_trial


class LocalJobs:
    """Jobs below `runs/jobs` of the artifacts directory, one directory each; see `platforms.jobs.Jobs`.

    A job outlives the process that started it, and any process can ask for it by name. Machine, accelerators, spot and
    image are not read here.

    Args:
      config: Config
      module: what a job runs with its arguments.
    """

    def __init__(self, config, module="recbandits.training.task"):
        self._root, self._module = config.artifacts_dir / "runs" / "jobs", module

    def run(self, job, wait=True):
        """Run a job, and show its log in a terminal while waiting.

        A job that failed, was stopped or vanished goes on from its checkpoints. One that has succeeded is not run
        again, and one that runs is waited for.

        Args:
          job: Job
          wait: whether to wait for its end.

        Returns:
          Record

        Raises:
          PlatformError: the name is taken by a study or by a job with other arguments, or the disk is full.
        """
        directory = self._directory(job.name)
        if (directory / "study.json").exists():
            raise PlatformError(f"{job.name} is a study: give the job a name of its own")
        asked = processes.read_json(directory / "job.json")
        if asked and (tuple(asked["arguments"]), asked["replicas"]) != (job.arguments, job.replicas):
            raise PlatformError(
                f"job {job.name} was begun with other arguments or replicas, give the new one another name: "
                f"{' '.join(asked['arguments'])}"
            )
        if not asked or processes.status(directory).state not in ("succeeded", "running"):
            named = {"CLOUD_ML_JOB_ID": job.name}
            processes.start(directory, f"job {job.name}", self._module, job.arguments, job.replicas, named)
        if wait:
            processes.wait(directory, show=sys.stderr.isatty())
        return self.record(job.name)

    def record(self, name):
        """See `Jobs.record`; arguments and metrics are those in the job's own `record.json`, once it has written it."""
        directory = self._existing(name, "job.json")
        status = processes.status(directory)
        own = processes.read_json(directory / "record.json") or {}
        arguments = own.get("arguments", processes.read_json(directory / "job.json")["arguments"])
        model = directory / "model"
        return Record(
            name=name,
            state="failed" if status.state == "interrupted" else status.state,
            arguments=tuple(arguments),
            model=str(model) if model.is_dir() else "",
            metrics=measured(own),
            started=status.started,
            ended=status.ended,
            error=status.error,
            own=own,
        )

    def logs(self, name):
        """Everything a job has printed so far, as text."""
        return processes.log_of(self._existing(name, "job.json"))

    def stop(self, name):
        """See `Jobs.stop`; a study goes on with the trials that were stopped when it is tuned again."""
        directory = self._existing(name, "job.json", "study.json")
        if (directory / "study.json").exists():
            LocalStudy(directory, self._module).stop()
        else:
            processes.stop(directory)

    def tune(self, study):
        """Run what is missing of a study; see `LocalStudy.tune`.

        Raises:
          PlatformError: the name is taken by a job or by another study; three trials in a row failed.
        """
        directory = self._directory(study.job.name)
        if (directory / "job.json").exists():
            raise PlatformError(f"{study.job.name} is a job: give the study a name of its own")
        return LocalStudy(directory, self._module).tune(study)

    def trials(self, name):
        """See `Jobs.trials`."""
        return LocalStudy(self._existing(name, "study.json"), self._module).trials()

    def best(self, name):
        """See `Jobs.best`; the directory of a study that is complete has it in `best.json`."""
        study = LocalStudy(self._existing(name, "study.json"), self._module)
        return best_trial(name, study.trials(), study.asked()["maximise"])

    def _directory(self, name):
        return self._root / Job(name).name

    def _existing(self, name, *files):
        directory = self._directory(name)
        if not any((directory / file).exists() for file in files):
            known = ", ".join(sorted(path.name for path in self._root.glob("*"))) or "none"
            kind = " or ".join(file.removesuffix(".json") for file in files)
            raise PlatformError(f"there is no {kind} {name}; what there is: {known}")
        return directory
