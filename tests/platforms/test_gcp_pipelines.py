"""A compiled pipeline on its way to Vertex AI Pipelines: the whole request, and that the SDK would send the same."""

import json
import re
from typing import NamedTuple

import pytest
from google.cloud.aiplatform.utils import gcs_utils, yaml_utils
from kfp import compiler, dsl
from recbandits.platforms.gcp.clients import Clients
from recbandits.platforms.gcp.rehearsal import Rehearsal, error
from recbandits.platforms.gcp.requests import pipeline_job

from recbandits.config import Config
from recbandits.platforms import provisioning
from recbandits.platforms.gcp import GcpPlatform
from recbandits.platforms.gcp.images import GcpImages
from recbandits.platforms.gcp.pipelines import GcpPipelines, submit
from recbandits.platforms.pipelines import IMAGE
from recbandits.platforms.protocol import PlatformError

PROJECT = "movie-lab-42"
PLACE = f"/v1/projects/{PROJECT}/locations/us-central1"
CONFIG = Config(platform="gcp", project=PROJECT)
IMAGE_OF_OURS = f"us-central1-docker.pkg.dev/{PROJECT}/recbandits-v1/train"
TRAIN = f"{PLACE}/repositories/recbandits-v1/packages/train"
LABELS = {"app": "recbandits", "prefix": "recbandits", "version": "v1"}


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def double(number: float) -> float:
    return 2 * number


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def keep(number: float, kept: dsl.Output[dsl.Dataset]) -> float:
    return number


@dsl.pipeline(name="inner")
def inner(number: float) -> float:
    return double(number=number).output


@dsl.pipeline(name="tiny")
def tiny(alpha: float = 0.5):
    double(number=inner(number=alpha).output)


class Both(NamedTuple):
    value: float
    data: dsl.Dataset


@dsl.pipeline(name="giving")
def giving(alpha: float = 0.5) -> Both:
    kept = keep(number=double(number=alpha).output).set_caching_options(False)
    return Both(kept.outputs["Output"], kept.outputs["kept"])


@pytest.fixture
def cloud():
    with Rehearsal() as cloud:
        yield cloud


@pytest.fixture
def clients(cloud):
    return Clients(PROJECT, cloud.endpoint, CONFIG.region)


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    path = tmp_path_factory.mktemp("pipelines") / "tiny.yaml"
    compiler.Compiler().compile(tiny, str(path))
    return path


@pytest.fixture(scope="module")
def giver(tmp_path_factory):
    path = tmp_path_factory.mktemp("pipelines") / "giving.yaml"
    compiler.Compiler().compile(giving, str(path))
    return path


@pytest.fixture
def config(tmp_path):
    """Where the manifest is: in a directory of the test's own."""
    return Config(platform="gcp", project=PROJECT, artifacts=str(tmp_path / "artifacts"))


@pytest.fixture
def pipelines(config, clients):
    return GcpPipelines(config, clients, poll=0.01)


@dsl.pipeline(name="reading")
def reading(snapshot: str = ""):
    """What it reads is not among its parameters, unless it is told what there is."""
    double(number=1.0)


def ended(cloud, job, state, **fields):
    """Have a job of the rehearsal be in another state than the one that all of them reach, success."""
    cloud.documents[f"{PLACE}/pipelineJobs/{job}"] |= {"state": f"PIPELINE_STATE_{state}", **fields}


def posted(cloud, kind="pipelineJobs"):
    return [request for request in cloud.requests if request.method == "POST" and request.path == f"{PLACE}/{kind}"]


def sent(cloud):
    (request,) = (request for request in cloud.requests if request.method == "POST")
    return request


def with_our_image(spec, image):
    """A compiled pipeline as it is sent: the container that stands for ours is named as this project names it."""
    for executor in spec["deploymentSpec"]["executors"].values():
        assert executor["container"]["image"] == IMAGE
        executor["container"]["image"] = image
    return spec


def built(cloud, digest):
    """Have the tag of the image for training name another build than before."""
    cloud.documents[f"{TRAIN}/tags/v1"] = {"version": f"{TRAIN[4:]}/versions/sha256:{digest}"}


def images(request):
    """The images of a run that was sent."""
    return {each["container"]["image"] for each in request.body["pipelineSpec"]["deploymentSpec"]["executors"].values()}


def steps(spec):
    dags = [part["dag"] for part in (spec["root"], *spec["components"].values()) if "dag" in part]
    return [step for dag in dags for step in dag["tasks"].values()]


