"""The warehouse on Google Cloud: the contract, with BigQuery rehearsed on DuckDB, and the requests that it gets."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from warehouse_contract import START, WarehouseContract, shown, told

from recbandits.config import Config
from recbandits.platforms import provisioning
from recbandits.platforms.gcp import GcpPlatform
from recbandits.platforms.gcp.rehearsal import Rehearsal
from recbandits.platforms.protocol import PlatformError, Resource
from recbandits.platforms.provisioning import clean_up, manifest
from recbandits.records import Quarantined

DATASET = "/bigquery/v2/projects/movie-lab-42/datasets/recbandits_v1"
LABELS = {"app": "recbandits", "prefix": "recbandits", "version": "v1"}
TABLES = [f"{DATASET}/tables/{name}" for name in ("interactions", "rewards", "quarantine", "verdicts")]
DAY = 86_400_000  # milliseconds


@pytest.fixture
def cloud():
    with Rehearsal() as cloud:
        yield cloud


@pytest.fixture
def platform(cloud, tmp_path):
    return GcpPlatform(Config(platform="gcp", project="movie-lab-42", artifacts=str(tmp_path)), cloud.endpoint)


@pytest.fixture
def empty(platform):
    """A warehouse whose dataset has no tables yet."""
    platform.make(Resource("dataset", "movie-lab-42.recbandits_v1"))
    return platform.warehouse


@pytest.fixture
def warehouse(empty, cloud):
    empty.create()
    cloud.requests.clear()
    return empty


class TestBigQueryWarehouse(WarehouseContract):
    """BigQuery's clients, and DuckDB behind them."""


def test_tables_have_days_clusters_and_an_expiry(empty, cloud):
    empty.create(expiry=30)
    tables = {name: cloud.documents[f"{DATASET}/tables/{name}"] for name in ("rewards", "quarantine", "verdicts")}
    assert tables["rewards"]["timePartitioning"] == {"type": "DAY", "field": "time", "expirationMs": str(30 * DAY)}
    assert tables["rewards"]["clustering"] == {"fields": ["event_id"]}
    assert tables["rewards"]["labels"] == LABELS
    assert [(field["name"], field["type"], field["mode"]) for field in tables["rewards"]["schema"]["fields"]] == [
        ("event_id", "STRING", "REQUIRED"),
        ("time", "TIMESTAMP", "REQUIRED"),
        ("value", "FLOAT", "REQUIRED"),
        ("digest", "STRING", "REQUIRED"),
    ]
    assert tables["quarantine"]["timePartitioning"]["expirationMs"] == str(30 * DAY)
    assert tables["verdicts"]["timePartitioning"] == {"type": "DAY", "field": "time"}
    view = cloud.documents[f"{DATASET}/tables/decisions"]["view"]
    assert view["useLegacySql"] is False
    assert "FROM movie-lab-42.recbandits_v1.interactions" in view["query"]


def test_what_is_made_is_on_the_manifest_and_removed_by_it(empty, platform, cloud):
    """Four tables and a view; made again, nothing is sent but questions, and the manifest is the same."""
    empty.create()
    listed = provisioning.manifest(platform)
    names = ["interactions", "rewards", "quarantine", "verdicts", "decisions"]
    assert listed == [Resource("table", f"movie-lab-42.recbandits_v1.{name}") for name in names]
    cloud.requests.clear()
    empty.create()
    assert {request.method for request in cloud.requests} == {"GET"}
    assert provisioning.manifest(platform) == listed
    provisioning.clean_up(platform, dry_run=False)
    assert [path for path in cloud.documents if path.startswith(f"{DATASET}/tables")] == []


def test_an_expiry_holds_for_tables_that_are_there(empty, cloud):
    empty.create()
    empty.create(expiry=1)
    assert cloud.documents[f"{DATASET}/tables/rewards"]["timePartitioning"]["expirationMs"] == str(DAY)


def test_creating_again_leaves_the_expiry_as_it_is(empty, cloud):
    """Whoever creates the tables again does not know how long rows are kept."""
    empty.create(expiry=30)
    before = {path: document["timePartitioning"] for path, document in cloud.documents.items() if path in TABLES}
    cloud.requests.clear()
    empty.create()
    assert {path: cloud.documents[path]["timePartitioning"] for path in TABLES} == before
    assert {request.method for request in cloud.requests} == {"GET"}
    kept = [before[path].get("expirationMs") for path in TABLES]
    assert kept == [str(30 * DAY)] * 3 + [None], "verdicts stay"


@pytest.mark.parametrize("days", [0, -1, float("nan")])
def test_days_that_are_none_are_refused_before_anything_is_sent(empty, cloud, days):
    cloud.requests.clear()
    with pytest.raises(ValueError, match="expiry must be a positive number of days, got"):
        empty.create(expiry=days)
    assert cloud.requests == []


