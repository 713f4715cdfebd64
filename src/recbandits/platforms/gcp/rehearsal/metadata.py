"""Vertex AI's experiment tracking, rehearsed: ML Metadata (contexts, artifacts) and managed TensorBoards."""

from recbandits.platforms.gcp.rehearsal.answers import done, error, look
from recbandits.platforms.gcp.rehearsal.vertex import PLACE, create, find, patch

_STORE = f"{PLACE}/metadataStores/[^/]+"
_NODES = f"{_STORE}/(?:contexts|artifacts|executions)"
_BOARD = f"{PLACE}/tensorboards/[^/:]+"
_CURVES = f"{_BOARD}/experiments/[^/]+/runs/[^/]+"
_V1 = "cloud.aiplatform.v1"


def _make_store(documents, request):
    refusal, document = create(documents, request)
    return refusal or done(f"{_V1}.MetadataStore", document)


def _make(documents, request):
    refusal, document = create(documents, request)
    return refusal or (200, document)


def _find_nodes(documents, request):
    """As `find`, among the members of a context where the filter names one."""
    terms = request.query.get("filter", "").split(" AND ")
    others = " AND ".join(term for term in terms if not term.startswith("in_context"))
    status, answer = find(documents, request, others)
    for term in terms:
        if term.startswith("in_context"):
            members = documents.get(f"/v1/{term[len('in_context(') + 1 : -2]}:members", [])
            answer = {kind: [node for node in nodes if node["name"] in members] for kind, nodes in answer.items()}
    return status, answer


def _upsert(documents, request):
    """Nodes are patched whether they are there or not, when the client allows for it."""
    if request.path not in documents and request.query.get("allowMissing") != "true":
        return error(404, f"{request.path} was not found")
    documents.setdefault(request.path, {"name": request.path.removeprefix("/v1/")})
    return patch(documents, request)


def _add_children(documents, request, path):
    for child in request.body["childContexts"]:
        documents[f"/v1/{child}"].setdefault("parentContexts", []).append(path.removeprefix("/v1/"))
    return 200, {}


def _add_members(documents, request, path):
    members = documents.setdefault(f"{path}:members", [])
    members += [*request.body.get("artifacts", []), *request.body.get("executions", [])]
    return 200, {}


def _make_board(documents, request):
    refusal, document = create(documents, request)
    return refusal or done(f"{_V1}.Tensorboard", document)


def _find_in_board(documents, request):
    """Below a TensorBoard lists have longer names."""
    status, answer = find(documents, request)
    return status, {f"tensorboard{kind[0].upper()}{kind[1:]}": found for kind, found in answer.items()}


def _write(documents, request, run):
    for series in request.body["timeSeriesData"]:
        path = f"{run}/timeSeries/{series['tensorboardTimeSeriesId']}:values"
        documents.setdefault(path, {"values": []})["values"] += series["values"]
    return 200, {}


def _read(documents, request):
    names = request.query["timeSeries"].split(",")
    return 200, {"timeSeriesData": [_curve(documents, name) for name in names]}


def _curve(documents, name):
    values = documents.get(f"/v1/{name}:values", {"values": []})["values"]
    return {"tensorboardTimeSeriesId": name.rpartition("/")[2], "valueType": "SCALAR", "values": values}


ROUTES = [
    ("POST", f"{PLACE}/metadataStores", _make_store),
    ("GET", _STORE, look),
    ("POST", _NODES, _make),
    ("GET", _NODES, _find_nodes),
    ("GET", f"{_NODES}/[^/:]+", look),
    ("PATCH", f"{_NODES}/[^/:]+", _upsert),
    ("POST", f"({_NODES}/[^/:]+):addContextChildren", _add_children),
    ("POST", f"({_NODES}/[^/:]+):addContextArtifactsAndExecutions", _add_members),
    ("POST", f"{PLACE}/tensorboards", _make_board),
    ("GET", f"{PLACE}/tensorboards", find),
    ("POST", f"{_BOARD}(?:/experiments(?:/[^/]+/runs(?:/[^/]+/timeSeries)?)?)", _make),
    ("GET", f"{_BOARD}(?:/experiments(?:/[^/]+/runs(?:/[^/]+/timeSeries)?)?)", _find_in_board),
    ("GET", f"{_BOARD}:batchRead", _read),
    ("POST", f"({_CURVES}):write", _write),
    ("GET", f"{_BOARD}(?:/experiments/[^/]+(?:/runs/[^/]+)?)?", look),
]
