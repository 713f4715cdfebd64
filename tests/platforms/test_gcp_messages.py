"""Topics and subscriptions of Pub/Sub: the real clients talk to a rehearsal and whole requests are compared."""

import base64
import os
from datetime import UTC, datetime

import pytest

from recbandits.platforms.gcp.rehearsal import PROJECT_NUMBER, error
from recbandits.platforms.protocol import PlatformError, Resource
from recbandits.platforms.provisioning import clean_up, manifest
from recbandits.records import Reward

PROJECT = "movie-lab-42"
TOPIC = f"projects/{PROJECT}/topics/recbandits-v1-rewards"
DEAD = f"projects/{PROJECT}/topics/recbandits-v1-rewards-dead"
READER = f"projects/{PROJECT}/subscriptions/recbandits-v1-audit"
LABELS = {"app": "recbandits", "prefix": "recbandits", "version": "v1"}
AGENT = f"serviceAccount:service-{PROJECT_NUMBER}@gcp-sa-pubsub.iam.gserviceaccount.com"


def changes(cloud):
    """Method, path and body of what was changed since the last call."""
    made = [request for request in cloud.requests if request.method != "GET"]
    cloud.requests.clear()
    return [(request.method, request.path, request.body) for request in made]


def test_a_topic_is_made_once_and_listed(gcp, cloud):
    assert [gcp.messages.topic("rewards") for _ in range(2)] == [TOPIC, TOPIC]
    assert changes(cloud) == [("PUT", f"/v1/{TOPIC}", {"labels": LABELS})]
    assert manifest(gcp) == [Resource("topic", TOPIC)]


def test_a_rehearsal_is_asked_although_the_environment_names_an_emulator(gcp, cloud, monkeypatch):
    monkeypatch.setenv("PUBSUB_EMULATOR_HOST", "127.0.0.1:1")
    gcp.messages.topic("rewards")
    assert changes(cloud) == [("PUT", f"/v1/{TOPIC}", {"labels": LABELS})]
    assert os.environ["PUBSUB_EMULATOR_HOST"] == "127.0.0.1:1"


def test_a_topic_of_somebody_else_is_used_and_stays(gcp, cloud):
    cloud.documents[f"/v1/{TOPIC}"] = {"name": TOPIC}
    gcp.messages.topic("rewards")
    assert manifest(gcp) == []


def test_a_refusal_is_one_sentence_and_lists_nothing(gcp, cloud, monkeypatch):
    answer = cloud.answer
    refusal = error(403, "User not\nauthorized")
    monkeypatch.setattr(cloud, "answer", lambda request: refusal if request.method == "PUT" else answer(request))
    with pytest.raises(PlatformError, match=f"topic {TOPIC} could not be made: 403 .*User not authorized"):
        gcp.messages.topic("rewards")
    assert manifest(gcp) == []


def test_a_subscription_keeps_a_week_and_never_expires(gcp, cloud):
    topic = gcp.messages.topic("rewards")
    changes(cloud)
    assert [gcp.messages.subscription("audit", topic) for _ in range(2)] == [READER, READER]
    body = {
        "topic": TOPIC,
        "ackDeadlineSeconds": 60,
        "messageRetentionDuration": "604800s",
        "expirationPolicy": {},
        "labels": LABELS,
    }
    assert changes(cloud) == [("PUT", f"/v1/{READER}", body)]
    assert manifest(gcp)[-1] == Resource("subscription", READER)


def test_a_subscription_of_no_topic_is_refused(gcp):
    with pytest.raises(PlatformError, match=f"subscription {READER} could not be made: 404 .* was not found"):
        gcp.messages.subscription("audit", TOPIC)
    assert manifest(gcp) == []


def test_records_are_published_as_json_with_their_event(gcp, cloud):
    topic = gcp.messages.topic("rewards")
    gcp.messages.subscription("audit", topic)
    changes(cloud)
    reward = Reward(event_id="a1", time=datetime(2026, 1, 1, tzinfo=UTC), value=4.0)
    gcp.messages.publisher(topic).send([reward, reward])
    ((method, path, body),) = changes(cloud)
    assert (method, path) == ("POST", f"/v1/{TOPIC}:publish")
    message = {"data": base64.b64encode(reward.to_json().encode()).decode(), "attributes": {"event_id": "a1"}}
    assert body == {"messages": [message, message]}
    assert gcp.messages.backlog("audit") == 2


def test_a_backlog_is_what_monitoring_counts(gcp, cloud):
    assert gcp.messages.backlog("audit") == 0, "a subscription that never had one has no series"
    (request,) = cloud.requests
    assert (request.method, request.path) == ("GET", f"/v3/projects/{PROJECT}/timeSeries")
    assert request.query["filter"] == (
        'metric.type="pubsub.googleapis.com/subscription/num_undelivered_messages" '
        'AND resource.labels.subscription_id="recbandits-v1-audit"'
    )


def test_what_cannot_be_delivered_goes_to_the_dead_letters_and_waits_there(gcp, cloud):
    topic = gcp.messages.topic("rewards")
    reader = gcp.messages.subscription("audit", topic)
    changes(cloud)
    kept = gcp.messages.bury(reader, topic)
    grants = [{"role": "roles/pubsub.publisher", "members": [AGENT]}]
    reads = [{"role": "roles/pubsub.subscriber", "members": [AGENT]}]
    made = changes(cloud)
    assert [each[:2] for each in made] == [
        ("PUT", f"/v1/{DEAD}"),
        ("PUT", f"/v1/{kept}"),
        ("POST", f"/v1/{DEAD}:setIamPolicy"),
        ("POST", f"/v1/{READER}:setIamPolicy"),
        ("PATCH", f"/v1/{READER}"),
    ]
    assert made[1][2]["topic"] == DEAD
    assert [made[index][2]["policy"]["bindings"] for index in (2, 3)] == [grants, reads]
    policy = {"deadLetterTopic": DEAD, "maxDeliveryAttempts": 10}
    document = {"deadLetterPolicy": policy, "ackDeadlineSeconds": 60}
    assert made[4][2] == {"subscription": document, "updateMask": "deadLetterPolicy,ackDeadlineSeconds"}
    gcp.messages.bury(reader, topic)
    assert [each[0] for each in changes(cloud)] == ["PATCH"], "the second time there is nothing to make or to allow"


def test_clean_up_removes_what_was_made_newest_first(gcp, cloud):
    theirs = f"/v1/projects/{PROJECT}/topics/recbandits-v1-theirs"
    cloud.documents[theirs] = {"name": theirs[4:]}
    topic = gcp.messages.topic("rewards")
    gcp.messages.bury(gcp.messages.subscription("audit", topic), topic)
    changes(cloud)
    clean_up(gcp, dry_run=False)
    paths = [f"/v1/projects/{PROJECT}/subscriptions/recbandits-v1-rewards-dead", f"/v1/{DEAD}", f"/v1/{READER}"]
    assert [each[:2] for each in changes(cloud)] == [("DELETE", path) for path in [*paths, f"/v1/{TOPIC}"]]
    assert theirs in cloud.documents
    assert manifest(gcp) == []


def test_deleting_twice_is_no_error(gcp, cloud):
    gcp.messages.topic("rewards")
    for _ in range(2):
        gcp.messages.delete("rewards")
    assert f"/v1/{TOPIC}" not in cloud.documents
