"""Cloud Functions, Eventarc and Cloud Scheduler, rehearsed: a function of a source in the bucket is there at once."""

from recbandits.platforms.gcp.rehearsal.answers import done, drop, error, keep, look
from recbandits.platforms.gcp.rehearsal.vertex import find

_PLACE = r"/v[12]/projects/[^/]+/locations/[^/]+"
_FUNCTION = f"{_PLACE}/functions/[^/]+"
_JOB = f"{_PLACE}/jobs/[^/:]+"


def _deploy(documents, request):
    """A function that a topic triggers gets a trigger of Eventarc's, and this a subscription of its own."""
    path = f"{request.path}/{request.query['functionId']}"
    refusal = _missing_source(documents, request.body)
    if refusal or (refusal := keep(documents, path, request.body)):
        return refusal
    name = path.rpartition("/")[2]
    document = request.body | {"name": path.removeprefix("/v2/"), "state": "ACTIVE"}
    document["serviceConfig"] = document["serviceConfig"] | {"uri": f"https://{name}-rehearsal-uc.a.run.app"}
    if "eventTrigger" in document:
        document["eventTrigger"] = document["eventTrigger"] | {"trigger": _listen(documents, path, name, document)}
    documents[path] = document
    return done("cloud.functions.v2.Function", document)


def _listen(documents, path, name, function):
    project = path.split("/")[3]
    subscription = f"projects/{project}/subscriptions/eventarc-us-central1-{name}-sub-1"
    trigger = f"{path.rpartition('/functions/')[0].removeprefix('/v2/')}/triggers/{name}-1"
    documents[f"/v1/{subscription}"] = {"name": subscription, "topic": function["eventTrigger"]["pubsubTopic"]}
    pubsub = {"topic": function["eventTrigger"]["pubsubTopic"], "subscription": subscription}
    documents[f"/v1/{trigger}"] = {"name": trigger, "transport": {"pubsub": pubsub}}
    return trigger


def _missing_source(documents, function):
    source = function["buildConfig"]["source"]["storageSource"]
    place = f"gs://{source['bucket']}/{source['object']}"
    return None if f"contents of {place}" in documents else error(400, f"source {place} was not found")


def _change(documents, request):
    """The parts that the mask names are new; what the service has added stays."""
    if request.path not in documents:
        return error(404, f"{request.path} was not found")
    if refusal := _missing_source(documents, request.body):
        return refusal
    before = documents[request.path]
    document = before | {part: before.get(part, {}) | request.body[part] for part in ("buildConfig", "serviceConfig")}
    documents[request.path] = document
    return done("cloud.functions.v2.Function", document)


def _drop(documents, request):
    status, document = 200, documents.get(request.path, {})
    if trigger := document.get("eventTrigger", {}).get("trigger"):
        gone = documents.pop(f"/v1/{trigger}")
        documents.pop(f"/v1/{gone['transport']['pubsub']['subscription']}", None)
    status, document = drop(documents, request)
    return done("protobuf.Empty") if status == 200 else (status, document)


def _schedule(documents, request):
    document = request.body | {"state": "ENABLED"}
    return keep(documents, f"/v1/{document['name']}", document) or (200, document)


def _reschedule(documents, request):
    if request.path not in documents:
        return error(404, f"{request.path} was not found")
    targets = {"pubsubTarget", "httpTarget"} & request.body.keys()
    kept = {key: value for key, value in documents[request.path].items() if not (targets and key.endswith("Target"))}
    documents[request.path] = kept | request.body
    return look(documents, request)


def _switch(documents, request, path, verb):
    if path not in documents:
        return error(404, f"{path} was not found")
    before, after = {"pause": ("ENABLED", "PAUSED"), "resume": ("PAUSED", "ENABLED")}[verb]
    if documents[path]["state"] != before:
        return error(400, f"{path} must be {before}, it is {documents[path]['state']}", "FAILED_PRECONDITION")
    documents[path]["state"] = after
    return 200, documents[path]


ROUTES = [
    ("POST", f"{_PLACE}/functions", _deploy),
    ("GET", f"{_FUNCTION}|{_PLACE}/triggers/[^/]+|{_JOB}", look),
    ("PATCH", _FUNCTION, _change),
    ("DELETE", _FUNCTION, _drop),
    ("POST", f"{_PLACE}/jobs", _schedule),
    ("GET", f"{_PLACE}/jobs", find),
    ("PATCH", _JOB, _reschedule),
    ("DELETE", _JOB, drop),
    ("POST", f"({_JOB}):(pause|resume)", _switch),
]
