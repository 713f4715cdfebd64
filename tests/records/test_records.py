"""Records and tables of records: accepted and refused values, schemas and round trips."""

import dataclasses
import json
import re
from datetime import UTC, datetime, timedelta, timezone

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from google.cloud import bigquery
from hypothesis import given, settings
from hypothesis import strategies as st

from recbandits.records import (
    Interaction,
    Log,
    Quarantined,
    Reward,
    Verdict,
    arrow_schema,
    bigquery_schema,
    from_table,
    to_table,
)
from recbandits.records.fields import VERDICTS as VERDICT_KINDS
from recbandits.records.schemas import convert_table

NOON = datetime(2026, 5, 1, 12, 0, 0, 250, tzinfo=UTC)
GOOD = {
    Interaction: {
        "event_id": "e-1",
        "time": NOON,
        "policy_version": "v1",
        "user_id": "Zoë",
        "context": '{"age": 0.5, "device": "tv", "weekend": false, "plan": null}',
        "candidates": ("10", "20", "30"),
        "action": "20",
        "propensity": 0.25,
        "pass_prob": 1.0,
        "candidate_features": '{"price": [1.5, 2, 0.0]}',
    },
    Reward: {"event_id": "e-1", "time": NOON, "value": 4.5},
    Verdict: {
        "verdict_id": "v-1",
        "time": NOON,
        "kind": "refused",
        "version": "b",
        "against": "a",
        "why": "the difference may be -0.3",
        "difference": -0.1,
        "low": -0.3,
        "high": 0.1,
        "effective_sample_size": 250.0,
    },
    Quarantined: {"message_id": "m-1", "time": NOON, "topic": "rewards", "reason": "no JSON", "data": "{"},
}
KINDS = list(GOOD)
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)

NAMES, TEXTS = st.text(min_size=1, max_size=4), st.text(max_size=3)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = NUMBERS | TEXTS | st.booleans() | st.none() | st.integers(-(2**53), 2**53)
CONTEXTS = st.builds(json.dumps, st.dictionaries(TEXTS, VALUES, max_size=3), ensure_ascii=st.booleans())
PROBABILITIES = st.floats(0, 1, exclude_min=True)
TIMES = st.datetimes(
    datetime(1, 1, 3),
    datetime(9999, 12, 29),
    timezones=st.builds(lambda h: timezone(timedelta(hours=h)), st.integers(-14, 14)),
)


@st.composite
def interactions(draw):
    candidates = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    lists = st.lists(NUMBERS, min_size=len(candidates), max_size=len(candidates))
    return Interaction(
        draw(NAMES),
        draw(TIMES),
        draw(TEXTS),
        draw(NAMES | st.none()),
        draw(CONTEXTS),
        candidates,
        draw(st.sampled_from(candidates)),
        draw(PROBABILITIES),
        draw(PROBABILITIES),
        json.dumps(draw(st.dictionaries(TEXTS, lists, max_size=2))),
    )


VERDICTS = st.sampled_from(VERDICT_KINDS)
RECORDS = {
    Interaction: interactions(),
    Reward: st.builds(Reward, NAMES, TIMES, NUMBERS),
    Verdict: st.builds(Verdict, NAMES, TIMES, VERDICTS, NAMES, TEXTS, NAMES, *[st.none() | NUMBERS] * 4),
    Quarantined: st.builds(Quarantined, NAMES, TIMES, TEXTS, NAMES, TEXTS),
}


def record(kind=Interaction, /, **changes):
    return kind(**(GOOD[kind] | changes))


def test_a_record_stores_plain_values_and_times_in_utc():
    stored = record(
        time=datetime(2026, 5, 1, 14, tzinfo=timezone(timedelta(hours=2))),
        user_id=np.str_("7"),
        candidates=np.array(["10", "20"], object),
        propensity=1,
        candidate_features='{"price": [1, 2]}',
    )
    assert stored.time == datetime(2026, 5, 1, 12, tzinfo=UTC)
    assert stored.time.tzinfo is UTC
    assert stored.candidates == ("10", "20")
    assert [type(value) for value in (stored.user_id, stored.propensity)] == [str, float]
    assert stored.pass_prob == 1.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        stored.propensity = 0.5


