"""Pub/Sub, rehearsed: topics, subscriptions and how many messages each of these has not delivered (all of them)."""

import re

from recbandits.platforms.gcp.rehearsal.answers import drop, error, keep, look
from recbandits.platforms.gcp.rehearsal.vertex import find

_TOPIC = r"/v1/projects/[^/]+/topics/[^/:]+"
_SUBSCRIPTION = r"/v1/projects/[^/]+/subscriptions/[^/:]+"


def _make(documents, request):
    document = request.body | {"name": request.path.removeprefix("/v1/")}
    topics = [document.get("topic"), document.get("deadLetterPolicy", {}).get("deadLetterTopic")]
    for topic in filter(None, topics):
        if f"/v1/{topic}" not in documents:
            return error(404, f"{topic} was not found")
    return keep(documents, request.path, document) or (200, document)


def _change(documents, request):
    if request.path not in documents:
        return error(404, f"{request.path} was not found")
    documents[request.path] |= request.body["subscription"]
    return look(documents, request)


def _publish(documents, request, topic):
    if topic not in documents:
        return error(404, f"{topic} was not found")
    messages = request.body["messages"]
    for path in [path for path in documents if re.fullmatch(_SUBSCRIPTION, path)]:
        if f"/v1/{documents[path]['topic']}" == topic:
            documents.setdefault(f"messages of {path}", []).extend(messages)
    return 200, {"messageIds": [str(number) for number, _ in enumerate(messages, 1)]}


def _drop_topic(documents, request):
    for document in documents.values():
        if isinstance(document, dict) and f"/v1/{document.get('topic')}" == request.path:
            document["topic"] = "_deleted-topic_"
    return drop(documents, request)


def _count(documents, request, project):
    """Cloud Monitoring's newest value of num_undelivered_messages; a subscription without messages has no series."""
    (name,) = re.findall(r'resource\.labels\.subscription_id="([^"]+)"', request.query["filter"])
    waiting = len(documents.get(f"messages of /v1/{project}/subscriptions/{name}", []))
    point = {"interval": {"endTime": request.query["interval.endTime"]}, "value": {"int64Value": str(waiting)}}
    return 200, {"timeSeries": [{"points": [point]}]} if waiting else {}


ROUTES = [
    ("PUT", f"{_TOPIC}|{_SUBSCRIPTION}", _make),
    ("GET", f"{_TOPIC}|{_SUBSCRIPTION}", look),
    ("GET", r"/v1/projects/[^/]+/(?:topics|subscriptions)", find),
    ("PATCH", _SUBSCRIPTION, _change),
    ("DELETE", _TOPIC, _drop_topic),
    ("DELETE", _SUBSCRIPTION, drop),
    ("POST", f"({_TOPIC}):publish", _publish),
    ("GET", r"/v3/(projects/[^/]+)/timeSeries", _count),
]
