"""The warehouse on Google Cloud: the requests that BigQuery gets, and the contract on an emulator of BigQuery."""

import json
import os
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import google.auth
import pyarrow as pa
import pytest
from google.api_core import exceptions
from google.auth.exceptions import DefaultCredentialsError
from warehouse_contract import START, WarehouseContract, join, reward

from recbandits.config import Config
from recbandits.platforms.gcp.warehouse import BigQueryWarehouse, GroupedWrites
from recbandits.platforms.protocol import PlatformError
from recbandits.platforms.warehouse import digest_of
from tests import waiting

PROJECT = "movie-lab-42"
API = f"/bigquery/v2/projects/{PROJECT}"
HOST = "https://bigquery.googleapis.com"
TABLES = f"{API}/datasets/recbandits_v1/tables"
LABELS = {"app": "recbandits", "prefix": "recbandits", "version": "v1"}
DAY = 86_400_000  # milliseconds
LIMIT = "the emulator does not pass parameters to scripts of several statements"


@pytest.fixture
def cloud(cloud, no_pauses):
    """A recorder with the dataset, whose jobs end at once, and whose queries return `cloud.digests`, empty at first."""
    cloud.documents[f"{API}/datasets/recbandits_v1"] = {}
    cloud.answers[f"POST https://[^/]+{API}/jobs"] = lambda request: request["body"] | {"status": {"state": "DONE"}}
    cloud.answers[f"GET https://[^/]+{API}/queries/.*"] = lambda _: rows_of(*cloud.digests)
    cloud.digests = []
    return cloud


def rows_of(*digests):
    """Return the response of BigQuery to a query: a table with one column."""
    fields = [{"name": "digest", "type": "STRING"}]
    rows = [{"f": [{"v": digest}]} for digest in digests]
    complete = {"jobComplete": True, "jobReference": {"jobId": "query"}, "totalRows": str(len(rows))}
    return complete | {"schema": {"fields": fields}, "rows": rows}


@pytest.fixture
def warehouse(cloud):
    return BigQueryWarehouse(Config(platform="gcp", project=PROJECT))


def queries(cloud):
    """Return the configurations of the queries that were sent."""
    return [each["body"]["configuration"] for each in cloud.requests(f"POST {HOST}{API}/jobs")]


def parameters(configuration):
    return {each["name"]: each["parameterValue"]["value"] for each in configuration["query"]["queryParameters"]}


class TestBigQueryWarehouse(WarehouseContract):
    """Google's client, and an emulator of BigQuery that the environment names behind it."""

    @pytest.fixture
    def warehouse(self):
        if not os.environ.get("BIGQUERY_EMULATOR_HOST"):
            pytest.skip("needs an emulator of BigQuery: set BIGQUERY_EMULATOR_HOST")
        config = Config(platform="gcp", project=PROJECT, version=uuid.uuid4().hex[:8])
        warehouse = BigQueryWarehouse(config)
        warehouse._client.create_dataset(config.dataset)
        warehouse.create()
        yield warehouse
        warehouse._client.delete_dataset(config.dataset, delete_contents=True)

    @pytest.mark.xfail(reason=LIMIT, strict=True, raises=PlatformError)
    def test_dropped_decisions_leave_no_orphans(self, warehouse):
        super().test_dropped_decisions_leave_no_orphans(warehouse)

    @pytest.mark.xfail(reason=LIMIT, strict=True, raises=PlatformError)
    def test_a_forgotten_user_leaves_no_decision_and_no_reward(self, warehouse):
        super().test_a_forgotten_user_leaves_no_decision_and_no_reward(warehouse)


def test_an_emulator_is_used_without_credentials(cloud, warehouse, monkeypatch):
    refusal = mock.patch.object(google.auth, "default", side_effect=DefaultCredentialsError("no credentials"))
    with refusal, pytest.raises(PlatformError, match="no credentials were found"):
        warehouse.query("SELECT 1")
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", "https://emulator.example")
    cloud.digests = ["a"]
    assert warehouse.query("SELECT 1")["digest"].to_pylist() == ["a"]
    assert {method.partition(API)[0].partition(" ")[2] for method in cloud.methods()} == {"https://emulator.example"}


