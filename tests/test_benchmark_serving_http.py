"""The benchmark of the servers measures answers alone."""

import os
from types import SimpleNamespace

from benchmarks import serving_http
from recbandits.config import Config
from recbandits.platforms.local.endpoints import LocalEndpoints, SocketConnection, socket_of


def test_two_servers_are_compared_by_what_they_answer(exported, tmp_path):
    endpoint = LocalEndpoints(Config(artifacts=str(tmp_path))).create()
    try:
        endpoint.deploy(exported[0])
        server = SimpleNamespace(
            instances=[{"user_id": 7}, {"user_id": 8}],
            count_lost=lambda: "",
            address=str(socket_of(endpoint.directory)),
            process=endpoint.metrics()["process"],
        )
        assert endpoint.metrics()["requests"] == 0
        own_row, peer_row = serving_http.compare_servers(
            {serving_http.OWN_SERVER: server, "again": server}, 3, rounds=2, seconds=0.2
        )
        statuses = endpoint.metrics()["statuses"]
    finally:
        endpoint.delete()
    assert list(statuses) == ["200"]
    assert (own_row["clients"], own_row["answered by"], own_row["ratio"]) == (3, serving_http.OWN_SERVER, "")
    assert float(own_row["p50"].removesuffix(" ms")) <= float(own_row["p99"].removesuffix(" ms"))
    assert 0 < int(own_row["requests"].removesuffix("/s").replace(",", "")) < statuses["200"] / 0.2
    assert "x (" in peer_row["ratio"]


def test_a_ratio_above_1_says_that_our_server_is_faster(monkeypatch):
    """Ours answers 40 requests of 10 ms in a second, the other one 10 of 80 ms, and the bound 80 of 5 ms."""
    answers = {"ours": ([0.01] * 40, 1.0), "theirs": ([0.08] * 10, 1.0), "bare": ([0.005] * 80, 1.0)}
    monkeypatch.setattr(serving_http, "load", lambda server, clients, seconds: answers[server.address])
    names = {serving_http.OWN_SERVER: "ours", serving_http.PEER_SERVER: "theirs", serving_http.BOUND: "bare"}
    servers = {
        name: SimpleNamespace(address=address, process=os.getpid(), count_lost=lambda: "")
        for name, address in names.items()
    }
    rows = list(serving_http.compare_servers(servers, 1, rounds=2, seconds=1.0))
    assert [row["p50"] for row in rows] == ["10.00 ms", "80.00 ms", "5.00 ms"]
    assert [row["requests"] for row in rows] == ["40/s", "10/s", "80/s"]
    assert [row["ratio"] for row in rows] == ["", "4x (4 to 4)", ""]
    assert [row["share of the bound"] for row in rows] == ["50 %", "12 %", "100 %"]


def test_the_bare_server_returns_the_body_and_is_the_bound(tmp_path):
    with serving_http.serve_echo(tmp_path, [{"user_id": "7"}]) as server:
        connection = SocketConnection(server.address, timeout=10)
        connection.request("POST", "/predict", b'{"a": 1}')
        body = connection.getresponse().read()
        connection.close()
        rows = serving_http.compare_servers({serving_http.OWN_SERVER: server, serving_http.BOUND: server}, 2, 1, 0.2)
        shares = [row["share of the bound"] for row in rows]
    assert body == b'{"a": 1}'
    assert shares[1] == "100 %"
    assert float(shares[0].removesuffix(" %")) > 0
