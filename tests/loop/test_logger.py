"""The logger writes records and quarantines all other messages."""

import base64
import json
import re
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbandits.loop.functions.logger.main import log_event
from recbandits.platforms.local.warehouse import LocalWarehouse
from recbandits.platforms.protocol import PlatformError
from recbandits.records import Interaction, Reward

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
DECISION = Interaction("e", NOON, "v1", "7", '{"hour": 5}', ("1", "2"), "2", 0.25)
REWARD = Reward("e", NOON, 4.0)


@pytest.fixture
def warehouse():
    return LocalWarehouse()


def log(kind, content, number, warehouse):
    """Log a message of Pub/Sub with some content."""
    message = {"messageId": number, "publishTime": NOON.isoformat(), "data": base64.b64encode(content).decode()}
    return log_event(kind, {"message": message}, warehouse)


def rows(warehouse, table):
    return warehouse.query(f"SELECT * FROM {table}").to_pylist()


@pytest.mark.parametrize(("record", "table"), [(DECISION, "interactions"), (REWARD, "rewards")])
def test_a_duplicate_record_is_one_row(warehouse, record, table):
    for message in ("1", "2", "2"):
        assert log(type(record), record.to_json().encode(), message, warehouse) == "written"
    (row,) = rows(warehouse, table)
    assert type(record)(**{name: row[name] for name in vars(record)}) == record
    assert rows(warehouse, "quarantine") == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "Expecting value"),
        (b"\xff\xfe", "'utf-8' codec can't decode"),
        (b"[1, 2]", "the JSON of Interaction must be an object"),
        (b"[" * 100_000, "maximum recursion depth exceeded"),
        (REWARD.to_json().encode(), "field of Interaction must be one of event_id, .*, got 'value'"),
        (DECISION.to_json().replace("0.25", "1.5").encode(), r"propensity must be a number in \(0, 1\], got 1.5"),
        (DECISION.to_json().replace("hour", "\\ud800").encode(), "context must be a JSON object of texts, finite numb"),
    ],
)
def test_an_invalid_message_is_quarantined_once_with_the_reason(warehouse, data, reason):
    for _ in range(2):
        assert log(Interaction, data, "17", warehouse) == "quarantined"
    (row,) = rows(warehouse, "quarantine")
    assert (row["message_id"], row["time"], row["topic"]) == ("17", NOON, "interactions")
    assert row["data"] == data.decode(errors="backslashreplace")
    assert re.search(reason, row["reason"])
    assert rows(warehouse, "interactions") == []


@settings(max_examples=50, deadline=None)
@given(st.binary() | st.recursive(st.none() | st.floats() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_no_message_raises_an_error(data):
    data = data if isinstance(data, bytes) else data.encode()
    quarantine = []

    class QuarantineOnly:
        def write(self, entries):
            quarantine.extend(entries)

    assert log(Reward, data, "1", QuarantineOnly()) == "quarantined"
    assert len(quarantine) == 1


def test_a_key_that_is_no_unicode_text_is_quarantined(warehouse):
    """A lone half of a surrogate pair in a key: JSON can say it, UTF-8 cannot."""
    assert log(Reward, rb'{"\ud800": 1}', "1", warehouse) == "quarantined"


def test_an_unavailable_warehouse_raises_an_error():
    class UnavailableWarehouse:
        def write(self, records):
            raise PlatformError("the warehouse is unavailable")

    with pytest.raises(PlatformError, match="the warehouse is unavailable"):
        log(Reward, REWARD.to_json().encode(), "1", UnavailableWarehouse())


def test_an_event_of_pubsub_has_data_a_time_and_a_message_id(warehouse):
    """`bm8=` is base64 of "no"; a message may have attributes only, and Pub/Sub counts nanoseconds at times."""
    message = {"messageId": "5", "publishTime": "2026-01-01T12:00:00.123456789Z", "data": "bm8="}
    assert log_event(Reward, {"message": message}, warehouse) == "quarantined"
    assert log_event(Reward, {"message": message | {"messageId": "6", "data": ""}}, warehouse) == "quarantined"
    del message["data"]
    assert log_event(Reward, {"message": message | {"messageId": "7"}}, warehouse) == "quarantined"
    rows_of = {row["message_id"]: (row["data"], row["time"]) for row in rows(warehouse, "quarantine")}
    assert {number: data for number, (data, _) in rows_of.items()} == {"5": "no", "6": "", "7": ""}
    assert rows_of["5"][1] == NOON.replace(microsecond=123456)
