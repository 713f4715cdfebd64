"""Endpoints of Vertex AI keep the contract; what Google's clients ask for is recorded and compared."""

import json
import re
from hashlib import sha256

import pytest
from endpoints_contract import EndpointsContract
from google.api_core import exceptions

from recbandits.config import Config
from recbandits.platforms.gcp.endpoints import GcpEndpoints, StickyEndpoint
from recbandits.platforms.protocol import PlatformError
from recbandits.serving.policy import load
from recbandits.serving.predictor import BanditPredictor
from recbandits.serving.versions import TrafficSplit

PROJECT = "movie-lab-42"
CONFIG = Config(platform="gcp", project=PROJECT)
PARENT = f"projects/{PROJECT}/locations/us-central1"
NAME = f"{PARENT}/endpoints/recbandits-v1"
TOPIC = f"projects/{PROJECT}/topics/recbandits-v1-interactions"
LABELS = {"app": "recbandits", "prefix": "recbandits", "version": "v1"}
TAG = f"GET https://artifactregistry.googleapis.com/v1/{PARENT}/repositories/recbandits-v1/packages/serve/tags/v1"
DIGEST = sha256(b"serve").hexdigest()
IMAGE = f"us-central1-docker.pkg.dev/{PROJECT}/recbandits-v1/serve"
RAW_PREDICT = f"POST https://us-central1-aiplatform.googleapis.com/v1/{NAME}:rawPredict"


@pytest.fixture
def cloud(cloud):
    cloud.answers[TAG] = {"version": f"packages/serve/versions/sha256:{DIGEST}"}
    return cloud


@pytest.fixture
def endpoints(cloud):
    return GcpEndpoints(CONFIG)


@pytest.fixture
def endpoint(endpoints):
    return endpoints.create()


@pytest.fixture
def sticky(endpoints):
    return endpoints.create("sticky", sticky=True)


@pytest.fixture
def predictor(monkeypatch):
    """A server's predictor of the release of the endpoint "sticky", which it does not look at by itself."""
    monkeypatch.setenv("RECBANDITS_RELEASE", f"gs://{CONFIG.bucket}/releases/sticky")
    monkeypatch.setattr("recbandits.serving.predictor.RELEASE_INTERVAL", 1e6)
    return BanditPredictor()


def changes(cloud):
    """Methods of Vertex AI that changed something since the last call."""
    names = cloud.methods("Create", "Update", "Upload", "Deploy", "Undeploy", "Delete")
    cloud.calls.clear()
    return names


def variables(upload):
    return {each["name"]: each["value"] for each in upload["model"]["containerSpec"].get("env", [])}


class TestGcpEndpoints(EndpointsContract):
    """Each version is a model, and Vertex AI draws one for each request."""


class TestStickyEndpoints(EndpointsContract):
    """One model, whose server splits users."""

    @pytest.fixture
    def endpoint(self, sticky):
        return sticky


def test_an_endpoint_is_created_once_under_its_own_id(endpoints, cloud):
    for _ in range(2):
        assert endpoints.create().resource_name == NAME
    (request,) = cloud.requests("CreateEndpoint")
    assert (request["parent"], request["endpointId"]) == (PARENT, "recbandits-v1")
    assert (request["endpoint"]["displayName"], request["endpoint"]["labels"]) == ("recbandits-v1", LABELS)


def test_a_name_that_is_none_is_refused_before_anything_is_sent(endpoints, cloud):
    with pytest.raises(ValueError, match="name must be at most 63 lower-case letters, digits and single hyphens, got"):
        endpoints.create("..")
    assert cloud.calls == []


def test_a_policy_becomes_a_model_in_our_container_by_its_digest(endpoint, cloud, exported):
    version = endpoint.deploy(exported[0])
    (upload,) = cloud.requests("UploadModel")
    model = upload["model"]
    assert (upload["modelId"], "parentModel" in upload) == ("recbandits-v1", False)
    assert (model["displayName"], model["labels"]) == ("recbandits-v1", LABELS)
    assert model["artifactUri"] == f"gs://{CONFIG.bucket}/policies/{version}"
    assert load(model["artifactUri"]).version == version, "the bucket has every file of it"
    assert re.fullmatch(f"policy-{version}-[0-9a-f]{{8}}", model["versionAliases"][0])
    container = model["containerSpec"]
    assert container["imageUri"] == f"{IMAGE}@sha256:{DIGEST}"
    assert (container["predictRoute"], container["healthRoute"]) == ("/predict", "/health")
    assert container["ports"] == [{"containerPort": 8080}]
    assert variables(upload) == {}
    (deployment,) = cloud.requests("DeployModel")
    assert deployment["trafficSplit"] == {"0": 100}
    deployed_model = deployment["deployedModel"]
    assert (deployed_model["model"], deployed_model["displayName"]) == (f"{PARENT}/models/recbandits-v1@1", version)
    assert deployed_model["serviceAccount"] == CONFIG.account("serve")
    assert deployed_model["dedicatedResources"] == {
        "machineSpec": {"machineType": "n2-standard-2"},
        "minReplicaCount": 1,
        "maxReplicaCount": 2,
    }


