"""Logs of slates: rules by row."""

import numpy as np
import pytest

from recbandits.records.slate_log import SlateLog

GOOD = {
    "event_id": np.array(["a", "b", "c"]),
    "user_id": np.array([1, 2, 1]),
    "candidates": np.array([[7, 9, 5, 3], [9, 7, 1, 0], [5, 9, 7, -2]]),
    "slate": np.array([[2, 0], [1, 3], [0, 1]]),
    "reward": np.array([[1.0, 0.0], [0.0, 0.0], [4.0, -1.0]]),
    "propensity": np.array([[0.5, 1.0], [0.25, 0.1], [1.0, 1.0]]),
    "position_propensity": np.array([[0.5, 0.5], [0.25, 0.2], [1.0, 1.0]]),
}


def test_shown_are_the_chosen_candidates_from_the_top():
    log = SlateLog(**GOOD)
    assert len(log) == 3
    assert log.shown.tolist() == [[5, 7], [7, 0], [5, 9]]


def test_rows_are_taken_from_every_field():
    part = SlateLog(**GOOD).take([2, 0])
    for field, values in GOOD.items():
        np.testing.assert_array_equal(getattr(part, field), values[[2, 0]])


def test_marginal_probabilities_are_optional():
    log = SlateLog(**GOOD | {"position_propensity": None})
    assert log.position_propensity is None
    assert log.take([1]).position_propensity is None


def test_narrow_numbers_keep_their_value():
    """Clicks and propensities of a TensorFlow graph are float32, slates int32."""
    narrow = {"slate": np.int32, "reward": np.float32, "propensity": np.float32}
    log = SlateLog(**GOOD | {name: GOOD[name].astype(kind) for name, kind in narrow.items()})
    assert [getattr(log, name).dtype for name in narrow] == [np.int64, np.float64, np.float64]
    np.testing.assert_array_equal(log.propensity, GOOD["propensity"].astype(np.float32))


@pytest.mark.parametrize(
    ("field", "index", "value", "sentence"),
    [
        ("propensity", (1, 1), 0.0, r"row 1 \(b\), column 1: propensity must be in \(0, 1\], got 0"),
        ("position_propensity", (0, 1), -0.1, r"row 0 \(a\), column 1: position_propensity must be in \(0, 1\]"),
        ("reward", (1, 0), np.inf, r"row 1 \(b\), column 0: reward must be finite, got inf"),
        ("slate", (1, 0), 4, r"row 1 \(b\), column 0: slate must be columns of candidates, 0 to 3, got 4"),
        ("slate", (1, 0), -1, r"slate must be columns of candidates, 0 to 3, got -1"),
        ("slate", (0, 1), 2, r"row 0 \(a\): slate must be different from each other, got \[2 2\]"),
        ("candidates", (2, 3), 5, r"row 2 \(c\): candidates must be different from each other, got \[5 9 7 5\]"),
    ],
)
def test_a_value_against_its_rule_is_refused(field, index, value, sentence):
    array = GOOD[field].copy()
    array[index] = value
    with pytest.raises(ValueError, match=sentence):
        SlateLog(**GOOD | {field: array})


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("reward", np.zeros(3), r"shape of reward must be \[3, 2\], got \[3\]"),
        ("position_propensity", np.ones((3, 1)), r"shape of position_propensity must be \[3, 2\], got \[3, 1\]"),
        ("slate", np.zeros(3, int), r"shape of slate must be \[3, slots\], got \[3\]"),
    ],
)
def test_a_field_of_another_shape_or_type_is_refused(field, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        SlateLog(**GOOD | {field: value})
