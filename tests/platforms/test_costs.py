"""The table of costs, against arithmetic by hand."""

import pytest

from recbandits.platforms.costs import PRICES, SEEN, Use, costs, monthly, prices
from recbandits.platforms.gcp import endpoints, images
from recbandits.platforms.jobs import MACHINES

TABLE = costs()


@pytest.mark.parametrize(
    ("piece", "column", "dollars"),
    [
        ("endpoint", "per_hour", 2 * 0.1117),
        ("Pub/Sub", "per_million", 2e9 / 2**40 * 40),  # 0.07: a kilobyte in, a kilobyte out
        ("functions", "per_million", 0.40 + 10_000 * 6 * 0.0000265),  # 1.99: a batch of 100 takes 6 s
        ("BigQuery queries", "per_million", 10_000 * 40 / 2**20 * 6.25),  # 2.38: 40 MiB for each batch
        ("BigQuery storage", "per_hour", 10 * 0.02 / 730),
        ("schedules", "per_hour", 2 * 0.10 / 730),
        ("pipeline", "per_run", 0.03 + 4 * 0.1541 / 20),  # 0.06: four steps of three minutes
        ("batch prediction (an hour)", "per_run", 2 * 0.1117),  # two machines at most, as the request says
        ("image build", "per_run", 15 * 0.016),
    ],
)
def test_a_cost_is_a_price_times_a_use(piece, column, dollars):
    assert TABLE.loc[piece, column] == pytest.approx(dollars)


def test_merging_each_message_alone_costs_a_hundred_times_as_much_as_a_batch_of_a_hundred():
    alone = costs(Use(batch=1)).loc["BigQuery queries", "per_million"]
    assert alone == pytest.approx(100 * TABLE.loc["BigQuery queries", "per_million"])
    assert alone > 200


def test_what_keeps_billing_is_what_costs_by_the_hour_and_the_endpoint_leads():
    idle = TABLE[TABLE["idle"]]
    assert list(idle.index) == ["endpoint", "TensorBoard", "images", "BigQuery storage", "bucket", "schedules"]
    assert idle["per_hour"]["endpoint"] > 0.95 * idle["per_hour"].sum()


def test_a_month_adds_up():
    """A million messages and 30 runs: 730 h of 0.2234, ... ; half the hours cost half the endpoint."""
    month = monthly()
    assert month.index[0] == "endpoint"
    assert month["endpoint"] == pytest.approx(163.082)
    assert month["pipeline"] == pytest.approx(30 * 0.06082)
    assert monthly(hours=365)["endpoint"] == pytest.approx(163.082 / 2)
    assert monthly(messages=0, runs=0).sum() == pytest.approx(730 * TABLE["per_hour"].sum())


def test_every_row_says_where_its_price_is_from_and_of_when():
    for table in (TABLE, prices()):
        assert table["source"].str.fullmatch(r"https://cloud\.google\.com/[a-z-]+/pricing").all()
        assert set(table["seen"]) == {SEEN}
    assert not TABLE["stopped_by"].eq("").any()


def test_the_machines_are_those_that_the_adapters_ask_for():
    assert f"{endpoints._MACHINE['machine_type']} serving" in PRICES
    assert f"{MACHINES['cpu'].type} training" in PRICES
    assert f"Cloud Build {images.MACHINE.lower().replace('_', '-')}" in PRICES
