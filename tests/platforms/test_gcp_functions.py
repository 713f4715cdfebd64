"""Cloud Functions: the real client talks to a rehearsal, whole requests are compared, and packages are unpacked."""

import io
import sys
import zipfile
from importlib import metadata

import pytest

from recbandits.config import Config
from recbandits.platforms.functions import Function
from recbandits.platforms.gcp.packages import pack
from recbandits.platforms.gcp.rehearsal import error
from recbandits.platforms.protocol import PlatformError, Resource
from recbandits.platforms.provisioning import clean_up, manifest

PROJECT = "movie-lab-42"
PARENT = f"projects/{PROJECT}/locations/us-central1"
NAME = f"{PARENT}/functions/recbandits-v1-log-rewards"
TOPIC = f"projects/{PROJECT}/topics/recbandits-v1-rewards"
READER = f"projects/{PROJECT}/subscriptions/eventarc-us-central1-recbandits-v1-log-rewards-sub-1"
ACCOUNT = f"recbandits-v1-sa@{PROJECT}.iam.gserviceaccount.com"
SETTINGS = {
    "RECBANDITS_PLATFORM": "gcp",
    "RECBANDITS_PROJECT": PROJECT,
    "RECBANDITS_REGION": "us-central1",
    "RECBANDITS_PREFIX": "recbandits",
    "RECBANDITS_VERSION": "v1",
    "RECBANDITS_ARTIFACTS": "/tmp/recbandits",
}


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "logger"
    folder.mkdir()
    (folder / "main.py").write_text("def log_reward(event): pass\n")
    (folder / "test_logger.py").write_text("raise SystemExit\n")
    (folder / "requirements.txt").write_text("functions-framework  # calls it\n\nnumpy\n")
    return folder


@pytest.fixture
def function(gcp, source):
    topic = gcp.messages.topic("rewards")
    return Function("log-rewards", source, "log_reward", topic, {"WINDOW": "60"})


def changes(cloud):
    """Method, path and body of what was changed since the last call, without uploads to the bucket."""
    made = [request for request in cloud.requests if request.method != "GET" and "/storage/" not in request.path]
    cloud.requests.clear()
    return [(request.method, request.path, request.body) for request in made]


def test_a_deployment_sends_exactly_this(gcp, cloud, function, source):
    changes(cloud)
    gcp.functions.deploy(function)
    (content,) = (content for path, content in cloud.documents.items() if path.startswith("contents of gs://"))
    assert content == pack(source)
    deployment, *burial = changes(cloud)
    (place,) = (path for path in cloud.documents if path.startswith("/storage/v1/b/"))
    bucket, _, name = place.removeprefix("/storage/v1/b/").partition("/o/")
    assert deployment[:2] == ("POST", f"/v2/{PARENT}/functions")
    assert deployment[2] == {
        "name": NAME,
        "environment": 2,
        "labels": {"app": "recbandits", "prefix": "recbandits", "version": "v1"},
        "buildConfig": {
            "runtime": f"python3{sys.version_info.minor}",
            "entryPoint": "log_reward",
            "source": {"storageSource": {"bucket": bucket, "object": name}},
            "dockerRepository": f"{PARENT}/repositories/recbandits-v1",
            "serviceAccount": f"projects/{PROJECT}/serviceAccounts/{ACCOUNT}",
        },
        "serviceConfig": {
            "availableCpu": "1",
            "availableMemory": "1Gi",
            "maxInstanceCount": 3,
            "maxInstanceRequestConcurrency": 200,
            "timeoutSeconds": 60,
            "ingressSettings": 2,
            "serviceAccountEmail": ACCOUNT,
            "environmentVariables": SETTINGS | {"THREADS": "200", "WINDOW": "60"},
        },
        "eventTrigger": {
            "triggerRegion": "us-central1",
            "eventType": "google.cloud.pubsub.topic.v1.messagePublished",
            "pubsubTopic": TOPIC,
            "retryPolicy": 2,
            "serviceAccountEmail": ACCOUNT,
        },
    }, "environment 2 is GEN_2, ingress 2 is ALLOW_INTERNAL_ONLY, retry 2 is RETRY"
    assert burial[-1][:2] == ("PATCH", f"/v1/{READER}")
    assert burial[-1][2]["subscription"]["deadLetterPolicy"]["deadLetterTopic"] == f"{TOPIC}-dead"
    assert [resource.kind for resource in manifest(gcp)] == ["topic", "function", "topic", "subscription"]


def test_the_settings_that_a_function_is_given_are_this_configuration(gcp, monkeypatch):
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    given = Config.load()
    assert (given.base, given.project, given.bucket) == (
        gcp.config.base,
        gcp.config.project,
        gcp.config.bucket,
    )