def test_a_second_version_comes_with_its_share_after_what_was_before_is_remembered(endpoint, cloud, exported):
    first = endpoint.deploy(exported[0])
    changes(cloud)
    second = endpoint.deploy(exported[1], 10)
    (upload,), (memory,), (deployment,) = map(cloud.requests, ("UploadModel", "UpdateEndpoint", "DeployModel"))
    assert changes(cloud) == ["UploadModel", "UpdateEndpoint", "DeployModel"]
    assert upload["parentModel"] == f"{PARENT}/models/recbandits-v1"
    assert memory["updateMask"] == "labels"
    assert memory["endpoint"]["labels"] == LABELS | {f"previous-{first}": "100"}
    assert deployment["deployedModel"]["model"] == f"{PARENT}/models/recbandits-v1@2"
    assert sorted(deployment["trafficSplit"].values()) == [10, 90]
    assert deployment["trafficSplit"]["0"] == 10
    assert endpoint.traffic_split == {first: 90, second: 10}


def test_another_share_is_one_change_together_with_what_was_before(endpoint, cloud, exported):
    first, second = endpoint.deploy(exported[0]), endpoint.deploy(exported[1], 10)
    changes(cloud)
    endpoint.deploy(exported[1], 60)
    (change,) = cloud.requests("UpdateEndpoint")
    assert changes(cloud) == ["UpdateEndpoint"]
    assert sorted(change["updateMask"].split(",")) == ["labels", "trafficSplit"]
    assert change["endpoint"]["labels"] == LABELS | {f"previous-{first}": "90", f"previous-{second}": "10"}
    assert sorted(change["endpoint"]["trafficSplit"].values()) == [40, 60]


@pytest.mark.parametrize("method", ["UpdateEndpoint", "DeployModel"])
def test_a_deployment_that_was_cut_short_is_made_up_for_by_the_next(endpoint, cloud, exported, method):
    """After any refused or missing request the canary is not there, or it has its share."""
    first = endpoint.deploy(exported[0])
    cloud.answers[method] = exceptions.InvalidArgument("no")
    with pytest.raises(PlatformError, match=r"endpoint recbandits-v1.*: 400 no$"):
        endpoint.deploy(exported[1], 10)
    assert endpoint.traffic_split == {first: 100}
    del cloud.answers[method]
    second = endpoint.deploy(exported[1], 10)
    assert endpoint.traffic_split == {first: 90, second: 10}
    endpoint.rollback()
    assert endpoint.traffic_split == {first: 100, second: 0}


def test_the_etag_of_a_change_is_of_the_look_on_which_it_was_decided(endpoint, cloud, exported):
    """Each look finds another etag, as if another client changed the endpoint all the time: the first one counts.

    A share is decided on what was found; a second look would give its etag to another client's shares.
    """
    first, second = endpoint.deploy(exported[0]), endpoint.deploy(exported[1], 40)
    etags = []

    def change_etag(_):
        etags.append(f"etag {len(etags) + 1}")
        cloud.resources[NAME].etag = etags[-1]
        return cloud.resources[NAME]

    def etag_of(change, *arguments):
        options = {"expected": endpoint.traffic_split} if change == endpoint.split else {}
        etags.clear()
        cloud.calls.clear()
        change(*arguments, **options)
        return cloud.requests("UpdateEndpoint")[0]["endpoint"]["etag"]

    cloud.answers["GetEndpoint"] = change_etag
    assert etag_of(endpoint.split, {first: 100}) == "etag 1"
    assert etag_of(endpoint.rollback) == "etag 1"
    assert etag_of(endpoint.deploy, exported[1], 50) == "etag 1"
    assert etag_of(endpoint.deploy, exported[2], 20) == "etag 1"
    endpoint.split({first: 100})
    assert etag_of(endpoint.undeploy, second) == "etag 1"


