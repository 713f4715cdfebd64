"""A compiled pipeline on its way to Vertex AI Pipelines: the whole request, and that the SDK would send the same."""

import pytest
from google.cloud.aiplatform.utils import gcs_utils, yaml_utils
from kfp import compiler, dsl

from recbandits.config import Config
from recbandits.platforms import PlatformError
from recbandits.platforms.gcp.clients import Clients
from recbandits.platforms.gcp.pipelines import submit
from recbandits.platforms.gcp.rehearsal import Rehearsal

PROJECT = "movie-lab-42"
PLACE = f"/v1/projects/{PROJECT}/locations/us-central1"
CONFIG = Config(platform="gcp", project=PROJECT)
LABELS = {"app": "recbandits", "prefix": "recbandits", "version": "v1"}


@dsl.component(base_image=CONFIG.image("train"), install_kfp_package=False)
def double(number: float) -> float:
    return 2 * number


@dsl.pipeline(name="inner")
def inner(number: float) -> float:
    return double(number=number).output


@dsl.pipeline(name="tiny")
def tiny(alpha: float = 0.5):
    double(number=inner(number=alpha).output)


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


def sent(cloud):
    (request,) = (request for request in cloud.requests if request.method == "POST")
    return request


def steps(spec):
    dags = [part["dag"] for part in (spec["root"], *spec["components"].values()) if "dag" in part]
    return [step for dag in dags for step in dag["tasks"].values()]


def test_a_run_is_sent_with_its_pipeline_parameters_and_account(clients, cloud, template):
    name = submit(CONFIG, clients, template, "tiny-1", {"alpha": 0.1}, caching=False)
    request = sent(cloud)
    assert f"/v1/{name}" == f"{PLACE}/pipelineJobs/tiny-1"
    assert (request.path, request.query["pipelineJobId"]) == (f"{PLACE}/pipelineJobs", "tiny-1")
    compiled = yaml_utils.load_yaml(str(template))
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
def test_the_sdk_sends_the_same(clients, cloud, template, caching, monkeypatch):
    """It also asks for the owner of the bucket, at an address of Google's that is fixed, which is left out here."""
    monkeypatch.setattr(gcs_utils, "create_gcs_bucket_for_pipeline_artifacts_if_it_does_not_exist", lambda **_: None)
    submit(CONFIG, clients, template, "tiny-1", {"alpha": 0.1}, caching)
    ours = sent(cloud)
    cloud.requests.clear()
    with clients.sdk() as sdk:
        job = sdk.PipelineJob(
            display_name="tiny",
            template_path=str(template),
            job_id="tiny-2",
            pipeline_root=f"gs://{CONFIG.bucket}/pipelines",
            parameter_values={"alpha": 0.1},
            enable_caching=caching,
            labels=CONFIG.labels,
        )
        job.submit(service_account=CONFIG.service_account)
        assert job.state.name == "PIPELINE_STATE_SUCCEEDED"
    theirs = sent(cloud)
    assert theirs.path == ours.path
    assert theirs.query["pipelineJobId"] == "tiny-2"
    assert theirs.body == ours.body


def test_a_name_that_is_taken_is_refused(clients, template):
    submit(CONFIG, clients, template, "tiny-1")
    with pytest.raises(PlatformError, match=r"pipeline run tiny-1 could not be started: 409 .*exists already"):
        submit(CONFIG, clients, template, "tiny-1")
