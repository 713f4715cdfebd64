"""The benchmark of the servers measures answers, and nothing else."""

from types import SimpleNamespace

from benchmarks import serving_http
from recbandits.config import Config
from recbandits.platforms.local.endpoints import LocalEndpoints, socket_of


def test_two_servers_are_compared_by_what_they_answer(exported, tmp_path):
    endpoint = LocalEndpoints(Config(artifacts=str(tmp_path))).create()
    try:
        endpoint.deploy(exported[0])
        server = SimpleNamespace(
            instances=[{"user_id": 7}, {"user_id": 8}],
            lost=lambda: "",
            address=str(socket_of(endpoint.directory)),
            process=endpoint.metrics()["process"],
        )
        assert endpoint.metrics()["requests"] == 0
        ours, theirs = serving_http.compared({serving_http.OURS: server, "again": server}, 3, rounds=2, seconds=0.2)
        counted = endpoint.metrics()["statuses"]
    finally:
        endpoint.delete()
    assert list(counted) == ["200"]
    assert (ours["clients"], ours["answered by"], theirs["ratio"]) == (3, serving_http.OURS, "")
    assert float(ours["p50"].removesuffix(" ms")) <= float(ours["p99"].removesuffix(" ms"))
    assert 0 < int(ours["requests"].removesuffix("/s").replace(",", "")) < counted["200"] / 0.2
    assert "x (" in ours["ratio"]
