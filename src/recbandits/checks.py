"""Checks of values, with one sentence for a value that is refused, and files that are complete or absent."""

import contextlib
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import reduce
from numbers import Integral, Real
from operator import getitem
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

EXPECTED = "must be readable and writable by this user"  # of a file
FEWEST = 20  # rare values that an interval needs; with them it covers the truth in 93 % of samples or more


class Rule(NamedTuple):
    """A condition on a value, and the words for it in an error message.

    Attributes:
      expected: completes the sentence "the field must be ...".
      holds: function from a value to whether the condition holds; that of a range of numbers takes arrays as well.
      kind: type that a single value must have; bool is not taken for a number.
    """

    expected: str
    holds: Callable[[Any], Any]
    kind: type = Real

    def accepts(self, value: Any) -> bool:
        """Return whether a single value has the right type and meets the condition."""
        number = self.kind in (Real, Integral)
        return isinstance(value, self.kind) and not (number and isinstance(value, bool)) and bool(self.holds(value))


FINITE = Rule("finite", lambda value: (value > -math.inf) & (value < math.inf))
POSITIVE = Rule("positive and finite", lambda value: (value > 0) & (value < math.inf))
NON_NEGATIVE = Rule("0 or more and finite", lambda value: (value >= 0) & (value < math.inf))
PROBABILITY = Rule("in [0, 1]", lambda value: (value >= 0) & (value <= 1))
POSITIVE_PROBABILITY = Rule("in (0, 1]", lambda value: (value > 0) & (value <= 1))
SEED = Rule("a whole number from 0 to 2**63 - 1", lambda value: (value >= 0) & (value < 2**63), Integral)
FRACTION = Rule("in (0, 1)", lambda value: (value > 0) & (value < 1))


def whole(least: int = 1) -> Rule:
    """Return the rule of whole numbers of at least `least`."""
    return Rule(f"a whole number of at least {least}", lambda value: value >= least, Integral)


def one_of(values: Collection) -> Rule:
    """Return the rule of a value that is one of some values."""
    return Rule(f"one of {', '.join(map(str, values))}", lambda value: value in values, object)


def require(allowed: bool, name: str, expected: str, value: Any) -> None:
    """Raise ValueError with the sentence about `name`, unless the value is allowed; a long value is cut."""
    if not allowed:
        raise ValueError(f"{name} must be {expected}, got {value!r:.300}")


def require_each(rule: Rule, **values: Any) -> None:
    """Raise ValueError with the sentence about the first of some named values that a rule refuses."""
    for name, value in values.items():
        require(rule.accepts(value), name, rule.expected, value)


def require_shape(values: Any, name: str, *sizes: int | str) -> np.ndarray:
    """Return values as an array, or raise ValueError with the sentence about their shape; text stands for any size."""
    values = np.asarray(values)
    same = [isinstance(size, str) or size == actual for size, actual in zip(sizes, values.shape, strict=False)]
    expected = f"[{', '.join(map(str, sizes))}]"
    require(values.ndim == len(sizes) and all(same), f"shape of {name}", expected, list(values.shape))
    return values


def require_rows(allowed: np.ndarray, name: str, expected: str, values: Any, labels: Any = None) -> None:
    """Raise ValueError with the sentence about the first of `values` [n, ...] where `allowed`, [n] or more, is False.

    It has the label of the row, if there are labels [n].
    """
    if not allowed.all():
        row, *columns = np.argwhere(~allowed)[0].tolist()
        value = reduce(getitem, (row, *columns), getattr(values, "iloc", values))
        label = "" if labels is None else f" ({labels[row]})"
        label += "".join(f", column {column}" for column in columns)
        shown = repr(value) if isinstance(value, str) else value
        raise ValueError(f"row {row}{label}: {name} must be {expected}, got {shown!s:.300}")


def require_labels(labels: Any, name: str, size: int) -> np.ndarray:
    """Return labels of groups as an array [size], or raise ValueError with the sentence about one that is missing."""
    array = require_shape(labels, name, size)
    values = array if hasattr(labels, "dtype") else np.asarray(labels, object)  # array has text "nan" beside texts
    present = np.array(list(map(_is_present, values)), bool) if values.dtype == object else values == values
    require_rows(present, name, "a label, one of its own for each decision without a user", values)
    return array


def _is_present(value: Any) -> bool:
    """Return whether a value is neither None nor NaN, NaT or NA, which do not equal themselves."""
    same = value == value
    return value is not None and isinstance(same, (bool, np.bool_)) and bool(same)


def require_seeds(seeds: Any) -> list[int]:
    """Return an iterable of seeds as a list, or raise ValueError unless it is one or more different seeds."""
    values = list(seeds) if isinstance(seeds, Iterable) else []
    different = all(map(SEED.accepts, values)) and 0 < len(values) == len(set(values))
    require(different, "seeds", "whole numbers from 0 to 2**63 - 1, at least one and all different", seeds)
    return values


