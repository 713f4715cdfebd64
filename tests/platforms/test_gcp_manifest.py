"""What the loop makes on Google Cloud while it runs is on one manifest, and clean-up removes exactly that."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Event

import pytest

from recbandits.loop.steps import TEMPLATES
from recbandits.platforms.functions import Function
from recbandits.platforms.gcp import GcpPlatform
from recbandits.platforms.gcp.rehearsal import error
from recbandits.platforms.protocol import FOUND, MADE, NotMadeError, PlatformError, Resource
from recbandits.platforms.provisioning import clean_up, create, enter, expect, manifest

PROJECT = "movie-lab-42"
PARENT = f"projects/{PROJECT}/locations/us-central1"
MODEL, ENDPOINT = f"/v1/{PARENT}/models/recbandits-v1", f"/v1/{PARENT}/endpoints/recbandits-v1"
START_UP = TEMPLATES / "start_up.yaml"


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


REFUSED = NotMadeError("refused")
THING = Resource("topic", "thing")


def entered(platform, outcome, meanwhile=lambda: None):
    """List a thing, let others do something `meanwhile`, and learn what became of the making."""

    def make():
        meanwhile()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    try:
        return enter(platform.config, THING, make)
    except (NotMadeError, KeyboardInterrupt) as error:
        return error


@pytest.mark.parametrize(
    "first", [MADE, FOUND, REFUSED, KeyboardInterrupt()], ids=["made", "found", "refused", "killed"]
)
@pytest.mark.parametrize("second", [MADE, FOUND, REFUSED])
@pytest.mark.parametrize("overtaking", [True, False])
def test_of_two_that_make_one_thing_at_once_each_strikes_off_only_what_it_listed(gcp, first, second, overtaking):
    """The second lists it while the first is making, and ends before the first, or after it.

    It is ours if one of them may have made it; who was killed may have.
    """
    if overtaking:
        entered(gcp, first, lambda: entered(gcp, second))
    else:
        with ThreadPoolExecutor(1) as pool:
            begun, goes_on = Event(), Event()
            begins = pool.submit(entered, gcp, first, lambda: (begun.set(), goes_on.wait()))
            begun.wait()
            entered(gcp, second, lambda: (goes_on.set(), begins.result()))
    ours = MADE in (first, second) or isinstance(first, KeyboardInterrupt)
    assert manifest(gcp) == ([THING] if ours else [])


def test_what_a_killed_run_has_begun_stays_listed_when_the_next_one_finds_it(gcp):
    entered(gcp, KeyboardInterrupt())
    assert entered(gcp, FOUND) == FOUND
    assert manifest(gcp) == [THING]


def test_what_another_machine_will_make_stays_listed_when_somebody_here_is_refused(gcp):
    assert entered(gcp, REFUSED, lambda: expect(gcp.config, THING, lambda _: False)) is REFUSED
    assert manifest(gcp) == [THING]


def test_busy_is_not_there_already(gcp, cloud, monkeypatch):
    """Over REST both are 409: what is not to be found after it is asked for again."""
    answer, busy = cloud.answer, [error(409, "unable to queue the operation", "ABORTED")]
    monkeypatch.setattr(
        cloud, "answer", lambda request: busy.pop() if request.method == "PUT" and busy else answer(request)
    )
    topic = gcp.messages.topic("rewards")
    assert f"/v1/{topic}" in cloud.documents
    assert manifest(gcp) == [("topic", topic)]


def test_what_a_schedule_will_make_is_listed_with_it(gcp, cloud, tmp_path):
    gcp.pipelines.schedule(START_UP, "nightly", "0 3 * * *")
    deployer(gcp, cloud, tmp_path / "elsewhere")
    runs = f"/v1/{PARENT}/pipelineJobs/"
    cloud.documents[f"{runs}1"] = {
        "name": f"{runs[4:]}1",
        "state": "PIPELINE_STATE_RUNNING",
        "labels": gcp.config.labels,
    }
    assert [resource.kind for resource in manifest(gcp)] == ["model", "endpoint", "pipeline runs", "pipeline schedule"]
    clean_up(gcp, dry_run=False)
    assert left(cloud, before=()) == []


def test_what_a_schedule_of_somebody_else_will_make_is_theirs(gcp, cloud, tmp_path):
    theirs = GcpPlatform(replace(gcp.config, artifacts=str(tmp_path / "theirs")), cloud.endpoint)
    theirs.pipelines.schedule(START_UP, "nightly", "0 3 * * *")
    assert not gcp.pipelines.schedule(START_UP, "nightly", "0 3 * * *")
    assert manifest(gcp) == []