def test_the_same_policy_is_uploaded_once_and_again_for_another_container(endpoints, cloud, exported):
    endpoints.create().deploy(exported[0])
    files = len([path for path in exported[0].rglob("*") if path.is_file()])
    endpoints.create("other").deploy(exported[0])
    assert len(cloud.requests("UploadModel")) == 1
    assert len(cloud.requests("POST https://storage.googleapis.com/upload/.*")) == files
    endpoints.create("logged", TOPIC).deploy(exported[0])
    assert variables(cloud.requests("UploadModel")[1]) == {"RECBANDITS_EVENT_TOPIC": TOPIC}
    assert cloud.requests("DeployModel")[-1]["deployedModel"]["model"].endswith("@2")


def test_who_names_no_topic_leaves_the_log_where_it_is(endpoints, cloud, exported):
    """A server without the topic would replace the one that logs, without an error."""
    for name, sticky in (("drawn", False), ("sticky", True)):
        endpoints.create(name, TOPIC, sticky).deploy(exported[0])
        servers = len(cloud.requests("DeployModel"))
        endpoints.create(name).deploy(exported[1], 10)
        assert variables(cloud.requests("UploadModel")[-1])["RECBANDITS_EVENT_TOPIC"] == TOPIC
    assert len(cloud.requests("DeployModel")) == servers, "what follows the release goes on"


def test_the_account_that_serves_may_publish_to_the_topic_where_it_logs(endpoints, cloud):
    endpoints.create(topic=TOPIC)
    binding = {"role": "roles/pubsub.publisher", "members": [f"serviceAccount:{CONFIG.account('serve')}"]}
    assert cloud.requests("SetIamPolicy") == [{"resource": TOPIC, "policy": {"bindings": [binding]}}]


def test_a_topic_without_its_full_name_is_refused_before_anything_is_made(endpoints, cloud):
    with pytest.raises(ValueError, match=r"^topic must be 'projects/<project>/topics/<topic>' or None, got 'events'$"):
        endpoints.create(topic="events")
    assert cloud.calls == []


def test_a_step_that_may_not_give_roles_finds_the_endpoint_all_the_same(endpoints, cloud, caplog):
    cloud.answers["GetIamPolicy"] = exceptions.PermissionDenied("pubsub.topics.getIamPolicy")
    assert endpoints.create(topic=TOPIC).resource_name == NAME
    assert f"role roles/pubsub.publisher on {TOPIC}: 403 pubsub.topics.getIamPolicy" in caplog.text
    cloud.answers["GetIamPolicy"] = exceptions.NotFound("no topic")
    with pytest.raises(PlatformError, match="404 no topic"):
        endpoints.create(topic=TOPIC)


def test_a_policy_in_the_bucket_is_deployed_from_where_it_is(endpoint, cloud, exported):
    for path in (path for path in exported[0].rglob("*") if path.is_file()):
        cloud.objects[f"gs://b/jobs/a/model/{path.relative_to(exported[0])}"] = path.read_bytes()
    assert endpoint.deploy("gs://b/jobs/a/model") == load(exported[0]).version
    assert cloud.requests("UploadModel")[0]["model"]["artifactUri"] == "gs://b/jobs/a/model"
    with pytest.raises(ValueError, match="must be the directory of an exported policy"):
        endpoint.deploy("gs://b/nothing")


def test_deletion_undeploys_everything_first_the_busiest_last(endpoint, cloud, exported):
    endpoint.deploy(exported[0])
    endpoint.deploy(exported[1], 60)
    endpoint.deploy(exported[2], 10)
    numbers = {model.display_name: model.id for model in cloud.resources[NAME].deployed_models}
    changes(cloud)
    endpoint.delete()
    model_ids = [each["deployedModelId"] for each in cloud.requests("UndeployModel")]
    assert (len(model_ids), model_ids[-1]) == (3, numbers[load(exported[1]).version])
    assert changes(cloud)[-1] == "DeleteEndpoint"
    assert not endpoint.health()["alive"]
    endpoint.delete()