def require_distributions(values: np.ndarray, name: str, mask: np.ndarray | None = None) -> None:
    """Raise ValueError with the sentence about the first row of `values` that is no distribution.

    The values [n, ..., k] sum to 1 over the last axis, up to rounding of 1e-5; where the mask is False, they are 0.
    """
    wrong = ~(np.abs(values.sum(axis=-1, dtype=float) - 1) <= 1e-5)  # NaN is wrong
    outside = np.zeros(0) if mask is None or mask.all() else values[~mask]
    if wrong.any() or values.min(initial=0) < 0 or outside.any():
        wrong |= ((values < 0) | (False if mask is None else ~mask & (values != 0))).any(axis=-1)
        padding = "" if mask is None else ", and be 0 in padding"
        require_rows(~wrong, name, f"0 or more and sum to 1{padding}", values)


def require_field(instance: Any, field: str, allowed: bool, expected: str) -> None:
    """Raise ValueError with the sentence about a field of a dataclass, unless its value is allowed."""
    require(allowed, f"{type(instance).__name__}: {field}", expected, getattr(instance, field))


def check_fields(instance: Any, **rules: Rule) -> None:
    """Raise ValueError with the sentence about the first field of a dataclass that its rule refuses."""
    for name, rule in rules.items():
        require_field(instance, name, rule.accepts(getattr(instance, name)), rule.expected)


def distinct(values: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Find the rows whose numbers [n, k], or those in a mask bool [n, k], are all different, bool [n]."""
    if mask is not None:
        values = np.where(mask, values, values.max(initial=0))  # values that do not count come last
    ordered = np.sort(values, axis=1)
    different = ordered[:, 1:] != ordered[:, :-1]
    if mask is not None:
        different |= np.arange(1, values.shape[1]) >= mask.sum(axis=1, keepdims=True)
    return different.all(axis=1)


def outside_majority(values: np.ndarray) -> np.ndarray | None:
    """Find the values that differ from the one that more than half have, such as clicks among decisions without one.

    Numbers [n] that differ by rounding are equal. The candidate is the median of a thousand of them. The result is bool
    [n]; None where no value has the majority.
    """
    spaced = np.sort(values[:: max(1, len(values) // 1000)])
    middle = spaced[len(spaced) // 2] if len(spaced) else 0.0
    rounding = 1e-9 * np.abs(middle)
    if 4 * np.count_nonzero(np.abs(spaced - middle) <= rounding) <= len(spaced):  # quick, where rewards are continuous
        return None
    differs = np.abs(values - middle) > rounding
    return differs if 2 * np.count_nonzero(differs) < len(values) else None


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Write a file or a directory so that readers find it complete or, before that, as it was.

    The body of the `with` statement writes to the path that is given to it, which is new and beside `path`. When the
    body ends without an error, the content is flushed to the disk and takes its name; else nothing has changed. Where
    the file system cannot exchange two directories, such as NFS, one that replaces another takes two renames, and there
    is none of that name for the moment between them.

    Args:
      path: of the file or directory; folders above it are created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        draft = Path(folder, path.name)
        yield draft
        for file in (draft, *draft.rglob("*")) if draft.is_dir() else (draft,):
            flush(file)
        if not (draft.is_dir() and path.is_dir() and _exchange(draft, path)):
            _take_name(draft, path)
        flush(path.parent)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange the names of two directories at once, and return whether the system can do that."""
    import ctypes

    rename = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    here, exchange = -100, 2  # AT_FDCWD and RENAME_EXCHANGE
    return rename is not None and rename(here, os.fsencode(first), here, os.fsencode(second), exchange) == 0


def _take_name(draft: Path, path: Path) -> None:
    """Rename a draft to its path, after a directory of that name was put beside it."""
    previous = draft.with_name(f"{path.name}.previous")
    if draft.is_dir() and path.exists():  # a directory cannot be renamed onto another one that has files
        path.rename(previous)
    try:
        draft.replace(path)
    except OSError:
        if previous.exists():
            previous.rename(path)
        raise


def write_text(path: str | os.PathLike, text: str) -> Path:
    """Write a text file in UTF-8 as `replacing` does, and return its path."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")
    return Path(path)


def copy_files(source: Path, target: Path) -> None:
    """Copy the files of a directory one by one, without their modes and times, and the folders that they need.

    A draft must be removable though its source is read-only. A bucket that is mounted as a directory refuses modes and
    times, and cannot rename a folder with files.
    """
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        copy = target / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)


def reason(error: Exception) -> str:
    """Return why a file is not read or written, with what is expected of one that belongs to another user."""
    text = getattr(error, "strerror", None)
    return f"{text}: it {EXPECTED}" if text and isinstance(error, PermissionError) else text or str(error)


def flush(path: Path) -> None:
    """Flush a file, or the entries of a directory, to the disk; OSError where the disk does not take the file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # some mounted file systems cannot flush directories
            raise
    finally:
        os.close(descriptor)
