"""The prediction server around exported policies: real processes, real sockets, a real log."""

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import grpc
import pandas as pd
import psutil
import pytest
from google.pubsub_v1 import PublishRequest, PublishResponse
from starlette.requests import Request as HttpRequest

from recbandits.config import Config
from recbandits.platforms.local.endpoints import LocalEndpoints, SocketConnection, socket_of
from recbandits.platforms.local.messages import LocalMessages
from recbandits.platforms.protocol import PlatformError
from recbandits.records import Interaction
from recbandits.serving import manifest, policy
from recbandits.serving.handler import MAX_BODY_BYTES, BanditHandler, read_metrics
from recbandits.serving.outbox import DirectLog
from recbandits.serving.predictor import BanditPredictor
from recbandits.serving.schemas import Response
from recbandits.serving.sinks import count_missing
from tests.sockets import free_ports
from tests.waiting import until

TOPIC, READER = "projects/local/topics/log", "projects/local/subscriptions/recbandits-v1-reader"
JSON = {"content-type": "application/json"}
DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.json"


def read_log(folder):
    """The interactions in the log of the endpoint of a folder, by event id."""
    messages = LocalMessages(Config(artifacts=str(folder))).take(READER, 1_000_000)
    records = [Interaction.from_json(message.data) for message in messages]
    assert len({record.event_id for record in records}) == len(records)
    return {record.event_id: record for record in records}


@contextlib.contextmanager
def start_endpoint(folder, *policies, topic=TOPIC):
    config = Config(artifacts=str(folder))
    LocalMessages(config).subscription("reader", TOPIC)
    endpoint = LocalEndpoints(config).create("tested", topic=topic)
    try:
        for directory in policies:
            endpoint.deploy(directory)
        yield endpoint
    finally:
        endpoint.delete()


@pytest.fixture(scope="module")
def server(exported, tmp_path_factory):
    """An endpoint that serves the first policy and logs."""
    with start_endpoint(tmp_path_factory.mktemp("artifacts"), exported[0]) as endpoint:
        yield endpoint


def connect(endpoint):
    return SocketConnection(socket_of(endpoint.directory), timeout=30)


def change_release(endpoint, method, document=None, **headers):
    """(status, answer) of the route for administration, called with the token of the server by default."""
    token = endpoint.unit.run["variables"]["RECBANDITS_ADMIN_TOKEN"]
    connection = connect(endpoint)
    connection.request(method, "/release", json.dumps(document), {"authorization": f"Bearer {token}"} | headers)
    response = connection.getresponse()
    answer = response.status, json.loads(response.read())
    connection.close()
    return answer


def post(endpoint, body, headers=JSON):
    status, answer = endpoint.raw_predict(body if isinstance(body, bytes | str) else json.dumps(body), headers)
    return status, json.loads(answer)


def test_predictions_name_items_scores_and_the_probability_of_the_draw(server, exported):
    """40 candidates, epsilon 0.3: the best has 0.7 + 0.3 / 40, any other 0.3 / 40."""
    loaded = policy.load(exported[0])
    age = {"context": {"age": 0.5}}
    status, answer = post(
        server, {"instances": [{"user_id": "7", "k": 3} | age, {"user_id": 8.0, "candidates": [101]}]}
    )
    assert status == 200
    first, second = Response.model_validate(answer).predictions
    assert first.policy_version == second.policy_version == loaded.version
    assert first.titles == [f"title {item}" for item in first.item_ids]
    assert first.scores == pytest.approx(loaded.scores(pd.DataFrame({"age": [0.5]}), [first.item_ids])[0])
    best = first.scores[0] >= max(first.scores)
    assert first.propensity == pytest.approx(0.7 + 0.3 / 40 if best else 0.3 / 40)
    assert (second.item_ids, second.propensity) == (["101"], 1.0)
    assert first.event_id != second.event_id


def test_a_slate_carries_the_probability_of_every_place_and_logs_that_of_the_first(exported, tmp_path):
    """The same server with a policy that draws slates: one record for each of them."""
    shutil.copytree(exported[0], tmp_path / "slates")
    settings, _ = manifest.read(tmp_path / "slates")
    content = {name: settings[name] for name in ("scorer", "exploration", "arms", "items", "titles", "summary")}
    manifest.seal(tmp_path / "slates", content | {"exploration": {"name": "plackett_luce", "value": 2.0}})
    body = {"instances": [{"user_id": 7}] * 50, "parameters": {"k": 5}}
    with start_endpoint(tmp_path, tmp_path / "slates") as endpoint:
        status, answer = post(endpoint, body)
        log = read_log(tmp_path)
    assert status == 200
    assert len({str(each.item_ids) for each in Response.model_validate(answer).predictions}) == 50
    for each in Response.model_validate(answer).predictions:
        assert len(set(each.propensities)) == 5
        record = log[each.event_id]
        assert (record.action, record.propensity) == (each.item_ids[0], each.propensities[0])