def test_what_steps_read_is_shared_through_the_bucket(cloud, tmp_path):
    directory = tmp_path / "world"
    directory.mkdir()
    (directory / "people.npz").write_bytes(b"1234")
    assert GcpPlatform(CONFIG, cloud.endpoint).share(directory) == f"gs://{CONFIG.bucket}/world"
    assert cloud.documents[f"contents of gs://{CONFIG.bucket}/world/people.npz"] == b"1234"


def test_a_run_is_sent_with_its_pipeline_parameters_and_account(clients, cloud, template):
    name = submit(CONFIG, clients, template, "tiny-1", {"alpha": 0.1}, caching=False)
    request = sent(cloud)
    assert f"/v1/{name}" == f"{PLACE}/pipelineJobs/tiny-1"
    assert (request.path, request.query["pipelineJobId"]) == (f"{PLACE}/pipelineJobs", "tiny-1")
    compiled = with_our_image(yaml_utils.load_yaml(str(template)), GcpImages(CONFIG, clients).pinned("train"))
    for step in steps(compiled):
        step["cachingOptions"] = {"enableCache": False}
    assert len(steps(compiled)) == 3, "those of the pipeline within are among them"
    assert request.body == {
        "displayName": "tiny",
        "pipelineSpec": compiled,
        "runtimeConfig": {
            "gcsOutputDirectory": f"gs://{PROJECT}-recbandits-v1/pipelines",
            "parameterValues": {"alpha": 0.1},
        },
        "serviceAccount": f"recbandits-v1-sa@{PROJECT}.iam.gserviceaccount.com",
        "labels": LABELS,
    }


@pytest.mark.parametrize("caching", [True, False])
def test_the_sdk_sends_the_same(clients, cloud, template, caching, monkeypatch, tmp_path):
    """It also asks for the owner of the bucket, at an address of Google's that is fixed, which is left out here."""
    monkeypatch.setattr(gcs_utils, "create_gcs_bucket_for_pipeline_artifacts_if_it_does_not_exist", lambda **_: None)
    submit(CONFIG, clients, template, "tiny-1", {"alpha": 0.1}, caching)
    ours = sent(cloud)
    cloud.requests.clear()
    ready = tmp_path / "ready.json"
    image = GcpImages(CONFIG, clients).pinned("train")
    ready.write_text(json.dumps(with_our_image(yaml_utils.load_yaml(str(template)), image)))
    with clients.sdk() as sdk:
        job = sdk.PipelineJob(
            display_name="tiny",
            template_path=str(ready),
            job_id="tiny-2",
            pipeline_root=f"gs://{CONFIG.bucket}/pipelines",
            parameter_values={"alpha": 0.1},
            enable_caching=caching,
            labels=CONFIG.labels,
        )
        job.submit(service_account=CONFIG.account("train"))
        assert job.state.name == "PIPELINE_STATE_SUCCEEDED"
    theirs = sent(cloud)
    assert theirs.path == ours.path
    assert theirs.query["pipelineJobId"] == "tiny-2"
    assert theirs.body == ours.body


def test_a_name_that_is_taken_is_refused(clients, template):
    submit(CONFIG, clients, template, "tiny-1")
    with pytest.raises(PlatformError, match=r"pipeline run tiny-1 could not be started: 409 .*exists already"):
        submit(CONFIG, clients, template, "tiny-1")


def test_a_step_that_is_never_cached_is_not_cached_where_the_others_are(clients, cloud, giver):
    submit(CONFIG, clients, giver, "giving-1")
    tasks = sent(cloud).body["pipelineSpec"]["root"]["dag"]["tasks"]
    assert {name: task["cachingOptions"] for name, task in tasks.items()} == {
        "double": {"enableCache": True},
        "keep": {},
    }


def test_a_run_that_is_not_told_what_there_is_to_read_uses_no_cache(tmp_path):
    """The second run of a night has the parameters of the first, and must not be given the first one's data."""
    compiler.Compiler().compile(reading, str(tmp_path / "reading.yaml"))
    for parameters, cached in (({"snapshot": "abc"}, True), ({}, False), ({"snapshot": ""}, False)):
        job = pipeline_job(CONFIG, tmp_path / "reading.yaml", parameters, True, lambda: "ours")
        assert [step["cachingOptions"] for step in steps(job["pipeline_spec"])] == [{"enableCache": cached}]


