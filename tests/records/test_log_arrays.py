"""Logs of decisions as arrays, without ids: rules by row."""

import numpy as np
import pandas as pd
import pytest

from recbandits.data import Features
from recbandits.records import Log

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
    return Log(**GOOD | {field: array})


def test_the_arm_is_the_chosen_candidate():
    log = Log(**GOOD)
    assert len(log) == 3
    assert log.arm.tolist() == [5, 7, 5]


def test_a_log_without_ids_has_neither_tables_nor_features():
    log, items = Log(**GOOD), pd.DataFrame({"new": [True]}, ["7"])
    for call in (log.to_tables, lambda: next(Features.fit(items, log).observe(log, log.chosen))):
        with pytest.raises(ValueError, match="item_ids must be the ids of all items, got 'none'"):
            call()


@pytest.mark.parametrize("rows", [[2, 0], np.array([True, False, True]), slice(1, 3)])
def test_rows_are_taken_from_every_field(rows):
    part = Log(**GOOD).take(rows)
    for field, values in GOOD.items():
        np.testing.assert_array_equal(getattr(part, field), values[rows])


def test_a_log_may_be_empty():
    assert len(Log(**GOOD).take([])) == 0


@pytest.mark.parametrize("movies", [[-3, 5, 0, 0], [0, 5, 0, 0], [2**63 - 1, -(2**63), 0, 0]])
def test_any_number_is_allowed_beside_padding(movies):
    row = {name: values[:1] for name, values in GOOD.items()}
    mask, action = np.array([[True, True, False, False]]), np.array([0])
    log = Log(**row | {"candidates": np.array([movies]), "mask": mask, "action": action})
    assert log.arm.tolist() == movies[:1]
    with pytest.raises(ValueError, match="candidates must be different from each other"):
        Log(**row | {"candidates": np.array([movies[:1] * 2 + [0, 0]]), "mask": mask, "action": action})


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
        ("candidates", 1, [9, 7, 5], r"column 2: candidates must be 0 in padding, got 5"),
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
        ("reward", np.zeros(2), r"shape of reward must be \[3\], got \[2\]"),
        ("mask", np.ones((3, 2), bool), r"shape of mask must be \[3, 3\], got \[3, 2\]"),
        ("candidates", np.ones(3, int), "shape of candidates must be"),
        ("mask", np.ones((3, 3)), "mask must be an array of bool, got 'float64'"),
        ("user_id", np.array([1.0, 2.0, 3.0]), "user_id must be an array of int64, got 'float64'"),
        (
            "time",
            np.array(["2001-01-01T00:00:00.000000001"] * 3, "datetime64[ns]"),
            "time must be in microseconds, got 2001-01-01T00:00:00.000000001",
        ),
        ("time", np.array([1, 2, 3]), "time must be an array of datetime64 in UTC, got 'int64'"),
    ],
)
def test_a_field_of_another_shape_or_type_is_refused(field, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        Log(**GOOD | {field: value})
