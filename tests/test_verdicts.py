"""Records about messages and about policies: what they take, and what their tables look like."""

from datetime import UTC, datetime

import pytest

from recbandits.records import Quarantined, Verdict, arrow_schema, bigquery_schema, duckdb_schema, to_table

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_a_verdict_may_lack_its_numbers_and_comes_back_from_json():
    first = Verdict("v1", NOON, "deployed", "a", "", "nothing serves yet")
    second = Verdict("v2", NOON, "refused", "b", "a", "the difference may be -0.3", -0.1, -0.3, 0.1, 250)
    assert first.difference is None
    assert (second.effective_sample_size, type(second.effective_sample_size)) == (250.0, float)
    assert [Verdict.from_json(verdict.to_json()) for verdict in (first, second)] == [first, second]
    assert to_table([first, second])["low"].to_pylist() == [None, -0.3]


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("kind", "maybe", "kind must be 'deployed', 'refused', 'promoted' or 'rolled back', got 'maybe'"),
        ("low", float("nan"), "low must be a finite number, or None, got nan"),
        ("why", "", "why must be text that is not empty, got ''"),
        ("version", None, "version must be text that is not empty, got None"),
    ],
)
def test_a_verdict_that_is_none_is_refused(field, value, sentence):
    values = {"verdict_id": "v", "time": NOON, "kind": "refused", "version": "b", "against": "a", "why": "because"}
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        Verdict(**values | {field: value})


def test_only_what_may_be_missing_may_be_null_in_tables():
    optional = {"difference", "low", "high", "effective_sample_size"}
    assert {field.name for field in arrow_schema(Verdict) if field.nullable} == optional
    assert {field["name"] for field in bigquery_schema(Verdict) if field["mode"] == "NULLABLE"} == optional
    columns = duckdb_schema(Verdict).split(", ")
    assert {column.split('"')[1] for column in columns if not column.endswith("NOT NULL")} == optional


def test_any_bytes_can_be_quarantined():
    """0xff is no UTF-8: its number stays; text is kept as it is."""
    assert Quarantined("m", NOON, "rewards", "no JSON", b'{"\xff').data == '{"\\xff'
    assert Quarantined("m", NOON, "rewards", "no JSON", "Zoë".encode()).data == "Zoë"
