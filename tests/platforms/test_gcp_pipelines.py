"""A compiled pipeline on its way to Vertex AI Pipelines, as the SDK sends it."""

from typing import NamedTuple

import pytest
import yaml
from google.api_core import exceptions
from google.cloud import aiplatform_v1
from google.protobuf.json_format import ParseDict
from google.rpc import status_pb2
from kfp import compiler, dsl

from recbandits.config import Config
from recbandits.platforms.gcp import GcpPlatform
from recbandits.platforms.gcp.pipelines import GcpPipelines
from recbandits.platforms.pipelines import IMAGE
from recbandits.platforms.protocol import PlatformError

CONFIG = Config(platform="gcp", project="movie-lab-42")
PARENT = "projects/movie-lab-42/locations/us-central1"
TRAIN = "us-central1-docker.pkg.dev/movie-lab-42/recbandits-v1/train"
TAG = r"GET https://artifactregistry.*/repositories/recbandits-v1/packages/train/tags/v1"


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def double(number: float) -> float:
    return 2 * number


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def write_number(number: float, dataset: dsl.Output[dsl.Dataset]) -> float:
    return number


@dsl.pipeline(name="inner")
def inner(number: float) -> float:
    return double(number=number).output


@dsl.pipeline(name="tiny")
def tiny(alpha: float = 0.5):
    double(number=inner(number=alpha).output)


class Outputs(NamedTuple):
    value: float
    data: dsl.Dataset


@dsl.pipeline(name="giving")
def giving(alpha: float = 0.5) -> Outputs:
    dataset = write_number(number=double(number=alpha).output).set_caching_options(False)
    return Outputs(dataset.outputs["Output"], dataset.outputs["dataset"])


@dsl.pipeline(name="reading")
def reading(snapshot: str = ""):
    """The inputs of a step are among its parameters only if they are listed."""
    double(number=inner(number=1.0).output)


@pytest.fixture
def cloud(cloud, no_pauses):
    set_image_digest(cloud, 64 * "a")
    cloud.documents[f"/storage/v1/b/{CONFIG.bucket}"] = {"name": CONFIG.bucket, "projectNumber": "123456789"}
    return cloud


@pytest.fixture
def pipelines(cloud):
    return GcpPlatform(CONFIG).pipelines


def compiled(pipeline, folder):
    path = folder / f"{pipeline.name}.yaml"
    compiler.Compiler().compile(pipeline, str(path))
    return path


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return compiled(tiny, tmp_path_factory.mktemp("pipelines"))


@pytest.fixture(scope="module")
def two_output_template(tmp_path_factory):
    return compiled(giving, tmp_path_factory.mktemp("pipelines"))


def set_image_digest(cloud, digest):
    """Have the tag of the image for training name another build than before."""
    cloud.answers[TAG] = {"version": f"{PARENT}/repositories/recbandits-v1/packages/train/versions/sha256:{digest}"}


def sent_requests(cloud):
    return cloud.requests("CreatePipelineJob")


def end_job(cloud, job, state, **fields):
    """Have a job be in another state than the one that all of them reach in the recorder, success."""
    resource = cloud.resources[f"{PARENT}/pipelineJobs/recbandits-v1-{job}"]
    resource.state = f"PIPELINE_STATE_{state}"
    ParseDict(fields, type(resource).pb(resource))


def images(job):
    """The images of a pipeline job, a dict."""
    return {each["container"]["image"] for each in job["pipelineSpec"]["deploymentSpec"]["executors"].values()}


def steps(job):
    spec = job["pipelineSpec"]
    dags = [part["dag"] for part in (spec["root"], *spec["components"].values()) if "dag" in part]
    return [step for dag in dags for step in dag["tasks"].values()]