def test_an_endpoint_is_deleted_by_its_name_and_one_that_is_not_there_is_not_made(endpoints, cloud, exported):
    """With its release, and without the policies of the release."""
    for each in (endpoints.create(), endpoints.create("sticky", sticky=True)):
        each.deploy(exported[0])
    changes(cloud)
    for _ in range(2):
        endpoints.delete()
        endpoints.delete("sticky")
    assert changes(cloud) == ["UndeployModel", "DeleteEndpoint"] * 2
    folders = {uri.partition("/releases/sticky/")[2].partition("/")[0] for uri in cloud.objects if "/releases/" in uri}
    assert folders == {"policies"}


def test_predictions_carry_instances_and_parameters_as_they_are(endpoint, cloud):
    """A raw prediction: in others Vertex AI makes floats of all numbers."""
    instance = {"user_id": 7, "candidates": [101, 102], "context": {"age": 0.5}}
    cloud.answers[RAW_PREDICT] = {"predictions": [{"echo": 7}]}
    (prediction,) = endpoint.predict([instance], {"k": 3})
    assert json.dumps(prediction) == '{"echo": 7}'
    (request,) = cloud.requests(RAW_PREDICT)
    assert request["body"] == {"instances": [instance], "parameters": {"k": 3}}
    status, body = endpoint.raw_predict(b'{"instances": []}', {"Content-Type": "application/json", "X-Trace": "7"})
    assert (status, json.loads(body)) == (200, {"predictions": [{"echo": 7}]})
    assert cloud.requests(RAW_PREDICT)[-1]["body"] == {"instances": []}


def test_the_words_of_a_server_that_refuses_are_kept(endpoint, cloud):
    cloud.answers[RAW_PREDICT] = exceptions.from_http_status(422, "instances[0]: unknown item ids: 999")
    with pytest.raises(PlatformError, match=r"endpoint recbandits-v1 answered 422: .*unknown item ids: 999"):
        endpoint.predict([{"candidates": ["999"]}])
    assert endpoint.raw_predict(b"{}", {})[0] == 422


def run_batches(cloud, server, lost_instances=()):
    """Have the recorder run batch predictions as Vertex AI does, by a predictor.

    The instances go to it in requests of the batch's size, whole numbers as doubles; results come in any order, in
    several files, without those in `lost_instances`, as if a worker's request had failed.
    """

    def run(request):
        job = request.batch_prediction_job
        folder = job.output_config.gcs_destination.output_uri_prefix
        size = job.manual_batch_tuning_parameters.batch_size
        lines = cloud.objects[job.input_config.gcs_source.uris[0]].splitlines()
        instances = [json.loads(line, parse_int=float) for line in lines]
        parameters, results = {"answer_refusals": job.model_parameters["answer_refusals"]}, []
        for start in range(0, len(instances), size):
            body = {"instances": instances[start : start + size], "parameters": parameters}
            predictions = server.predict(server.preprocess(json.dumps(body).encode()))
            answers = json.loads(server.postprocess(predictions))["predictions"]
            results += zip(body["instances"], answers, strict=True)
        results = [each for each in results if each[0] not in lost_instances]
        records = [{"instance": instance, "prediction": answer} for instance, answer in results]
        for number, part in enumerate((records[1::2][::-1], records[::2])):
            content = "".join(json.dumps(each) + "\n" for each in part).encode()
            cloud.objects[f"{folder}/out/prediction.results-0000{number}-of-00002"] = content
        resource = cloud._create("batch_prediction_job", request, "CreateBatchPredictionJob")
        resource.output_info.gcs_output_directory = f"{folder}/out"
        return resource

    cloud.answers["CreateBatchPredictionJob"] = run


