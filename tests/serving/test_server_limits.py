"""Misbehaving clients of the prediction server, on real sockets: it answers others and frees its memory."""

import contextlib
import json
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from recbandits.config import Config
from recbandits.platforms.local.endpoints import LocalEndpoints, SocketConnection, socket_of
from recbandits.serving.handler import MAX_BODY_BYTES, MAX_CONCURRENT_PREDICTIONS, MAX_RESPONSE_BYTES
from recbandits.serving.server import CLIENT_TIMEOUT, MAX_CONNECTIONS
from tests.waiting import until

JSON = {"content-type": "application/json"}
HEAD = "POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
CHUNKED = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
QUICK, SIMPLE = 0.5, {"instances": [{"user_id": 7}]}


@pytest.fixture(scope="module")
def server(exported, tmp_path_factory):
    """An endpoint that has answered every kind of request once, so that its lasting memory is allocated."""
    endpoint = LocalEndpoints(Config(artifacts=str(tmp_path_factory.mktemp("artifacts")))).create("bounded")
    try:
        endpoint.deploy(exported[0])
        for _ in range(3):
            assert endpoint.raw_predict(large_answer(), JSON)[0] == 200
        yield endpoint
    finally:
        endpoint.delete()


def large_answer(items=10_000):
    """A body whose answer is nearly 1.5 MB: each new item has a long id, which is its title as well."""
    ids = [f"{number:058}" for number in range(items)]
    instance = {"candidates": ids, "new_items": {name: {} for name in ids}, "k": items}
    return json.dumps({"instances": [instance]}, separators=(",", ":")).encode()


def process_of(server):
    return psutil.Process(server.metrics()["process"])


def memory(server):
    return process_of(server).memory_info().rss


@contextlib.contextmanager
def answer_meanwhile(server):
    """Request the health on a new connection each time until the block ends: 0.5 s each on an idle machine."""
    end, times = threading.Event(), []

    def send_requests():
        while not end.is_set():
            start = time.monotonic()
            connection = SocketConnection(socket_of(server.directory), timeout=20)
            connection.request("GET", "/health")
            times.append((connection.getresponse().status, time.monotonic() - start))
            connection.close()
            end.wait(0.05)

    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(send_requests)
        try:
            yield
        finally:
            end.set()
        future.result()
    assert {status for status, _ in times} == {200}
    assert times
    busy = max(1.0, os.getloadavg()[0] / os.cpu_count())  # by what else this machine does
    assert max(seconds for _, seconds in times) < QUICK * busy


def connect(server, buffer=None):
    connection = socket.socket(socket.AF_UNIX)
    if buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    connection.settimeout(30)
    connection.connect(str(socket_of(server.directory)))
    return connection


def send(connection, body, length=None):
    """Send a request, as far as the server takes it; it may have closed the connection."""
    with contextlib.suppress(ConnectionError):
        connection.sendall(HEAD.format(length=len(body) if length is None else length).encode() + body)


def closed(connection):
    """Read all that the server has sent, and return whether it has closed the connection."""
    try:
        while connection.recv(1 << 20):
            pass
    except ConnectionError:
        return True
    except TimeoutError:
        return False
    return True


def check_memory(server, before):
    """Memory is back within 10 % of what it was."""
    end = time.monotonic() + 5
    while memory(server) > 1.1 * before and time.monotonic() < end:
        time.sleep(0.1)
    assert memory(server) < 1.1 * before, f"{memory(server) / 1e6:.0f} MB after {before / 1e6:.0f} MB"


NEXT_REQUEST = b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n"


@pytest.mark.parametrize("more", [b"", NEXT_REQUEST], ids=("one request", "pipelined"))
def test_16_clients_that_take_no_answer_are_left_and_their_memory_comes_back(server, more):
    """Each answer is 1.5 MB. The clients have ten seconds to take it, with another request behind it or not."""
    before, body = memory(server), large_answer()
    clients = [connect(server, buffer=4096) for _ in range(16)]
    with answer_meanwhile(server):
        for client in clients:
            send(client, body)
            client.sendall(more)
        time.sleep(CLIENT_TIMEOUT + 4)
    check_memory(server, before)
    path, process = str(socket_of(server.directory)), process_of(server)
    until(lambda: sum(each.laddr == path for each in process.net_connections("unix")) == 1)  # the one that listens
    assert len(server.predict(SIMPLE["instances"])) == 1
    assert "Traceback" not in server.logs()
    for client in clients:
        client.close()


