"""Logs of decisions: rules by row, and tables of records."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from recbandits.data.features import FeatureTable
from recbandits.records import Interaction, Reward, arrow_schema, from_table
from recbandits.records.bandit_log import BanditLog

GOOD = {
    "event_id": np.array(["a", "b", "c"]),
    "time": np.array(["2001-01-01", "2001-01-02", "2001-01-03"], dtype="datetime64[us]"),
    "user_id": np.array([1, 2, 1]),
    "candidates": np.array([[7, 9, 5], [9, 7, 0], [5, 9, 7]]),
    "mask": np.array([[True, True, True], [True, True, False], [True, True, True]]),
    "action": np.array([2, 1, 0]),
    "propensity": np.array([0.5, 1.0, 0.25]),
    "reward": np.array([4.0, -1.0, 0.0]),
    "pass_prob": np.array([1.0, 0.1, 1.0]),
}


def changed(field, row, value):
    array = GOOD[field].astype(object if field == "event_id" else GOOD[field].dtype)
    array[row] = value
    return BanditLog(**GOOD | {field: array})


def test_the_arm_is_the_chosen_candidate():
    log = BanditLog(**GOOD)
    assert len(log) == 3
    assert log.arm.tolist() == [5, 7, 5]


@pytest.mark.parametrize("rows", [[2, 0], np.array([True, False, True])])
def test_rows_are_taken_from_every_field(rows):
    part = BanditLog(**GOOD).take(rows)
    for field, values in GOOD.items():
        np.testing.assert_array_equal(getattr(part, field), values[rows])


def test_a_log_may_be_empty():
    assert len(BanditLog(**GOOD).take([])) == 0


@pytest.mark.parametrize("movies", [[-3, 5, 0, 0], [0, 5, 0, 0], [2**63 - 1, -(2**63), 0, 0]])
def test_any_id_is_allowed_beside_padding(movies):
    row = {name: values[:1] for name, values in GOOD.items()}
    mask, action = np.array([[True, True, False, False]]), np.array([0])
    log = BanditLog(**row | {"candidates": np.array([movies]), "mask": mask, "action": action})
    read = BanditLog.from_tables(*log.to_tables())
    assert (read.arm, read.candidates.tolist()) == (movies[:1], [movies[:2]])
    with pytest.raises(ValueError, match="candidates must be different from each other"):
        BanditLog(**row | {"candidates": np.array([movies[:1] * 2 + [0, 0]]), "mask": mask, "action": action})


def test_a_log_is_read_back_from_its_tables():
    log = BanditLog(**GOOD)
    interactions, rewards = log.to_tables(policy_version="v1")
    assert interactions.schema == arrow_schema(Interaction)
    assert rewards.schema == arrow_schema(Reward)
    assert from_table(interactions, Interaction)[1] == Interaction(
        "b", datetime(2001, 1, 2, tzinfo=UTC), "v1", 2, (), (9, 7), 7, 1.0, 0.1
    )
    read = BanditLog.from_tables(interactions, rewards.take([2, 0, 1]))
    for field in GOOD:
        np.testing.assert_array_equal(getattr(read, field), getattr(log, field))
        assert getattr(read, field).dtype == getattr(log, field).dtype


def test_a_user_without_an_id_is_none_and_never_taken_for_a_number(tmp_path):
    """Ids are objects then, which arithmetic, sorting and look-ups refuse; a log of users with ids has int64 again."""
    log = BanditLog(**GOOD | {"user_id": np.array([None, 2**53 + 1, -1], object)})
    for number, table in enumerate(log.to_tables()):
        parquet.write_table(table, tmp_path / f"{number}.parquet")
    read = BanditLog.from_tables(*(parquet.read_table(tmp_path / f"{number}.parquet") for number in range(2)))
    assert read.user_id.tolist() == log.user_id.tolist() == [None, 2**53 + 1, -1]
    assert read.take([2, 1]).user_id.dtype == np.int64
    with pytest.raises(TypeError):
        np.unique(read.user_id)
    with pytest.raises(ValueError, match="user ids must be whole numbers of 64 bits, got"):
        FeatureTable.from_ids([-1, 0], "user").find_rows(read.user_id)
    assert BanditLog(**GOOD | {"user_id": [None] * 3}).user_id.tolist() == [None] * 3
    for users in ([None, 1.0, 2.0], [None, "1", "2"], [None, 2**63, 1]):
        with pytest.raises(ValueError, match="user_id must be an array of int64, got"):
            BanditLog(**GOOD | {"user_id": users})


TEXTS = st.text(max_size=2) | st.sampled_from(["\ud800", "a\ud800", "\0", "煎茶", None])
ODD_TIMES = st.integers(-(2**63), 2**63 - 1) | st.integers(-62_135_596_800_000_001, 253_402_300_800_000_000)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_the_tables_of_every_log_can_be_read_again(data):
    """Ids, texts and times of any kind, of which the constructor refuses those that the tables could not hold."""
    n, k = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))

    def drawn(values, size=n):
        return data.draw(st.lists(values, min_size=size, max_size=size))

    ids = st.integers(-(2**63), 2**63 - 1)
    columns = {
        "event_id": np.array([*drawn(TEXTS), None], object)[:-1],
        "time": np.array(drawn(ODD_TIMES), "datetime64[us]"),
        "user_id": np.array([*drawn(ids | st.none()), None], object)[:-1],
        "candidates": np.array([drawn(ids, k) for _ in range(n)], np.int64).reshape(n, k),
        "mask": np.ones((n, k), bool),
        "action": np.array(drawn(st.integers(0, k)), np.int64),
        "propensity": np.array(drawn(st.floats(0, 1)), float),
        "reward": np.array(drawn(st.floats()), float),
        "pass_prob": np.array(drawn(st.floats(0, 1)), float),
    }
    try:
        log = BanditLog(**columns)
    except ValueError:
        return
    read = BanditLog.from_tables(*log.to_tables())
    for name in columns:
        np.testing.assert_array_equal(getattr(read, name), getattr(log, name))


def test_a_log_is_read_back_from_parquet(tmp_path):
    for number, table in enumerate(BanditLog(**GOOD).to_tables()):
        parquet.write_table(table, tmp_path / f"{number}.parquet")
    read = [parquet.read_table(tmp_path / f"{number}.parquet") for number in range(2)]
    assert BanditLog.from_tables(*read).arm.tolist() == [5, 7, 5]
    assert BanditLog.from_tables(*(table.to_pandas() for table in read)).reward.tolist() == [4.0, -1.0, 0.0]


def test_an_empty_log_has_empty_tables():
    tables = BanditLog(**GOOD).take([]).to_tables()
    assert [len(table) for table in tables] == [0, 0]
    assert len(BanditLog.from_tables(*tables)) == 0


def test_a_decision_without_a_reward_is_refused_or_gets_the_default_reward():
    interactions, rewards = BanditLog(**GOOD).to_tables()
    with pytest.raises(ValueError, match="every decision must have a reward, 'b' has none"):
        BanditLog.from_tables(interactions, rewards.take([2, 0]))
    assert BanditLog.from_tables(interactions, rewards.take([2, 0]), default_reward=-9).reward.tolist() == [4, -9, 0]


def test_rewards_of_other_decisions_are_left_out():
    interactions, rewards = BanditLog(**GOOD).to_tables()
    assert BanditLog.from_tables(interactions.take([1]), rewards).reward.tolist() == [-1.0]


def test_duplicates_are_refused_by_name():
    interactions, rewards = BanditLog(**GOOD).to_tables()
    with pytest.raises(ValueError, match="a decision must have one reward, 'c' has several: say which by `take`"):
        BanditLog.from_tables(interactions, rewards.take([2, 0, 1, 2]))
    with pytest.raises(ValueError, match="take must be one of first, last, sum, max, got 'mean'"):
        BanditLog.from_tables(interactions, rewards, take="mean")
    with pytest.raises(ValueError, match=r"row 3 \(a\): event_id must be different from all others"):
        BanditLog.from_tables(interactions.take([0, 1, 2, 0]), rewards)


@pytest.mark.parametrize(
    ("field", "row", "value", "sentence"),
    [
        ("propensity", 1, 0.0, r"row 1 \(b\): propensity must be in \(0, 1\], got 0.0"),
        ("propensity", 2, 1.5, r"row 2 \(c\): propensity must be in \(0, 1\], got 1.5"),
        ("propensity", 0, np.nan, r"row 0 \(a\): propensity must be in \(0, 1\], got nan"),
        ("pass_prob", 0, 0.0, r"pass_prob must be in \(0, 1\], got 0.0"),
        ("reward", 1, np.inf, "reward must be finite, got inf"),
        ("time", 1, np.datetime64("NaT"), "time must be a time of the years 1 to 9999, got NaT"),
        (
            "time",
            1,
            np.datetime64("10000-01-01"),
            r"row 1 \(b\): time must be a time of the years 1 to 9999, got 10000",
        ),
        ("time", 1, np.datetime64("0000-12-31"), "time must be a time of the years 1 to 9999, got 0000-12-31"),
        ("event_id", 1, "\ud800", "row 1 .*: event_id must be text that is not empty"),
        ("action", 1, 2, r"row 1 \(b\): action must be the column of a candidate, got 2"),
        ("action", 0, 3, "action must be the column of a candidate, got 3"),
        ("action", 0, -1, "action must be the column of a candidate, got -1"),
        ("candidates", 0, [7, 7, 5], r"candidates must be different from each other, got \[7 7 5\]"),
        ("candidates", 1, [9, 7, 5], r"candidates must be 0 in padding, got \[9 7 5\]"),
        ("event_id", 2, "", r"row 2 \(\): event_id must be text that is not empty"),
        ("event_id", 2, 7, "event_id must be text that is not empty, got 7"),
        ("event_id", 2, "a", r"row 2 \(a\): event_id must be different from all others"),
    ],
)
def test_a_value_against_its_rule_is_refused(field, row, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        changed(field, row, value)


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("reward", np.zeros(2), r"reward must have the shape \[3\], got \[2\]"),
        ("mask", np.ones((3, 2), bool), r"mask must have the shape \[3, 3\], got \[3, 2\]"),
        ("candidates", np.ones(3, int), "candidates must have the shape"),
        ("mask", np.ones((3, 3)), "mask must be an array of bool, got float64"),
        ("user_id", np.array([1.0, 2.0, 3.0]), "user_id must be an array of int64, got float64"),
        (
            "time",
            np.array(["2001-01-01T00:00:00.000000001"] * 3, "datetime64[ns]"),
            "time must be in microseconds, got 2001-01-01T00:00:00.000000001",
        ),
        ("time", np.array([1, 2, 3]), "time must be an array of datetime64 in UTC, got int64"),
    ],
)
def test_a_field_of_another_shape_or_type_is_refused(field, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        BanditLog(**GOOD | {field: value})
