"""Cloud Functions: what Google's clients ask for and what they refuse, and source packages that are unpacked."""

import io
import sys
import zipfile
from importlib import metadata

import pytest
from google.api_core import exceptions
from google.longrunning import operations_pb2
from google.rpc import status_pb2

from recbandits.config import Config
from recbandits.platforms.functions import Function
from recbandits.platforms.gcp.functions import GcpFunctions, pack
from recbandits.platforms.protocol import PlatformError
from tests.recorder import PROJECT_NUMBER

PROJECT = "movie-lab-42"
PARENT = f"projects/{PROJECT}/locations/us-central1"
NAME = f"{PARENT}/functions/recbandits-v1-log-reward"
TOPIC = f"projects/{PROJECT}/topics/recbandits-v1-rewards"
SERVICE = f"https://run.googleapis.com/v2/{PARENT}/services/recbandits-v1-log-reward"
INVOKERS = "GET https://run.googleapis.com/v2/.*:getIamPolicy"  # answered by the fixture `project`
READER = f"projects/{PROJECT}/subscriptions/eventarc"
CONFIG = Config(platform="gcp", project=PROJECT)
ACCOUNT = CONFIG.account("function")
EVENTARC = (
    "Validation failed for trigger: Permission denied while using the Eventarc Service Agent. If you recently started "
    "to use Eventarc, it may take a few minutes before all necessary permissions are propagated to the Service Agent."
)
SETTINGS = {
    "RECBANDITS_PLATFORM": "gcp",
    "RECBANDITS_PROJECT": PROJECT,
    "RECBANDITS_REGION": "us-central1",
    "RECBANDITS_PREFIX": "recbandits",
    "RECBANDITS_VERSION": "v1",
    "RECBANDITS_ARTIFACTS": "/tmp/recbandits",
    "RECBANDITS_ALERT_EMAIL": "",
}


@pytest.fixture
def cloud(project, no_pauses):
    return project


@pytest.fixture
def functions(cloud):
    return GcpFunctions(CONFIG)


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "logger"
    folder.mkdir()
    (folder / "main.py").write_text("def log_reward(event): pass\n")
    (folder / "test_logger.py").write_text("raise SystemExit\n")
    (folder / "requirements.txt").write_text("functions-framework  # calls it\n\nnumpy\n")
    return folder


@pytest.fixture
def function(source):
    return Function("log-reward", source, "log_reward", TOPIC, {"WINDOW": "60"})


def test_a_deployment_sends_exactly_this(functions, cloud, function, source):
    functions.deploy(function)
    ((uri, content),) = cloud.objects.items()
    assert content == pack(source)
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    (request,) = cloud.requests("CreateFunction")
    assert (request["parent"], request["functionId"]) == (PARENT, "recbandits-v1-log-reward")
    function_body = request["function"]
    assert (function_body["name"], function_body["environment"]) == (NAME, "GEN_2")
    assert function_body["labels"] == {"app": "recbandits", "prefix": "recbandits", "version": "v1"}
    assert function_body["buildConfig"] == {
        "runtime": f"python3{sys.version_info.minor}",
        "entryPoint": "log_reward",
        "source": {"storageSource": {"bucket": bucket, "object": name}},
        "dockerRepository": f"{PARENT}/repositories/recbandits-v1",
        "serviceAccount": f"projects/{PROJECT}/serviceAccounts/{CONFIG.account('build')}",
    }
    assert function_body["serviceConfig"] == {
        "availableCpu": "1",
        "availableMemory": "1Gi",
        "maxInstanceCount": 3,
        "maxInstanceRequestConcurrency": 200,
        "timeoutSeconds": 60,
        "ingressSettings": "ALLOW_INTERNAL_ONLY",
        "serviceAccountEmail": ACCOUNT,
        "environmentVariables": SETTINGS | {"THREADS": "200", "WINDOW": "60"},
    }
    assert function_body["eventTrigger"] == {
        "triggerRegion": "us-central1",
        "eventType": "google.cloud.pubsub.topic.v1.messagePublished",
        "pubsubTopic": TOPIC,
        "retryPolicy": "RETRY_POLICY_RETRY",
        "serviceAccountEmail": ACCOUNT,
    }


def test_the_settings_that_a_function_gets_are_this_configuration(monkeypatch):
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    loaded = Config.load()
    assert (loaded.base, loaded.project, loaded.bucket) == (CONFIG.base, CONFIG.project, CONFIG.bucket)


def test_the_account_that_delivers_may_call_the_service_and_what_others_may_stays(functions, cloud, function):
    """Eventarc and Cloud Scheduler sign in as this account: without the role every call is refused with 403."""
    others = {"role": "roles/run.viewer", "members": ["user:reader@example.com"]}
    cloud.answers[INVOKERS] = {"etag": "BwX", "bindings": [others]}
    functions.deploy(function)
    (policy_request,) = cloud.requests(f"POST {SERVICE}:setIamPolicy")
    binding = {"role": "roles/run.invoker", "members": [f"serviceAccount:{ACCOUNT}"]}
    policy = policy_request["body"]["policy"]
    assert policy == {"etag": "BwX", "bindings": [others, binding]}
    cloud.answers[INVOKERS] = policy
    functions.deploy(function)
    assert len(cloud.requests(f"POST {SERVICE}:setIamPolicy")) == 1


