"""Topics and subscriptions of Pub/Sub: what Google's clients ask for, and what they refuse."""

import base64
from datetime import UTC, datetime

import pytest
from google.api_core import exceptions

from recbandits.config import Config
from recbandits.platforms.gcp.messages import GcpMessages
from recbandits.platforms.protocol import PlatformError
from recbandits.records import Reward
from tests.recorder import PROJECT_NUMBER

PROJECT = "movie-lab-42"
TOPIC = f"projects/{PROJECT}/topics/recbandits-v1-rewards"
DEAD = f"projects/{PROJECT}/topics/recbandits-v1-rewards-dead"
READER = f"projects/{PROJECT}/subscriptions/recbandits-v1-audit"
LABELS = {"app": "recbandits", "prefix": "recbandits", "version": "v1"}
AGENT = f"serviceAccount:service-{PROJECT_NUMBER}@gcp-sa-pubsub.iam.gserviceaccount.com"
MONITORING = f"GET https://monitoring.googleapis.com/v3/projects/{PROJECT}/timeSeries"


@pytest.fixture
def messages(cloud):
    return GcpMessages(Config(platform="gcp", project=PROJECT))


def test_a_topic_is_asked_for_first_and_made_once(messages, cloud):
    """A topic of another project is used as it is: it does not get our labels, by which clean-up tells what is ours."""
    assert [messages.topic("rewards") for _ in range(2)] == [TOPIC, TOPIC]
    (request,) = cloud.requests("CreateTopic")
    assert (request["name"], request["labels"]) == (TOPIC, LABELS)
    assert cloud.methods() == ["GetTopic", "CreateTopic", "GetTopic"]


def test_a_refusal_is_one_sentence(messages, cloud):
    cloud.answers["CreateTopic"] = exceptions.PermissionDenied("User not\nauthorized")
    with pytest.raises(PlatformError, match=rf"topic {TOPIC}.*: 403 User not authorized$"):
        messages.topic("rewards")


def test_a_subscription_keeps_a_week_and_never_expires(messages, cloud):
    assert [messages.subscription("audit", TOPIC) for _ in range(2)] == [READER, READER]
    (request,) = cloud.requests("CreateSubscription")
    assert (request["name"], request["topic"], request["labels"]) == (READER, TOPIC, LABELS)
    assert (request["ackDeadlineSeconds"], request["messageRetentionDuration"]) == (60, "604800s")
    assert request["expirationPolicy"] == {}


def test_records_are_published_as_json_with_their_event(messages, cloud):
    reward = Reward(event_id="a1", time=datetime(2026, 1, 1, tzinfo=UTC), value=4.0)
    messages.publisher(TOPIC).send([reward, reward])
    message = {"data": base64.b64encode(reward.to_json().encode()).decode(), "attributes": {"event_id": "a1"}}
    assert cloud.requests("Publish") == [{"topic": TOPIC, "messages": [message, message]}]


def series(*counts):
    """Return the answer of Cloud Monitoring for numbers of waiting messages by subscription, the newest point first."""
    points = [{"points": [{"value": {"int64Value": str(count)}}, {"value": {"int64Value": "9"}}]} for count in counts]
    return {"timeSeries": points}


def test_the_backlog_of_a_topic_is_that_of_all_its_subscriptions(messages, cloud):
    """The names of Eventarc's subscriptions cannot be predicted."""
    messages.topic("rewards")
    eventarc = f"projects/{PROJECT}/subscriptions/eventarc-us-central1-recbandits-v1-log-reward-123456-sub-789"
    cloud.answers |= {"ListTopicSubscriptions": {"subscriptions": [eventarc]}, MONITORING: series(3, 4)}
    assert messages.backlog("rewards") == 7
    assert cloud.requests("ListTopicSubscriptions") == [{"topic": TOPIC}]
    metric, _, condition = cloud.requests(MONITORING)[0]["query"]["filter"].partition(" AND ")
    assert metric == 'metric.type="pubsub.googleapis.com/subscription/num_undelivered_messages"'
    assert sorted(condition.strip("()").split(" OR ")) == [
        f'resource.labels.subscription_id="{name}"' for name in (eventarc.rpartition("/")[2], "recbandits-v1-rewards")
    ]


def test_the_backlog_of_a_subscription_needs_no_topic_of_its_name(messages, cloud):
    cloud.answers |= {"ListTopicSubscriptions": exceptions.NotFound("no topic"), MONITORING: series(2)}
    assert messages.backlog("audit") == 2
    assert '(resource.labels.subscription_id="recbandits-v1-audit")' in cloud.requests(MONITORING)[0]["query"]["filter"]
    cloud.answers[MONITORING] = {}
    assert messages.backlog("audit") == 0, "one that never had a message has no series"


def test_what_cannot_be_delivered_goes_to_the_dead_letters_and_waits_there(messages, cloud):
    reader = messages.subscription("audit", messages.topic("rewards"))
    messages.add_dead_letters(reader, TOPIC)
    assert [each["name"] for each in cloud.requests("CreateTopic")] == [TOPIC, DEAD]
    letters = cloud.requests("CreateSubscription")[-1]
    assert (letters["topic"], letters["name"]) == (DEAD, DEAD.replace("/topics/", "/subscriptions/"))
    assert cloud.requests("SetIamPolicy") == [
        {"resource": DEAD, "policy": {"bindings": [{"role": "roles/pubsub.publisher", "members": [AGENT]}]}},
        {"resource": READER, "policy": {"bindings": [{"role": "roles/pubsub.subscriber", "members": [AGENT]}]}},
    ]
    (change,) = cloud.requests("UpdateSubscription")
    assert change["subscription"]["deadLetterPolicy"] == {"deadLetterTopic": DEAD, "maxDeliveryAttempts": 10}
    assert change["updateMask"] == "deadLetterPolicy,ackDeadlineSeconds"
    cloud.calls.clear()
    messages.add_dead_letters(reader, TOPIC)
    assert cloud.methods("Create", "Set", "Update") == ["UpdateSubscription"]


def test_an_account_may_publish_to_its_topic_and_what_others_may_stays(messages, cloud):
    messages.topic("rewards")
    messages.allow(TOPIC, "roles/pubsub.publisher", "one@x.iam.gserviceaccount.com")
    messages.allow(TOPIC, "roles/pubsub.publisher", "two@x.iam.gserviceaccount.com")
    bindings = cloud.requests("SetIamPolicy")[-1]["policy"]["bindings"]
    assert [each["members"] for each in bindings] == [
        [f"serviceAccount:{n}@x.iam.gserviceaccount.com"] for n in ("one", "two")
    ]


def test_deleting_removes_the_topic_and_its_subscription_and_twice_is_no_error(messages, cloud):
    messages.subscription("rewards", messages.topic("rewards"))
    for _ in range(2):
        messages.delete("rewards")
    assert cloud.resources == {}
    assert cloud.methods("Delete") == ["DeleteSubscription", "DeleteTopic"] * 2
