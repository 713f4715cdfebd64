"""Checks of values, and files that are complete or absent."""

import errno
import os
import stat
import threading
from pathlib import Path

import numpy as np
import pandas as pd
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
        (checks.FRACTION, [1e-9, 0.5, np.float64(0.9)], [0, 1, 95, np.nan, True]),
        (checks.whole(2), [2, np.int64(3)], [1, 2.0, True, "2"]),
        (checks.one_of(("a", "b")), ["a"], ["c", None, 0]),
    ],
)
def test_a_rule_accepts_what_its_words_say(rule, accepted, refused):
    assert [value for value in accepted if not rule.accepts(value)] == []
    assert [value for value in refused if rule.accepts(value)] == []


@given(st.lists(NUMBERS, min_size=1))
def test_a_rule_of_numbers_holds_for_the_same_values_in_an_array(values):
    rules = [checks.FINITE, checks.POSITIVE, checks.NON_NEGATIVE, checks.PROBABILITY]
    for rule in (*rules, checks.POSITIVE_PROBABILITY, checks.FRACTION):
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
    with pytest.raises(ValueError, match=r"^row 1 \(b\), column 1: share must be in \(0, 1\], got 0.0$"):
        checks.require_rows((values > 0) & (values <= 1), "share", "in (0, 1]", values, ["a", "b", "c"])
    checks.require_rows(values >= 0, "share", "0 or more", values, ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"^row 2, column 0: share must be below 2, got 2.0$"):
        checks.require_rows(values < 2, "share", "below 2", values)


def test_a_text_is_quoted_and_a_table_is_read_by_position():
    column = pd.Series(["a", "b"], index=[7, 8])
    with pytest.raises(ValueError, match=r"^row 1: name must be short, got 'b'$"):
        checks.require_rows(np.array([True, False]), "name", "short", column)


def test_the_first_refused_value_is_named_and_a_long_one_is_cut():
    with pytest.raises(ValueError, match=r"^b must be a whole number of at least 1, got 0$"):
        checks.require_each(checks.whole(), a=1, b=0, c=0)
    with pytest.raises(ValueError, match=r"^b must be one of a, c, got 'x{299}$"):
        checks.require_each(checks.one_of("ac"), b="x" * 1000)


@pytest.mark.parametrize(("sizes", "expected"), [((2, "k"), r"\[2, k\]"), (("n",), r"\[n\]"), ((1, 3), r"\[1, 3\]")])
def test_another_shape_is_refused(sizes, expected):
    np.testing.assert_array_equal(checks.require_shape([[1, 2]], "x", "n", 2), [[1, 2]])
    with pytest.raises(ValueError, match=rf"^shape of x must be {expected}, got \[1, 2\]$"):
        checks.require_shape([[1, 2]], "x", *sizes)


@pytest.mark.parametrize("row", [[0.5, 0.6], [1.5, -0.5], [0.5, np.nan], [np.inf, 0.0], [0.0, 0.0]])
def test_a_row_that_is_no_distribution_is_named(row):
    good = np.array([[0.3, 0.7], [1.0, 0.0]])
    checks.require_distributions(good, "p")
    checks.require_distributions(good, "p", np.array([[True, True], [True, False]]))
    with pytest.raises(ValueError, match=r"^row 1: p must be 0 or more and sum to 1, got \["):
        checks.require_distributions(np.array([[0.3, 0.7], row]), "p")
    with pytest.raises(ValueError, match=r"^row 2, column 0: p must be 0 or more and sum to 1, got \["):
        checks.require_distributions(np.array([[good[0]], [good[1]], [row]]), "p")


def test_a_probability_in_padding_is_named():
    values, mask = np.array([[1.0, 0.0], [0.4, 0.6]]), np.array([[True, False], [True, False]])
    with pytest.raises(ValueError, match=r"^row 1: p must be 0 or more and sum to 1, and be 0 in padding, got \["):
        checks.require_distributions(values, "p", mask)


