"""Jobs on Vertex AI: custom jobs and hyper-parameter tuning jobs, which keep all that is known of them."""

import json
import math
import re
import time
from contextlib import contextmanager

from recbandits.platforms.gcp import explained
from recbandits.platforms.gcp.requests import custom_job, tuning_job
from recbandits.platforms.jobs import Job, Record, Trial, measured
from recbandits.platforms.protocol import PlatformError, Resource
from recbandits.platforms.tuning import best_trial

_STATES = {"SUCCEEDED": "succeeded", "PARTIALLY_SUCCEEDED": "succeeded", "FAILED": "failed", "EXPIRED": "failed"}
_STATES |= {"INFEASIBLE": "failed", "CANCELLED": "stopped", "STOPPING": "stopped"}


class GcpJobs:
    """Jobs of one configuration, told from others by its labels; see `platforms.jobs.Jobs`.

    Args:
      config: Config
      clients: `Clients`
      poll: seconds between two looks at a job that is waited for.
    """

    def __init__(self, config, clients, poll=30.0):
        self._config, self._clients, self._poll = config, clients, poll

    def run(self, job, wait=True):
        """See `Jobs.run`.

        A job that failed or was stopped goes on from its checkpoints as a new one of the same name. One that has
        succeeded is not run again, and one that runs is waited for.

        Raises:
          PlatformError: the name is taken by a study, or by a job with other arguments or replicas; or a refusal.
        """
        if self._find("study", job.name):
            raise PlatformError(f"{job.name} is a study: give the job a name of its own")
        found = self._find("job", job.name)
        if found and (_arguments(found.job_spec), _replicas(found.job_spec)) != (job.arguments, job.replicas):
            raise PlatformError(
                f"job {job.name} was begun with other arguments or replicas, give the new one another name: "
                f"{' '.join(_arguments(found.job_spec))}"
            )
        if not found or _state(found) in ("failed", "stopped"):
            document = custom_job(self._config, job, self._tensorboard())
            with self._started("job", job):
                found = self._client.create_custom_job(parent=self._parent, custom_job=document)
        if wait:
            self._wait("job", found.name)
        return self.record(job.name)

    def record(self, name):
        """See `Jobs.record`; arguments are those of the job's own container, metrics those in its `record.json`.

        Raises:
          PlatformError: there is no such job.
        """
        job = self._get("job", name)
        directory, state = job.job_spec.base_output_directory.output_uri_prefix, _state(job)
        own = self._own(name, f"{directory}/record.json") if state == "succeeded" else {}
        return Record(
            name=name,
            state=state,
            arguments=_arguments(job.job_spec),
            model=f"{directory}/model" if state == "succeeded" else "",
            metrics=measured(own),
            started=job.start_time,
            ended=job.end_time,
            error=_explain("job", name, job.error.message) if job.error.message else "",
            own=own,
        )

    def stop(self, name):
        """See `Jobs.stop`; what is being cancelled runs until Vertex AI says that it has ended.

        Raises:
          PlatformError: there is neither a job nor a study of this name.
        """
        kind, found = next(((kind, found) for kind in _KINDS if (found := self._find(kind, name))), (None, None))
        if not found:
            raise PlatformError(f"there is no job or study {name} in {self._parent}")
        with explained(Resource(kind, name), "stopped"):
            getattr(self._client, f"cancel_{_KINDS[kind]}")(name=found.name)

    def tune(self, study):
        """See `Jobs.tune`. A study that was begun is waited for; Vertex AI starts no trial of one that has ended.

        Raises:
          PlatformError: the name is taken by a job, the study was begun with other settings, Vertex AI refused, or the
            study failed; trials that have ended can be listed all the same.
        """
        name, document = study.job.name, tuning_job(self._config, study, self._tensorboard())
        if self._find("job", name):
            raise PlatformError(f"{name} is a job: give the study a name of its own")
        found = self._find("study", name)
        if not found:
            with self._started("study", study.job):
                request = {"parent": self._parent, "hyperparameter_tuning_job": document}
                found = self._client.create_hyperparameter_tuning_job(request=request)
        elif _search(type(found)(document)) != _search(found):
            raise PlatformError(
                f"study {name} was begun with other arguments, parameters or metric: give this one another name"
            )
        ended = self._wait("study", found.name)
        trials = _trials(ended)
        if _state(ended) == "failed":
            finished = sum(trial.state == "succeeded" for trial in trials)
            reason = _explain("study", name, ended.error.message or "Vertex AI gave no reason")
            raise PlatformError(f"{reason} ({finished} of {study.trials} trials succeeded and are kept)")
        return trials

    def trials(self, name):
        """See `Jobs.trials`.

        Raises:
          PlatformError: there is no such study.
        """
        return _trials(self._get("study", name))

    def best(self, name):
        """See `Jobs.best`.

        Raises:
          PlatformError: there is no such study, or no trial of it has succeeded.
        """
        study = self._get("study", name)
        metric = study.study_spec.metrics[0]
        return best_trial(name, _trials(study), maximise=metric.goal == metric.GoalType.MAXIMIZE)

    @property
    def _client(self):
        return self._clients.vertex("Job")

    @property
    def _parent(self):
        return f"projects/{self._config.project}/locations/{self._config.region}"

    def _find(self, kind, name):
        """The newest job or study of this configuration with that name, or None."""
        terms = {"display_name": Job(name).name} | {f"labels.{key}": text for key, text in self._config.labels.items()}
        condition = " AND ".join(f'{key}="{text}"' for key, text in terms.items())
        with explained(Resource(kind, name), "looked for"):
            listed = getattr(self._client, f"list_{_KINDS[kind]}s")(
                request={"parent": self._parent, "filter": condition}
            )
            return max(listed, key=lambda found: found.create_time, default=None)

    def _get(self, kind, name):
        if not (found := self._find(kind, name)):
            raise PlatformError(f"there is no {kind} {name} in {self._parent}")
        return found

    def _wait(self, kind, resource_name):
        """Wait until it has ended; gives what it is then."""
        look = getattr(self._client, f"get_{_KINDS[kind]}")
        with explained(Resource(kind, resource_name), "waited for"):
            return wait(lambda: look(name=resource_name), self._poll)[1]

    def _tensorboard(self):
        """Name of the project's TensorBoard, or empty if `GcpExperiments` has not made it yet."""
        request = {"parent": self._parent, "filter": f'display_name="{self._config.base}"'}
        with explained(Resource("TensorBoard", self._config.base), "looked for"):
            found = next(iter(self._clients.vertex("Tensorboard").list_tensorboards(request=request)), None)
        return found.name if found else ""

    def _own(self, name, uri):
        from google.api_core.exceptions import NotFound
        from google.cloud.storage import Blob

        with explained(Resource("job", name), "read"):
            try:
                return json.loads(Blob.from_uri(uri, client=self._clients.storage).download_as_bytes())
            except NotFound:
                return {}

    @contextmanager
    def _started(self, kind, job):
        """Where a quota is what is missing, the sentence says which, for what, and what to do."""
        from google.api_core.exceptions import TooManyRequests

        try:
            with explained(Resource(kind, job.name), "started"):
                yield
        except PlatformError as error:
            if not isinstance(error.__cause__, TooManyRequests):
                raise
            raise PlatformError(_explain(kind, job.name, str(error.__cause__), job)) from error.__cause__