def test_a_seed_makes_a_request_reproducible_and_nothing_else_does(server):
    def draw_items(**seed):
        return [each["item_ids"] for each in server.predict([{"user_id": 7} | seed] * 60)]

    assert len({str(items) for items in draw_items(seed=3)}) == 1
    assert draw_items() != draw_items()


def test_a_request_is_logged_with_what_was_known_unless_a_seed_has_drawn(exported, tmp_path):
    """Text stays text, 7 stays 7, and a missing value is null. A draw by the user's seed is no exploration."""
    instances = [{"context": {"age": 7}, "candidates": [101, 102]}, {"user_id": 7, "seed": 3}]
    instances += [{"context": {"age": None}}, {"user_id": 8, "seed": 0}]
    with start_endpoint(tmp_path, exported[0]) as endpoint:
        predictions = endpoint.predict(instances)
        log = read_log(tmp_path)
        put = endpoint.metrics()["outbox"]["put"]
    assert [each["logged"] for each in predictions] == [True, False, True, False]
    known, seeded, unknown, _ = predictions
    assert set(log) == {known["event_id"], unknown["event_id"]}
    assert put == 2
    assert seeded["item_ids"] == policy.load(exported[0]).recommend(rng=3).item_ids
    record = log[known["event_id"]]
    assert (record.user_id, record.action, record.candidates) == (None, known["item_ids"][0], ("101", "102"))
    assert (record.context, log[unknown["event_id"]].context) == ('{"age": 7}', '{"age": null}')


def test_new_items_are_described_by_their_columns(server):
    new = {"user_id": "new", "context": {"age": 0.5}, "candidates": [7], "new_items": {"7": {"year": 1.0}}}
    (prediction,) = server.predict([new])
    assert prediction["item_ids"] == prediction["titles"] == ["7"]
    assert round(prediction["scores"][0]) in range(80, 120)


def test_parameters_hold_for_instances_that_say_nothing_else(server):
    instances = [{"user_id": 7}, {"user_id": 7, "k": 1, "candidates": [140]}]
    first, second = server.predict(instances, {"k": 2, "candidates": [101, 102]})
    assert sorted(first["item_ids"]) == ["101", "102"]
    assert second["item_ids"] == ["140"]


REFUSED = [
    ("", 400, "the body must be JSON: EOF while parsing a value"),
    ('{"instances": [', 400, "the body must be JSON: EOF while parsing"),
    (b'{"instances": "\xff"}', 400, "the body must be JSON: invalid unicode"),
    ("[" * 100_000, 400, "the body must be JSON: recursion limit exceeded"),
    ("7", 422, "the body must be an object, got 7"),
    ("{}", 422, "instances is missing"),
    ('{"instances": []}', 422, "instances must have at least 1 item, not 0"),
    ('{"instances": {"user_id": 7}}', 422, "instances must be a valid array, got {'user_id': 7}"),
    ('{"instance": [{"user_id": 7}]}', 422, "instance is not known, did you mean 'instances'?"),
    ('{"instances": [{"user_id": 7}], "parameters": {"n": 2}}', 422, "parameters.n is not known, there is candidates"),
    ('{"instances": [{"user_id": ""}]}', 422, "instances[0].user_id must be text or a whole number, got ''"),
    ('{"instances": [{"user_id": true}]}', 422, "instances[0].user_id must be text or a whole number, got True"),
    ('{"instances": [{"user_id": 7.5}]}', 422, "instances[0].user_id must be text or a whole number, got 7.5"),
    ('{"instances": [{"user_id": 9007199254740993}]}', 422, "instances[0].user_id must be text, because"),
    ('{"instances": [{"user_id": 7, "candidates": [1e16]}]}', 422, "candidates[0] must be text, because"),
    ('{"instances": [{"user_id": 7, "candidates": ["101", null]}]}', 422, "candidates[1] must be text or a whole"),
    ('{"instances": [{"user_id": 7}, {"candidates": ["5"]}]}', 422, "instances[1]: unknown item ids: 5; describe"),
    ('{"instances": [{"user_id": 7, "candidates": []}]}', 422, "instances[0].candidates must have at least 1 item"),
    (
        '{"instances": [{"user_id": 7, "candidates": ["101", 101]}]}',
        422,
        "candidates must be one or more ids, all different",
    ),
    ('{"instances": [{"user_id": 7, "k": 0}]}', 422, "instances[0].k must be greater than or equal to 1, got 0"),
    ('{"instances": [{}, {}], "parameters": {"k": %s}}' % ("9" * 4300), 422, "k must be less than or equal to 10000"),
    ('{"instances": [{"user_id": 7, "k": 41}]}', 422, "k must be a whole number from 1 to the number of candidates"),
    ('{"instances": [{"user_id": 7, "seed": -1}]}', 422, "instances[0].seed must be greater than or equal to 0"),
    ('{"instances": [{"seed": 9007199254740992}]}', 422, "instances[0].seed must be less than 9007199254740992"),
    ('{"instances": [{"contexts": {"age": 1}}]}', 422, "instances[0].contexts is not known, did you mean 'context'?"),
    (
        '{"instances": [{"context": {"age": NaN}}]}',
        422,
        "context.age must be text, a finite number, true, false or null",
    ),
    ('{"instances": [{"context": {"age": 1e999}}]}', 422, "true, false or null, got inf"),
    ('{"instances": [{"context": {"age": [1]}}]}', 422, "true, false or null, got [1]"),
    ('{"instances": [{"context": {"age": 9007199254740993}}]}', 422, "instances[0].context.age must be text, because"),
    (
        '{"instances": [{"context": {"age": "old"}}]}',
        422,
        "instances[0]: column 'age' must be a finite number, got 'old'",
    ),
    ('{"instances": [{"context": {"aeg": 1}}]}', 422, "instances[0]: column must be one of age, got 'aeg'"),
    ('{"instances": [{"context": [1]}]}', 422, "instances[0].context must be an object, got [1]"),
    ('{"instances": [{"candidate_features": {"p": ["1"]}}]}', 422, "candidate_features.p[0] must be a valid number"),
    (
        '{"instances": [{"candidate_features": {"p": [1]}}]}',
        422,
        "instances[0]: candidate_features must be none, got ['p']",
    ),
    ('{"instances": [{"new_items": {"7": {"pages": 3}}}]}', 422, "column must be one of year, popularity, got 'pages'"),
    (json.dumps({"instances": [{"user_id": 7}] * 257}), 422, "instances must have at most 256 items, not 257"),
    (json.dumps({"instances": [{"user_id": 7, "x" * 10_000: 1}]}), 422, f"instances[0].{'x' * 60} is not known"),
]


