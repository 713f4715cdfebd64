"""Training jobs and studies: `aiplatform.CustomJob` and `aiplatform.HyperparameterTuningJob`."""

import json
import math
from contextlib import suppress
from dataclasses import replace

from recbandits.platforms.gcp.cloud import Service, explained, labelled, patiently, state_of, vertex
from recbandits.platforms.gcp.cloud import wait as wait_for
from recbandits.platforms.gcp.experiments import tensorboards
from recbandits.platforms.gcp.images import GcpImages
from recbandits.platforms.jobs import MACHINES, Choice, Float, Job, Record, Study, Trial, check_name, measured
from recbandits.platforms.protocol import PlatformError
from recbandits.platforms.tuning import best_trial, with_parameters
from recbandits.serving.manifest import read_bytes

REDUCTION_SERVER = "us-docker.pkg.dev/vertex-ai-restricted/training/reductionserver:latest"
_KINDS = {"job": "CustomJob", "study": "HyperparameterTuningJob"}


class GcpJobs(Service):
    """Jobs of one configuration, found by name and labels; see `platforms.jobs.Jobs`."""

    def run(self, job: Job, wait: bool = True) -> Record:
        """See `Jobs.run`; a job that resumes is a new one of the same name, with as many replicas as before."""
        if self._find("study", job.name):
            raise PlatformError(f"{job.name} is a study: give the job a name of its own")
        if resource := self._find("job", job.name):
            arguments, replicas = _identity(resource.gca_resource.job_spec)
            if (arguments, replicas) != (job.arguments, job.replicas):
                other = f"job {job.name} was started with other arguments or replicas, give the new one another name"
                raise PlatformError(f"{other}: {' '.join(arguments)}")
        with explained(f"job {job.name}"):
            if not resource or state_of(resource.gca_resource) in ("failed", "stopped"):
                resource = self._custom_job(job)
                patiently(lambda: resource.submit(**self._settings(job)))
            if wait:
                wait_for(resource)
        return self.record(job.name)

    def tune(self, study: Study) -> list[Trial]:
        """See `Jobs.tune`. A study that was started is waited for; Vertex AI starts no trial of one that has ended.

        PlatformError if the name belongs to a job, the study was started with other settings, Vertex AI refuses, or the
        study failed; trials that have ended can be listed all the same.
        """
        name = study.job.name
        if self._find("job", name):
            raise PlatformError(f"{name} is a job: give the study a name of its own")
        resource = self._find("study", name)
        if not resource:
            with explained(f"study {name}"):
                resource, settings = self._tuning_job(study), self._settings(study.job)
                with suppress(RuntimeError):  # a study that failed says so below
                    patiently(lambda: resource.run(**settings))
            resource = self._get("study", name)
        elif _search(resource.to_dict()) != _search(self._tuning_job(study).to_dict()):
            raise PlatformError(
                f"study {name} was started with other arguments, parameters or metric: give this one another name"
            )
        with explained(f"study {name}"):
            wait_for(resource)
        trials = _trials(resource.gca_resource)
        if state_of(resource.gca_resource) == "failed":
            succeeded = sum(trial.state == "succeeded" for trial in trials)
            reason = _error(resource.gca_resource) or "Vertex AI gave no reason"
            raise PlatformError(f"study {name}: {reason} ({succeeded} of {study.trials} trials succeeded and are kept)")
        return trials

    def record(self, name: str) -> Record:
        """See `Jobs.record`; arguments are those of the job's own container, metrics those in its `record.json`."""
        job = self._get("job", name).gca_resource
        directory, state = job.job_spec.base_output_directory.output_uri_prefix, state_of(job)
        with explained(f"job {name}"):
            content = read_bytes(f"{directory}/record.json") if state == "succeeded" else None
        own = json.loads(content or "{}")
        return Record(
            name=name,
            state=state,
            arguments=_identity(job.job_spec)[0],
            model=f"{directory}/model" if state == "succeeded" else "",
            metrics=measured(own),
            started=job.start_time,
            ended=job.end_time,
            error=f"job {name}: {_error(job)}" if _error(job) else "",
            own=own,
        )

    def stop(self, name: str) -> None:
        """See `Jobs.stop`; what is being cancelled runs until Vertex AI says that it has ended."""
        if not (resource := self._find("job", name) or self._find("study", name)):
            raise PlatformError(f"there is no job or study {name} in {self._config.region}")
        with explained(f"job {name}"):
            resource.cancel()

    def trials(self, name: str) -> list[Trial]:
        """See `Jobs.trials`."""
        return _trials(self._get("study", name).gca_resource)

    def best(self, name: str) -> Trial:
        """See `Jobs.best`."""
        study = self._get("study", name).gca_resource
        metric = study.study_spec.metrics[0]
        return best_trial(name, _trials(study), maximise=metric.goal == metric.GoalType.MAXIMIZE)

    def _custom_job(self, job):
        return vertex(self._config).CustomJob(
            display_name=job.name,
            worker_pool_specs=self._pools(job),
            base_output_dir=f"gs://{self._config.bucket}/jobs/{job.name}",
            labels=self._config.labels,
        )

    def _tuning_job(self, study):
        """Vertex AI adds the parameters to the arguments of a trial itself, and its search takes no seed."""
        arguments = with_parameters(study.job.arguments, dict.fromkeys(study.parameters, ""))[: -len(study.parameters)]
        return vertex(self._config).HyperparameterTuningJob(
            display_name=study.job.name,
            custom_job=self._custom_job(replace(study.job, arguments=arguments)),
            metric_spec={study.metric: "maximize" if study.maximise else "minimize"},
            parameter_spec={name: _parameter(values) for name, values in study.parameters.items()},
            max_trial_count=study.trials,
            parallel_trial_count=min(study.parallel, study.trials),
            labels=self._config.labels,
        )

    def _pools(self, job):
        """Return the worker pools: the chief, its workers, the reduction servers."""
        machine = MACHINES[job.machine] if isinstance(job.machine, str) else job.machine
        spec = {"machine_type": machine.type, "accelerator_type": machine.accelerator}
        spec |= {"accelerator_count": machine.accelerators, "tpu_topology": machine.topology}
        image = job.image or GcpImages(self._config).pinned("train-gpu" if machine.accelerator else "train")
        container = {"image_uri": image, "args": list(job.arguments)}
        replica = {"machine_spec": {key: value for key, value in spec.items() if value}, "container_spec": container}
        pools = [replica | {"replica_count": count} for count in (1, job.replicas - 1) if count]
        if job.reduction_servers:
            servers = {"machine_spec": {"machine_type": "n1-highcpu-16"}, "replica_count": job.reduction_servers}
            pools.append(servers | {"container_spec": {"image_uri": REDUCTION_SERVER}})
        return pools

    def _settings(self, job):
        """Return what the SDK takes when a job starts."""
        from google.cloud.aiplatform_v1.types import Scheduling

        settings = {"scheduling_strategy": Scheduling.Strategy.SPOT} if job.spot else {}
        boards = tensorboards(self._config)
        return settings | ({"tensorboard": boards[0].resource_name} if boards else {})

    def _find(self, kind, name):
        """Return the newest job or study with this name and our labels, or None."""
        with explained(f"{kind} {name}"):
            condition = labelled(self._config, display_name=check_name(name))
            kind = getattr(vertex(self._config), _KINDS[kind])
            return next(iter(kind.list(filter=condition, order_by="create_time desc")), None)

    def _get(self, kind, name):
        if not (resource := self._find(kind, name)):
            raise PlatformError(f"there is no {kind} {name} in {self._config.region}")
        return resource


