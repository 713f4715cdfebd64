"""Endpoints of Vertex AI keep the contract; its real clients talk to a rehearsal and whole requests are compared."""

import json
import re
from hashlib import sha256

import pytest
from endpoints_contract import EndpointsContract

from recbandits.config import Config
from recbandits.platforms.gcp import GcpPlatform
from recbandits.platforms.gcp.rehearsal import Rehearsal, error, rehearse
from recbandits.platforms.protocol import PlatformError
from recbandits.serving.policy import load

PROJECT = "movie-lab-42"
BUCKET = f"{PROJECT}-recbandits-v1"
PARENT = f"projects/{PROJECT}/locations/us-central1"
ENDPOINT = f"/v1/{PARENT}/endpoints/recbandits-v1"
ACCOUNT = f"recbandits-v1-sa@{PROJECT}.iam.gserviceaccount.com"
LABELS = {"app": "recbandits", "prefix": "recbandits", "version": "v1"}
TAG = f"/v1/{PARENT}/repositories/recbandits-v1/packages/serve/tags/v1"
DIGEST = sha256(TAG.encode()).hexdigest()  # of a tag whose image was not built in the rehearsal
CONTAINER = {
    "imageUri": f"us-central1-docker.pkg.dev/{PROJECT}/recbandits-v1/serve@sha256:{DIGEST}",
    "env": [
        {"name": "HANDLER_MODULE", "value": "recbandits.serving.predictor"},
        {"name": "HANDLER_CLASS", "value": "BanditHandler"},
        {"name": "PREDICTOR_MODULE", "value": "recbandits.serving.predictor"},
        {"name": "PREDICTOR_CLASS", "value": "BanditPredictor"},
    ],
    "ports": [{"containerPort": 8080}],
    "predictRoute": "/predict",
    "healthRoute": "/health",
}


@pytest.fixture
def cloud():
    with Rehearsal() as cloud:
        yield cloud


@pytest.fixture
def config(tmp_path_factory):
    return Config(platform="gcp", project=PROJECT, artifacts=str(tmp_path_factory.mktemp("artifacts")))


@pytest.fixture
def platform(config, cloud):
    return GcpPlatform(config, cloud.endpoint)


@pytest.fixture
def endpoint(platform):
    return platform.endpoints.create()


def changes(cloud):
    """Method, path and body of what was changed since the last call, without uploads to the bucket."""
    made = [request for request in cloud.requests if request.method != "GET" and "/storage/" not in request.path]
    cloud.requests.clear()
    return [(request.method, request.path, request.body) for request in made]


class TestGcpEndpoints(EndpointsContract):
    pass


def test_an_endpoint_is_created_once_under_its_own_id(platform, cloud):
    endpoint = platform.endpoints.create()
    (made,) = (request for request in cloud.requests if request.method == "POST")
    assert made.path == f"/v1/{PARENT}/endpoints"
    assert made.query["endpointId"] == "recbandits-v1"
    assert made.body == {"displayName": "recbandits-v1", "labels": LABELS}
    cloud.requests.clear()
    assert platform.endpoints.create().resource_name == endpoint.resource_name == ENDPOINT.removeprefix("/v1/")
    assert [request.method for request in cloud.requests] == ["GET"]


def test_a_policy_becomes_a_model_in_our_container(endpoint, cloud, exported):
    changes(cloud)
    version = endpoint.deploy(exported[0])
    upload, deployment = changes(cloud)
    alias = upload[2]["model"]["versionAliases"][0]
    assert re.fullmatch(f"policy-{version}-[0-9a-f]{{8}}", alias)
    assert upload == (
        "POST",
        f"/v1/{PARENT}/models:upload",
        {
            "modelId": "recbandits-v1",
            "model": {
                "displayName": "recbandits-v1",
                "artifactUri": f"gs://{BUCKET}/policies/{version}",
                "containerSpec": CONTAINER,
                "versionAliases": [alias],
                "versionDescription": f"policy {version}",
                "labels": LABELS,
            },
        },
    )
    assert deployment == (
        "POST",
        f"{ENDPOINT}:deployModel",
        {
            "deployedModel": {
                "model": f"{PARENT}/models/recbandits-v1@1",
                "displayName": version,
                "dedicatedResources": {
                    "machineSpec": {"machineType": "n2-standard-2"},
                    "minReplicaCount": 1,
                    "maxReplicaCount": 2,
                },
                "serviceAccount": ACCOUNT,
            },
            "trafficSplit": {"0": 100},
        },
    )