def test_clients_that_pipeline_and_take_no_answer_lock_no_other_one_out(server):
    """There are as many as there may be connections, and each answer is 0.4 MB, more than a socket's buffer."""
    body = large_answer(2_500)
    with contextlib.ExitStack() as clients:
        for _ in range(MAX_CONNECTIONS):
            client = clients.enter_context(connect(server, buffer=4096))
            send(client, body)
            client.sendall(NEXT_REQUEST)
            assert client.recv(1)  # the answer has come
        assert len(server.predict(SIMPLE["instances"])) == 1


def test_140_half_sent_requests_block_no_other_client_and_release_their_memory(server):
    """They are more than there may be connections, and 100 MB of bodies; ten seconds each for head and body."""
    before = memory(server)
    incomplete_body = b"{" * (MAX_BODY_BYTES - 1)
    with answer_meanwhile(server), contextlib.ExitStack() as clients:
        connections = [clients.enter_context(connect(server)) for _ in range(140)]
        assert len(connections) > MAX_CONNECTIONS
        start = time.monotonic()
        for with_body, with_head in zip(connections[::2], connections[1::2], strict=True):
            send(with_body, incomplete_body, MAX_BODY_BYTES)
            with contextlib.suppress(ConnectionError):
                with_head.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\n")
        assert len(server.predict(SIMPLE["instances"])) == 1
        assert all(map(closed, connections))
        assert time.monotonic() - start < 3 * CLIENT_TIMEOUT  # one for the head, one for the body, and to close
    check_memory(server, before)


def repeat(template, frame):
    """A body of 1.5 MB that repeats something, numbered."""
    count = (MAX_BODY_BYTES - 200) // len(template.format(100_000))
    return frame.format("".join(template.format(100_000 + number) for number in range(count)).rstrip(",")).encode()


LARGE = {
    "many new items": (
        repeat('"{}":{{}},', '{{"instances":[{{"new_items":{{{}}}}}]}}'),
        422,
        "new_items must have at most 10,000",
    ),
    "bad columns": (
        repeat('"{}":[],', '{{"instances":[{{"context":{{{}}}}}]}}'),
        422,
        "context must have at most 10,000",
    ),
    "unknown fields": (repeat('"{}":0,', '{{"instances":[{{{}}}]}}'), 422, "instances[0].100000 is not known"),
    "unknown candidates": (
        repeat('"{}",', '{{"instances":[{{"candidates":[{}]}}]}}'),
        422,
        "unknown item ids: 100000,",
    ),
    "numbers": (
        repeat("{},", '{{"instances":[{{"candidate_features":{{"p":[{}]}}}}]}}'),
        422,
        "candidate_features must be",
    ),
    "nesting": (b"[" * MAX_BODY_BYTES, 400, "recursion limit"),
}


@pytest.mark.parametrize("kind", LARGE)
def test_1_5_megabytes_of_any_kind_block_no_other_client_and_release_their_memory(server, kind):
    body, status, sentence = LARGE[kind]
    assert 1_300_000 < len(body) <= MAX_BODY_BYTES
    before = memory(server)
    with answer_meanwhile(server):
        for _ in range(3):
            actual_status, answer = server.raw_predict(body, JSON)
            assert (actual_status, sentence in json.loads(answer)["detail"]) == (status, True), answer[:300]
    check_memory(server, before)


def test_10_000_new_items_with_their_columns_are_answered(server):
    columns = {"year": 1999.123456789012, "popularity": 0.12345678901234567}
    ids = [f"new item {number:070}" for number in range(10_000)]
    body = json.dumps({"instances": [{"k": 2, "new_items": dict.fromkeys(ids, columns)}]}).encode()
    assert 1_300_000 < len(body) <= MAX_BODY_BYTES
    before = memory(server)
    with answer_meanwhile(server):
        for _ in range(3):
            status, answer = server.raw_predict(body, JSON)
            assert status == 200, answer[:300]
    check_memory(server, before)


