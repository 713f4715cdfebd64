"""Jobs of Cloud Scheduler: what Google's client asks for, and what it refuses."""

import base64

import pytest

from recbandits.config import Config
from recbandits.platforms.gcp.schedules import GcpSchedules
from recbandits.platforms.protocol import PlatformError
from recbandits.platforms.schedules import Schedule
from tests.recorder import Recorder

PROJECT = "movie-lab-42"
PARENT = f"projects/{PROJECT}/locations/us-central1"
JOB = f"{PARENT}/jobs/recbandits-v1-train"
TOPIC = f"projects/{PROJECT}/topics/recbandits-v1-ticks"
CONFIG = Config(platform="gcp", project=PROJECT)


@pytest.fixture
def cloud():
    with Recorder(PROJECT) as cloud:
        yield cloud


@pytest.fixture
def schedules(cloud):
    return GcpSchedules(CONFIG)


def changes(cloud):
    """Names of the methods that changed something since the last call."""
    names = [method for method, _ in cloud.calls if not method.startswith(("Get", "List"))]
    cloud.calls.clear()
    return names


def pause(cloud):
    """Have a recorded job be paused, as Cloud Scheduler does."""
    cloud.resources[JOB].state = "PAUSED"


def test_a_schedule_that_publishes_sends_exactly_this(schedules, cloud):
    schedule = schedules.create("train", "*/10 * * * *", TOPIC, {"do": "train"})
    assert schedule == Schedule("train", "*/10 * * * *", TOPIC, {"do": "train"})
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
    assert schedules.list()[0].target == "https://simulator-uc.a.run.app"


def test_the_same_schedule_again_changes_nothing(schedules, cloud):
    for _ in range(2):
        schedules.create("train", "0 4 * * *", TOPIC, {"do": "train"})
    assert changes(cloud) == ["CreateJob"]


def test_the_same_name_again_changes_what_is_there_and_resumes_what_was_paused(schedules, cloud):
    schedules.create("train", "0 4 * * *", TOPIC)
    pause(cloud)
    assert [schedule.paused for schedule in schedules.list()] == [True]
    changes(cloud)
    schedules.create("train", "0 5 * * *", TOPIC, {"a": 1})
    (update,) = cloud.requests("UpdateJob")
    assert update["updateMask"] == "description,pubsubTarget,schedule,timeZone"
    assert (update["job"]["name"], update["job"]["schedule"]) == (JOB, "0 5 * * *")
    assert changes(cloud) == ["UpdateJob", "ResumeJob"]
    assert [schedule.cron for schedule in schedules.list()] == ["0 5 * * *"]


def test_what_is_not_paused_is_not_resumed_and_what_is_paused_not_paused_again(schedules, cloud):
    """Cloud Scheduler refuses both."""
    schedules.create("train", "0 4 * * *", TOPIC)
    schedules.create("train", "0 6 * * *", TOPIC)
    assert changes(cloud) == ["CreateJob", "UpdateJob"]
    schedules.pause("train")
    pause(cloud)
    schedules.pause("train")
    assert changes(cloud) == ["PauseJob"]


def test_schedules_of_others_are_not_listed(schedules, cloud):
    """Another configuration may have a name that begins with ours."""
    for name in ("b", "a"):
        schedules.create(name, "0 4 * * *", TOPIC)
    GcpSchedules(Config(platform="gcp", project=PROJECT, prefix="recbandits-v1", version="v2")).create(
        "theirs", "0 0 * * *", TOPIC
    )
    assert [schedule.name for schedule in schedules.list()] == ["a", "b"]


def test_what_is_not_there_cannot_be_paused_but_deleted(schedules, cloud):
    with pytest.raises(PlatformError, match=r"schedule train.*: 404 .*was not found"):
        schedules.pause("train")
    schedules.delete("train")
    assert cloud.requests("DeleteJob") == [{"name": JOB}]


@pytest.mark.parametrize("call", ["pause", "delete"])
def test_a_name_that_is_none_is_refused_before_anything_is_sent(schedules, cloud, call):
    with pytest.raises(ValueError, match="name must be at most 63 lower-case letters, digits and single hyphens, got"):
        getattr(schedules, call)("../other")
    assert cloud.calls == []


def test_a_wrong_cron_string_is_refused_before_anything_is_sent(schedules, cloud):
    with pytest.raises(ValueError, match="cron must have five fields"):
        schedules.create("train", "every day", TOPIC)
    assert cloud.calls == []