def test_clean_up_removes_the_tables_that_were_made_and_no_others(platform, empty, cloud):
    empty.create()
    made = [resource.name.rpartition(".")[2] for resource in manifest(platform)]
    assert made == ["interactions", "rewards", "quarantine", "verdicts", "decisions"]
    somebody = replace(platform.config, artifacts=f"{platform.config.artifacts}-of-somebody")
    GcpPlatform(somebody, cloud.endpoint).warehouse.create()
    assert manifest(GcpPlatform(somebody)) == []
    clean_up(GcpPlatform(somebody, cloud.endpoint), dry_run=False)
    assert sum(path.startswith(f"{DATASET}/tables/") for path in cloud.documents) == 5
    clean_up(platform, dry_run=False)
    assert not [path for path in cloud.documents if path.startswith(f"{DATASET}/tables/")]


def test_a_batch_is_loaded_asked_for_merged_and_removed(warehouse, cloud):
    warehouse.write([told("a", 1, 5.0), told("b", 3, 4.0)])
    made, loaded, asked, merged, removed = (request for request in cloud.requests if request.method != "GET")
    staging = made.body["tableReference"]["tableId"]
    assert staging.startswith("batch_of_rewards_")
    assert int(made.body["expirationTime"]) > 0, "should nobody be left to remove it"
    load = loaded.body["configuration"]["load"]
    assert load["sourceFormat"] == "PARQUET"
    assert load["parquetOptions"] == {"enableListInference": True}
    assert load["writeDisposition"] == "WRITE_EMPTY"
    assert load["destinationTable"]["tableId"] == staging
    assert loaded.content.startswith(b"PAR1")
    for request in (asked, merged):
        assert request.path == "/bigquery/v2/projects/movie-lab-42/queries"
        assert request.body["defaultDataset"] == {"projectId": "movie-lab-42", "datasetId": "recbandits_v1"}
        assert request.body["labels"] == LABELS
        bounds = {each["name"]: each["parameterValue"]["value"] for each in request.body["queryParameters"]}
        assert bounds == {"first": "2026-01-01 12:00:01+00:00", "last": "2026-01-01 12:00:03+00:00"}
    assert " ".join(merged.body["query"].split()) == (
        f"MERGE INTO rewards AS t USING {staging} AS s ON t.event_id = s.event_id AND t.digest = s.digest"
        " AND t.time BETWEEN @first AND @last"
        " WHEN NOT MATCHED THEN INSERT (event_id, time, value, digest)"
        " VALUES (s.event_id, s.time, s.value, s.digest)"
    )
    assert (removed.method, removed.path) == ("DELETE", f"{DATASET}/tables/{staging}")


def test_rewards_are_looked_for_in_the_partitions_of_the_window_alone(warehouse, cloud):
    warehouse.decisions(START, START, 60, 1.0, lowest=1.0, highest=5.0, skew=2)
    (request,) = cloud.requests
    values = {each["name"]: each["parameterValue"]["value"] for each in request.body["queryParameters"]}
    assert values == {
        "start": "2026-01-01 12:00:00+00:00",
        "stop": "2026-01-01 12:00:00+00:00",
        "since": "2026-01-01 11:59:58+00:00",
        "until": "2026-01-01 12:01:00+00:00",
        "microseconds": "60000000",
        "skew": "2000000",
        "lowest": 1.0,
        "highest": 5.0,
        "fallback": 1.0,
    }
    assert "r.time >= @since AND r.time <= @until" in request.body["query"]


def test_who_writes_meanwhile_goes_together(warehouse, cloud):
    """30 writers at once, each told of its own row; fewer than 30 loads, and of 15 pairs of equal rows one is new."""
    with ThreadPoolExecutor(30) as pool:
        new = list(pool.map(lambda k: warehouse.write([shown(f"e{k // 2}", 0)]), range(30)))
    assert [first + second for first, second in zip(new[::2], new[1::2], strict=True)] == [1] * 15
    loads = [request for request in cloud.requests if request.path.startswith("/upload")]
    assert 1 <= len(loads) < 30
    assert warehouse.state()["interactions"]["rows"] == 15


def test_more_than_goes_in_one_request_is_loaded_too(warehouse, cloud):
    """Text that does not compress well: more than 10 MB."""
    import random

    data = random.Random(0).randbytes(6_000_000).hex()
    assert warehouse.quarantine([Quarantined("m", START, "rewards", "too long", data)]) == 1
    assert any(request.query.get("uploadType") == "resumable" for request in cloud.requests)
    assert warehouse.query("SELECT LENGTH(data) AS n FROM quarantine")["n"].to_pylist() == [12_000_000]


def test_a_batch_that_is_refused_leaves_nothing_behind(empty, cloud):
    """Tables that nobody has made: one sentence, and the batch's own table is gone."""
    with pytest.raises(PlatformError, match=r"recbandits_v1 could not be asked: .*name rewards does not exist"):
        empty.write([told("a", 1, 5.0)])
    assert [path for path in cloud.documents if path.startswith(f"{DATASET}/tables")] == []