def test_tables_have_days_clusters_and_an_expiry(warehouse, cloud):
    warehouse.create(expiry=30)
    tables = {path.rpartition("/")[2]: table for path, table in cloud.documents.items() if path.startswith(TABLES)}
    assert list(tables) == ["interactions", "rewards", "quarantine", "verdicts", "decisions"]
    assert all(table["labels"] == LABELS for table in tables.values())
    rewards = tables["rewards"]
    assert rewards["timePartitioning"] == {"type": "DAY", "field": "time", "expirationMs": str(30 * DAY)}
    assert rewards["clustering"] == {"fields": ["event_id"]}
    assert [(field["name"], field["type"], field["mode"]) for field in rewards["schema"]["fields"]] == [
        ("event_id", "STRING", "REQUIRED"),
        ("time", "TIMESTAMP", "REQUIRED"),
        ("value", "FLOAT", "REQUIRED"),
        ("digest", "STRING", "REQUIRED"),
    ]
    assert tables["verdicts"]["timePartitioning"] == {"type": "DAY", "field": "time"}, "verdicts stay"


def test_the_view_quotes_the_project_whose_name_has_hyphens(warehouse, cloud):
    warehouse.create()
    view = cloud.documents[f"{TABLES}/decisions"]["view"]
    assert view["useLegacySql"] is False
    assert "FROM `movie-lab-42`.recbandits_v1.interactions" in view["query"]
    assert "FROM `movie-lab-42`.recbandits_v1.rewards" in view["query"]


def test_creating_again_reads_and_changes_nothing(warehouse, cloud):
    """A second call without an expiry does not know that of the first."""
    warehouse.create(expiry=30)
    cloud.calls.clear()
    warehouse.create()
    assert len(cloud.methods("GET")) == len(cloud.methods()) == 5


def test_an_expiry_is_set_on_existing_tables(warehouse, cloud):
    warehouse.create()
    warehouse.create(expiry=1)
    changes = cloud.requests(f"PATCH {HOST}{TABLES}/.*")
    partitions = {"type": "DAY", "field": "time", "expirationMs": str(DAY)}
    assert [each["body"]["timePartitioning"] for each in changes] == [partitions] * 3


@pytest.mark.parametrize("days", [0, float("nan")])
def test_an_invalid_expiry_is_refused_before_any_request(warehouse, cloud, days):
    with pytest.raises(ValueError, match="expiry must be a positive number of days, got"):
        warehouse.create(expiry=days)
    assert cloud.calls == []


def test_a_batch_is_loaded_queried_merged_and_removed(warehouse, cloud):
    """BigQuery returns the digest of one of two rewards, so that one is new."""
    cloud.digests = [digest_of(reward("b", 3, 4.0).to_json())]
    assert warehouse.write([reward("a", 1, 5.0), reward("b", 3, 4.0)]) == 1
    (table,) = cloud.requests(f"POST {HOST}{TABLES}")
    staging = table["body"]["tableReference"]["tableId"]
    assert staging.startswith("batch_of_rewards_")
    assert int(table["body"]["expirationTime"]) > 0, "in case its writer does not remove it"
    load, content = cloud.requests(f"(POST|PUT) {HOST}/upload{API}/jobs")
    settings = json.loads(load["body"])["configuration"]["load"]
    assert (settings["sourceFormat"], settings["parquetOptions"]) == ("PARQUET", {"enableListInference": True})
    assert settings["destinationTable"]["tableId"] == staging
    assert load["query"]["uploadType"] == "resumable"
    assert content["body"].startswith(b"PAR1")
    query, merge = queries(cloud)
    for configuration in (query, merge):
        assert configuration["query"]["defaultDataset"] == {"projectId": PROJECT, "datasetId": "recbandits_v1"}
        assert configuration["labels"] == LABELS
        assert parameters(configuration) == {"first": "2026-01-01 12:00:01+00:00", "last": "2026-01-01 12:00:03+00:00"}
    assert " ".join(merge["query"]["query"].split()) == (
        f"MERGE INTO rewards AS t USING {staging} AS s ON t.event_id = s.event_id AND t.digest = s.digest"
        " AND t.time BETWEEN @first AND @last"
        " WHEN NOT MATCHED THEN INSERT (event_id, time, value, digest)"
        " VALUES (s.event_id, s.time, s.value, s.digest)"
    )
    assert cloud.methods()[-1] == f"DELETE {HOST}{TABLES}/{staging}"