def test_the_bucket_gets_every_file_of_the_policy(endpoint, cloud, exported, tmp_path):
    version = endpoint.deploy(exported[0])
    prefix = f"contents of gs://{BUCKET}/policies/{version}/"
    sent = {path.removeprefix(prefix): content for path, content in cloud.documents.items() if path.startswith(prefix)}
    for name, content in sent.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert load(tmp_path).version == version


def test_a_second_version_comes_with_its_share(endpoint, cloud, exported):
    """What was before is remembered first; then the version and its 10 % come in one change."""
    first = endpoint.deploy(exported[0])
    changes(cloud)
    second = endpoint.deploy(exported[1], 10)
    assert cloud.requests[-2].query["updateMask"] == "labels"
    upload, remembered, deployment = changes(cloud)
    assert upload[2].keys() == {"parentModel", "model"}
    assert upload[2]["parentModel"] == f"{PARENT}/models/recbandits-v1"
    assert remembered == ("PATCH", ENDPOINT, {"labels": LABELS | {f"previous-{first}": "100"}})
    assert deployment[2]["deployedModel"]["model"] == f"{PARENT}/models/recbandits-v1@2"
    assert deployment[2]["trafficSplit"] == {"0": 10, "1": 90}
    assert endpoint.traffic_split == {first: 90, second: 10}


def test_a_version_that_is_there_gets_another_share_with_what_was_before(endpoint, cloud, exported):
    first, second = endpoint.deploy(exported[0]), endpoint.deploy(exported[1], 10)
    changes(cloud)
    endpoint.deploy(exported[1], 60)
    assert cloud.requests[-1].query["updateMask"] == "trafficSplit,labels"
    labels = LABELS | {f"previous-{first}": "90", f"previous-{second}": "10"}
    assert changes(cloud)[-1] == ("PATCH", ENDPOINT, {"trafficSplit": {"1": 40, "2": 60}, "labels": labels})


@pytest.mark.parametrize("fatal", ["PATCH", "POST :deployModel"])
def test_a_deployment_that_was_cut_short_is_made_up_for_by_the_next(endpoint, cloud, exported, monkeypatch, fatal):
    """Whatever it was that was refused, or not sent any more: the canary is not there, or it has its share."""
    first, answer = endpoint.deploy(exported[0]), cloud.answer
    method, _, end = fatal.partition(" ")

    def cut(request):
        cutting = request.method == method and request.path.endswith(end)
        return error(400, "no") if cutting else answer(request)

    monkeypatch.setattr(cloud, "answer", cut)
    with pytest.raises(PlatformError, match=": no"):
        endpoint.deploy(exported[1], 10)
    assert endpoint.traffic_split == {first: 100}
    monkeypatch.setattr(cloud, "answer", answer)
    second = endpoint.deploy(exported[1], 10)
    assert endpoint.traffic_split == {first: 90, second: 10}
    endpoint.rollback()
    assert endpoint.traffic_split == {first: 100, second: 0}


def test_another_process_can_roll_back(endpoint, config, cloud, exported):
    first, second = endpoint.deploy(exported[0]), endpoint.deploy(exported[1], 40)
    GcpPlatform(config, cloud.endpoint).endpoints.create().rollback()
    assert endpoint.traffic_split == {first: 100, second: 0}


def test_a_change_by_somebody_else_meanwhile_is_not_overwritten(endpoint, cloud, exported):
    """The etag that was read goes back with the change: Vertex AI refuses an old one."""
    first, _ = endpoint.deploy(exported[0]), endpoint.deploy(exported[1], 40)
    cloud.documents[ENDPOINT]["etag"] = "MQ=="
    changes(cloud)
    endpoint.split({first: 100})
    assert changes(cloud)[0][2]["etag"] == "MQ=="


