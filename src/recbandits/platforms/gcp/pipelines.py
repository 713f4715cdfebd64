"""Runs of compiled pipelines on Vertex AI Pipelines.

The request is the one of `google.cloud.aiplatform.PipelineJob`, without its checks of the bucket, which `provisioning`
has made. Vertex AI has no lock, but one job for each id, for good. So a pipeline's jobs are numbered: of all who see
that none is running, and ask for the next number, one gets it. The name of the run is a label, for a run that failed
has another job when it is run again.
"""

import functools
import json
import re
import time
from datetime import UTC, datetime

from recbandits.platforms.gcp.assets import expect_release, have, labelled
from recbandits.platforms.gcp.errors import explained
from recbandits.platforms.gcp.images import GcpImages
from recbandits.platforms.gcp.requests import pipeline_job, pipeline_spec
from recbandits.platforms.gcp.resources import remove
from recbandits.platforms.jobs import Job
from recbandits.platforms.pipelines import Run
from recbandits.platforms.protocol import PlatformError, Resource
from recbandits.platforms.schedules import next_time

_STATES = {"SUCCEEDED": "succeeded", "FAILED": "failed", "CANCELLED": "stopped"}  # else a step may go on
_PIPELINE, _RUN = "pipeline", "run"  # labels
_DEPLOYER = "comp-deployer"  # the step that makes an endpoint, on a machine where no manifest lasts


class GcpPipelines:
    """See `platforms.pipelines.Pipelines`.

    Args:
      config: Config
      clients: `Clients`
      poll: seconds between two looks at a run that is waited for.
    """

    def __init__(self, config, clients, poll=30.0):
        self._config, self._clients, self._poll = config, clients, poll

    def run(self, template, name, parameters=None):
        """See `Pipelines.run`. What a schedule of Vertex AI starts waits for nobody: `schedule` says more.

        The image of the steps is told by its digest: a run that is repeated after the image was built anew is given
        nothing that the image before has made.

        Raises:
          PlatformError: also where Vertex AI refused, or the image for training has not been built.
        """
        from google.api_core.exceptions import Conflict

        spec, attempts = pipeline_spec(template, self._tagged), self._attempts(name)
        pipeline = spec["pipelineInfo"]["name"]
        if attempts:
            self._refuse_others(name, attempts[-1], pipeline, parameters or {})
            if _state(attempts[-1]) in ("running", "succeeded"):
                return self.status(name)
        jobs = self._list({_PIPELINE: pipeline})
        if other := _going(jobs):
            raise PlatformError(f"pipeline run {name} must wait: {other} of {pipeline} is running")
        if _DEPLOYER in spec["components"]:
            expect_release(self._config, self._clients)
        begin, labels = f"{self._config.base}-{pipeline}-", {_PIPELINE: pipeline, _RUN: name}
        taken = [int(number[1]) for job in jobs if (number := re.search(rf"/{re.escape(begin)}(\d+)$", job.name))]
        try:
            number = f"{begin}{1 + max(taken, default=0)}"
            submit(self._config, self._clients, template, number, parameters, labels=labels)
        except PlatformError as error:
            if not isinstance(error.__cause__, Conflict):
                raise
            if len(self._attempts(name)) == len(attempts):  # else somebody was faster with the same run
                raise PlatformError(f"pipeline run {name} must wait: another of {pipeline} was faster") from error
        return self.status(name)

    def status(self, name):
        """See `Pipelines.status`."""
        found = self._get(name)
        state = _state(found)
        error = f"pipeline run {name} failed: {' '.join(found.error.message.split())}" if state == "failed" else ""
        return Run(name, state, _outputs(found) if state == "succeeded" else {}, error)

    def wait(self, name):
        """See `Pipelines.wait`."""
        while (run := self.status(name)).state == "running":
            time.sleep(self._poll)
        return run

    def stop(self, name):
        """See `Pipelines.stop`."""
        found = self._get(name)
        if _state(found) == "running":
            with explained(Resource("pipeline run", name), "stopped"):
                self._client.cancel_pipeline_job(name=found.name)

    def running(self, pipeline):
        """See `Pipelines.running`."""
        return _going(self._list({_PIPELINE: pipeline}))

    def schedule(self, template, name, cron, parameters=None):
        """Run a pipeline at times, one run at a time and without caching: as `PipelineJobSchedule` does.

        Every run has the same parameters: what is to be read must be found out by the run itself. One at a time are
        the schedule's own runs; it does not look for those that `run` has started, so use one or the other.
        What a run deploys is on the manifest from here on, as after `run`. The image of the steps is told by its tag:
        nothing is cached, and what is built later is used from the next run on. A run that finds nothing new to learn
        from fails, and says so.

        Args:
          template: file with the compiled pipeline.
          name: of the schedule.
          cron: as `platforms.schedules` says.
          parameters: dict from input of the pipeline to value.

        Returns:
          Whether there was none of this name; one that is there stays as it is.

        Raises:
          ValueError: it is not a cron string.
          PlatformError: Vertex AI refused.
        """
        next_time(cron, datetime.now(UTC))
        client, resource = self._clients.vertex("Schedule"), self._schedule(name)
        job = pipeline_job(self._config, template, parameters or {}, False, self._tagged)
        job["labels"] = {**job["labels"], _PIPELINE: job["display_name"], _RUN: name}
        document = {
            "display_name": f"{self._config.base}-{name}",
            "cron": f"TZ=Etc/UTC {cron}",
            "max_concurrent_run_count": 1,
            "create_pipeline_job_request": {"parent": self._parent, "pipeline_job": job},
        }

        def find():
            from google.api_core.exceptions import NotFound

            condition = f'display_name="{document["display_name"]}"'
            if not list(client.list_schedules(request={"parent": self._parent, "filter": condition})):
                if _DEPLOYER in job["pipeline_spec"]["components"]:
                    expect_release(self._config, self._clients)  # first, for clean-up removes what is newer before it
                raise NotFound(resource.name)

        return have(
            self._config, resource, find, lambda: client.create_schedule(parent=self._parent, schedule=document)
        )

    def unschedule(self, name):
        """Remove a schedule; one that is gone already is no error.

        Raises:
          PlatformError: Vertex AI refused.
        """
        with explained(self._schedule(name), "removed"):
            remove(self._clients, self._schedule(name))

    @property
    def _client(self):
        return self._clients.vertex("Pipeline")

    @property
    def _parent(self):
        return f"projects/{self._config.project}/locations/{self._config.region}"

    def _tagged(self):
        return self._config.image("train")

    def _schedule(self, name):
        return Resource("pipeline schedule", f"{self._parent}/schedules/{self._config.base}-{Job(name).name}")

    def _list(self, labels):
        with explained(Resource("pipeline runs", self._config.base), "listed"):
            request = {"parent": self._parent, "filter": labelled(self._config.labels | labels)}
            return list(self._client.list_pipeline_jobs(request=request))

    def _attempts(self, name):
        """The jobs of a run, the newest last."""
        return sorted(self._list({_RUN: Job(name).name}), key=lambda found: (len(found.name), found.name))

    def _get(self, name):
        if not (attempts := self._attempts(name)):
            raise PlatformError(f"there is no pipeline run {name} in {self._parent}")
        return attempts[-1]

    def _refuse_others(self, name, found, pipeline, parameters):
        begun = _document(found)["runtimeConfig"].get("parameterValues", {})
        if found.labels[_PIPELINE] != pipeline or begun != json.loads(json.dumps(parameters)):
            raise PlatformError(
                f"pipeline run {name} was begun with another template or other parameters, "
                "give the new one another name"
            )