@pytest.mark.parametrize(("body", "status", "sentence"), REFUSED, ids=range(len(REFUSED)))
def test_a_bad_request_gets_a_status_and_a_sentence_and_the_next_good_one_an_answer(server, body, status, sentence):
    actual_status, answer = post(server, body)
    assert (actual_status, list(answer)) == (status, ["detail"])
    assert sentence in answer["detail"]
    assert len(answer["detail"]) < 1200
    assert len(server.predict([{"user_id": 7}])) == 1


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonl"])
def test_another_content_type_is_refused(server, kind):
    status, answer = post(server, {"instances": [{"user_id": 7}]}, {} if kind is None else {"content-type": kind})
    assert (status, answer["detail"][:43]) == (415, "content-type must be application/json, got ")


def test_the_content_type_may_have_parameters(server):
    body = {"instances": [{"user_id": 7}]}
    assert post(server, body, {"Content-Type": "Application/JSON; charset=utf-8"})[0] == 200


def test_a_request_that_asks_for_an_upgrade_is_answered_or_refused_with_the_reason(server):
    """As `curl --http2` sends it. The parser drops the body of such a request."""
    upgrade = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAMAAABk"}
    with contextlib.closing(connect(server)) as connection:
        connection.request("GET", "/health", headers=upgrade)
        assert connection.getresponse().status == 200
    status, answer = post(server, {"instances": [{"user_id": 7}]}, JSON | upgrade)
    assert (status, answer["detail"]) == (400, "the request must not ask for an upgrade: use HTTP/1.1")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_is_read_up_to_1_5_megabytes_and_not_further(server, chunked):
    body = json.dumps({"instances": [{"user_id": 7}]}).encode()
    for size, status in ((MAX_BODY_BYTES, 200), (MAX_BODY_BYTES + 1, 413)):
        padded = body.ljust(size)
        parts = (padded[start : start + 65_536] for start in range(0, size, 65_536))
        actual_status, answer = server.raw_predict(parts if chunked else padded, JSON)
        assert actual_status == status
    assert json.loads(answer) == {"detail": "the body must have at most 1,500,000 bytes"}


def make_broken_request(rng):
    """Make a body that is mostly invalid: JSON with an odd value, cut or flipped bytes, noise, deep nesting."""
    odd = [None, True, -1, 1e308, 10**400, float("nan"), float("-inf"), "", "\u0000é\U0001f600", [], {}, [[1]], {"": 0}]
    instance = {"user_id": 7, "k": 2, "candidates": [101, "102", 103], "context": {"age": 0.5}, "seed": 1}
    request = {"instances": [dict(instance) for _ in range(rng.randint(1, 3))], "parameters": {"k": 1}}
    kind = rng.randrange(6)
    if kind == 0:
        optional = ["new_items", "candidate_features", "x"]
        rng.choice(request["instances"])[rng.choice([*instance, *optional])] = rng.choice(odd)
    elif kind == 1:
        request[rng.choice(["instances", "parameters", "x"])] = rng.choice(odd)
    elif kind == 2:
        rng.choice(request["instances"])["candidates"][rng.randrange(3)] = rng.choice(odd)
    elif kind == 3:
        return rng.randbytes(rng.randrange(200))
    elif kind == 4:
        depth = rng.randrange(1, 3000)
        return (rng.choice(["[", '{"a":', '{"instances":[']) * depth).encode()
    body = bytearray(json.dumps(request), "utf-8")
    if kind == 5:
        for _ in range(rng.randint(1, 8)):
            body[rng.randrange(len(body))] = rng.randrange(256)
        del body[rng.randrange(len(body)) :]
    return bytes(body)