def test_an_unchanged_source_is_sent_once_and_a_second_deployment_updates(gcp, cloud, function):
    gcp.functions.deploy(function)
    before = manifest(gcp)
    cloud.requests.clear()
    gcp.functions.deploy(function)
    assert not [request for request in cloud.requests if request.method != "GET" and "/storage/" in request.path]
    update, *_ = changes(cloud)
    assert update[:2] == ("PATCH", f"/v2/{NAME}")
    assert manifest(gcp) == before


def test_a_function_without_a_topic_is_called_by_http(gcp, cloud, source):
    gcp.functions.deploy(Function("trigger", source, "log_reward"))
    ((_, _, body),) = changes(cloud)
    assert "eventTrigger" not in body
    assert (body["serviceConfig"]["ingressSettings"], body["serviceConfig"]["timeoutSeconds"]) == (1, 540)
    address = "https://recbandits-v1-trigger-rehearsal-uc.a.run.app"
    assert gcp.functions.health("trigger") == {"alive": True, "ready": True, "reason": "", "address": address}


def test_one_that_listens_to_another_topic_is_not_taken_over(gcp, function, source):
    gcp.functions.deploy(function)
    other = gcp.messages.topic("interactions")
    with pytest.raises(PlatformError, match="function log-rewards listens to another topic: delete it first"):
        gcp.functions.deploy(Function("log-rewards", source, "log_reward", other))


def begun(message):
    """An operation that has ended badly: what it has made by then is there."""
    return 200, {"name": "operations/7", "done": True, "error": {"code": 3, "message": message}}


@pytest.mark.parametrize(
    ("refusal", "listed"),
    [
        (error(403, "denied"), False),
        (begun("Build failed"), True),
        (begun(f"Service account {ACCOUNT} does not exist."), True),
        (begun("Cloud Run API has not been used in project 42 before or it is disabled."), True),
    ],
)
def test_a_refused_function_is_not_listed_and_a_begun_one_is(gcp, cloud, function, monkeypatch, refusal, listed):
    """Who asked once more for one that was begun would be told that it exists already, by its own first try."""
    answer, answers = cloud.answer, [error(409, f"{NAME} exists already"), refusal]
    asked = ("POST", f"/v2/{PARENT}/functions")
    monkeypatch.setattr(cloud, "answer", lambda request: answers.pop() if request[:2] == asked else answer(request))
    with pytest.raises(PlatformError, match=f"function {NAME} could not be made: "):
        gcp.functions.deploy(function)
    assert (Resource("function", NAME) in manifest(gcp)) == listed


def test_health_says_what_is_wrong(gcp, cloud, function):
    assert gcp.functions.health("log-rewards")["reason"] == "there is no function log-rewards"
    gcp.functions.deploy(function)
    cloud.documents[f"/v2/{NAME}"] |= {"state": "FAILED", "stateMessages": [{"message": "Build failed"}]}
    health = gcp.functions.health("log-rewards")
    assert (health["alive"], health["ready"], health["reason"]) == (True, False, "Build failed")


def test_clean_up_takes_the_function_before_its_topic_and_leaves_others(gcp, cloud, function):
    theirs = f"/v2/{PARENT}/functions/theirs"
    cloud.documents[theirs] = {"name": theirs[4:]}
    gcp.functions.deploy(function)
    changes(cloud)
    clean_up(gcp, dry_run=False)
    assert [path.rpartition("/")[2] for _, path, _ in changes(cloud)] == [
        "recbandits-v1-rewards-dead",
        "recbandits-v1-rewards-dead",
        "recbandits-v1-log-rewards",
        "recbandits-v1-rewards",
    ]
    assert theirs in cloud.documents
    assert manifest(gcp) == []
    gcp.functions.delete("log-rewards")


def test_a_package_has_what_runs_and_nothing_else(source):
    with zipfile.ZipFile(io.BytesIO(pack(source))) as zipped:
        names = zipped.namelist()
        pinned = zipped.read("requirements.txt").decode()
    assert {"main.py", "requirements.txt", "recbandits/__init__.py", "recbandits/config.py"} <= set(names)
    assert not [name for name in names if "test_" in name or "__pycache__" in name]
    versions = [f"{name}=={metadata.version(name)}" for name in ("functions-framework", "numpy")]
    assert pinned.split() == versions


def test_a_package_is_the_same_bytes_whenever_it_is_made(source):
    first = pack(source)
    (source / "main.py").touch()
    assert pack(source) == first


def test_requirements_that_cannot_be_pinned_are_refused(source):
    (source / "requirements.txt").write_text("no-such-distribution\n")
    with pytest.raises(PlatformError, match="names no-such-distribution, which is not installed here"):
        pack(source)
    (source / "requirements.txt").unlink()
    with pytest.raises(PlatformError, match=r"has no requirements\.txt: name what it needs"):
        pack(source)