def submit(config, clients, template, name, parameters=None, caching=True, labels=None):
    """Start a run of a compiled pipeline.

    Args:
      config: Config
      clients: `Clients`
      template: file that KFP's compiler has written.
      name: of the run, for good.
      parameters: dict from input of the pipeline to value.
      caching: whether steps whose inputs were seen before may give what they gave then, unless the template says of a
        step that it may not.
      labels: dict of labels beside those of the configuration.

    Returns:
      Resource name of the run.

    Raises:
      PlatformError: Vertex AI refused, or has a run of that name, or the image for training has not been built.
    """
    parent = f"projects/{config.project}/locations/{config.region}"
    image = functools.partial(GcpImages(config, clients).pinned, "train")
    document = pipeline_job(config, template, parameters or {}, caching, image)
    document["labels"] = {**document["labels"], **(labels or {})}
    with explained(Resource("pipeline run", name), "started"):
        request = {"parent": parent, "pipeline_job": document, "pipeline_job_id": name}
        return clients.vertex("Pipeline").create_pipeline_job(request=request, timeout=60).name


def _state(found):
    """The project's word for the state of a run."""
    return _STATES.get(found.state.name.removeprefix("PIPELINE_STATE_"), "running")


def _going(jobs):
    """Name of the run of the first of some jobs that goes on, or None."""
    return next((found.labels[_RUN] for found in jobs if _state(found) == "running"), None)


def _outputs(found):
    """Outputs of the pipeline by name: what its steps gave, as the pipeline says which of them are its own."""
    document = _document(found)
    steps = {step["taskName"]: step for step in document.get("jobDetail", {}).get("taskDetails", [])}
    own, outputs = document["pipelineSpec"]["root"]["dag"].get("outputs", {}), {}
    for name, source in own.get("parameters", {}).items():
        source = source["valueFromParameter"]
        metadata = steps.get(source["producerSubtask"], {}).get("execution", {}).get("metadata", {})
        outputs[name] = metadata.get(f"output:{source['outputParameterKey']}")
    for name, sources in own.get("artifacts", {}).items():
        (source,) = sources["artifactSelectors"]
        given = steps.get(source["producerSubtask"], {}).get("outputs", {}).get(source["outputArtifactKey"], {})
        outputs[name] = next((artifact["uri"] for artifact in given.get("artifacts", [])), None)
    return outputs


def _document(found):
    from google.protobuf.json_format import MessageToDict

    return MessageToDict(type(found).pb(found))