def test_5000_broken_requests_get_sentences_and_leave_the_process_as_it_was(server):
    rng, before, statuses, connection = random.Random(0), server.metrics(), {}, connect(server)
    for _ in range(5_000):
        body = make_broken_request(rng)
        connection.request("POST", "/predict", body, JSON)
        response = connection.getresponse()
        answer = json.loads(response.read())
        statuses[response.status] = statuses.get(response.status, 0) + 1
        assert response.status in (200, 400, 422), (body, answer)
        assert response.status == 200 or (isinstance(answer["detail"], str) and answer["detail"]), (body, answer)
    connection.close()
    assert min(statuses.get(status, 0) for status in (200, 400, 422)) > 100
    assert len(server.predict([{"user_id": 7}])) == 1
    assert server.metrics()["process"] == before["process"]


def test_metrics_count_and_tensorflow_is_not_there(server):
    before = server.metrics()
    server.predict([{"user_id": 7}, {"user_id": 8}])
    post(server, "{")
    after = server.metrics()
    connection = connect(server)
    connection.request("GET", "/metrics")
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert f"recbandits_request_seconds_count {after['requests']:.1f}\n" in text
    assert "\nprocess_resident_memory_bytes " in text
    assert after["requests"] - before["requests"] == 2
    assert after["statuses"]["400"] - before["statuses"].get("400", 0) == 1
    (version,) = after["versions"]
    assert after["versions"][version] - before["versions"][version] == 2
    assert after["outbox"]["put"] - before["outbox"]["put"] == 2
    assert after["process"] == before["process"]
    assert not after["tensorflow"]


def test_the_committed_openapi_document_is_the_one_that_is_served(server):
    refresh = "python -m recbandits.serving.server --openapi > docs/openapi.json"
    connection = connect(server)
    connection.request("GET", "/openapi.json")
    document = json.loads(connection.getresponse().read())
    connection.close()
    assert document == json.loads(DOCUMENT.read_text(encoding="utf-8")), f"make it anew: {refresh}"
    process = subprocess.run([sys.executable, *refresh.split()[1:4]], capture_output=True, text=True, check=True)
    assert process.stdout == DOCUMENT.read_text(encoding="utf-8"), f"make it anew: {refresh}"
    predict = document["paths"]["/predict"]["post"]
    assert predict["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Request"}
    assert set(predict["responses"]) == {"200", "400", "413", "415", "422", "503"}


class Load:
    """Threads that send requests until they are stopped; `answers` are (status, body). One that broke off raises."""

    def __init__(self, endpoint, threads=3):
        self._endpoint, self._stop, self.answers = endpoint, threading.Event(), []
        self._pool, self._seeds = ThreadPoolExecutor(threads), range(threads)

    def __enter__(self):
        self._clients = [self._pool.submit(self._ask, seed) for seed in self._seeds]
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._pool.shutdown()
        for client in self._clients:
            client.result()

    def _ask(self, seed):
        rng, connection = random.Random(seed), connect(self._endpoint)
        while not self._stop.is_set():
            connection.request("POST", "/predict", json.dumps({"instances": [{"user_id": rng.randint(1, 30)}]}), JSON)
            response = connection.getresponse()
            self.answers.append((response.status, json.loads(response.read())))
            time.sleep(0.002)  # leaves the processors to the server
        connection.close()

    def predictions(self):
        assert {status for status, _ in self.answers} == {200}
        return [prediction for _, answer in self.answers for prediction in answer["predictions"]]


def test_swaps_under_load_fail_no_request_and_name_the_version_that_chose(exported, tmp_path):
    """Scores are about 100, 200 or 300, which tells who has chosen; SIGTERM then loses no accepted event.

    A client that never sends the rest of its request does not change that.
    """
    with start_endpoint(tmp_path, exported[0]) as endpoint:
        versions = [policy.load(exported[0]).version, *(endpoint.deploy(each, 0) for each in exported[1:])]
        with Load(endpoint) as load:
            end = time.monotonic() + 2
            while time.monotonic() < end:
                for version in versions:
                    endpoint.split({version: 100})
                endpoint.split({versions[0]: 50, versions[1]: 30, versions[2]: 20})
                endpoint.rollback()
        predictions = load.predictions()
        open_connection = connect(endpoint)
        open_connection.request("POST", "/predict", b"{", JSON | {"content-length": "100"})
    open_connection.close()
    log = read_log(tmp_path)
    level = {version: level for level, version in enumerate(versions, 1)}
    assert {each["policy_version"] for each in predictions} == set(versions)
    for each in predictions:
        assert round(each["scores"][0] / 100) == level[each["policy_version"]]
        record = log[each["event_id"]]
        assert (record.policy_version, record.action) == (each["policy_version"], each["item_ids"][0])
        assert record.propensity == each["propensity"]
        assert (record.pass_prob, record.candidates) == (1.0, tuple(map(str, range(101, 141))))