def wait(look, poll):
    """Wait for a job of any kind.

    Args:
      look: gives it as it is now.
      poll: seconds between two looks.

    Returns:
      its state in the project's words, and what it is when it has ended.
    """
    while (state := _state(found := look())) == "running":
        time.sleep(poll)
    return state, found


_SPECS = ("double_value_spec", "integer_value_spec", "categorical_value_spec", "discrete_value_spec")
_KINDS = {"job": "custom_job", "study": "hyperparameter_tuning_job"}


def _state(found):
    """The project's word for the state of a job, study or trial."""
    return _STATES.get(found.state.name.removeprefix("JOB_STATE_"), "running")


def _arguments(job_spec):
    return tuple(job_spec.worker_pool_specs[0].container_spec.args)


def _replicas(job_spec):
    """Chief and workers."""
    return sum(pool.replica_count for pool in job_spec.worker_pool_specs[:2])


def _search(study):
    """What makes a study the one it is, and Vertex AI does not complete with defaults."""
    metrics = [(metric.metric_id, metric.goal) for metric in study.study_spec.metrics]
    parameters = {
        parameter.parameter_id: (kind, getattr(parameter, kind))
        for parameter in study.study_spec.parameters
        for kind in _SPECS
        if kind in parameter
    }
    return _arguments(study.trial_job_spec), metrics, parameters


def _explain(kind, name, message, job=None):
    """One sentence about what went wrong: where it is a quota, which and what to do."""
    quota = re.search(r"aiplatform\.googleapis\.com/(\w+)", message)
    if not quota:
        return f"{kind} {name}: {' '.join(message.split())}"
    machines = f" for {job.replicas} x {getattr(job.machine, 'type', job.machine)}" if job else ""
    return (
        f"{kind} {name} could not be started: the quota {quota[1]} is too small{machines}; ask for more at "
        "https://console.cloud.google.com/iam-admin/quotas, or take another machine, fewer replicas or another region"
    )


def _trials(study):
    """The trials of a tuning job, with the types of its parameters."""
    convert = {parameter.parameter_id: _converter(parameter) for parameter in study.study_spec.parameters}
    metric = study.study_spec.metrics[0].metric_id
    trials = sorted(study.trials, key=lambda trial: int(trial.id))
    return [_trial(trial, convert, metric) for trial in trials]


def _trial(trial, convert, metric):
    parameters = {item.parameter_id: convert[item.parameter_id](item.value) for item in trial.parameters}
    values = [item.value for item in trial.final_measurement.metrics if item.metric_id == metric]
    state, reason = _state(trial), " ".join(trial.infeasible_reason.split())
    if state == "succeeded" and not (values and math.isfinite(values[0])):
        state, reason = "failed", f"reported {metric} {values[0]}" if values else f"reported no {metric}"
    error = f"trial {trial.id} {reason}" if reason else ""
    return Trial(int(trial.id), state, parameters, values[0] if state == "succeeded" else None, error)


def _converter(parameter):
    """Vertex AI gives every number as a double."""
    if "categorical_value_spec" in parameter:
        return str
    numbers = parameter.discrete_value_spec.values if "discrete_value_spec" in parameter else [0.5]
    whole = "integer_value_spec" in parameter or all(float(number).is_integer() for number in numbers)
    return (lambda value: round(value)) if whole else float