def test_what_was_built_anew_is_not_given_what_the_build_before_has_made(pipelines, cloud, template):
    """The cache goes by the words of a step: under its tag a mended image would have the words of the faulty one."""
    built(cloud, 64 * "a")
    pipelines.run(template, "one")
    ended(cloud, "recbandits-v1-tiny-1", "FAILED")
    built(cloud, 64 * "b")
    pipelines.run(template, "one")
    assert [images(request) for request in posted(cloud)] == [
        {f"{IMAGE_OF_OURS}@sha256:{64 * digit}"} for digit in "ab"
    ]


def test_a_schedule_goes_on_with_what_is_built_later_for_it_caches_nothing(pipelines, cloud, giver):
    pipelines.schedule(giver, "nightly", "0 3 * * *")
    (request,) = posted(cloud, "schedules")
    assert images(request._replace(body=request.body["createPipelineJobRequest"]["pipelineJob"])) == {
        f"{IMAGE_OF_OURS}:v1"
    }


def test_a_run_without_an_image_is_refused_before_it_begins(pipelines, cloud, template, monkeypatch):
    answer = cloud.answer
    monkeypatch.setattr(
        cloud, "answer", lambda request: error(404, "no") if "/tags/" in request.path else answer(request)
    )
    with pytest.raises(PlatformError, match=f"^there is no image {re.escape(IMAGE_OF_OURS)}:v1: build it first$"):
        pipelines.run(template, "one")
    assert posted(cloud) == []