def test_dead_letters_go_to_the_subscription_that_eventarc_has_made(functions, cloud, function):
    functions.deploy(function)
    (change,) = cloud.requests("UpdateSubscription")
    assert change["subscription"]["name"] == READER
    assert change["subscription"]["deadLetterPolicy"]["deadLetterTopic"] == f"{TOPIC}-dead"
    agent = f"serviceAccount:service-{PROJECT_NUMBER}@gcp-sa-pubsub.iam.gserviceaccount.com"
    resources = {each["resource"]: each["policy"]["bindings"] for each in cloud.requests("SetIamPolicy")}
    assert resources[READER] == [{"role": "roles/pubsub.subscriber", "members": [agent]}]


def test_an_unchanged_source_is_sent_once_and_a_second_deployment_updates(functions, cloud, function):
    functions.deploy(function)
    uploads = [method for method, _ in cloud.calls if "/upload/" in method]
    functions.deploy(function)
    assert [method for method, _ in cloud.calls if "/upload/" in method] == uploads
    (update,) = cloud.requests("UpdateFunction")
    assert (update["function"]["name"], update["updateMask"]) == (NAME, "buildConfig,serviceConfig")


def test_a_function_without_a_topic_is_called_by_http(functions, cloud, source):
    functions.deploy(Function("log-reward", source, "log_reward"))
    body = cloud.requests("CreateFunction")[0]["function"]
    assert "eventTrigger" not in body
    assert (body["serviceConfig"]["ingressSettings"], body["serviceConfig"]["timeoutSeconds"]) == ("ALLOW_ALL", 540)
    assert cloud.requests("UpdateSubscription") == []


def test_one_that_listens_to_another_topic_is_not_taken_over(functions, cloud, function, source):
    functions.deploy(function)
    with pytest.raises(PlatformError, match="function log-reward listens to another topic: delete it first"):
        functions.deploy(Function("log-reward", source, "log_reward", f"{TOPIC}-others"))


def test_a_deployment_that_failed_while_the_project_settled_is_repeated_as_an_update(functions, cloud, function):
    """The first operation has made the function and failed; asked again, Google says that it is there."""
    failed = operations_pb2.Operation(name="o", done=True, error=status_pb2.Status(code=3, message=EVENTARC))
    answers = [failed]

    def create(request):
        if not answers:
            return None
        cloud._create("function", request, "CreateFunction")
        return answers.pop()

    cloud.answers["CreateFunction"] = create
    functions.deploy(function)
    assert [len(cloud.requests(f"{verb}Function")) for verb in ("Create", "Update")] == [2, 1]


def test_a_refusal_is_one_sentence_and_is_not_repeated(functions, cloud, function):
    cloud.answers["CreateFunction"] = exceptions.PermissionDenied("denied\nhere")
    with pytest.raises(PlatformError, match=r"function log-reward.*: 403 denied here$"):
        functions.deploy(function)
    assert len(cloud.requests("CreateFunction")) == 1


def test_health_says_what_is_wrong(functions, cloud, function):
    assert functions.health("log-reward") == {
        "alive": False,
        "ready": False,
        "reason": "there is no function log-reward",
        "address": "",
    }
    functions.deploy(function)
    cloud.resources[NAME].service_config.uri = "https://log-reward-uc.a.run.app"
    assert functions.health("log-reward") == {
        "alive": True,
        "ready": True,
        "reason": "",
        "address": "https://log-reward-uc.a.run.app",
    }
    cloud.resources[NAME].state = "FAILED"
    assert functions.health("log-reward")["reason"] == "it is failed"
    cloud.resources[NAME].state_messages = [{"message": "Build failed"}]
    health = functions.health("log-reward")
    assert (health["alive"], health["ready"], health["reason"]) == (True, False, "Build failed")


def test_deleting_a_function_that_is_gone_is_no_error(functions, cloud, function):
    functions.deploy(function)
    for _ in range(2):
        functions.delete("log-reward")
    assert cloud.requests("DeleteFunction") == [{"name": NAME}] * 2
    assert NAME not in cloud.resources


@pytest.mark.parametrize("call", ["delete", "health"])
def test_a_name_that_is_none_is_refused_before_anything_is_sent(functions, cloud, call):
    with pytest.raises(ValueError, match="name must be at most 63 lower-case letters, digits and single hyphens, got"):
        getattr(functions, call)("../other")
    assert cloud.calls == []


def test_a_package_has_what_runs_and_nothing_else(source):
    with zipfile.ZipFile(io.BytesIO(pack(source))) as zipped:
        names = zipped.namelist()
        requirements = zipped.read("requirements.txt").decode()
    assert {"main.py", "requirements.txt", "recbandits/__init__.py", "recbandits/config.py"} <= set(names)
    assert not [name for name in names if "test_" in name or "__pycache__" in name]
    versions = [f"{name}=={metadata.version(name)}" for name in ("functions-framework", "numpy")]
    assert requirements.split() == versions


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