def test_a_damaged_policy_is_refused_and_the_old_one_goes_on(exported, tmp_path):
    with start_endpoint(tmp_path, exported[0], topic=None) as endpoint:
        version = policy.load(exported[1]).version
        policy_dir = endpoint.directory / "storage" / "policies" / version
        shutil.copytree(exported[1], policy_dir)
        (policy_dir / "scorer.npz").write_bytes((policy_dir / "scorer.npz").read_bytes()[:-7])
        before = endpoint.traffic_split
        with Load(endpoint, threads=1) as load:
            for shares in ({version: 100}, {"0" * 16: 100}, {"../../etc": 100}, {version: 99}, {version: "all"}, {}):
                status, answer = change_release(endpoint, "PUT", {"shares": shares})
                assert (status, list(answer)) == (422, ["detail"])
            assert "damaged" in change_release(endpoint, "PUT", {"shares": {version: 100}})[1]["detail"]
            with pytest.raises(PlatformError, match=f"cannot use version {version}: deploy it first"):
                endpoint.split({version: 100})
        assert {each["policy_version"] for each in load.predictions()} == set(before)
        assert endpoint.traffic_split == before


def test_before_a_policy_is_deployed_the_server_lives_and_is_not_ready(exported, tmp_path):
    """Without a topic, no answer says that it was logged."""
    with start_endpoint(tmp_path, topic=None) as endpoint:
        assert endpoint.health() == {"alive": True, "ready": False, "reason": "no policy is deployed yet"}
        assert post(endpoint, {"instances": [{"user_id": 7}]}) == (503, {"detail": "no policy is deployed yet"})
        version = endpoint.deploy(exported[0])
        assert endpoint.health() == {"alive": True, "ready": True, "reason": ""}
        assert endpoint.predict([{"user_id": 7}])[0]["logged"] is False
        endpoint.undeploy(version)
        assert not endpoint.health()["ready"]


