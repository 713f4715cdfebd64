"""Vertex AI, rehearsed: jobs that succeed at once, models with versions, endpoints with traffic.

A trial of a study takes the middle of each parameter, and its value is its number.
"""

import re

from recbandits.platforms.gcp.rehearsal.answers import done, drop, error, keep, look
from recbandits.platforms.gcp.rehearsal.storage import put

PLACE = r"/v1/projects/[^/]+/locations/[^/]+"
_ENDPOINT = f"{PLACE}/endpoints/[^/:]+"
_JOB = "(?:customJobs|hyperparameterTuningJobs|batchPredictionJobs|pipelineJobs)"
_TIME = "2026-01-01T00:00:00Z"
_V1 = "cloud.aiplatform.v1"


def create(documents, request, **fields):
    """Keep the body under the id that the client chose, or under a number; gives the refusal and the document."""
    chosen = [value for key, value in request.query.items() if key.endswith("Id")]
    path = f"{request.path}/{chosen[0] if chosen else 1 + len(documents)}"
    document = request.body | fields | {"name": path.removeprefix("/v1/")}
    return keep(documents, path, document), document


def find(documents, request, condition=None):
    """Answer the list of a kind with the documents that fit the filter, or a condition instead, newest first."""
    kind = request.path.rpartition("/")[2]
    condition = request.query.get("filter", "") if condition is None else condition
    paths = [path for path in documents if re.fullmatch(f"{re.escape(request.path)}/[^/:]+", path)]
    fitting = [documents[path] for path in paths if _fits(documents[path], condition)]
    return 200, {kind: fitting[::-1]}


def patch(documents, request):
    """Answer PATCH with the fields that are named in the mask changed."""
    if request.path not in documents:
        return error(404, f"{request.path} was not found")
    documents[request.path] |= request.body
    return look(documents, request)


def _fits(document, condition):
    """Whether a document has what a filter asks for: `field="value"`, `field:"element"`, AND, (OR)."""
    parts = (part.strip("()").split(" OR ") for part in condition.split(" AND ") if part)
    return all(
        any(_holds(document, *re.fullmatch(r'([\w.]+)([=:])"(.*)"', term).groups()) for term in part) for part in parts
    )


def _holds(document, field, operator, value):
    for name in field.split("."):
        document = document.get(re.sub("_(.)", lambda found: found[1].upper(), name), {})
    return value in document if operator == ":" else value == document


def _start_job(documents, request):
    """Every job has succeeded when it is asked for again; what creation answers is that it waits."""
    trials = [_trial(number, request.body) for number in range(1, 1 + request.body.get("maxTrialCount", 0))]
    word = "PIPELINE" if request.path.endswith("/pipelineJobs") else "JOB"
    ended = {"state": f"{word}_STATE_SUCCEEDED", "createTime": _TIME, "startTime": _TIME, "endTime": _TIME}
    refusal, document = create(documents, request, **ended, **({"trials": trials} if trials else {}))
    if "inputConfig" in document:
        documents[f"{request.path}/{document['name'].rpartition('/')[2]}"]["outputInfo"] = _answer_all(
            documents, document
        )
    return refusal or (200, document | {"state": f"{word}_STATE_PENDING"})


def _trial(number, study):
    parameters = study["studySpec"]["parameters"]
    values = [{"parameterId": parameter["parameterId"], "value": _middle(parameter)} for parameter in parameters]
    metrics = [{"metricId": metric["metricId"], "value": number} for metric in study["studySpec"]["metrics"]]
    return {"id": str(number), "state": "SUCCEEDED", "parameters": values, "finalMeasurement": {"metrics": metrics}}