def test_a_run_is_sent_with_its_pipeline_parameters_account_and_experiment(pipelines, cloud, template):
    """The bucket of the project is used as it is: the SDK would make one that is not there, and give roles on it."""
    pipelines.run(template, "one", {"alpha": 0.1})
    (request,) = sent_requests(cloud)
    assert (request["parent"], request["pipelineJobId"]) == (PARENT, "recbandits-v1-tiny-1")
    spec = yaml.safe_load(template.read_text())
    for executor in spec["deploymentSpec"]["executors"].values():
        assert executor["container"]["image"] == IMAGE
        executor["container"]["image"] = f"{TRAIN}@sha256:{64 * 'a'}"
    job = request["pipelineJob"]
    assert job.pop("pipelineSpec") == spec
    assert job == {
        "displayName": "one",
        "runtimeConfig": {
            "gcsOutputDirectory": "gs://movie-lab-42-recbandits-v1/pipelines",
            "parameterValues": {"alpha": 0.1},
        },
        "serviceAccount": CONFIG.account("train"),
        "labels": CONFIG.labels | {"pipeline": "tiny", "run": "one"},
    }
    (experiment,) = cloud.requests("CreateContext")
    assert experiment["contextId"] == "recbandits-v1-tiny"
    assert experiment["context"]["schemaTitle"] == "system.Experiment"
    contexts = f"{PARENT}/metadataStores/default/contexts"
    assert cloud.requests("AddContextChildren") == [
        {"context": f"{contexts}/recbandits-v1-tiny", "childContexts": [f"{contexts}/recbandits-v1-tiny-1"]}
    ]
    assert not cloud.requests("(POST|PUT) https://storage.*")


def test_a_run_that_fails_before_it_joins_its_experiment_is_a_failed_run(pipelines, cloud, template):
    def fail(request):
        end_job(cloud, "tiny-1", "FAILED")

    cloud.answers["AddContextChildren"] = exceptions.NotFound("no context")
    cloud.answers["GetPipelineJob"] = fail
    assert pipelines.run(template, "one").state == "failed"


def test_a_step_that_is_never_cached_is_not_cached_where_the_others_are(pipelines, cloud, two_output_template):
    pipelines.run(two_output_template, "one")
    tasks = sent_requests(cloud)[0]["pipelineJob"]["pipelineSpec"]["root"]["dag"]["tasks"]
    assert {name: task["cachingOptions"] for name, task in tasks.items()} == {
        "double": {"enableCache": True},
        "write-number": {},
    }


@pytest.mark.parametrize(("parameters", "cached"), [({"snapshot": "abc"}, True), ({}, False)])
def test_a_run_without_a_list_of_its_inputs_uses_no_cache(pipelines, cloud, tmp_path, parameters, cached):
    """The second run of a night has the parameters of the first, and must not be given the first one's data.

    This holds for the pipelines within it, too.
    """
    pipelines.run(compiled(reading, tmp_path), "one", parameters)
    options = [step["cachingOptions"] for step in steps(sent_requests(cloud)[0]["pipelineJob"])]
    assert options == [{"enableCache": cached}] * 3


def test_a_new_build_is_not_given_what_the_build_before_has_made(pipelines, cloud, template):
    """The cache goes by the words of a step: under its tag a corrected image would have the words of the faulty one."""
    pipelines.run(template, "one")
    end_job(cloud, "tiny-1", "FAILED")
    set_image_digest(cloud, 64 * "b")
    pipelines.run(template, "one")
    assert [images(request["pipelineJob"]) for request in sent_requests(cloud)] == [
        {f"{TRAIN}@sha256:{64 * digit}"} for digit in "ab"
    ]


def test_a_run_without_an_image_is_refused_before_it_begins(pipelines, cloud, template):
    cloud.answers[TAG] = exceptions.NotFound("no")
    with pytest.raises(PlatformError, match=f"^there is no image {TRAIN}:v1: build it first$"):
        pipelines.run(template, "one")
    assert sent_requests(cloud) == []


def test_a_pipeline_in_other_images_needs_none_of_ours(pipelines, cloud, template, tmp_path):
    other = tmp_path / "other.yaml"
    other.write_text(template.read_text().replace(IMAGE, "python:3.11"))
    pipelines.run(other, "one")
    assert images(sent_requests(cloud)[0]["pipelineJob"]) == {"python:3.11"}
    assert cloud.requests(TAG) == []


def test_what_is_no_compiled_pipeline_is_refused(pipelines, tmp_path):
    (tmp_path / "notes.yaml").write_text("a: 1")
    for name in ("notes.yaml", "nothing.yaml"):
        with pytest.raises(PlatformError, match=f"template must be a compiled pipeline, got .*{name}"):
            pipelines.run(tmp_path / name, "one")


def test_a_run_is_found_by_its_label_and_gives_the_outputs_of_its_pipeline(pipelines, cloud, two_output_template):
    """Vertex AI keeps them with the steps that gave them: the value as metadata of the execution, the file as a URI."""
    pipelines.run(two_output_template, "one", {"alpha": 2.0})
    step = {"taskName": "write-number", "execution": {"metadata": {"output:Output": 4.0, "input:number": 4.0}}}
    step |= {"outputs": {"dataset": {"artifacts": [{"uri": "gs://movies/dataset"}]}}}
    end_job(cloud, "giving-1", "SUCCEEDED", jobDetail={"taskDetails": [{"taskName": "double"}, step]})
    assert pipelines.wait("one") == ("one", "succeeded", {"value": 4.0, "data": "gs://movies/dataset"}, "")
    assert pipelines.run(two_output_template, "one", {"alpha": 2.0}) == pipelines.status("one")
    assert len(sent_requests(cloud)) == 1, "what has succeeded is not run again"


