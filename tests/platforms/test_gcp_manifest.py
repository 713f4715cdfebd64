"""What the loop makes on Google Cloud while it runs is on one manifest, and clean-up removes exactly that."""

from dataclasses import replace
from pathlib import Path

import pytest

from recbandits.platforms import PlatformError
from recbandits.platforms.functions import Function
from recbandits.platforms.gcp import GcpPlatform
from recbandits.platforms.gcp.rehearsal import error
from recbandits.platforms.provisioning import clean_up, create, manifest

PROJECT = "movie-lab-42"
PARENT = f"projects/{PROJECT}/locations/us-central1"
MODEL, ENDPOINT = f"/v1/{PARENT}/models/recbandits-v1", f"/v1/{PARENT}/endpoints/recbandits-v1"
START_UP = Path(__file__).parents[2] / "04-pipelines/02-mlops_pipeline_tf_agents_bandit/src/start_up.yaml"


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "main.py").write_text("def call(event): pass\n")
    (folder / "requirements.txt").write_text("functions-framework\n")
    return folder


def deployer(gcp, cloud, where):
    """What the step does on a machine of its own: two versions of a model, of which the second is a canary."""
    there = GcpPlatform(replace(gcp.config, artifacts=str(where)), cloud.endpoint)
    there.endpoints.create()
    cloud.documents[MODEL] = cloud.documents[f"{MODEL}@1"] = cloud.documents[f"{MODEL}@2"] = {"name": MODEL[4:]}
    cloud.documents[ENDPOINT] |= {
        "deployedModels": [{"id": number, "model": f"{MODEL[4:]}@{number}"} for number in ("1", "2")],
        "trafficSplit": {"1": 80, "2": 20},
    }


@pytest.fixture
def loop(gcp, cloud, source, tmp_path):
    """The platform with all that a loop makes."""
    create(gcp)
    gcp.warehouse.create()
    for name in ("interactions", "rewards"):
        gcp.functions.deploy(Function(f"log-{name}", source, "call", gcp.messages.topic(name)))
    gcp.pipelines.run(START_UP, "start-up")
    deployer(gcp, cloud, tmp_path / "elsewhere")
    gcp.schedules.create("retrain", "0 * * * *", gcp.messages.topic("ticks"), {"do": "train"})
    gcp.pipelines.schedule(START_UP, "nightly", "0 3 * * *")
    cloud.requests.clear()
    return gcp


def left(cloud, before):
    """Paths of what is there and was not, without what a switched-on service or a policy's history leaves."""
    lasting = ("/services/", ":policy")
    new = [path for path in cloud.documents if path.startswith("/") and path not in before]
    return [path for path in new if not any(word in path for word in lasting)]


def test_nothing_that_the_loop_makes_is_missing_on_the_manifest(loop):
    kinds = [resource.kind for resource in manifest(loop) if resource.kind != "role"]
    logger = ["topic", "function", "topic", "subscription"]
    assert kinds == [
        *("bucket", "dataset", "repository", "service account"),
        *["table"] * 5,
        *logger,
        *logger,
        *("model", "endpoint", "pipeline runs", "topic", "schedule", "pipeline schedule"),
    ]


def test_clean_up_removes_all_of_it_newest_first_and_undeploys_before_it_deletes(loop, cloud):
    listed = manifest(loop)
    outcomes = clean_up(loop, dry_run=False)
    assert [outcome[:2] for outcome in outcomes] == listed[::-1]
    assert left(cloud, before=()) == []
    steps = [request for request in cloud.requests if "/endpoints/" in request.path or "/models/" in request.path]
    verbs = [(request.method, request.path.rpartition(":")[2]) for request in steps if request.method != "GET"]
    undeployed = [request.body["deployedModelId"] for request in steps if request.path.endswith(":undeployModel")]
    assert verbs == [
        ("PATCH", ENDPOINT),
        ("POST", "undeployModel"),
        ("POST", "undeployModel"),
        ("DELETE", ENDPOINT),
        ("DELETE", MODEL),
    ]
    assert undeployed == ["2", "1"], "the canary first"
    assert clean_up(loop, dry_run=False) == []


def test_clean_up_ends_a_run_before_it_removes_what_the_run_would_make_again(loop, cloud):
    """Somebody else's run, which has other labels, goes on."""
    runs = f"/v1/{PARENT}/pipelineJobs/"
    cloud.documents[f"{runs}recbandits-v1-start-up-1"]["state"] = "PIPELINE_STATE_RUNNING"
    cloud.documents[f"{runs}theirs"] = {"name": f"{runs[4:]}theirs", "state": "PIPELINE_STATE_RUNNING"}
    clean_up(loop, dry_run=False)
    asked = [(request.method, request.path) for request in cloud.requests if request.method != "GET"]
    first = asked.index(("POST", f"{runs}recbandits-v1-start-up-1:cancel"))
    assert asked[first + 1] == ("DELETE", f"{runs}recbandits-v1-start-up-1")
    assert first + 1 < asked.index(("PATCH", ENDPOINT))
    assert left(cloud, before=()) == [f"{runs}theirs"]


def test_a_dry_run_asks_the_cloud_for_nothing(loop, cloud):
    before = manifest(loop)
    assert {outcome.outcome for outcome in clean_up(loop)} == {"would be removed"}
    assert cloud.requests == []
    assert manifest(loop) == before


def test_an_interrupted_clean_up_goes_on_where_it_stopped(loop, cloud, monkeypatch):
    answer, refused = cloud.answer, [True]

    def reluctant(request):
        denied = (request.method, request.path) == ("DELETE", ENDPOINT) and refused[0]
        return error(403, "denied") if denied else answer(request)

    monkeypatch.setattr(cloud, "answer", reluctant)
    with pytest.raises(PlatformError, match=f"endpoint {ENDPOINT[4:]} could not be removed: 403 .*denied"):
        clean_up(loop, dry_run=False)
    assert manifest(loop)[-1].name == ENDPOINT[4:]
    refused[0] = False
    clean_up(loop, dry_run=False)
    assert left(cloud, before=()) == []


def test_what_somebody_else_made_under_our_names_is_used_and_never_touched(gcp, cloud, source, tmp_path):
    theirs = GcpPlatform(replace(gcp.config, artifacts=str(tmp_path / "theirs")), cloud.endpoint)
    topic = theirs.messages.topic("rewards")
    theirs.functions.deploy(Function("log-rewards", source, "call", topic))
    theirs.endpoints.create()
    theirs.schedules.create("retrain", "0 * * * *", topic)
    before = set(cloud.documents)
    assert gcp.messages.topic("rewards") == topic
    gcp.functions.deploy(Function("log-rewards", source, "call", topic))
    gcp.endpoints.create()
    gcp.schedules.create("retrain", "0 * * * *", topic)
    assert manifest(gcp) == []
    gcp.messages.topic("interactions")
    clean_up(gcp, dry_run=False)
    assert before <= set(cloud.documents)
    assert left(cloud, before) == []