def test_what_differs_from_the_majority_is_found():
    """Also in a long array, of which a thousand values are looked at first."""
    found = checks.outside_majority(np.array([0.0, 1.0, 0.0, 0.0, 1e-320]))
    assert found.tolist() == [False, True, False, False, True]
    assert checks.outside_majority(np.array([3.0, 3.0 + 1e-12, 4.0])).tolist() == [False, False, True]
    clicks = np.random.default_rng(0).random(100_001) < 0.01
    np.testing.assert_array_equal(checks.outside_majority(clicks.astype(float)), clicks)
    for values in ([], [1.0, 2.0], [1.0, 2.0, 3.0, 3.0], np.arange(5000.0)):
        assert checks.outside_majority(np.asarray(values, float)) is None


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


def test_a_file_that_the_disk_does_not_take_does_not_take_its_name(tmp_path, monkeypatch):
    """A disk may say only when a file is flushed that it is full; that a directory cannot be flushed is no error."""
    checks.write_text(tmp_path / "a", "old")

    def refuse(descriptor):
        raise OSError(errno.EINVAL if stat.S_ISDIR(os.fstat(descriptor).st_mode) else errno.ENOSPC, "refused")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="refused"):
        checks.write_text(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    checks.flush(tmp_path)


def test_two_writers_of_one_path_have_drafts_of_their_own(tmp_path):
    with checks.replacing(tmp_path / "a.txt") as first, checks.replacing(tmp_path / "a.txt") as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.txt", "first")]


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("is_directory", [True, False])
def test_content_is_flushed_before_it_takes_its_name_and_the_name_after(tmp_path, monkeypatch, is_directory, exchange):
    """The calls are recorded by inode, which a rename keeps: all files, and directories, then the name, its folder."""
    path = tmp_path / "model"

    def write(text):
        with checks.replacing(path) as draft:
            if is_directory:
                (draft / "folder").mkdir(parents=True)
            file = draft / "folder" / "file" if is_directory else draft
            file.write_text(text)

    def record(module, name, label):
        call = getattr(module, name)

        def recorded(*arguments):
            result = call(*arguments)
            calls.append(label(*arguments) if result is not False else "not exchanged")
            return result

        monkeypatch.setattr(module, name, recorded)

    calls = []
    record(checks.os, "fsync", lambda file: checks.os.fstat(file).st_ino)
    record(Path, "replace", lambda *_: "name")
    if exchange:
        record(checks, "_exchange", lambda *_: "name")
    else:
        monkeypatch.setattr(checks, "_exchange", lambda *_: False)
    for text in ("old", "new"):
        calls.clear()
        write(text)
        content = {each.stat().st_ino for each in (path, *path.rglob("*"))}
        assert len(content) == (3 if is_directory else 1)
        assert set(calls[: calls.index("name")]) - {"not exchanged"} == content
        assert calls[calls.index("name") + 1 :] == [tmp_path.stat().st_ino]


@pytest.mark.parametrize("exchange", [True, False])
def test_a_directory_replaces_the_one_before_with_all_its_files(exchange, tmp_path, monkeypatch):
    if not exchange:
        monkeypatch.setattr(checks, "_exchange", lambda *_: False)
    for name in ("old", "new"):
        with checks.replacing(tmp_path / "model") as draft:
            draft.mkdir()
            (draft / name).write_text(name)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["new"]


def test_there_is_no_moment_without_a_directory_that_is_replaced(tmp_path):
    """A reader looks all the time while the directory is replaced 200 times, and finds each of its files."""
    missing, end = [], threading.Event()

    def read():
        while not end.is_set():
            try:
                (tmp_path / "model" / "file").read_text()
            except FileNotFoundError as error:
                missing.append(error)

    def write(text):
        with checks.replacing(tmp_path / "model") as draft:
            draft.mkdir()
            (draft / "file").write_text(text)

    write("first")
    reader = threading.Thread(target=read)
    reader.start()
    for number in range(200):
        write(str(number))
    end.set()
    reader.join()
    assert not missing
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "file").read_text() == "199"


def test_a_directory_is_restored_when_its_successor_cannot_take_the_name(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "_exchange", lambda *_: False)
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