def _middle(parameter):
    for kind in ("doubleValueSpec", "integerValueSpec"):
        if kind in parameter:
            low, high = (float(parameter[kind].get(bound, 0)) for bound in ("minValue", "maxValue"))
            return (low + high) / 2 if kind == "doubleValueSpec" else float((low + high) // 2)
    values = (parameter.get("discreteValueSpec") or parameter["categoricalValueSpec"])["values"]
    return values[len(values) // 2]


def _answer_all(documents, job):
    """What batch prediction has written: each instance is echoed."""
    (source,) = job["inputConfig"]["gcsSource"]["uris"]
    lines = documents[f"contents of {source}"].splitlines()
    place = f"{job['outputConfig']['gcsDestination']['outputUriPrefix']}/prediction"
    bucket, _, folder = place.removeprefix("gs://").partition("/")
    answers = b"".join(b'{"instance": %b, "prediction": {"echo": %b}}\n' % (line, line) for line in lines)
    put(documents, bucket, f"{folder}/prediction.results-00000-of-00001", answers)
    return {"gcsOutputDirectory": place}


def _cancel(documents, _, path):
    documents[path]["state"] = f"{'PIPELINE' if '/pipelineJobs/' in path else 'JOB'}_STATE_CANCELLED"
    return 200, {}


def _drop_run(documents, request):
    state = documents.get(request.path, {}).get("state", "PIPELINE_STATE_CANCELLED")
    if state.rpartition("_")[2] not in ("SUCCEEDED", "FAILED", "CANCELLED"):
        return error(400, f"{request.path} has not ended")
    return _drop_at_once(documents, request)


def _upload_model(documents, request, place):
    """A new model, or a new version of one, which is kept under its number and under each alias."""
    parent = request.body.get("parentModel")
    path = f"/v1/{parent}" if parent else f"{place}/models/{request.body['modelId']}"
    version = str(1 + sum(other.startswith(f"{path}@") and other[len(path) + 1 :].isdigit() for other in documents))
    document = request.body["model"] | {"name": path.removeprefix("/v1/"), "versionId": version}
    for alias in ("", f"@{version}", *(f"@{alias}" for alias in document.get("versionAliases", []))):
        documents[f"{path}{alias}"] = document
    return done(f"{_V1}.UploadModelResponse", {"model": document["name"], "modelVersionId": version})


def _drop_model(documents, request):
    """All versions of a model, unless one of them is deployed."""
    name = request.path.removeprefix("/v1/")
    endpoints = [document for document in documents.values() if isinstance(document, dict)]
    deployed = [model for endpoint in endpoints for model in endpoint.get("deployedModels", [])]
    if any(model["model"].partition("@")[0] == name for model in deployed):
        return error(400, f"{name} is deployed")
    for path in [path for path in documents if path.startswith(f"{request.path}@")]:
        del documents[path]
    status, document = drop(documents, request)
    return done("protobuf.Empty") if status == 200 else (status, document)


def _make_schedule(documents, request):
    refusal, document = create(documents, request, state="ACTIVE")
    return refusal or (200, document)


def _drop_at_once(documents, request):
    status, document = drop(documents, request)
    return done("protobuf.Empty") if status == 200 else (status, document)


def _make_endpoint(documents, request):
    refusal, document = create(documents, request)
    return refusal or done(f"{_V1}.Endpoint", document)


def _deploy(documents, request, path):
    endpoint, deployed = documents[path], request.body["deployedModel"]
    deployed = deployed | {"id": str(1 + len(endpoint.get("deployedModels", []))), "createTime": _TIME}
    endpoint["deployedModels"] = [*endpoint.get("deployedModels", []), deployed]
    split = request.body.get("trafficSplit", {})
    endpoint["trafficSplit"] = {deployed["id"] if key == "0" else key: share for key, share in split.items()}
    return done(f"{_V1}.DeployModelResponse", {"deployedModel": deployed})


def _undeploy(documents, request, path):
    endpoint, gone = documents[path], request.body["deployedModelId"]
    others = [model for model in endpoint["deployedModels"] if model["id"] != gone]
    if endpoint["trafficSplit"].get(gone) and others:
        return error(400, f"deployed model {gone} has traffic")
    endpoint["deployedModels"] = others
    endpoint["trafficSplit"] = {key: share for key, share in endpoint["trafficSplit"].items() if key != gone}
    return done(f"{_V1}.UndeployModelResponse")


def _drop_endpoint(documents, request):
    if documents.get(request.path, {}).get("deployedModels"):
        return error(400, "the endpoint still has deployed models")
    status, document = drop(documents, request)
    return done("protobuf.Empty") if status == 200 else (status, document)


def _predict(_, request, *__):
    return 200, {"predictions": [{"echo": instance} for instance in request.body.get("instances", [])]}


ROUTES = [
    ("POST", f"{PLACE}/{_JOB}", _start_job),
    ("GET", f"{PLACE}/{_JOB}", find),
    ("GET", f"{PLACE}/{_JOB}/[^/:]+", look),
    ("POST", f"({PLACE}/{_JOB}/[^/:]+):cancel", _cancel),
    ("DELETE", f"{PLACE}/pipelineJobs/[^/:]+", _drop_run),
    ("POST", f"{PLACE}/schedules", _make_schedule),
    ("GET", f"{PLACE}/schedules", find),
    ("DELETE", f"{PLACE}/schedules/[^/:]+", _drop_at_once),
    ("POST", f"({PLACE})/models:upload", _upload_model),
    ("GET", f"{PLACE}/models/[^/:]+", look),
    ("DELETE", f"{PLACE}/models/[^/:@]+", _drop_model),
    ("POST", f"{PLACE}/endpoints", _make_endpoint),
    ("GET", _ENDPOINT, look),
    ("PATCH", _ENDPOINT, patch),
    ("DELETE", _ENDPOINT, _drop_endpoint),
    ("POST", f"({_ENDPOINT}):deployModel", _deploy),
    ("POST", f"({_ENDPOINT}):undeployModel", _undeploy),
    ("POST", f"({_ENDPOINT}):(?:predict|rawPredict)", _predict),
]
