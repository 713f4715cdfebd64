"""Jobs of Cloud Scheduler: the real client talks to a rehearsal and whole requests are compared."""

import base64

import pytest

from recbandits.platforms.protocol import PlatformError, Resource
from recbandits.platforms.provisioning import clean_up, manifest
from recbandits.platforms.schedules import Schedule

PROJECT = "movie-lab-42"
PARENT = f"projects/{PROJECT}/locations/us-central1"
JOB = f"{PARENT}/jobs/recbandits-v1-retrain"
TOPIC = f"projects/{PROJECT}/topics/recbandits-v1-ticks"
ACCOUNT = f"recbandits-v1-sa@{PROJECT}.iam.gserviceaccount.com"


def changes(cloud):
    made = [request for request in cloud.requests if request.method != "GET"]
    cloud.requests.clear()
    return [(request.method, request.path, request.body) for request in made]


def test_a_schedule_that_publishes_sends_exactly_this(gcp, cloud):
    made = gcp.schedules.create("retrain", "*/10 * * * *", TOPIC, {"least": 500})
    assert made == Schedule("retrain", "*/10 * * * *", TOPIC, {"least": 500})
    body = {
        "name": JOB,
        "description": "RecBandits recbandits-v1",
        "schedule": "*/10 * * * *",
        "timeZone": "Etc/UTC",
        "pubsubTarget": {"topicName": TOPIC, "data": base64.b64encode(b'{"least": 500}').decode()},
    }
    assert changes(cloud) == [("POST", f"/v1/{PARENT}/jobs", body)]
    assert manifest(gcp) == [Resource("schedule", JOB)]


def test_a_schedule_that_calls_signs_in_as_the_service_account(gcp, cloud):
    gcp.schedules.create("burst", "* * * * *", "https://simulator-uc.a.run.app", {"visits": 60})
    ((_, _, body),) = changes(cloud)
    assert body["httpTarget"] == {
        "uri": "https://simulator-uc.a.run.app",
        "httpMethod": 1,
        "headers": {"Content-Type": "application/json"},
        "body": base64.b64encode(b'{"visits": 60}').decode(),
        "oidcToken": {"serviceAccountEmail": ACCOUNT, "audience": "https://simulator-uc.a.run.app"},
    }, "1 is POST"
    assert gcp.schedules.list()[0].target == "https://simulator-uc.a.run.app"


def test_the_same_name_again_changes_what_is_there_and_wakes_it(gcp, cloud):
    gcp.schedules.create("retrain", "0 4 * * *", TOPIC)
    gcp.schedules.pause("retrain")
    assert [schedule.paused for schedule in gcp.schedules.list()] == [True]
    changes(cloud)
    gcp.schedules.create("retrain", "0 5 * * *", "https://trigger-uc.a.run.app", {"a": 1})
    assert [each[:2] for each in changes(cloud)] == [("PATCH", f"/v1/{JOB}"), ("POST", f"/v1/{JOB}:resume")]
    assert gcp.schedules.list() == [Schedule("retrain", "0 5 * * *", "https://trigger-uc.a.run.app", {"a": 1})]
    gcp.schedules.create("retrain", "0 6 * * *", TOPIC)
    assert [each[0] for each in changes(cloud)] == ["PATCH"], "what is awake is not woken, which is refused"
    gcp.schedules.pause("retrain")
    gcp.schedules.pause("retrain")
    assert [each[:2] for each in changes(cloud)] == [("POST", f"/v1/{JOB}:pause")]
    assert manifest(gcp) == [Resource("schedule", JOB)]


def test_schedules_of_others_are_not_listed_and_survive_clean_up(gcp, cloud):
    theirs = f"/v1/{PARENT}/jobs/theirs"
    cloud.documents[theirs] = {"name": theirs[4:], "schedule": "0 0 * * *"}
    for name in ("b", "a"):
        gcp.schedules.create(name, "0 4 * * *", TOPIC)
    assert [schedule.name for schedule in gcp.schedules.list()] == ["a", "b"]
    clean_up(gcp, dry_run=False)
    assert gcp.schedules.list() == []
    assert theirs in cloud.documents


def test_what_is_not_there_cannot_be_paused_but_deleted(gcp):
    with pytest.raises(PlatformError, match=f"schedule {JOB} could not be paused: 404"):
        gcp.schedules.pause("retrain")
    gcp.schedules.delete("retrain")


def test_a_wrong_cron_string_is_refused_before_anything_is_sent(gcp, cloud):
    with pytest.raises(ValueError, match="cron must have five fields"):
        gcp.schedules.create("retrain", "every day", TOPIC)
    assert cloud.requests == []