USER, IDS, PROBABILITY = (
    "text that is not empty, or None",
    "distinct texts, none empty, at least one",
    r"a number in \(0, 1\]",
)
CONTEXT = "a JSON object of texts, finite numbers, true, false and null"
LISTS = "a JSON object of lists of finite numbers, one for each candidate"
TIME = "a datetime with its zone, to the microsecond"
NO_CONTEXTS = [
    *("", "7", "null", "[1]", "{", '{"a": 1,}', "{'a': 1}", "{}{}"),
    *('{"a": NaN}', '{"a": -Infinity}', '{"a": 1e999}', '{"a": 9007199254740993}', '{"a": 1' + "0" * 400 + "}"),
    *('{"a": [1]}', '{"a": {}}', '{"a": 1, "a": 2}', '{"a": "\\ud800"}', '{"\\udfff": 1}', '{"a": ' + "[" * 10**5),
]
NO_LISTS = [
    *("", "[]", '{"price": 1}', '{"price": {}}', '{"price": "abc"}', '{"price": []}', '{"price": [1, 2]}'),
    *('{"price": [1, 2, 3], "rank": [1, 2]}', '{"price": [1, 2, 3, 4]}', '{"price": [1, 2, 3], "price": [1, 2, 3]}'),
    *('{"price": [1, 2, null]}', '{"price": [1, 2, true]}', '{"price": [1, 2, NaN]}', '{"price": [1, 2, "3"]}'),
]
REFUSED = [
    (Interaction, "event_id", "", "text that is not empty, got ''"),
    (Interaction, "event_id", "\ud800", "text that is not empty, got "),
    (Interaction, "time", datetime(2026, 5, 1), rf"{TIME}, got datetime.datetime\(2026, 5, 1, 0, 0\)"),
    (Interaction, "time", "2026-05-01", f"{TIME}, got '2026-05-01'"),
    (Interaction, "time", pd.NaT, f"{TIME}, got NaT"),
    (Interaction, "time", pd.Timestamp(1, tz="UTC"), f"{TIME}, got Timestamp"),
    (Interaction, "time", datetime.min.replace(tzinfo=timezone(timedelta(hours=1))), f"{TIME}, got datetime"),
    (Interaction, "policy_version", 3, "text, got 3"),
    (Interaction, "user_id", 7, f"{USER}, got 7"),
    (Interaction, "user_id", "", f"{USER}, got ''"),
    (Interaction, "context", {"age": 1}, f"{CONTEXT}, got {{'age': 1}}"),
    (Interaction, "context", None, f"{CONTEXT}, got None"),
    *((Interaction, "context", text, f"{CONTEXT}, got {re.escape(repr(text))}") for text in NO_CONTEXTS),
    (Interaction, "candidates", (), rf"{IDS}, got \(\)"),
    (Interaction, "candidates", ("10", "20", "10"), rf"{IDS}, got \('10', '20', '10'\)"),
    (Interaction, "candidates", ("20", ""), rf"{IDS}, got \('20', ''\)"),
    (Interaction, "candidates", ("20", 10), rf"{IDS}, got \('20', 10\)"),
    (Interaction, "candidates", ("20", None), rf"{IDS}, got \('20', None\)"),
    (Interaction, "candidates", "20", f"{IDS}, got '20'"),
    (Interaction, "action", "40", "one of the candidates, got '40'"),
    (Interaction, "action", 20, "one of the candidates, got 20"),
    (Interaction, "action", None, "one of the candidates, got None"),
    (Interaction, "candidate_features", None, f"{LISTS}, got None"),
    *((Interaction, "candidate_features", text, f"{LISTS}, got {re.escape(repr(text))}") for text in NO_LISTS),
    (Interaction, "propensity", 0.0, f"{PROBABILITY}, got 0.0"),
    (Interaction, "propensity", float("nan"), f"{PROBABILITY}, got nan"),
    (Interaction, "propensity", "0.5", f"{PROBABILITY}, got '0.5'"),
    (Interaction, "pass_prob", 0, f"{PROBABILITY}, got 0"),
    (Interaction, "pass_prob", True, f"{PROBABILITY}, got True"),
    (Reward, "value", float("inf"), "a finite number, got inf"),
    (Reward, "value", float("nan"), "a finite number, got nan"),
    (Reward, "value", 10**400, "a finite number, got 1000"),
    (Verdict, "kind", "maybe", "one of deployed, held, refused, ramped, promoted, rolled back, withdrawn, got 'maybe'"),
    (Verdict, "kind", "refused\0", "one of deployed, held, refused, ramped, promoted, rolled back, withdrawn, got "),
    (Verdict, "low", float("nan"), "a finite number, or None, got nan"),
    (Quarantined, "data", 7, "text or bytes, got 7"),
]


