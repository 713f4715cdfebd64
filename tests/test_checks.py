"""Checks of values, and files that are complete or absent."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbandits import checks

NUMBERS = st.floats(allow_nan=True, allow_infinity=True)


@pytest.mark.parametrize(
    ("rule", "accepted", "refused"),
    [
        (checks.FINITE, [-1, 0.5, np.float32(2)], [np.inf, np.nan, True, "1", None]),
        (checks.POSITIVE, [1e-300, 3], [0, -1, np.inf, np.nan, False]),
        (checks.NON_NEGATIVE, [0, 0.1], [-1e-300, np.inf, np.nan]),
        (checks.PROBABILITY, [0, 0.5, 1], [-0.1, 1.1, np.nan, True]),
        (checks.POSITIVE_PROBABILITY, [1e-9, 1], [0, 1.1, np.nan]),
        (checks.whole(2), [2, np.int64(3)], [1, 2.0, True, "2"]),
        (checks.one_of(("a", "b")), ["a"], ["c", None, 0]),
    ],
)
def test_a_rule_accepts_what_its_words_say(rule, accepted, refused):
    assert [value for value in accepted if not rule.accepts(value)] == []
    assert [value for value in refused if rule.accepts(value)] == []


@given(st.lists(NUMBERS, min_size=1))
def test_a_rule_of_numbers_holds_for_the_same_values_in_an_array(values):
    for rule in (checks.FINITE, checks.POSITIVE, checks.NON_NEGATIVE, checks.PROBABILITY, checks.POSITIVE_PROBABILITY):
        assert rule.holds(np.array(values)).tolist() == [rule.accepts(value) for value in values]


@given(st.lists(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=3, max_size=3), min_size=1))
def test_distinct_compares_the_values_that_count(rows):
    values, mask = (
        np.array([[value for value, _ in row] for row in rows]),
        np.array([[m for _, m in row] for row in rows]),
    )
    counted = [[value for value, m in row if m] for row in rows]
    assert checks.distinct(values, mask).tolist() == [len(set(row)) == len(row) for row in counted]
    assert checks.distinct(values).tolist() == [len(set(row)) == len(row) for row in values.tolist()]


def test_the_first_row_with_a_refused_value_is_named():
    values = np.array([[0.5, 1.0], [1.0, 0.0], [2.0, 1.0]])
    with pytest.raises(ValueError, match=r"^row 1 \(b\): share must be in \(0, 1\], got \[1. 0.\]$"):
        checks.require_rows((values > 0) & (values <= 1), "share", "in (0, 1]", values, ["a", "b", "c"])
    checks.require_rows(values >= 0, "share", "0 or more", values, ["a", "b", "c"])


def test_a_file_is_as_it_was_when_its_writer_fails(tmp_path):
    path = checks.write_text(tmp_path / "new" / "a.txt", "first")

    def fail():
        with checks.replacing(path) as draft:
            draft.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert [(file.name, file.read_text()) for file in path.parent.iterdir()] == [("a.txt", "first")]
    checks.write_text(path, "second")
    assert [(file.name, file.read_text()) for file in path.parent.iterdir()] == [("a.txt", "second")]


@pytest.mark.parametrize("directory", ["model", "previous"])
def test_a_directory_replaces_the_one_before_with_all_its_files(directory, tmp_path):
    for name in ("old", "new"):
        with checks.replacing(tmp_path / directory) as draft:
            draft.mkdir()
            (draft / name).write_text(name)
    assert [path.name for path in tmp_path.iterdir()] == [directory]
    assert [path.name for path in (tmp_path / directory).iterdir()] == ["new"]


def test_a_directory_is_restored_when_its_successor_cannot_take_the_name(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").touch()

    def refuse(draft, target):
        raise PermissionError(target)

    def write():
        with checks.replacing(tmp_path / "model") as draft:
            draft.mkdir()
            monkeypatch.setattr(Path, "replace", refuse)

    with pytest.raises(PermissionError):
        write()
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["old"]