@pytest.mark.parametrize(
    ("instances", "sentence"),
    [
        ([{"k": 40}] * 251, "k must be at most 10,000 over all instances together, got 10,040"),
        (
            [{"new_items": {str(number): {} for number in range(50)}}] * 201,
            "new_items must be at most 10,000 over all instances together, got 10,050",
        ),
    ],
)
def test_what_all_instances_ask_for_together_is_bounded(server, instances, sentence):
    status, answer = server.raw_predict(json.dumps({"instances": instances}), JSON)
    assert (status, json.loads(answer)) == (422, {"detail": sentence})


def test_candidates_of_parameters_count_for_every_instance_that_names_none(server):
    candidates = [str(number) for number in range(10_000)]
    body = {"instances": [{}] * 101, "parameters": {"candidates": candidates}}
    status, answer = server.raw_predict(json.dumps(body), JSON)
    assert (status, json.loads(answer)["detail"]) == (
        422,
        "candidates must be at most 1,000,000 over all instances together, got 1,010,000",
    )


def test_an_answer_of_more_than_1_5_megabytes_is_refused(server):
    ids = [f"{number:0145}" for number in range(5_000)]
    body = {"instances": [{"new_items": {name: {} for name in ids}, "k": 5_000}]}
    status, answer = server.raw_predict(json.dumps(body, separators=(",", ":")), JSON)
    assert status == 422
    sentence = f"the answer must have at most {MAX_RESPONSE_BYTES:,} bytes, got 1,5"
    assert json.loads(answer)["detail"].startswith(sentence)


def test_more_predictions_at_once_than_there_may_be_are_refused_and_the_others_answered(server):
    body = large_answer(8_000)
    with answer_meanwhile(server), ThreadPoolExecutor(2 * MAX_CONCURRENT_PREDICTIONS) as clients:
        answers = list(clients.map(lambda _: server.raw_predict(body, JSON), range(2 * MAX_CONCURRENT_PREDICTIONS)))
    statuses = [status for status, _ in answers]
    assert set(statuses) == {200, 503}
    assert statuses.count(200) >= MAX_CONCURRENT_PREDICTIONS
    detail = next(json.loads(answer)["detail"] for status, answer in answers if status == 503)
    assert detail == "32 predictions are under way already, try again later"


@pytest.mark.parametrize(
    ("start", "part"),
    [
        (b"GET /health HTTP/1.1\r\nx: ", b"y"),
        (CHUNKED + b"2\r\n{}\r\n0\r\nx: ", b"y"),
        (CHUNKED + b"2\r\n{}\r\n0\r\n", b"x: y\r\n"),
        (CHUNKED + b"2;", b"y"),
    ],
    ids=("head", "trailer", "trailers", "extension of a chunk"),
)
def test_what_is_no_body_and_does_not_end_is_refused(server, start, part):
    with connect(server) as client:
        with contextlib.suppress(ConnectionError):
            client.sendall(start + part * 400_000)
        assert b"400" in client.recv(1000)
        assert closed(client)


def test_a_few_requests_that_come_together_are_answered_in_turn(server):
    """Together they are larger than the head of one may be."""
    body = json.dumps(SIMPLE).encode() + b" " * 10_000
    with connect(server) as client:
        for _ in range(2):
            client.sendall((HEAD.format(length=len(body)).encode() + body) * 9)
            received = b""
            while received.count(b"HTTP/1.1 200 OK") < 9:
                received += (part := client.recv(1 << 20))
                assert part, received[-300:]


def test_a_client_that_sends_requests_without_end_and_takes_no_answer_is_disconnected(server):
    before = memory(server)
    with answer_meanwhile(server), connect(server) as client:
        with contextlib.suppress(ConnectionError):
            for _ in range(500):
                client.sendall(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n" * 1000)
        assert closed(client)
    check_memory(server, before)