def test_a_silent_pubsub_fails_no_prediction_and_loses_no_decision(exported, tmp_path):
    """Pub/Sub accepts and never answers: 100 decisions are answered, and on the disk at the end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = f"127.0.0.1:{listener.getsockname()[1]}", free_port()
        variables = {"AIP_HTTP_PORT": str(port), "AIP_STORAGE_URI": str(exported[0]), "PUBSUB_EMULATOR_HOST": host}
        variables |= {"RECBANDITS_EVENT_TOPIC": TOPIC, "RECBANDITS_EVENT_SPOOL": str(tmp_path)}
        with (
            start_server(**variables),
            contextlib.closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection,
        ):
            for _ in range(10):
                connection.request("POST", "/predict", json.dumps({"instances": [{"user_id": 7}] * 10}), JSON)
                response = connection.getresponse()
                assert (response.status, len(json.loads(response.read())["predictions"])) == (200, 10)
            counters = get_metrics(connection)["outbox"]
    assert (counters["put"], counters["waiting"] + counters["spooled"], counters["delivered"]) == (100, 100, 0)
    with contextlib.closing(sqlite3.connect(tmp_path / "projects.local.topics.log.sqlite")) as spool:
        assert spool.execute("SELECT count(*) FROM events").fetchone() == (100,)


class Publisher(grpc.GenericRpcHandler):
    """The method of Pub/Sub that publishes; `attributes` are those of the messages."""

    def __init__(self):
        self.attributes = []

    def service(self, call):
        if call.method != "/google.pubsub.v1.Publisher/Publish":
            return None
        request, response = PublishRequest.pb(), PublishResponse.pb()
        return grpc.unary_unary_rpc_method_handler(self._publish, request.FromString, response.SerializeToString)

    def _publish(self, request, _):
        self.attributes += [dict(message.attributes) for message in request.messages]
        return PublishResponse.pb()(message_ids=[str(number) for number in range(len(request.messages))])


def await_counter(connection, name, value):
    end = time.monotonic() + 60
    while get_metrics(connection)["outbox"][name] != value:
        assert time.monotonic() < end, f"{name} is not {value} after 60 seconds"
        time.sleep(0.05)


def test_what_was_answered_without_pubsub_is_published_after_a_kill_and_a_restart(exported, tmp_path):
    port, host = free_port(), f"127.0.0.1:{free_port()}"
    variables = {"AIP_HTTP_PORT": str(port), "AIP_STORAGE_URI": str(exported[0]), "PUBSUB_EMULATOR_HOST": host}
    variables |= {"RECBANDITS_EVENT_TOPIC": TOPIC, "RECBANDITS_EVENT_SPOOL": str(tmp_path)}
    connection, event_ids = HTTPConnection("127.0.0.1", port, timeout=30), []
    with start_server(**variables) as process:
        for _ in range(10):
            connection.request("POST", "/predict", json.dumps({"instances": [{"user_id": 7}] * 10}), JSON)
            predictions = json.loads(connection.getresponse().read())["predictions"]
            event_ids += [each["event_id"] for each in predictions]
        await_counter(connection, "spooled", 100)
        process.kill()
    connection.close()
    publisher = Publisher()
    pubsub = grpc.server(ThreadPoolExecutor(1), [publisher])
    pubsub.add_insecure_port(host)
    pubsub.start()
    try:
        with start_server(**variables):
            await_counter(connection, "replayed", 100)
            connection.close()
    finally:
        pubsub.stop(None)
    assert sorted(each["event_id"] for each in publisher.attributes) == sorted(event_ids)
    assert count_missing(publisher.attributes) == 0


def free_port():
    return free_ports(1)[0]


def test_vertex_starts_the_same_predictor_without_the_other_routes(exported):
    """The SDK's own server, started as its `python -m google.cloud.aiplatform.prediction.model_server` does."""
    port = free_port()
    variables = {
        "AIP_HTTP_PORT": str(port),
        "AIP_HEALTH_ROUTE": "/v1/health",
        "AIP_PREDICT_ROUTE": "/v1/predict",
        "AIP_STORAGE_URI": str(exported[0]),
        "HANDLER_MODULE": "recbandits.serving.handler",
        "HANDLER_CLASS": "BanditHandler",
        "PREDICTOR_MODULE": "recbandits.serving.predictor",
        "PREDICTOR_CLASS": "BanditPredictor",
    }
    factory = "google.cloud.aiplatform.prediction.model_server:CprModelServer"
    command = [sys.executable, "-m", "uvicorn", "--factory", factory, "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(
        command, env=os.environ | variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        try:
            while b"running on" not in process.stderr.readline():
                assert process.poll() is None
            connection = HTTPConnection("127.0.0.1", port, timeout=30)
            for method, path, status in (
                ("GET", "/v1/health", 200),
                ("POST", "/v1/predict", 200),
                ("GET", "/release", 404),
            ):
                connection.request(method, path, json.dumps({"instances": [{"user_id": 7}]}), JSON)
                response = connection.getresponse()
                assert response.status == status
                response.read()
            connection.request("POST", "/v1/predict", "{", JSON)
            error_response = connection.getresponse()
            assert (error_response.status, list(json.loads(error_response.read()))) == (400, ["detail"])
            connection.close()
        finally:
            process.send_signal(signal.SIGTERM)


@pytest.fixture
def open_client(exported, monkeypatch):
    """Function that opens a client of a server in this process, with the first policy and a token."""
    from starlette.testclient import TestClient

    from recbandits.serving import server

    monkeypatch.setenv("AIP_STORAGE_URI", str(exported[0]))
    monkeypatch.setenv("RECBANDITS_ADMIN_TOKEN", "secret")
    switch_interval = sys.getswitchinterval()
    yield lambda **options: TestClient(server.create(), **options)
    sys.setswitchinterval(switch_interval)


def test_an_unexpected_error_is_answered_without_its_text(open_client, monkeypatch):
    monkeypatch.setattr(BanditPredictor, "predict", lambda *_: 1 / 0)
    with open_client(raise_server_exceptions=False) as client:
        answer = client.post("/predict", json={"instances": [{"user_id": 7}]})
        assert (answer.status_code, answer.json()) == (500, {"detail": "internal error, ZeroDivisionError"})
        assert read_metrics(client.get("/metrics").text)["statuses"] == {"500": 1}


def test_the_release_is_seen_and_changed_with_the_token_by_no_name_but_this_machines(server):
    """A web page that reaches this machine under a name of its own sends that name as Host, and has no token."""
    _, before = change_release(server, "GET")
    for method in ("GET", "PUT", "DELETE"):
        for authorization in ("", "Bearer ", "Bearer x", "Basic x", "Bearer \u00e9"):
            status, answer = change_release(server, method, {"shares": {}}, authorization=authorization)
            assert (status, answer["detail"][:29]) == (403, "authorization must be 'Bearer")
        for host in ("", "evil.example", "evil.example:80", "127.0.0.1", "localhost.evil.example"):
            status, answer = change_release(server, method, {"shares": {}}, host=host)
            assert (status, answer["detail"][:23]) == (403, "host must be localhost ")
    assert change_release(server, "GET", host="localhost") == (200, before)


def test_on_a_port_the_host_of_the_release_is_this_machine_with_that_port(open_client):
    with open_client(base_url="http://127.0.0.1:8080") as client:

        def get(host):
            return client.get("/release", headers={"host": host, "authorization": "Bearer secret"})

        for host in ("", "evil.example", "evil.example:8080", "127.0.0.1", "127.0.0.1:8080.evil.example"):
            assert (get(host).status_code, get(host).json()["detail"][:20]) == (403, "host must be 127.0.0")
        assert get("localhost:8080").status_code == 200


def test_without_a_token_the_release_is_closed(open_client, monkeypatch):
    monkeypatch.delenv("RECBANDITS_ADMIN_TOKEN")
    with open_client(base_url="http://127.0.0.1:80") as client:
        answer = client.get("/release", headers={"host": "127.0.0.1:80", "authorization": "Bearer "})
        assert answer.status_code == 403
        assert "closed, because the server was started without RECBANDITS_ADMIN_TOKEN" in answer.json()["detail"]


@contextlib.contextmanager
def start_server(*arguments, **variables):
    """The process of a server that was started as its image does."""
    command = [sys.executable, "-m", "recbandits.serving.server", *arguments]
    with subprocess.Popen(
        command, env=os.environ | variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        try:
            ready = b"startup complete" if any("--uds" in each for each in arguments) else b"running on"
            while ready not in (line := process.stderr.readline()):
                assert process.poll() is None, line
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate()


SINK = """
import sqlite3

class Sink:
    def __init__(self, file):
        self.connection = sqlite3.connect(file, check_same_thread=False)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute("CREATE TABLE IF NOT EXISTS log (event_id TEXT)")

    def send(self, interactions):
        if len({each.user_id for each in interactions} & {"poison"}):
            raise ValueError("not this user")
        with self.connection:
            self.connection.executemany("INSERT INTO log VALUES (?)", [(each.event_id,) for each in interactions])
"""


def log_variables(policy, folder, port):
    """Variables of a server that logs into `log.sqlite` in a folder by a module that is there."""
    (folder / "own_sink.py").write_text(SINK)
    return {
        "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]),
        "AIP_HTTP_PORT": str(port),
        "AIP_STORAGE_URI": str(policy),
        "RECBANDITS_EVENT_TOPIC": str(folder / "log.sqlite"),
        "RECBANDITS_EVENT_SINK": "own_sink:Sink",
    }


def test_what_was_answered_before_a_server_was_killed_is_in_the_log_of_this_machine(exported, tmp_path):
    """Three servers, each killed at a random moment while three clients ask for decisions, three at a time."""
    rng, port, predictions = random.Random(0), free_port(), []

    def send_requests():
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        with contextlib.suppress(ConnectionError, HTTPException):
            while True:
                connection.request("POST", "/predict", json.dumps({"instances": [{"user_id": 7}] * 3}), JSON)
                predictions.extend(json.loads(connection.getresponse().read())["predictions"])
        connection.close()

    def ask_until_killed(goal):
        with start_server(**log_variables(exported[0], tmp_path, port)) as process, ThreadPoolExecutor(3) as pool:
            clients = [pool.submit(send_requests) for _ in range(3)]
            try:
                until(lambda: len(predictions) > goal or any(client.done() for client in clients))
                time.sleep(rng.random() / 2)
                ended = [client for client in clients if client.done()]
            finally:
                process.kill()
            for client in clients:
                client.result()
            assert ended == [], "they ask until the server is killed"

    for goal in (100, 200, 300):
        ask_until_killed(goal)
    assert len(predictions) > 300
    assert all(each["logged"] for each in predictions)
    with contextlib.closing(sqlite3.connect(tmp_path / "log.sqlite")) as log:
        logged_ids = {event_id for (event_id,) in log.execute("SELECT event_id FROM log")}
    assert {each["event_id"] for each in predictions} - logged_ids == set()


def test_a_decision_that_could_not_be_logged_is_answered_says_so_and_fails_alone(exported, tmp_path):
    """Eight clients ask at once; the sink refuses one user, and with it all decisions of the same write."""
    file, port = tmp_path / "log.sqlite", free_port()

    def request_decision(number):
        user = "poison" if number % 4 == 0 else str(number)
        with contextlib.closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
            connection.request("POST", "/predict", json.dumps({"instances": [{"user_id": user}]}), JSON)
            (prediction,) = json.loads(connection.getresponse().read())["predictions"]
        return prediction["event_id"], prediction["logged"], user

    with start_server(**log_variables(exported[0], tmp_path, port)):
        with ThreadPoolExecutor(8) as clients:
            answers = list(clients.map(request_decision, range(200)))
        with contextlib.closing(sqlite3.connect(file)) as log, log:
            logged_ids = [event_id for (event_id,) in log.execute("SELECT event_id FROM log")]
            log.execute("DROP TABLE log")
        assert request_decision(201)[1] is False
        with contextlib.closing(HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
            counters = get_metrics(connection)["outbox"]
    assert counters == {"put": 201, "dropped": 0, "delivered": 150, "failed": 51, "waiting": 0}
    assert {logged for _, logged, user in answers if user == "poison"} == {False}
    assert {logged for _, logged, user in answers if user != "poison"} == {True}
    assert sorted(logged_ids) == sorted(event_id for event_id, logged, _ in answers if logged)


def test_a_request_that_is_cancelled_while_its_decision_is_written_does_not_end_the_log(exported):
    """The next one waits until the sink has taken the first decision."""
    started, ready = threading.Event(), threading.Event()

    class Sink:
        def send(self, interactions):
            started.set()
            assert ready.wait(30)

    async def receive():
        return {"type": "http.request", "body": b'{"instances": [{}]}'}

    async def run():
        handler = BanditHandler(str(exported[0]))
        handler.outbox = DirectLog(Sink())
        scope = {"type": "http", "method": "POST", "headers": [(b"content-type", b"application/json")]}
        cancelled, other = (asyncio.create_task(handler.handle(HttpRequest(scope, receive))) for _ in range(2))
        await asyncio.to_thread(started.wait, 30)
        cancelled.cancel()
        ready.set()
        answer = await asyncio.wait_for(other, 10)
        handler.close()
        return json.loads(answer.body)

    assert asyncio.run(run())["predictions"][0]["logged"] is True


def get_metrics(connection):
    connection.request("GET", "/metrics")
    return read_metrics(connection.getresponse().read().decode())


def get(connection, path, **headers):
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def test_a_server_with_nothing_to_serve_lives_on_loopback_by_default_and_is_not_healthy(tmp_path):
    """Vertex AI sends no traffic until the health route answers 200."""
    port = free_port()
    for arguments, address in (((), "127.0.0.1"), (("--host=0.0.0.0",), "0.0.0.0")):
        with start_server(*arguments, AIP_HTTP_PORT=str(port), AIP_STORAGE_URI=str(tmp_path)) as process:
            connection = HTTPConnection("127.0.0.1", port, timeout=30)
            assert get(connection, "/live") == (200, {})
            assert get(connection, "/health") == (503, {"detail": "no policy is deployed yet"})
            connection.close()
            listening = {
                each.laddr for each in psutil.Process(process.pid).net_connections() if each.status == "LISTEN"
            }
            assert listening == {(address, port)}


def test_a_socket_of_the_file_system_belongs_to_its_user_and_needs_the_token_too(exported, tmp_path):
    """A server that was killed leaves its socket behind; the next one takes its place."""
    for _ in range(2):
        with start_server(
            f"--uds={tmp_path}/s", AIP_STORAGE_URI=str(exported[0]), RECBANDITS_ADMIN_TOKEN="t"
        ) as process:
            assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
            connection = SocketConnection(tmp_path / "s", timeout=30)
            assert get(connection, "/health") == (200, {})
            assert get(connection, "/release")[0] == 403
            assert get(connection, "/release", authorization="Bearer t", host="evil.example")[0] == 403
            assert get(connection, "/release", authorization="Bearer t")[0] == 200
            connection.close()
            process.kill()


def test_a_file_that_is_no_socket_is_not_replaced_by_one(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    command = [sys.executable, "-m", "recbandits.serving.server", f"--uds={tmp_path}/notes.txt"]
    assert b"Address already in use" in subprocess.run(command, stderr=subprocess.PIPE, timeout=60).stderr
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("variables", "arguments", "sentence"),
    [
        ({"AIP_HTTP_PORT": "99999"}, [], "AIP_HTTP_PORT must be a whole number from 1 to 65535, got '99999'"),
        ({"AIP_HTTP_PORT": "0"}, [], "AIP_HTTP_PORT must be a whole number from 1 to 65535, got '0'"),
        ({"AIP_HTTP_PORT": "abc"}, [], "AIP_HTTP_PORT must be a whole number from 1 to 65535, got 'abc'"),
        ({"AIP_HEALTH_ROUTE": "health"}, [], "AIP_HEALTH_ROUTE must be a path that begins with '/', got 'health'"),
        ({"AIP_PREDICT_ROUTE": ""}, [], "AIP_PREDICT_ROUTE must be a path that begins with '/', got ''"),
        (
            {"AIP_PREDICT_ROUTE": "/health"},
            [],
            "AIP_HEALTH_ROUTE and AIP_PREDICT_ROUTE must be two paths, and none of /live, /metrics, /openapi.json and "
            "/release, got ('/health', '/health')",
        ),
        ({"AIP_STORAGE_URI": "/nope"}, [], "there is nothing at /nope"),
        (
            {},
            ["--uds=/nope/s"],
            "uds must be a path at which a socket can be made, got '/nope/s': [Errno 2] No such file or directory",
        ),
    ],
)
def test_a_server_that_cannot_start_says_why_in_one_sentence(tmp_path, variables, arguments, sentence):
    command = [sys.executable, "-m", "recbandits.serving.server", *arguments]
    environment = os.environ | {"AIP_STORAGE_URI": str(tmp_path), "AIP_HTTP_PORT": str(free_port())} | variables
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"the server could not start: {sentence}\n")


@pytest.mark.parametrize(
    ("method", "path", "status", "sentence"),
    [
        ("GET", "/predict", 405, "method must be POST, got 'GET'"),
        ("DELETE", "/health", 405, "method must be GET, got 'DELETE'"),
        ("GET", "/ready", 404, "path must be one of /predict, /health, /live, /metrics, /openapi.json, /release, got"),
    ],
)
def test_another_route_or_method_is_refused_by_a_sentence(server, method, path, status, sentence):
    connection = connect(server)
    connection.request(method, path)
    response = connection.getresponse()
    assert response.status == status
    assert json.loads(response.read())["detail"].startswith(sentence)
    connection.close()