def _parameter(values):
    from google.cloud.aiplatform import hyperparameter_tuning as search

    if isinstance(values, Float):
        return search.DoubleParameterSpec(values.low, values.high, "log" if values.log else "linear")
    if not isinstance(values, Choice):
        return search.IntegerParameterSpec(values.low, values.high, "linear")
    if isinstance(values.values[0], str):
        return search.CategoricalParameterSpec(list(values.values))
    return search.DiscreteParameterSpec(sorted(values.values), "linear")


def _error(resource):
    return " ".join(resource.error.message.split())


def _identity(job_spec):
    """Return the arguments of a job, and its number of replicas: the chief and its workers."""
    pools = job_spec.worker_pool_specs
    return tuple(pools[0].container_spec.args), sum(pool.replica_count for pool in pools[:2])


def _search(study):
    """Return what makes a study the one it is, of its REST document."""
    spec, pools = study["studySpec"], study["trialJobSpec"]["workerPoolSpecs"]
    return spec["metrics"], spec["parameters"], pools[0]["containerSpec"].get("args")


def _trials(study):
    """Return the trials of a tuning job, with the types of its parameters."""
    spec = study.study_spec
    convert = {parameter.parameter_id: _converter(parameter) for parameter in spec.parameters}
    trials = sorted(study.trials, key=lambda trial: int(trial.id))
    return [_trial(trial, convert, spec.metrics[0].metric_id) for trial in trials]


def _trial(trial, convert, metric):
    parameters = {item.parameter_id: convert[item.parameter_id](item.value) for item in trial.parameters}
    values = [item.value for item in trial.final_measurement.metrics if item.metric_id == metric]
    state, reason = state_of(trial), " ".join(trial.infeasible_reason.split())
    if state == "succeeded" and not (values and math.isfinite(values[0])):
        state, reason = "failed", f"reported {metric} {values[0]}" if values else f"reported no {metric}"
    error = f"trial {trial.id} {reason}" if reason else ""
    return Trial(int(trial.id), state, parameters, values[0] if state == "succeeded" else None, error)


def _converter(parameter):
    """Return the type of a parameter; Vertex AI gives every number as a double."""
    if "categorical_value_spec" in parameter:
        return str
    numbers = parameter.discrete_value_spec.values if "discrete_value_spec" in parameter else [0.5]
    whole = "integer_value_spec" in parameter or all(float(number).is_integer() for number in numbers)
    return round if whole else float