def test_the_etag_of_a_change_is_of_the_look_on_which_it_was_decided(endpoint, cloud, exported, monkeypatch):
    """Each look at the endpoint here finds another etag, as if somebody changed it all the time: the first one counts.

    A share is decided on what was found; a second look would give its etag to somebody else's shares.
    """
    first, second = endpoint.deploy(exported[0]), endpoint.deploy(exported[1], 40)
    answer, looks = cloud.answer, []

    def restless(request):
        if (request.method, request.path) == ("GET", ENDPOINT):
            looks.append(request)
            cloud.documents[ENDPOINT]["etag"] = f"etag {len(looks)}"
        return answer(request)

    def etag_of(change, *arguments):
        seen = endpoint.traffic_split
        looks.clear()
        change(*arguments, **({"expected": seen} if change == endpoint.split else {}))
        (sent,) = (body["etag"] for method, path, body in changes(cloud) if (method, path) == ("PATCH", ENDPOINT))
        return sent

    changes(cloud)
    monkeypatch.setattr(cloud, "answer", restless)
    assert etag_of(endpoint.split, {first: 100}) == "etag 1"
    assert etag_of(endpoint.rollback) == "etag 1"
    assert etag_of(endpoint.deploy, exported[1], 50) == "etag 1"
    assert etag_of(endpoint.deploy, exported[2], 20) == "etag 1"
    endpoint.split({first: 100})
    changes(cloud)
    assert etag_of(endpoint.undeploy, second) == "etag 1"


def test_the_same_policy_is_uploaded_once_and_again_for_another_container(platform, cloud, exported):
    platform.endpoints.create().deploy(exported[0])
    changes(cloud)
    platform.endpoints.create("other").deploy(exported[0])
    assert [path.rpartition("/")[2] for _, path, _ in changes(cloud)] == ["endpoints", "other:deployModel"]
    topic = f"projects/{PROJECT}/topics/recbandits-v1-events"
    platform.endpoints.create("logged", topic).deploy(exported[0])
    _, upload, deployment = changes(cloud)
    variable = {"name": "RECBANDITS_EVENT_TOPIC", "value": topic}
    assert upload[2]["model"]["containerSpec"] == CONTAINER | {"env": [*CONTAINER["env"], variable]}
    assert deployment[2]["deployedModel"]["model"].endswith("@2")


def test_a_policy_in_the_bucket_is_deployed_from_where_it_is(endpoint, cloud, exported):
    from recbandits.platforms.gcp.rehearsal.storage import put

    for path in (path for path in exported[0].rglob("*") if path.is_file()):
        put(cloud.documents, "b", f"jobs/a/model/{path.relative_to(exported[0])}", path.read_bytes())
    assert endpoint.deploy("gs://b/jobs/a/model") == load(exported[0]).version
    upload = next(body for _, path, body in changes(cloud) if path.endswith("models:upload"))
    assert upload["model"]["artifactUri"] == "gs://b/jobs/a/model"
    with pytest.raises(PlatformError, match="there is no policy at gs://b/nothing"):
        endpoint.deploy("gs://b/nothing")


def test_undeploying_sends_the_number_of_the_deployment(endpoint, cloud, exported):
    first, second = endpoint.deploy(exported[0]), endpoint.deploy(exported[1], 0)
    changes(cloud)
    endpoint.undeploy(second)
    forget, undeployment = changes(cloud)
    assert forget[2]["trafficSplit"] == {"1": 100}
    assert undeployment == ("POST", f"{ENDPOINT}:undeployModel", {"deployedModelId": "2"})
    assert endpoint.traffic_split == {first: 100}