def test_every_line_of_a_batch_gets_an_answer_or_an_error_in_order(endpoint, cloud, exported, tmp_path):
    """One instance twice, an unknown item, no JSON, an unknown field, a number that would be rounded, a lost one."""
    server = BanditPredictor()
    server.load(exported[0])
    run_batches(cloud, server, lost_instances=[{"user_id": "lost"}])
    texts = ['{"user_id": 7}', '{"candidates": [999]}', "", "{", '{"user_id": 7}', '{"user": 1}']
    texts += ['{"user_id": 9007199254740993}', '{"user_id": "lost"}', '{"user_id": 8, "context": {"age": 0.5}}']
    (tmp_path / "in.jsonl").write_text("\n".join(texts))
    results = endpoint.batch_predict(exported[0], tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert (results.answered, results.refused) == (3, 5)
    job = cloud.requests("CreateBatchPredictionJob")[0]["batchPredictionJob"]
    folder = f"gs://{CONFIG.bucket}/batch/{job['displayName']}"
    sent = [texts[row] for row in (0, 1, 4, 7, 8)]
    assert cloud.objects[f"{folder}/source.jsonl"].decode().splitlines() == sent, "the others are no instances"
    assert job["model"] == f"{PARENT}/models/recbandits-v1@1"
    assert job["inputConfig"] == {"instancesFormat": "jsonl", "gcsSource": {"uris": [f"{folder}/source.jsonl"]}}
    assert job["outputConfig"] == {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": folder}}
    machine = {"machineType": "n2-standard-2"}
    assert job["dedicatedResources"] == {"machineSpec": machine, "startingReplicaCount": 1, "maxReplicaCount": 2}
    assert job["modelParameters"] == {"answer_refusals": True}
    assert (job["serviceAccount"], job["labels"]) == (CONFIG.account("serve"), LABELS)
    answers = [json.loads(line) for line in results.predictions.read_text().splitlines()]
    assert [each["instance"] for each in answers] == [json.loads(texts[row]) for row in (0, 4, 8)]
    assert len({each["prediction"]["event_id"] for each in answers}) == 3
    refusals = [json.loads(line) for line in results.refusals.read_text().splitlines()]
    assert [(each["line"], each["error"].partition(";")[0][:47]) for each in refusals] == [
        (2, "unknown item ids: 999"),
        (4, "the body must be JSON: EOF while parsing an obj"),
        (6, "user is not known, did you mean 'user_id'?"),
        (7, "user_id must be text, because a number of 2^53 "),
        (8, "the batch prediction gave no answer"),
    ]


def test_a_batch_needs_a_policy(endpoint, tmp_path):
    """An empty directory holds none."""
    with pytest.raises(ValueError, match="there is no policy in"):
        endpoint.batch_predict(tmp_path, tmp_path / "in.jsonl", tmp_path / "out.jsonl")


def test_a_batch_that_would_replace_its_source_starts_no_job(endpoint, cloud, exported, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"user_id": 7}')
    with pytest.raises(ValueError, match="destination must be another file than source"):
        endpoint.batch_predict(exported[0], tmp_path / "in.jsonl", tmp_path / "in.jsonl")
    assert cloud.requests("CreateBatchPredictionJob") == []


def test_a_batch_that_failed_says_why(endpoint, cloud, exported, tmp_path):
    def fail(request):
        job = cloud._create("batch_prediction_job", request, "CreateBatchPredictionJob")
        job.state, job.error = "JOB_STATE_FAILED", {"message": "no quota"}
        return job

    cloud.answers["CreateBatchPredictionJob"] = fail
    (tmp_path / "in.jsonl").write_text('{"user_id": 7}')
    with pytest.raises(PlatformError, match=r"batch prediction 1-.* failed: no quota"):
        endpoint.batch_predict(exported[0], tmp_path / "in.jsonl", tmp_path / "out.jsonl")


@pytest.mark.parametrize(("k", "size"), [(100, 64), (9_000, 1)])
def test_no_request_of_a_batch_exceeds_the_limits_of_the_server(endpoint, cloud, exported, tmp_path, k, size):
    """At most 10,000 recommended items in a request: 64 lines of 100, 1 of 9,000."""
    cloud.answers["CreateBatchPredictionJob"] = exceptions.InvalidArgument("no")
    (tmp_path / "in.jsonl").write_text(f'{{"user_id": 7}}\n{{"user_id": 8, "k": {k}}}\n')
    with pytest.raises(PlatformError, match=r"endpoint recbandits-v1: 400 no$"):
        endpoint.batch_predict(exported[0], tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    (request,) = cloud.requests("CreateBatchPredictionJob")
    assert request["batchPredictionJob"]["manualBatchTuningParameters"]["batchSize"] == size


def test_a_release_is_one_model_that_follows_our_bucket(endpoints, cloud, exported, predictor):
    """A second version and other shares need no deployment: the server finds them there."""
    endpoint = endpoints.create("sticky", TOPIC, sticky=True)
    first, uri = endpoint.deploy(exported[0]), f"gs://{CONFIG.bucket}/releases/sticky"
    (upload,), (deployment,) = cloud.requests("UploadModel"), cloud.requests("DeployModel")
    assert upload["model"]["artifactUri"] == uri
    assert variables(upload) == {"RECBANDITS_RELEASE": uri, "RECBANDITS_EVENT_TOPIC": TOPIC}
    assert deployment["trafficSplit"] == {"0": 100}
    predictor.load("gs://google-keeps/a-copy")
    assert predictor.release == TrafficSplit({first: 100})
    changes(cloud)
    second = endpoint.deploy(exported[1], 20)
    assert changes(cloud) == []
    predictor.refresh()
    assert predictor.release == TrafficSplit({first: 80, second: 20}, {first: 100})
    endpoint.rollback()
    predictor.refresh()
    assert predictor.release.shares == {first: 100, second: 0}
    assert changes(cloud) == []


def test_a_user_of_a_release_always_gets_the_same_version(sticky, exported, predictor):
    first, second = sticky.deploy(exported[0]), sticky.deploy(exported[1], 40)
    predictor.load(None)
    body = json.dumps({"instances": [{"user_id": str(user)} for user in range(200)]}).encode()
    answers = [[each.policy_version for each in predictor.predict(predictor.preprocess(body))] for _ in range(2)]
    split = TrafficSplit({first: 60, second: 40})
    assert answers[0] == answers[1] == [split.version(str(user)) for user in range(200)]


def test_a_release_is_written_only_over_the_one_that_was_read(sticky, cloud, exported):
    """Cloud Storage refuses a write where the object is of another generation; 0 stands for none."""
    first, address = sticky.deploy(exported[0]), f"POST https://storage.googleapis.com/upload/.*/{CONFIG.bucket}/o"
    sticky.deploy(exported[1], 10)
    sticky.split({first: 100})
    releases = [each for each in cloud.requests(address) if b"release.json" in each["body"]]
    assert [each["query"]["ifGenerationMatch"] for each in releases] == ["0", "1", "1"], "of the recorder all are 1"
    cloud.answers[address] = exceptions.PreconditionFailed("conditionNotMet")
    with pytest.raises(PlatformError, match=r"endpoint sticky: 412 .*conditionNotMet"):
        sticky.split({first: 100})


def test_a_server_of_another_image_takes_the_place_of_the_old_one(sticky, cloud, exported):
    sticky.deploy(exported[0])
    old_model_id = cloud.resources[sticky.resource_name].deployed_models[0].id
    cloud.answers[TAG] = {"version": "packages/serve/versions/sha256:" + 64 * "0"}
    sticky.deploy(exported[0])
    assert [each["deployedModelId"] for each in cloud.requests("UndeployModel")] == [old_model_id]
    (deployed_model,) = cloud.resources[sticky.resource_name].deployed_models
    assert deployed_model.model.endswith("@2")


def test_a_release_that_no_server_follows_is_none_and_is_written_anew(sticky, cloud, exported):
    """As after a refusal for want of quota: who looks must not take it for a policy that serves."""
    cloud.answers["DeployModel"] = exceptions.ResourceExhausted("quota")
    with pytest.raises(PlatformError, match="endpoint sticky: 429 quota"):
        sticky.deploy(exported[0])
    assert sticky.traffic_split == {}
    assert sticky.health()["reason"] == "no policy is deployed yet"
    del cloud.answers["DeployModel"]
    second = sticky.deploy(exported[1])
    assert sticky.traffic_split == {second: 100}
    assert len(cloud.requests("DeployModel")) == 2


def test_an_endpoint_that_another_process_asked_for_first_splits_users_as_long_as_it_has_no_version(endpoints, cloud):
    """Who follows a loop, or a training of one that was removed, makes it without saying how it splits."""
    endpoints.create()
    assert isinstance(endpoints.create(sticky=True), StickyEndpoint)
    assert isinstance(endpoints.create(), StickyEndpoint)
    (request,) = cloud.requests("UpdateEndpoint")
    assert request["endpoint"]["labels"] == LABELS | {"split": "users"}


def test_another_process_finds_how_an_endpoint_splits(endpoints, endpoint, sticky, exported):
    endpoint.deploy(exported[0])
    assert isinstance(endpoints.create("sticky"), StickyEndpoint)
    assert not isinstance(endpoints.create(), StickyEndpoint)
    with pytest.raises(PlatformError, match="endpoint recbandits-v1 must split users, it splits requests: delete it"):
        endpoints.create(sticky=True)
