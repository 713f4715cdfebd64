"""Columns of a table of one's own decisions as the arrays of a `Log`; what is refused is named by column and row."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from recbandits.checks import require
from recbandits.records.array_log import EVENT_ID


def as_text(values: Any) -> np.ndarray:
    """Return ids as text, an object array: text as it is, whole numbers as their text.

    Raises:
      ValueError: an id is missing, empty, or neither text nor a whole number, with its row.
    """
    ids = np.array([*values, None], dtype=object)[:-1]  # None: lists of equal length would become two dimensions
    if set(map(type, ids)) <= {str} and EVENT_ID.holds(ids).all():
        return ids
    for row, value in enumerate(ids):
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if not whole and not (isinstance(value, str) and EVENT_ID.holds(np.array([value], object)).all()):
            label = getattr(values, "name", None) or "ids"
            raise ValueError(f"row {row}: {label} must be text or a whole number, got {value!r}")
        ids[row] = str(value)
    return ids


def as_ids(values: Any, name: str) -> pd.Index:
    """Return ids of items as an index of text; refuse one that occurs twice."""
    ids = pd.Index(as_text(values), dtype=object, name="item_id")
    if ids.has_duplicates:
        raise ValueError(f"{name} must have different ids, {ids[ids.duplicated()][0]!r} occurs again")
    require(len(ids) > 0, name, "one or more ids", "none")
    return ids


def find_candidates(frame: pd.DataFrame, candidates: str | None, item_ids: pd.Index) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of items int64 [n, k], 0 in padding, and a mask bool [n, k]."""
    if candidates is None:
        rows = np.broadcast_to(np.arange(len(item_ids)), (len(frame), len(item_ids)))
        return rows, np.ones(rows.shape, bool)
    lists = frame[candidates].tolist()
    for row, ids in enumerate(lists):
        good = isinstance(ids, (list, tuple, np.ndarray)) and len(ids) > 0
        require(good, f"row {row}: {candidates}", "a list of ids, one or more", ids)
    size = np.array([len(ids) for ids in lists], int)
    mask = np.arange(size.max(initial=1)) < size[:, None]
    rows, flat = np.zeros(mask.shape, np.int64), pd.Series([each for ids in lists for each in ids], name=candidates)
    rows[mask] = item_ids.get_indexer(as_text(flat))
    unknown = rows < 0
    if unknown.any():
        row, column = np.argwhere(unknown)[0]
        raise ValueError(f"row {row}: {candidates} must be ids of items, got {lists[row][column]!r}")
    return rows, mask


def find_action(shown: pd.Series, item_ids: pd.Index, rows: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the column of the item that was shown among the candidates of each row, int64 [n]."""
    items = item_ids.get_indexer(as_text(shown))
    chosen = (rows == items[:, None]) & mask
    for allowed, expected in ((items >= 0, "the id of an item"), (chosen.any(axis=1), "one of the candidates")):
        if not allowed.all():
            row = allowed.argmin()
            raise ValueError(f"row {row}: {shown.name} must be {expected}, got {shown.iloc[row]!r}")
    return chosen.argmax(axis=1)


def number_users(ids: pd.Series) -> tuple[np.ndarray, pd.Index]:
    """Number the users in the order in which they occur.

    Returns:
      int64 [n], rows of the ids; each decision for a user without an id has a number of its own after them.
      Text ids.
    """
    known, values = ids.notna().to_numpy(), ids.tolist()
    if ids.dtype.kind == "f":  # pandas makes doubles of whole numbers beside missing ones
        exact = [isinstance(each, float) and each.is_integer() and abs(each) < 2**53 for each in values]
        values = [int(each) if whole else each for each, whole in zip(values, exact, strict=True)]
    present = [each if there else 0 for each, there in zip(values, known.tolist(), strict=True)]
    texts = as_text(pd.Series(present, dtype=object, name=ids.name))
    encoded = pa.array(texts, pa.string(), mask=~known).dictionary_encode()
    numbers, levels = encoded.indices.fill_null(-1).to_numpy().astype(np.int64), encoded.dictionary.to_pylist()
    numbers[~known] = len(levels) + np.arange((~known).sum())
    return numbers, pd.Index(levels, dtype=object)


def read_times(frame: pd.DataFrame, time: str) -> np.ndarray:
    """Return times or ISO 8601 text as times in UTC, datetime64[us] [n]."""
    try:
        values = pd.to_datetime(frame[time], utc=True, format="ISO8601")
    except (ValueError, TypeError) as error:
        raise ValueError(f"{time} must be times or ISO 8601 text: {error}") from None
    return values.dt.tz_localize(None).to_numpy("datetime64[us]")


def read_numbers(values: pd.Series, name: str) -> np.ndarray:
    """Return numbers as float64 [n], NaN where they are missing."""
    try:
        return pd.to_numeric(values).to_numpy(float, na_value=np.nan)
    except (ValueError, TypeError):
        bad = pd.to_numeric(values, errors="coerce").isna().to_numpy() & values.notna().to_numpy()
        raise ValueError(f"row {bad.argmax()}: {name} must be a number, got {values.iloc[bad.argmax()]!r}") from None


def read_rewards(
    frame: pd.DataFrame, reward: Any, default: float | None, limits: tuple[float, float] | None
) -> np.ndarray:
    """Return rewards within the limits, float64 [n]; see `Log.from_frame`."""
    name = reward if isinstance(reward, str) else "reward"
    values = read_numbers(pd.Series(reward(frame)) if callable(reward) else frame[reward], name)
    missing = np.isnan(values)
    if missing.any() and default is None:
        raise ValueError(f"row {missing.argmax()}: {name} is missing, pass default_reward for decisions without one")
    values = np.where(missing, default, values) if default is not None else values
    low, high = limits or (-np.inf, np.inf)
    require(low < high, "reward_range", "(lowest, highest), lowest below highest", limits)
    require(default is None or low <= default <= high, "default_reward", f"from {low:g} to {high:g}", default)
    good = (values >= low) & (values <= high)
    if not good.all():
        row = good.argmin()
        raise ValueError(f"row {row}: {name} must be from {low:g} to {high:g}, got {values[row]:g}")
    return values