def test_a_run_that_failed_or_was_stopped_is_run_again_under_its_name(pipelines, cloud, template):
    pipelines.run(template, "one", {"alpha": 0.1})
    end_job(cloud, "tiny-1", "FAILED")
    job = cloud.resources[f"{PARENT}/pipelineJobs/recbandits-v1-tiny-1"]
    job.error = status_pb2.Status(message="the disk\nis full")
    assert pipelines.status("one") == ("one", "failed", {}, "pipeline run one failed: the disk is full")
    pipelines.run(template, "one", {"alpha": 0.1})
    end_job(cloud, "tiny-2", "RUNNING")
    assert pipelines.run(template, "one", {"alpha": 0.1}).state == "running"
    pipelines.stop("one")
    assert cloud.requests("CancelPipelineJob") == [{"name": f"{PARENT}/pipelineJobs/recbandits-v1-tiny-2"}]
    assert pipelines.status("one").state == "stopped"
    pipelines.stop("one")
    assert len(cloud.requests("CancelPipelineJob")) == 1, "it runs no more"
    pipelines.run(template, "one", {"alpha": 0.1})
    ids = [request["pipelineJobId"] for request in sent_requests(cloud)]
    assert ids == [f"recbandits-v1-tiny-{number}" for number in (1, 2, 3)]
    assert pipelines.wait("one").state == "succeeded"


def test_no_two_runs_of_one_pipeline_go_on_at_once(pipelines, cloud, template, two_output_template):
    pipelines.run(template, "one")
    for state in ("CANCELLING", "PENDING"):
        end_job(cloud, "tiny-1", state)
        assert pipelines.running("tiny") == "one", "one that is being stopped may still deploy"
    with pytest.raises(PlatformError, match="pipeline run two must wait: one of tiny is running"):
        pipelines.run(template, "two")
    pipelines.run(two_output_template, "three")
    end_job(cloud, "tiny-1", "SUCCEEDED")
    assert pipelines.running("tiny") is None
    pipelines.run(template, "two")


@pytest.mark.parametrize(("others", "refusal"), [("theirs", "must wait: another of tiny was faster"), ("mine", "")])
def test_of_two_that_start_a_run_at_once_one_gets_it(pipelines, cloud, template, others, refusal):
    """Both have looked and seen that none is running; the other one asks first. Of the same run both get the same."""

    def answer_overtaken(request):
        if len(sent_requests(cloud)) == 1:
            GcpPipelines(CONFIG).run(template, others)

    cloud.answers["CreatePipelineJob"] = answer_overtaken
    if refusal:
        with pytest.raises(PlatformError, match=refusal):
            pipelines.run(template, "mine")
    else:
        assert pipelines.run(template, "mine") == ("mine", "succeeded", {}, "")
    jobs = [name for name, each in cloud.resources.items() if isinstance(each, aiplatform_v1.PipelineJob)]
    assert jobs == [f"{PARENT}/pipelineJobs/recbandits-v1-tiny-1"]
    assert cloud.resources[jobs[0]].labels["run"] == others


def test_what_a_schedule_has_started_has_no_number(pipelines, cloud, template):
    name, labels = f"{PARENT}/pipelineJobs/tiny-20261129030000", CONFIG.labels | {"pipeline": "tiny", "run": "nightly"}
    cloud.resources[name] = aiplatform_v1.PipelineJob(name=name, labels=labels, state="PIPELINE_STATE_SUCCEEDED")
    pipelines.run(template, "one")
    assert [request["pipelineJobId"] for request in sent_requests(cloud)] == ["recbandits-v1-tiny-1"]


def test_a_name_is_one_run_for_good(pipelines, template, two_output_template):
    pipelines.run(template, "one", {"alpha": 0.1})
    for other, parameters in ((template, {"alpha": 0.2}), (template, {}), (two_output_template, {"alpha": 0.1})):
        with pytest.raises(PlatformError, match="one was started with another template or other parameters"):
            pipelines.run(other, "one", parameters)
    with pytest.raises(PlatformError, match="there is no pipeline run nothing in us-central1"):
        pipelines.status("nothing")
