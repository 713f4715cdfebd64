"""Compiled pipelines on Vertex AI Pipelines: `aiplatform.PipelineJob`.

Vertex AI has no lock, but one job for each id, permanently. So the jobs of a pipeline are numbered: of all processes
that see that none is running, and ask for the next number, one gets it. The name of the run is a label, because a run
that failed has another job when it is run again.
"""

import json
import logging
import re
import tempfile
from pathlib import Path

from google.api_core.exceptions import Conflict

from recbandits.platforms.gcp.cloud import Service, explained, labelled, patiently, state_of, vertex, wait
from recbandits.platforms.gcp.experiments import GcpExperiments
from recbandits.platforms.gcp.images import GcpImages
from recbandits.platforms.jobs import check_name
from recbandits.platforms.pipelines import IMAGE, SNAPSHOT, Run, read_template
from recbandits.platforms.protocol import PlatformError


class GcpPipelines(Service):
    """See `platforms.pipelines.Pipelines`."""

    def run(self, template: str | Path, name: str, parameters: dict | None = None) -> Run:
        """See `Pipelines.run`; the run belongs to the experiment of its pipeline.

        What a schedule of Vertex AI starts does not look for runs that this method started.
        """
        _, spec, pipeline = read_template(template)
        parameters, attempts = parameters or {}, self._list(run=check_name(name))
        if attempts:
            previous = attempts[-1].to_dict()
            values = previous["runtimeConfig"].get("parameterValues", {})
            if previous["labels"]["pipeline"] != pipeline or values != json.loads(json.dumps(parameters)):
                sentence = f"pipeline run {name} was started with another template or other parameters"
                raise PlatformError(f"{sentence}, give the new one another name")
            if state_of(attempts[-1].gca_resource) in ("running", "succeeded"):
                return self.status(name)
        jobs = self._list(pipeline=pipeline)
        if other := _name_of_running(jobs):
            raise PlatformError(f"pipeline run {name} must wait: {other} of {pipeline} is running")
        prefix = f"{self._config.base}-{pipeline}-"
        numbers = [int(each.name.removeprefix(prefix)) for each in jobs if re.fullmatch(rf"{prefix}\d+", each.name)]
        job = self._job(spec, name, parameters, f"{prefix}{1 + max(numbers, default=0)}")
        experiment = GcpExperiments(self._config).name(pipeline)
        with explained(f"pipeline run {name}"):
            try:
                patiently(lambda: job.submit(experiment=experiment))
            except Conflict as error:
                if len(self._list(run=name)) == len(attempts):  # else another process was faster with the same run
                    raise PlatformError(f"pipeline run {name} must wait: another of {pipeline} was faster") from error
            except RuntimeError:
                if len(self._list(run=name)) == len(attempts):  # else the run failed before it joined the experiment
                    raise
        return self.status(name)

    def status(self, name: str) -> Run:
        """See `Pipelines.status`."""
        job = self._get(name).gca_resource
        state = state_of(job)
        error = f"pipeline run {name} failed: {' '.join(job.error.message.split())}" if state == "failed" else ""
        return Run(name, state, _outputs(job) if state == "succeeded" else {}, error)

    def wait(self, name: str) -> Run:
        """See `Pipelines.wait`."""
        with explained(f"pipeline run {name}"):
            wait(self._get(name))
        return self.status(name)

    def stop(self, name: str) -> None:
        """See `Pipelines.stop`."""
        job = self._get(name)
        if state_of(job.gca_resource) == "running":
            with explained(f"pipeline run {name}"):
                job.cancel()

    def running(self, pipeline: str) -> str | None:
        """See `Pipelines.running`."""
        return _name_of_running(self._list(pipeline=pipeline))

    def _job(self, spec, name, parameters, job_id):
        """Return a compiled pipeline as `aiplatform.PipelineJob`, which is not started.

        The steps' own image is named by its digest, which is part of a cache's key. Nothing comes from a cache where
        the pipeline has an input `SNAPSHOT` without a value: such a run reads what it finds when it begins.
        """
        if containers := [container for container in _containers(spec) if container["image"] == IMAGE]:
            uri = GcpImages(self._config).pinned("train")
            for container in containers:
                container["image"] = uri
        inputs = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        reads_now = SNAPSHOT in inputs and not parameters.get(SNAPSHOT)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "pipeline.json")
            path.write_text(json.dumps(spec), encoding="utf-8")
            return vertex(self._config).PipelineJob(
                display_name=name,
                job_id=job_id,
                template_path=str(path),
                pipeline_root=f"gs://{self._config.bucket}/pipelines",
                parameter_values=parameters,
                enable_caching=False if reads_now else None,
                labels=self._config.labels | {"pipeline": spec["pipelineInfo"]["name"], "run": name},
            )

    def _list(self, **labels):
        """List the jobs with these labels and ours, the newest last; those of a run with all that they say."""
        terms = {f"labels.{key}": text for key, text in labels.items()}
        search = {"filter": labelled(self._config, **terms), "enable_simple_view": "run" not in labels}
        with explained("pipeline runs"):
            sdk = vertex(self._config)
            logging.getLogger("google.cloud.aiplatform.pipeline_jobs").addFilter(_is_news)
            jobs = sdk.PipelineJob.list(**search)
        return sorted(jobs, key=lambda job: (len(job.name), job.name))

    def _get(self, name):
        if not (attempts := self._list(run=check_name(name))):
            raise PlatformError(f"there is no pipeline run {name} in {self._config.region}")
        return attempts[-1]


def _is_news(record):
    """Return False for the SDK's warning that a simple view has not all fields; those it lacks are not read."""
    return "simple view" not in record.getMessage()


def _containers(spec):
    return [executor["container"] for executor in spec["deploymentSpec"]["executors"].values()]


def _name_of_running(jobs):
    """Return the name of the first run that still runs, or None."""
    running = (job.gca_resource.labels["run"] for job in jobs if state_of(job.gca_resource) == "running")
    return next(running, None)


def _outputs(job):
    """Return the outputs of the pipeline by name, from the steps that the pipeline says they come from."""
    from google.protobuf.json_format import MessageToDict

    document, outputs = MessageToDict(type(job).pb(job)), {}
    steps = {step["taskName"]: step for step in document.get("jobDetail", {}).get("taskDetails", [])}
    own = document["pipelineSpec"]["root"]["dag"].get("outputs", {})
    for name, source in own.get("parameters", {}).items():
        source = source["valueFromParameter"]
        metadata = steps.get(source["producerSubtask"], {}).get("execution", {}).get("metadata", {})
        outputs[name] = metadata.get(f"output:{source['outputParameterKey']}")
    for name, sources in own.get("artifacts", {}).items():
        (source,) = sources["artifactSelectors"]
        values = steps.get(source["producerSubtask"], {}).get("outputs", {}).get(source["outputArtifactKey"], {})
        outputs[name] = next((artifact["uri"] for artifact in values.get("artifacts", [])), None)
    return outputs