@pytest.mark.parametrize(("kind", "field", "value", "message"), REFUSED)
def test_a_value_against_its_rule_is_refused(kind, field, value, message):
    with pytest.raises(ValueError, match=f"^{field} must be {message}"):
        record(kind, **{field: value})


def sentence(call, /, *arguments, **keywords):
    """Return the message of the ValueError of a call; None where it raises none."""
    try:
        call(*arguments, **keywords)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("name", "value"),
    [("value", True), ("value", "1"), ("event_id", 5), ("event_id", b"e"), ("time", NOON.replace(tzinfo=None))],
)
def test_a_data_frame_is_refused_by_row_with_the_sentence_of_the_record(name, value):
    """Arrow would convert some of these values: a time without a zone would be one in UTC."""
    frame = pd.DataFrame([GOOD[Reward], GOOD[Reward] | {name: value}], dtype=object)
    assert sentence(from_table, frame, Reward) == f"row 1: {sentence(record, Reward, **{name: value})}"
    assert sentence(convert_table, frame, Reward) == sentence(from_table, frame, Reward)


@each_kind
def test_text_of_nul_is_not_empty(kind):
    """NumPy's own text drops NULs at the end, so that a name of one NUL would be empty."""
    name = next(iter(GOOD[kind]))
    example = record(kind, **{name: "\0"})
    assert getattr(example, name) == "\0"
    assert from_table(to_table([example]), kind) == [example]


@st.composite
def rows_with_replaced_values(draw, kind):
    """Records of a kind as dicts; some have one value replaced by another, good or bad, of the column's Arrow type."""
    values = {
        str: st.text(max_size=1) | st.none(),
        datetime: TIMES | st.none(),
        str | None: st.text(max_size=1) | st.none(),
        float: st.floats() | st.none(),
        float | None: st.floats(allow_nan=False) | st.none(),  # NaN is None in pandas
        tuple[str, ...]: st.lists(st.sampled_from(["", "0", "1", None]), max_size=3) | st.none(),
    }
    texts = {"context": CONTEXTS | st.sampled_from(NO_CONTEXTS), "candidate_features": st.sampled_from(NO_LISTS)}
    rows = [vars(each) for each in draw(st.lists(RECORDS[kind], min_size=1, max_size=4))]
    for _ in range(draw(st.integers(0, 2))):
        field = draw(st.sampled_from(dataclasses.fields(kind)))
        row = draw(st.integers(0, len(rows) - 1))
        value = draw(texts.get(field.name, st.nothing()) | values[field.type.__origin__])
        rows[row] = rows[row] | {field.name: value}
    return rows


@each_kind
@settings(max_examples=50, deadline=None)
@given(data=st.data(), as_frame=st.booleans())
def test_a_table_is_refused_if_and_only_if_a_row_is(kind, data, as_frame):
    """Random rows; the refusal names one of those that make no record."""
    rows = data.draw(rows_with_replaced_values(kind))
    table = pa.Table.from_pylist(rows, pa.schema([field.with_nullable(True) for field in arrow_schema(kind)]))
    refused = {f"row {number}" for number, row in enumerate(rows) if sentence(kind, **row)}
    message = sentence(from_table, table.to_pandas() if as_frame else table, kind)
    assert (message is None) == (not refused)  # pandas has NaN for a missing number and arrays for lists
    assert message is None or message.split(":")[0] in refused


@settings(max_examples=80, deadline=None)
@given(rows=rows_with_replaced_values(Interaction), as_frame=st.booleans())
def test_a_log_is_made_of_a_table_if_and_only_if_every_row_makes_a_record(rows, as_frame):
    """Beside that, a log refuses an event that occurs twice, and decisions with other numbers of candidates."""
    table = pa.Table.from_pylist(rows, pa.schema([field.with_nullable(True) for field in arrow_schema(Interaction)]))
    message = sentence(Log.from_tables, table.to_pandas() if as_frame else table, to_table([], Reward), 0.0)
    if any(sentence(Interaction, **row) for row in rows):
        assert message is not None
    else:
        others = r"None|.*: event_id must be different from all others|.*: names of candidate_features must be"
        assert re.match(others, str(message))


@each_kind
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_records_are_read_back_from_json_arrow_and_pandas(kind, data):
    records = data.draw(st.lists(RECORDS[kind], max_size=4))
    assert [kind.from_json(each.to_json()) for each in records] == records
    table = to_table(records, kind)
    table.validate(full=True)
    assert table.schema == arrow_schema(kind)
    assert from_table(table, kind) == records
    assert from_table(table.to_pandas(), kind) == records