def test_a_table_that_was_made_by_a_request_whose_answer_was_lost_is_loaded_into(warehouse, cloud):
    """The client sends the request again, and BigQuery says that the table is there."""

    def lose(request):
        name = f"{TABLES}/{request['body']['tableReference']['tableId']}"
        if name in cloud.documents:
            return None
        cloud.documents[name] = request["body"]
        return exceptions.ServiceUnavailable("try again")

    cloud.answers[f"POST {HOST}{TABLES}"] = lose
    assert warehouse.write([reward("a", 1, 5.0)]) == 0
    assert len(cloud.requests(f"POST {HOST}{TABLES}")) == 2


def test_a_stored_reward_is_not_merged(warehouse, cloud):
    assert warehouse.write([reward("a", 1, 5.0)]) == 0
    assert len(queries(cloud)) == 1


def test_a_refused_batch_leaves_no_table(warehouse, cloud):
    cloud.answers = {f"POST {HOST}{API}/jobs": exceptions.BadRequest("Table rewards\nwas not found")}
    with pytest.raises(PlatformError, match=r"dataset movie-lab-42\.recbandits_v1: 400 .*Table rewards was not found"):
        warehouse.write([reward("a", 1, 5.0)])
    assert not [path for path in cloud.documents if path.startswith(f"{TABLES}/")]


def test_rewards_are_read_only_from_the_partitions_of_the_window(warehouse, cloud):
    cloud.answers = {f"POST {HOST}{API}/jobs": exceptions.BadRequest("no")}
    with pytest.raises(PlatformError, match=r": 400 .*no"):
        warehouse.decisions(START, START, join(60, 1.0, lowest=1, highest=5, skew=1))
    (configuration,) = queries(cloud)
    assert parameters(configuration) == {
        "start": "2026-01-01 12:00:00+00:00",
        "since": "2026-01-01 11:59:59+00:00",
        "stop": "2026-01-01 12:00:00+00:00",
        "until": "2026-01-01 12:01:00+00:00",
        "microseconds": "60000000",
        "skew": "1000000",
        "lowest": 1.0,
        "highest": 5.0,
        "fallback": 1.0,
    }
    assert "r.time >= @since AND r.time <= @until" in configuration["query"]["query"]


def test_a_user_is_forgotten_in_one_transaction(warehouse, cloud):
    warehouse.forget("1")
    (configuration,) = queries(cloud)
    statements = [" ".join(each.split()) for each in configuration["query"]["query"].split(";")]
    assert [each.partition(" ")[0] for each in statements] == ["BEGIN", "DELETE", "DELETE", "COMMIT"]
    assert parameters(configuration) == {"user": "1"}


def batch(*digests):
    return {"rewards": pa.table({"digest": list(digests)})}


def test_concurrent_writes_are_grouped_and_each_gets_the_count_of_its_own_rows():
    """The first of 31 writers is held until 30 wait: two batches, and of each of 15 pairs of equal rows one is new."""
    batches = []

    def insert(tables):
        batches.append(tables["rewards"]["digest"].to_pylist())
        if len(batches) == 1:
            waiting.until(lambda: len(writes._waiting) == 30)
        return set(batches[-1])

    writes = GroupedWrites(insert)
    with ThreadPoolExecutor(31) as pool:
        first = pool.submit(writes.write, batch("first"))
        waiting.until(lambda: batches)
        others = [pool.submit(writes.write, batch(str(k // 2))) for k in range(30)]
        counts = [each.result() for each in others]
    assert first.result() == 1
    assert [sum(pair) for pair in zip(counts[::2], counts[1::2], strict=True)] == [1] * 15
    assert [len(each) for each in batches] == [1, 30]


def test_a_refused_group_raises_for_each_of_its_writers_and_the_next_is_written():
    release, results = threading.Event(), [lambda _: release.wait(30) and set()]

    def insert(tables):
        if results:
            return results.pop()(tables)
        if "bad" in tables["rewards"]["digest"].to_pylist():
            raise PlatformError("refused")
        return {"good"}

    writes = GroupedWrites(insert)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(writes.write, batch("first"))
        waiting.until(lambda: not results)
        others = [pool.submit(writes.write, batch(name)) for name in ("bad", "other")]
        waiting.until(lambda: len(writes._waiting) == 2)
        release.set()
        errors = [each.exception() for each in others]
    assert first.result() == 0
    assert [str(each) for each in errors] == ["refused"] * 2
    assert writes.write(batch("good")) == 1
