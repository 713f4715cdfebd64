"""Columns of data frames and of tables of records as the arrays of a `Log`, and back."""

import json
from collections.abc import Callable, Iterable, Mapping
from itertools import chain, pairwise
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recbandits.checks import one_of, require, require_each, require_rows
from recbandits.records.array_log import EVENT_ID
from recbandits.records.fields import (
    CANDIDATE_FEATURES,
    CONTEXT,
    FINITE,
    NAMES,
    WRONG_TYPE,
    parse_candidate_features,
    parse_context,
    read_id,
)

_NUMBERS = ("integer", "floating", "mixed-integer", "mixed-integer-float", "decimal")  # types, in words of pandas
_PRESENT_TIME = ("now", "today")  # texts that pandas reads as the time of the call
REPORT_RULES = ("first", "last", "sum", "max")  # by which one reward is made of several reports


def as_text(values: Any, name: str = "", rows: Iterable[int] | None = None) -> np.ndarray:
    """Return ids as text, an object array: text as it is, whole numbers as their text.

    ValueError with the row of an id that is missing, empty, or neither text nor a whole number; `rows` are those of the
    ids, by default their positions.
    """
    ids = np.array([*values, None], dtype=object)[:-1]  # None: lists of equal length would become two dimensions
    if not (set(map(type, ids)) <= {str} and EVENT_ID.holds(ids).all()):
        rows = range(len(ids)) if rows is None else rows
        ids[:] = [read_id(f"row {row}: {name or values.name}", value) for row, value in zip(rows, ids, strict=True)]
    return ids


def as_ids(values: Any, name: str, least: int = 1) -> pd.Index:
    """Return ids as an index of text; refuse one that occurs twice, and fewer than `least`."""
    ids = pd.Index(as_text(values, name), dtype=object, name="item_id")
    require_rows(~ids.duplicated(), name, "different from all others", ids)
    require(len(ids) >= least, name, "one or more ids", "none")
    return ids


def read_lists(ids: pd.Series) -> pa.ListArray:
    """Return lists of ids as lists of text; refuse a row without a list, or with an empty one."""
    lists = ids.tolist()
    for row, each in enumerate(lists):
        good = isinstance(each, (list, tuple, np.ndarray)) and len(each) > 0
        require(good, f"row {row}: {ids.name}", "a list of ids, one or more", each)
    sizes = list(map(len, lists))
    flat = pd.Series(list(chain.from_iterable(lists)), dtype=object, name=ids.name)
    texts = as_text(flat, rows=np.repeat(np.arange(len(lists)), sizes))
    return pa.ListArray.from_arrays(_ends(sizes), pa.array(texts, pa.string()))


def read_candidates(
    lists: pa.ListArray, item_ids: pd.Index | None, name: str = "candidates"
) -> tuple[np.ndarray, np.ndarray, pd.Index]:
    """Return rows of items int64 [n, k], 0 in padding, a mask bool [n, k], and the ids, by default those that occur."""
    sizes = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    mask = np.arange(sizes.max(initial=1)) < sizes[:, None]
    flat = lists.flatten().dictionary_encode()
    require(flat.null_count == 0, name, NAMES.expected, None)
    texts = flat.dictionary.to_pylist()
    ids = pd.Index(sorted(texts), dtype=object, name="item_id") if item_ids is None else item_ids
    rows = np.zeros(mask.shape, np.int64)
    rows[mask] = ids.get_indexer(pd.Index(texts, dtype=object))[flat.indices.to_numpy()]
    if (rows < 0).any():
        row, column = np.argwhere(rows < 0)[0]
        raise ValueError(f"row {row}: {name} must be ids of items, got {lists[row][column].as_py()!r}")
    return rows, mask, ids


