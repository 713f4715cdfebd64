"""Jobs of Cloud Scheduler: what Google's client asks for, and what it refuses."""

import base64

import pytest

from recbandits.config import Config
from recbandits.platforms.gcp.functions import GcpSchedules

PROJECT = "movie-lab-42"
PARENT = f"projects/{PROJECT}/locations/us-central1"
JOB = f"{PARENT}/jobs/recbandits-v1-train"
TOPIC = f"projects/{PROJECT}/topics/recbandits-v1-ticks"
CONFIG = Config(platform="gcp", project=PROJECT)


@pytest.fixture
def schedules(cloud):
    return GcpSchedules(CONFIG)


def changes(cloud):
    """Names of the methods that changed something since the last call."""
    names = [method for method, _ in cloud.calls if not method.startswith(("Get", "List"))]
    cloud.calls.clear()
    return names


def test_a_schedule_that_publishes_sends_exactly_this(schedules, cloud):
    schedules.create("train", "*/10 * * * *", TOPIC, {"do": "train"})
    (request,) = cloud.requests("CreateJob")
    assert request["parent"] == PARENT
    job = request["job"]
    assert (job["name"], job["description"]) == (JOB, "RecBandits recbandits-v1")
    assert (job["schedule"], job["timeZone"]) == ("*/10 * * * *", "Etc/UTC")
    assert job["pubsubTarget"] == {"topicName": TOPIC, "data": base64.b64encode(b'{"do": "train"}').decode()}


def test_a_schedule_that_calls_signs_in_as_the_account_of_functions(schedules, cloud):
    schedules.create("simulate", "* * * * *", "https://simulator-uc.a.run.app", {"seconds": 30})
    assert cloud.requests("CreateJob")[0]["job"]["httpTarget"] == {
        "uri": "https://simulator-uc.a.run.app",
        "httpMethod": "POST",
        "headers": {"Content-Type": "application/json"},
        "body": base64.b64encode(b'{"seconds": 30}').decode(),
        "oidcToken": {"serviceAccountEmail": CONFIG.account("function"), "audience": "https://simulator-uc.a.run.app"},
    }


def test_the_same_schedule_again_changes_nothing(schedules, cloud):
    for _ in range(2):
        schedules.create("train", "0 4 * * *", TOPIC, {"do": "train"})
    assert changes(cloud) == ["CreateJob"]


def test_the_same_name_again_changes_what_is_there_and_resumes_what_was_paused(schedules, cloud):
    """Cloud Scheduler refuses to resume a job that is not paused."""
    schedules.create("train", "0 4 * * *", TOPIC)
    changes(cloud)
    schedules.create("train", "0 5 * * *", TOPIC, {"a": 1})
    (update,) = cloud.requests("UpdateJob")
    assert update["updateMask"] == "description,pubsubTarget,schedule,timeZone"
    assert (update["job"]["name"], update["job"]["schedule"]) == (JOB, "0 5 * * *")
    assert changes(cloud) == ["UpdateJob"]
    cloud.resources[JOB].state = "PAUSED"
    schedules.create("train", "0 5 * * *", TOPIC, {"a": 1})
    assert changes(cloud) == ["UpdateJob", "ResumeJob"]


def test_what_is_gone_already_can_be_deleted(schedules, cloud):
    schedules.delete("train")
    assert cloud.requests("DeleteJob") == [{"name": JOB}]


@pytest.mark.parametrize(
    ("field", "value"), [("name", "../other"), ("cron", "every day"), ("target", "ticks"), ("payload", [1])]
)
def test_what_is_none_is_refused_before_anything_is_sent(schedules, cloud, field, value):
    with pytest.raises(ValueError, match=f"^{field} must "):
        schedules.create(**{"name": "train", "cron": "0 3 * * *", "target": TOPIC, "payload": {}} | {field: value})
    with pytest.raises(ValueError, match="name must be at most 63 lower-case letters, digits and single hyphens, got"):
        schedules.delete("../other")
    assert cloud.calls == []