@each_kind
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_records_are_read_back_from_duckdb(kind, data):
    table = to_table(data.draw(st.lists(RECORDS[kind], min_size=1, max_size=4)))
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'Asia/Tokyo'")
        connection.register("records", table)
        connection.execute("CREATE TABLE stored AS FROM records")
        read = connection.sql("SELECT * FROM stored").to_arrow_table()
    assert to_table(from_table(read, kind)).equals(table)


@each_kind
def test_the_bigquery_schema_is_one_that_bigquery_reads(kind):
    fields = [bigquery.SchemaField.from_api_repr(column) for column in bigquery_schema(kind)]
    assert [field.name for field in fields] == arrow_schema(kind).names
    assert all(field.description for field in fields)
    known = {field.name: (field.field_type, field.mode) for field in fields}
    assert known[fields[0].name] == ("STRING", "REQUIRED")
    assert known["time"] == ("TIMESTAMP", "REQUIRED")
    if kind is Interaction:
        assert known["context"] == known["candidate_features"] == ("STRING", "REQUIRED")
        assert known["user_id"] == ("STRING", "NULLABLE")
        assert known["candidates"] == ("STRING", "REPEATED")


def test_types_are_changed_only_where_nothing_is_lost():
    """int32, float32, nanoseconds in another zone and fixed-size lists are the same values."""
    rows = {
        "event_id": pa.array(["e-1"], pa.large_string()),
        "time": pa.array([pd.Timestamp("2026-05-01 14:00", tz="Europe/Paris")], pa.timestamp("ns", "Europe/Paris")),
        "policy_version": pa.array([""]),
        "user_id": pa.array([None], pa.null()),
        "context": pa.array(["{}"]),
        "candidates": pa.array([["10", "20"]], pa.list_(pa.large_string(), 2)),
        "action": pa.array(["20"]),
        "propensity": pa.array([0.5], pa.float32()),
        "pass_prob": pa.array([1], pa.int8()),
        "candidate_features": pa.array(["{}"]),
        "note": pa.array(["no field of the record"]),
    }
    (read,) = from_table(pa.table(rows), Interaction)
    assert read == Interaction("e-1", datetime(2026, 5, 1, 12, tzinfo=UTC), "", None, "{}", ("10", "20"), "20", 0.5)


@pytest.mark.parametrize(
    ("field", "column", "message"),
    [
        ("time", pa.array([datetime(2026, 5, 1)]), f"time must be {TIME}, got a column of timestamp"),
        ("time", pa.array([1], pa.timestamp("ns", "UTC")), f"time must be {TIME}, got a column of timestamp"),
        ("time", pa.array([2**60], pa.timestamp("us", "UTC")), f"time must be {TIME}, got a column of timestamp"),
        ("user_id", pa.array([7]), f"user_id must be {USER}, got a column of int64"),
        ("propensity", pa.array(["0.5"]), f"propensity must be {PROBABILITY}, got a column of string"),
        ("propensity", pa.array([None]), f"row 0: propensity must be {PROBABILITY}, got None"),
        ("candidates", pa.array([["20", None]]), rf"row 0: candidates must be {IDS}, got \['20', None\]"),
        ("candidates", pa.array([[20, 10]]), f"candidates must be {IDS}, got a column of list"),
    ],
)
def test_columns_of_other_types_are_refused(field, column, message):
    table = to_table([record()])
    table = table.set_column(table.column_names.index(field), field, column)
    with pytest.raises(ValueError, match=message):
        from_table(table, Interaction)


def test_the_first_bad_row_is_named_in_a_sliced_table_of_many_chunks():
    rows = [vars(record())] * 3 + [vars(record()) | {"propensity": 0.0}, vars(record()) | {"action": "99"}]
    bad = pa.Table.from_pylist(rows, arrow_schema(Interaction))
    chunks = pa.concat_tables([to_table([record(candidates=("20", "5", "7"))]), bad])
    with pytest.raises(ValueError, match=r"^row 3: propensity must be a number in \(0, 1\], got 0.0"):
        from_table(chunks.slice(1), Interaction)
    assert len(from_table(chunks.slice(0, 4), Interaction)) == 4


def test_missing_columns_and_empty_tables():
    table = to_table([], Interaction)
    assert from_table(table, Interaction) == []
    with pytest.raises(ValueError, match=r"columns of Interaction must be complete, with 'pass_prob', got .*'time'"):
        from_table(table.drop_columns(["pass_prob"]), Interaction)
    wrong = to_table([record()]).drop_columns(["pass_prob"]).set_column(3, "user_id", pa.array([7.5]))
    with pytest.raises(ValueError, match="columns of Interaction must be complete, with 'pass_prob'"):
        from_table(wrong, Interaction)
    with pytest.raises(ValueError, match=f"user_id must be {USER}, got a column of double"):
        from_table(table.set_column(3, "user_id", pa.array([], pa.float64())), Interaction)