def test_deletion_undeploys_everything_first(endpoint, cloud, exported):
    endpoint.deploy(exported[0])
    endpoint.deploy(exported[1], 60)
    endpoint.deploy(exported[2], 10)
    changes(cloud)
    endpoint.delete()
    sent = changes(cloud)
    undeployed = [body["deployedModelId"] for _, path, body in sent if path.endswith(":undeployModel")]
    assert sorted(undeployed) == ["1", "2", "3"]
    assert undeployed[-1] == "2", "the one with most traffic takes all of it, and goes last"
    assert sent[-1] == ("DELETE", ENDPOINT, {})
    assert ENDPOINT not in cloud.documents
    assert not endpoint.health()["alive"]


def test_predictions_carry_instances_and_parameters_and_keep_whole_numbers(endpoint, cloud):
    instance = {"user_id": 7, "candidates": [101, 102], "context": {"age": 0.5}}
    cloud.requests.clear()
    (prediction,) = endpoint.predict([instance], {"k": 3})
    assert json.dumps(prediction, sort_keys=True) == json.dumps({"echo": instance}, sort_keys=True)
    (request,) = cloud.requests
    assert request[:2] == ("POST", f"{ENDPOINT}:rawPredict")
    assert request.body == {"instances": [instance], "parameters": {"k": 3}}


def test_raw_predictions_are_sent_as_they_are(endpoint, cloud):
    headers = {"Content-Type": "application/json", "X-Trace": "7"}
    status, body = endpoint.raw_predict(b'{"instances": [{"user_id": 7}]}', headers)
    assert (status, json.loads(body)) == (200, {"predictions": [{"echo": {"user_id": 7}}]})
    assert cloud.requests[-1][:2] == ("POST", f"{ENDPOINT}:rawPredict")
    assert cloud.requests[-1].content == b'{"instances": [{"user_id": 7}]}'


def test_the_words_of_a_server_that_refuses_are_kept(endpoint, monkeypatch, cloud):
    refusal = error(422, "instances[0]: unknown item ids: 999")
    monkeypatch.setattr(cloud, "answer", lambda request: refusal)
    with pytest.raises(PlatformError, match=r"endpoint recbandits-v1 answered 422: .*unknown item ids: 999"):
        endpoint.predict([{"candidates": ["999"]}])
    assert endpoint.raw_predict(b"{}", {})[0] == 422


def test_a_batch_goes_through_the_bucket(endpoint, cloud, exported, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"user_id": 7}\n{"user_id": 8}\n')
    changes(cloud)
    done = endpoint.batch_predict(exported[0], tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    (job,) = (body for _, path, body in changes(cloud) if path == f"/v1/{PARENT}/batchPredictionJobs")
    place = f"gs://{BUCKET}/batch/{job['displayName']}"
    assert job == {
        "displayName": job["displayName"],
        "model": f"{PARENT}/models/recbandits-v1@1",
        "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": [f"{place}/source.jsonl"]}},
        "outputConfig": {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": place}},
        "dedicatedResources": {
            "machineSpec": {"machineType": "n2-standard-2"},
            "startingReplicaCount": 1,
            "maxReplicaCount": 2,
        },
        "serviceAccount": ACCOUNT,
        "labels": LABELS,
    }
    assert cloud.documents[f"contents of {place}/source.jsonl"] == b'{"user_id": 7}\n{"user_id": 8}\n'
    assert (done.answered, done.refused, done.predictions) == (2, 0, tmp_path / "out.jsonl")
    answers = [json.loads(line) for line in done.predictions.read_text().splitlines()]
    assert [answer["instance"] for answer in answers] == [{"user_id": 7}, {"user_id": 8}]


def test_logs_are_where_the_command_says(endpoint):
    assert endpoint.logs() == (
        'gcloud logging read \'resource.type="aiplatform.googleapis.com/Endpoint" '
        f'resource.labels.endpoint_id="recbandits-v1"\' --project={PROJECT} --limit=100'
    )


def test_a_notebook_can_show_what_would_be_sent(exported):
    requests = rehearse(Config(), lambda platform: platform.endpoints.create().deploy(exported[0]))
    shown = [request.path.rpartition("/")[2] for request in requests if "/storage/" not in request.path]
    assert shown == ["endpoints", "models:upload", "recbandits-v1:deployModel"]