def test_a_pipeline_in_other_images_needs_none_of_ours(clients, cloud, template, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(template.read_text().replace(IMAGE, "python:3.11"))
    submit(CONFIG, clients, other, "other-1")
    assert images(sent(cloud)) == {"python:3.11"}
    assert [request.method for request in cloud.requests] == ["POST"]


def test_a_run_is_found_by_its_label_and_gives_the_outputs_of_its_pipeline(pipelines, cloud, giver):
    """Vertex AI keeps them with the steps that gave them: the value as metadata of the execution, the file as a URI."""
    pipelines.run(giver, "one", {"alpha": 2.0})
    (request,) = posted(cloud)
    assert request.query["pipelineJobId"] == "recbandits-v1-giving-1"
    assert request.body["labels"] == LABELS | {"pipeline": "giving", "run": "one"}
    step = {"taskName": "keep", "execution": {"metadata": {"output:Output": 4.0, "input:number": 4.0}}}
    step |= {"outputs": {"kept": {"artifacts": [{"uri": "gs://movies/kept"}]}}}
    ended(cloud, "recbandits-v1-giving-1", "SUCCEEDED", jobDetail={"taskDetails": [{"taskName": "double"}, step]})
    assert pipelines.wait("one") == ("one", "succeeded", {"value": 4.0, "data": "gs://movies/kept"}, "")
    assert pipelines.run(giver, "one", {"alpha": 2.0}) == pipelines.status("one")
    assert len(posted(cloud)) == 1, "what has succeeded is not run again"


def test_a_run_that_failed_or_was_stopped_is_run_again_under_its_name(pipelines, cloud, template):
    pipelines.run(template, "one", {"alpha": 0.1})
    ended(cloud, "recbandits-v1-tiny-1", "FAILED", error={"message": "the disk\nis full"})
    assert pipelines.status("one") == ("one", "failed", {}, "pipeline run one failed: the disk is full")
    pipelines.run(template, "one", {"alpha": 0.1})
    ended(cloud, "recbandits-v1-tiny-2", "RUNNING")
    assert pipelines.run(template, "one", {"alpha": 0.1}).state == "running"
    pipelines.stop("one")
    assert pipelines.status("one").state == "stopped"
    pipelines.stop("one")
    pipelines.run(template, "one", {"alpha": 0.1})
    ids = [request.query["pipelineJobId"] for request in posted(cloud)]
    assert ids == [f"recbandits-v1-tiny-{number}" for number in (1, 2, 3)]
    assert pipelines.wait("one").state == "succeeded"


def test_no_two_runs_of_one_pipeline_go_on_at_once(pipelines, cloud, template, giver):
    pipelines.run(template, "one")
    for state in ("CANCELLING", "PENDING"):
        ended(cloud, "recbandits-v1-tiny-1", state)
        assert pipelines.running("tiny") == "one", "one that is being stopped may still deploy"
    with pytest.raises(PlatformError, match="pipeline run two must wait: one of tiny is running"):
        pipelines.run(template, "two")
    pipelines.run(giver, "three")
    ended(cloud, "recbandits-v1-tiny-1", "SUCCEEDED")
    assert pipelines.running("tiny") is None
    pipelines.run(template, "two")


@pytest.mark.parametrize(("others", "refusal"), [("theirs", "must wait: another of tiny was faster"), ("mine", "")])
def test_of_two_that_start_a_run_at_once_one_gets_it(pipelines, config, clients, template, others, refusal):
    """Both have looked and seen that none is running; the other one asks first. Of the same run both get the same."""
    listed, turn = pipelines._list, []

    def overtaken(labels):
        found = listed(labels)
        if "pipeline" in labels and not turn:
            turn.append(GcpPipelines(config, clients).run(template, others))
        return found

    pipelines._list = overtaken
    if refusal:
        with pytest.raises(PlatformError, match=refusal):
            pipelines.run(template, "mine")
    else:
        assert pipelines.run(template, "mine") == turn[0]
    assert len(listed({})) == 1


def test_a_name_is_one_run_for_good(pipelines, template, giver):
    pipelines.run(template, "one", {"alpha": 0.1})
    for other, parameters in ((template, {"alpha": 0.2}), (template, {}), (giver, {"alpha": 0.1})):
        with pytest.raises(PlatformError, match="one was begun with another template or other parameters"):
            pipelines.run(other, "one", parameters)
    with pytest.raises(PlatformError, match="there is no pipeline run nothing in projects/"):
        pipelines.status("nothing")


def test_a_schedule_runs_one_at_a_time_without_caching_and_is_on_the_manifest(pipelines, cloud, config, giver):
    assert pipelines.schedule(giver, "nightly", "0 3 * * *", {"alpha": 0.1})
    assert not pipelines.schedule(giver, "nightly", "0 3 * * *", {"alpha": 0.1}), "it is there"
    (request,) = posted(cloud, "schedules")
    job = request.body["createPipelineJobRequest"]["pipelineJob"]
    assert {key: request.body[key] for key in ("displayName", "cron", "maxConcurrentRunCount")} == {
        "displayName": "recbandits-v1-nightly",
        "cron": "TZ=Etc/UTC 0 3 * * *",
        "maxConcurrentRunCount": "1",
    }
    assert all(task["cachingOptions"] == {"enableCache": False} for task in steps(job["pipelineSpec"]))
    assert job["runtimeConfig"]["parameterValues"] == {"alpha": 0.1}
    (listed,) = provisioning.manifest(GcpPlatform(config, cloud.endpoint))
    assert listed == ("pipeline schedule", f"{PLACE[4:]}/schedules/recbandits-v1-nightly")
    pipelines.unschedule("nightly")
    pipelines.unschedule("nightly")
    assert not [path for path in cloud.documents if "/schedules/" in path]
    with pytest.raises(ValueError, match="cron must have five fields"):
        pipelines.schedule(giver, "nightly", "daily")


def test_the_sdk_schedules_the_same(pipelines, clients, cloud, giver, tmp_path):
    """The SDK leaves caching to the pipeline's own words; the run is labelled by us alone."""
    pipelines.schedule(giver, "nightly", "0 3 * * *", {"alpha": 0.1})
    (ours,) = posted(cloud, "schedules")
    cloud.requests.clear()
    ready = tmp_path / "ready.json"
    ready.write_text(json.dumps(with_our_image(yaml_utils.load_yaml(str(giver)), f"{IMAGE_OF_OURS}:v1")))
    with clients.sdk() as sdk:
        place = {"template_path": str(ready), "pipeline_root": f"gs://{CONFIG.bucket}/pipelines"}
        job = sdk.PipelineJob("giving", **place, parameter_values={"alpha": 0.1}, enable_caching=False)
        schedule = sdk.PipelineJobSchedule(job, "recbandits-v1-nightly")
        schedule.create("TZ=Etc/UTC 0 3 * * *", max_concurrent_run_count=1, service_account=CONFIG.account("train"))
    (theirs,) = posted(cloud, "schedules")
    job = theirs.body["createPipelineJobRequest"]["pipelineJob"]
    job |= {"labels": LABELS | {"pipeline": "giving", "run": "nightly"}, "displayName": "giving"}
    assert theirs.body == ours.body
