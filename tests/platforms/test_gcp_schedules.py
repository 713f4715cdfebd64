"""Jobs of Cloud Scheduler: the real client talks to a rehearsal and whole requests are compared."""

import base64

import pytest

from recbandits.config import Config
from recbandits.platforms import PlatformError, Resource
from recbandits.platforms.gcp import GcpPlatform
from recbandits.platforms.gcp.rehearsal import Rehearsal
from recbandits.platforms.provisioning import clean_up, manifest
from recbandits.platforms.schedules import Schedule

PROJECT = "movie-lab-42"
PARENT = f"projects/{PROJECT}/locations/us-central1"
JOB = f"{PARENT}/jobs/recbandits-v1-retrain"
TOPIC = f"projects/{PROJECT}/topics/recbandits-v1-ticks"
ACCOUNT = f"recbandits-v1-sa@{PROJECT}.iam.gserviceaccount.com"


@pytest.fixture
def cloud():
    with Rehearsal() as cloud:
        yield cloud


@pytest.fixture
def platform(tmp_path, cloud):
    return GcpPlatform(Config(platform="gcp", project=PROJECT, artifacts=str(tmp_path)), cloud.endpoint)


def changes(cloud):
    made = [request for request in cloud.requests if request.method != "GET"]
    cloud.requests.clear()
    return [(request.method, request.path, request.body) for request in made]


def test_a_schedule_that_publishes_sends_exactly_this(platform, cloud):
    made = platform.schedules.create("retrain", "*/10 * * * *", TOPIC, {"least": 500})
    assert made == Schedule("retrain", "*/10 * * * *", TOPIC, {"least": 500})
    body = {
        "name": JOB,
        "description": "RecBandits recbandits-v1",
        "schedule": "*/10 * * * *",
        "timeZone": "Etc/UTC",
        "pubsubTarget": {"topicName": TOPIC, "data": base64.b64encode(b'{"least": 500}').decode()},
    }
    assert changes(cloud) == [("POST", f"/v1/{PARENT}/jobs", body)]
    assert manifest(platform) == [Resource("schedule", JOB)]


def test_a_schedule_that_calls_signs_in_as_the_service_account(platform, cloud):
    platform.schedules.create("burst", "* * * * *", "https://simulator-uc.a.run.app", {"visits": 60})
    ((_, _, body),) = changes(cloud)
    assert body["httpTarget"] == {
        "uri": "https://simulator-uc.a.run.app",
        "httpMethod": 1,
        "headers": {"Content-Type": "application/json"},
        "body": base64.b64encode(b'{"visits": 60}').decode(),
        "oidcToken": {"serviceAccountEmail": ACCOUNT, "audience": "https://simulator-uc.a.run.app"},
    }, "1 is POST"
    assert platform.schedules.list()[0].target == "https://simulator-uc.a.run.app"


def test_the_same_name_again_changes_what_is_there_and_wakes_it(platform, cloud):
    platform.schedules.create("retrain", "0 4 * * *", TOPIC)
    platform.schedules.pause("retrain")
    assert [schedule.paused for schedule in platform.schedules.list()] == [True]
    changes(cloud)
    platform.schedules.create("retrain", "0 5 * * *", "https://trigger-uc.a.run.app", {"a": 1})
    assert [each[:2] for each in changes(cloud)] == [("PATCH", f"/v1/{JOB}"), ("POST", f"/v1/{JOB}:resume")]
    assert platform.schedules.list() == [Schedule("retrain", "0 5 * * *", "https://trigger-uc.a.run.app", {"a": 1})]
    assert manifest(platform) == [Resource("schedule", JOB)]


def test_schedules_of_others_are_not_listed_and_survive_clean_up(platform, cloud):
    theirs = f"/v1/{PARENT}/jobs/theirs"
    cloud.documents[theirs] = {"name": theirs[4:], "schedule": "0 0 * * *"}
    for name in ("b", "a"):
        platform.schedules.create(name, "0 4 * * *", TOPIC)
    assert [schedule.name for schedule in platform.schedules.list()] == ["a", "b"]
    clean_up(platform, dry_run=False)
    assert platform.schedules.list() == []
    assert theirs in cloud.documents


def test_what_is_not_there_cannot_be_paused_but_deleted(platform):
    with pytest.raises(PlatformError, match=f"schedule {JOB} could not be paused: 404"):
        platform.schedules.pause("retrain")
    platform.schedules.delete("retrain")


def test_a_wrong_cron_string_is_refused_before_anything_is_sent(platform, cloud):
    with pytest.raises(ValueError, match="cron must have five fields"):
        platform.schedules.create("retrain", "every day", TOPIC)
    assert cloud.requests == []
