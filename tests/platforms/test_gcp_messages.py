"""Topics and subscriptions of Pub/Sub: the real clients talk to a rehearsal and whole requests are compared."""

import base64
from datetime import UTC, datetime

import pytest

from recbandits.config import Config
from recbandits.interactions import Reward
from recbandits.platforms import PlatformError, Resource
from recbandits.platforms.gcp import GcpPlatform
from recbandits.platforms.gcp.rehearsal import PROJECT_NUMBER, Rehearsal, error
from recbandits.platforms.provisioning import clean_up, manifest

PROJECT = "movie-lab-42"
TOPIC = f"projects/{PROJECT}/topics/recbandits-v1-rewards"
DEAD = f"projects/{PROJECT}/topics/recbandits-v1-rewards-dead"
READER = f"projects/{PROJECT}/subscriptions/recbandits-v1-audit"
LABELS = {"app": "recbandits", "prefix": "recbandits", "version": "v1"}
AGENT = f"serviceAccount:service-{PROJECT_NUMBER}@gcp-sa-pubsub.iam.gserviceaccount.com"


@pytest.fixture
def cloud():
    with Rehearsal() as cloud:
        yield cloud


@pytest.fixture
def platform(tmp_path, cloud):
    return GcpPlatform(Config(platform="gcp", project=PROJECT, artifacts=str(tmp_path)), cloud.endpoint)


def changes(cloud):
    """Method, path and body of what was changed since the last call."""
    made = [request for request in cloud.requests if request.method != "GET"]
    cloud.requests.clear()
    return [(request.method, request.path, request.body) for request in made]


def test_a_topic_is_made_once_and_listed(platform, cloud):
    assert [platform.messages.topic("rewards") for _ in range(2)] == [TOPIC, TOPIC]
    assert changes(cloud) == [("PUT", f"/v1/{TOPIC}", {"labels": LABELS})]
    assert manifest(platform) == [Resource("topic", TOPIC)]


def test_a_topic_of_somebody_else_is_used_and_stays(platform, cloud):
    cloud.documents[f"/v1/{TOPIC}"] = {"name": TOPIC}
    platform.messages.topic("rewards")
    assert manifest(platform) == []


def test_a_refusal_is_one_sentence_and_lists_nothing(platform, cloud, monkeypatch):
    answer = cloud.answer
    refusal = error(403, "User not\nauthorized")
    monkeypatch.setattr(cloud, "answer", lambda request: refusal if request.method == "PUT" else answer(request))
    with pytest.raises(PlatformError, match=f"topic {TOPIC} could not be made: 403 .*User not authorized"):
        platform.messages.topic("rewards")
    assert manifest(platform) == []


def test_a_subscription_keeps_a_week_and_never_expires(platform, cloud):
    topic = platform.messages.topic("rewards")
    changes(cloud)
    assert [platform.messages.subscription("audit", topic) for _ in range(2)] == [READER, READER]
    body = {
        "topic": TOPIC,
        "ackDeadlineSeconds": 60,
        "messageRetentionDuration": "604800s",
        "expirationPolicy": {},
        "labels": LABELS,
    }
    assert changes(cloud) == [("PUT", f"/v1/{READER}", body)]
    assert manifest(platform)[-1] == Resource("subscription", READER)


def test_a_subscription_of_no_topic_is_refused(platform):
    with pytest.raises(PlatformError, match=f"subscription {READER} could not be made: 404 .* was not found"):
        platform.messages.subscription("audit", TOPIC)
    assert manifest(platform) == []


def test_records_are_published_as_json_with_their_event(platform, cloud):
    topic = platform.messages.topic("rewards")
    platform.messages.subscription("audit", topic)
    changes(cloud)
    reward = Reward(event_id="a1", time=datetime(2026, 1, 1, tzinfo=UTC), value=4.0)
    platform.messages.publisher(topic).send([reward, reward])
    ((method, path, body),) = changes(cloud)
    assert (method, path) == ("POST", f"/v1/{TOPIC}:publish")
    message = {"data": base64.b64encode(reward.to_json().encode()).decode(), "attributes": {"event_id": "a1"}}
    assert body == {"messages": [message, message]}
    assert platform.messages.backlog("audit") == 2


def test_a_backlog_is_what_monitoring_counts(platform, cloud):
    assert platform.messages.backlog("audit") == 0, "a subscription that never had one has no series"
    (request,) = cloud.requests
    assert (request.method, request.path) == ("GET", f"/v3/projects/{PROJECT}/timeSeries")
    assert request.query["filter"] == (
        'metric.type="pubsub.googleapis.com/subscription/num_undelivered_messages" '
        'AND resource.labels.subscription_id="recbandits-v1-audit"'
    )


def test_what_cannot_be_delivered_goes_to_the_dead_letters_and_waits_there(platform, cloud):
    topic = platform.messages.topic("rewards")
    reader = platform.messages.subscription("audit", topic)
    changes(cloud)
    kept = platform.messages.bury(reader, topic)
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
    platform.messages.bury(reader, topic)
    assert [each[0] for each in changes(cloud)] == ["PATCH"], "the second time there is nothing to make or to allow"


def test_clean_up_removes_what_was_made_newest_first(platform, cloud):
    theirs = f"/v1/projects/{PROJECT}/topics/recbandits-v1-theirs"
    cloud.documents[theirs] = {"name": theirs[4:]}
    topic = platform.messages.topic("rewards")
    platform.messages.bury(platform.messages.subscription("audit", topic), topic)
    changes(cloud)
    clean_up(platform, dry_run=False)
    paths = [f"/v1/projects/{PROJECT}/subscriptions/recbandits-v1-rewards-dead", f"/v1/{DEAD}", f"/v1/{READER}"]
    assert [each[:2] for each in changes(cloud)] == [("DELETE", path) for path in [*paths, f"/v1/{TOPIC}"]]
    assert theirs in cloud.documents
    assert manifest(platform) == []


def test_deleting_twice_is_no_error(platform, cloud):
    platform.messages.topic("rewards")
    for _ in range(2):
        platform.messages.delete("rewards")
    assert f"/v1/{TOPIC}" not in cloud.documents