def test_records_of_two_kinds_are_refused():
    with pytest.raises(ValueError, match=r"records must be of one kind, got \['Interaction', 'Reward'\]"):
        to_table([record(), record(Reward)])
    with pytest.raises(ValueError, match="records must be of one kind, got 'none'"):
        to_table([])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", r"the JSON of Reward must be an object, got '\[1\]'"),
        ('{"event_id": "e", "value": 1.0}', "time of Reward is missing, there is event_id, value"),
        ('{"event_id": "e", "time": "2026-05-01T00:00:00Z", "value": 1, "vaule": 2}', "must be one of .*, got 'vaule'"),
        ('{"event_id": "e", "time": "noon", "value": 1.0}', f"time must be {TIME}, got 'noon'"),
        ('{"event_id": "e", "time": 1700000000, "value": 1.0}', f"time must be {TIME}, got 1700000000"),
        ('{"event_id": "e", "time": "2026-05-01T00:00:00", "value": 1.0}', f"time must be {TIME}, got datetime"),
        ('{"event_id": "e", "time": "2026-05-01T00:00:00Z", "value": NaN}', "value must be a finite number, got nan"),
        ("{", "Expecting"),
        ("[" * 100_000, "the JSON of Reward cannot be read: maximum recursion depth exceeded"),
    ],
)
def test_json_of_no_record_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        Reward.from_json(text)


def test_json_may_lack_a_field_with_a_default():
    values = json.loads(record().to_json())
    assert values["time"] == "2026-05-01T12:00:00.000250+00:00"
    assert values["candidates"] == ["10", "20", "30"]
    del values["pass_prob"], values["candidate_features"]
    assert Interaction.from_json(json.dumps(values)) == record(candidate_features="{}")


def test_a_missing_number_is_nan_in_a_column_of_pandas():
    """NaN counts as None only where the field is optional; the error is about the value that is not allowed."""
    frame = to_table([record(Verdict, difference=None), record(Verdict)]).to_pandas()
    assert [read.difference for read in from_table(frame, Verdict)] == [None, -0.1]
    with pytest.raises(ValueError, match=r"^row 0: low must be a finite number, or None, got .*inf"):
        from_table(frame.assign(low=[float("inf"), -0.3]), Verdict)
    rewards = to_table([record(Reward)]).to_pandas().assign(value=[float("nan")])
    with pytest.raises(ValueError, match=r"^row 0: value must be a finite number, got .*nan"):
        from_table(rewards, Reward)


def test_only_optional_fields_may_be_null_in_tables():
    optional = {Interaction: {"user_id"}, Verdict: {"difference", "low", "high", "effective_sample_size"}}
    for kind in KINDS:
        expected = optional.get(kind, set())
        assert {field.name for field in arrow_schema(kind) if field.nullable} == expected
        assert {field["name"] for field in bigquery_schema(kind) if field["mode"] == "NULLABLE"} == expected


def test_users_without_an_id_are_none_in_pandas_as_well():
    records = [record(user_id=None), record(user_id="9007199254740993"), record(user_id="\0")]
    assert from_table(to_table(records).to_pandas(), Interaction) == records


def test_a_column_of_nulls_has_no_type_and_is_that_of_an_optional_field():
    """Arrow infers the type "null" where every value is None; a field that is not optional refuses it."""
    alone = {"difference": None, "low": None, "high": None, "effective_sample_size": None}
    expected = [record(Verdict, **alone)] * 2
    inferred = pa.Table.from_pylist([vars(each) for each in expected])
    assert pa.types.is_null(inferred.schema.field("low").type)
    assert from_table(inferred, Verdict) == expected
    assert from_table(inferred.to_pandas(), Verdict) == expected
    with pytest.raises(ValueError, match=r"^row 0: why must be text that is not empty, got None"):
        from_table(inferred.set_column(5, "why", pa.nulls(2)), Verdict)


def test_bytes_that_are_not_utf_8_can_be_quarantined():
    """0xff is no UTF-8: it is stored as its number; text is stored as it is."""
    assert record(Quarantined, data=b'{"\xff').data == '{"\\xff'
    assert record(Quarantined, data="Zoë".encode()).data == "Zoë"