def find_action(shown: pd.Series, item_ids: pd.Index, rows: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the column of the item that was shown among the candidates of each row, int64 [n]."""
    items = item_ids.get_indexer(as_text(shown))
    chosen = (rows == items[:, None]) & mask
    for allowed, expected in ((items >= 0, "the id of an item"), (chosen.any(axis=1), "one of the candidates")):
        require_rows(allowed, str(shown.name), expected, shown)
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
    """Return times or ISO 8601 text as times in UTC, datetime64[us] [n], and NaT where they are missing."""
    values, expected = frame[time], "times or ISO 8601 text"
    present = values.dropna()
    levels = getattr(present.dtype, "categories", present)
    if len(present) and pd.api.types.infer_dtype(levels) in _NUMBERS:
        raise ValueError(f"{time} must be {expected}, got numbers: convert them by pd.to_datetime(..., unit='s')")
    times = pd.to_datetime(values, utc=True, format="ISO8601", errors="coerce")
    read = (times.notna() | values.isna()) & ~values.isin(_PRESENT_TIME)
    require_rows(read.to_numpy(), time, expected, values)
    return times.dt.tz_localize(None).to_numpy("datetime64[us]")


def read_numbers(values: pd.Series, name: str) -> np.ndarray:
    """Return numbers as float64 [n], NaN where they are missing."""
    number = values.dtype.kind not in "mMc"  # pandas makes whole numbers of times, of a missing one as well
    require(number, name, "numbers, such as the seconds of a duration", str(values.dtype))
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
    values = read_numbers(_call_reward(reward, frame) if callable(reward) else frame[reward], name)
    _require_default(default)
    missing = np.isnan(values)
    require_rows(~missing | (default is not None), name, "a number where there is no default_reward", values)
    values = np.where(missing, default, values) if default is not None else values
    limits = (-np.inf, np.inf) if limits is None else limits
    ordered = np.shape(limits) == (2,) and limits[0] < limits[1]
    require(ordered, "reward_range", "(lowest, highest), lowest below highest", limits)
    low, high = limits
    require(default is None or low <= default <= high, "default_reward", f"from {low:g} to {high:g}", default)
    require_rows((values >= low) & (values <= high), name, f"from {low:g} to {high:g}", values)
    return values


def _require_default(reward: Any) -> None:
    require(reward is None or isinstance(reward, Real), "default_reward", "a number", reward)


def _call_reward(reward: Callable[[pd.DataFrame], Any], frame: pd.DataFrame) -> pd.Series:
    """Return the rewards of a function in the order of the table, by its index as pandas assigns a column."""
    values = pd.Series(rewards := reward(frame))
    if not isinstance(rewards, pd.Series) or values.index.equals(frame.index):
        return values
    same = values.index.is_unique and frame.index.is_unique and set(values.index) == set(frame.index)
    require(same, "index of the rewards", "that of the table, in any order", values.index.tolist())
    return values.reindex(frame.index)


def join_rewards(event_id: np.ndarray, rewards: pa.Table, default_reward: float | None, take: str | None) -> np.ndarray:
    """Return the reward of each decision, float64 [n]; see `Log.from_tables`."""
    require_each(one_of((None, *REPORT_RULES)), take=take)
    _require_default(default_reward)
    rewarded, values = pd.Index(rewards["event_id"].to_pylist(), dtype=object), rewards["value"].to_numpy()
    require_rows(np.isfinite(values), "value", FINITE.expected, values)
    joined = rewarded.isin(event_id)  # those of other decisions are left out, however many there are
    rewarded, values, rewards = rewarded[joined], values[joined], rewards.filter(joined)
    if rewarded.has_duplicates:
        several = rewarded[rewarded.duplicated()][0]
        require(take is not None, "take", f"given where a decision has several rewards, such as {several!r}", take)
        reports = rewards.to_pandas().drop_duplicates().sort_values(["time", "value"])
        taken = reports.groupby("event_id")["value"].agg(take)
        rewarded, values = taken.index, taken.to_numpy()
    row = rewarded.get_indexer(event_id)
    expected = "that of a reward where there is no default_reward"
    require_rows((row >= 0) | (default_reward is not None), "event_id", expected, event_id)
    return np.append(values, default_reward or 0.0)[row]  # row -1 is the appended one


def write_candidates(rows: np.ndarray, mask: np.ndarray, item_ids: pd.Index) -> pa.ListArray:
    """Write rows of items as lists of their ids."""
    return pa.ListArray.from_arrays(_ends(mask.sum(axis=1)), pa.array(item_ids, pa.string()).take(pa.array(rows[mask])))


def read_contexts(texts: pa.ChunkedArray) -> pd.DataFrame:
    """Parse JSON objects of raw columns: booleans, numbers and texts, missing where an object has no value."""
    parsed, rows = _parse(texts, "context", CONTEXT.expected, parse_context)
    names = dict.fromkeys(chain.from_iterable(parsed))
    columns = {name: _make_column([values.get(name) for values in parsed]) for name in names}
    return pd.DataFrame(columns, index=range(len(parsed))).take(rows).reset_index(drop=True)


def _parse(texts, name, expected, parse):
    """Parse JSON texts, equal ones once; return the different objects in order, and the row in these for each text."""
    encoded = texts.combine_chunks().dictionary_encode()
    parsed, rows = [], encoded.indices.to_numpy()
    for number, text in enumerate(encoded.dictionary.to_pylist()):
        try:
            parsed.append(parse(text))
        except WRONG_TYPE:
            raise ValueError(f"row {np.argmax(rows == number)}: {name} must be {expected}, got {text!r}") from None
    return parsed, rows


def _make_column(values: list) -> pd.Series:
    kinds = set(map(type, values))
    if kinds == {bool} or kinds == {int}:
        return pd.Series(values)
    return pd.Series(values, dtype=float if kinds <= {int, float, type(None)} else object)


def write_contexts(context: pd.DataFrame) -> list[str]:
    """Write rows of raw columns as JSON objects, null where missing; ValueError for a value that JSON does not have."""
    columns = [_as_objects(values) for _, values in context.items()]
    rows = zip(*columns, strict=True) if columns else [()] * len(context)
    names, encode = context.columns.tolist(), json.JSONEncoder(ensure_ascii=False, default=_as_python).encode
    texts = [encode(dict(zip(names, row, strict=True))) for row in rows]
    require_rows(EVENT_ID.holds(np.array(texts, object)), "context", "text that UTF-8 can hold", texts)
    return texts


def _as_objects(values: pd.Series) -> list:
    """Return values, None where missing; numbers of the type `category` as text, for JSON has no such type."""
    objects = values.astype(object).where(values.notna(), None).tolist()
    return list(map(_as_level, objects)) if isinstance(values.dtype, pd.CategoricalDtype) else objects


def _as_level(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, Real) else value


def _as_python(value: Any) -> Any:
    if not isinstance(value, np.generic) or isinstance(value, (np.datetime64, np.timedelta64)):
        raise ValueError(f"context must have texts, numbers, true, false or missing values, got {value!r}")
    return value.item()


def read_candidate_features(texts: pa.ChunkedArray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Parse JSON objects of lists of numbers as arrays, float64 [n, k], 0 in padding."""
    parsed, rows = _parse(texts, "candidate_features", CANDIDATE_FEATURES.expected, parse_candidate_features)
    names = parsed[0].keys() if parsed else ()
    for number, values in enumerate(parsed):
        if values.keys() != names:
            row, expected = np.argmax(rows == number), f"those of row 0, {', '.join(names) or 'none'}"
            require(False, f"row {row}: names of candidate_features", expected, list(values))
    arrays = {name: np.zeros(mask.shape) for name in names}
    for name, array in arrays.items():
        sizes = np.array([len(values[name]) for values in parsed])[rows]
        require_rows(sizes == mask.sum(axis=1), "candidate_features", CANDIDATE_FEATURES.expected, texts.to_pylist())
        array[mask] = list(chain.from_iterable(parsed[row][name] for row in rows.tolist()))
    return arrays


def write_candidate_features(numbers: Mapping[str, np.ndarray], mask: np.ndarray) -> list[str]:
    """Write arrays of numbers of candidates as JSON objects of lists, without padding."""
    if not numbers:
        return ["{}"] * len(mask)
    ends, flat = _ends(mask.sum(axis=1)).tolist(), {name: values[mask].tolist() for name, values in numbers.items()}
    return [json.dumps({name: values[start:end] for name, values in flat.items()}) for start, end in pairwise(ends)]


def _ends(sizes: Any) -> np.ndarray:
    """Return where lists end in the array of all their values, int32 [n + 1], after a 0."""
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
