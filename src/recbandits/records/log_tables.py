"""Parts of a `Log` as columns of the tables of `Interaction`s and `Reward`s, and back."""

import json
from collections.abc import Mapping
from itertools import chain, pairwise
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recbandits import checks
from recbandits.records.array_log import EVENT_ID
from recbandits.records.fields import read_json

REPORT_RULES = ("first", "last", "sum", "max")  # by which one reward is made of several reports


def join_rewards(event_id: np.ndarray, rewards: pa.Table, default_reward: float | None, take: str | None) -> np.ndarray:
    """Return the reward of each decision, float64 [n]; see `Log.from_tables`."""
    checks.require(take is None or take in REPORT_RULES, "take", f"one of {', '.join(REPORT_RULES)}", take)
    rewarded, values = pd.Index(rewards["event_id"].to_pylist(), dtype=object), rewards["value"].to_numpy()
    if rewarded.has_duplicates:
        if take is None:
            several = rewarded[rewarded.duplicated()][0]
            raise ValueError(f"a decision must have one reward, {several!r} has several: say which by `take`")
        reports = rewards.to_pandas().drop_duplicates().sort_values(["time", "value"])
        taken = reports.groupby("event_id")["value"].agg(take)
        rewarded, values = taken.index, taken.to_numpy()
    row = rewarded.get_indexer(event_id)
    if (row < 0).any() and default_reward is None:
        raise ValueError(f"every decision must have a reward, {event_id[row < 0][0]!r} has none")
    return np.append(values, default_reward or 0.0)[row]  # row -1 is the appended one


def read_candidates(lists: pa.ListArray, item_ids: pd.Index | None) -> tuple[np.ndarray, np.ndarray, pd.Index]:
    """Return rows of items int64 [n, k], 0 in padding, a mask bool [n, k], and the ids, by default those that occur."""
    sizes = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    mask = np.arange(sizes.max(initial=1)) < sizes[:, None]
    flat = lists.flatten().dictionary_encode()
    texts = flat.dictionary.to_pylist()
    ids = pd.Index(sorted(texts), dtype=object, name="item_id") if item_ids is None else item_ids
    rows = np.zeros(mask.shape, np.int64)
    rows[mask] = ids.get_indexer(pd.Index(texts, dtype=object))[flat.indices.to_numpy()]
    if (rows < 0).any():
        row, column = np.argwhere(rows < 0)[0]
        raise ValueError(f"row {row}: candidates must be ids of items, got {lists[row][column].as_py()!r}")
    return rows, mask, ids


def write_candidates(rows: np.ndarray, mask: np.ndarray, item_ids: pd.Index) -> pa.ListArray:
    """Write rows of items as lists of their ids."""
    return pa.ListArray.from_arrays(_ends(mask), pa.array(item_ids, pa.string()).take(pa.array(rows[mask])))


def read_contexts(texts: pa.ChunkedArray) -> pd.DataFrame:
    """Parse JSON objects of raw columns: booleans, numbers and texts, missing where an object has no value."""
    parsed, rows = _parse(texts)
    names = dict.fromkeys(chain.from_iterable(parsed))
    columns = {name: _make_column([values.get(name) for values in parsed]) for name in names}
    return pd.DataFrame(columns, index=range(len(parsed))).take(rows).reset_index(drop=True)


def _parse(texts: pa.ChunkedArray) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Parse JSON objects, equal ones once; return the different ones in order, and the row in these for each text."""
    encoded = texts.combine_chunks().dictionary_encode()
    return [read_json(text) for text in encoded.dictionary.to_pylist()], encoded.indices.to_numpy()


def _make_column(values: list) -> pd.Series:
    kinds = set(map(type, values))
    if kinds == {bool} or kinds == {int}:
        return pd.Series(values)
    return pd.Series(values, dtype=float if kinds <= {int, float, type(None)} else object)


def write_contexts(context: pd.DataFrame) -> list[str]:
    """Write rows of raw columns as JSON objects, with null for missing values.

    Raises:
      ValueError: a value that JSON does not have.
    """
    columns = [values.astype(object).where(values.notna(), None).tolist() for _, values in context.items()]
    rows = zip(*columns, strict=True) if columns else [()] * len(context)
    names, encode = context.columns.tolist(), json.JSONEncoder(ensure_ascii=False, default=_as_python).encode
    texts = [encode(dict(zip(names, row, strict=True))) for row in rows]
    checks.require_rows(EVENT_ID.holds(np.array(texts, object)), "context", "text that UTF-8 can hold", texts)
    return texts


def _as_python(value: Any) -> Any:
    if not isinstance(value, np.generic) or isinstance(value, (np.datetime64, np.timedelta64)):
        raise ValueError(f"context must have texts, numbers, true, false or missing values, got {value!r}")
    return value.item()


def read_candidate_features(texts: pa.ChunkedArray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Parse JSON objects of lists of numbers as arrays, float64 [n, k], 0 in padding."""
    parsed, rows = _parse(texts)
    names = parsed[0].keys() if parsed else ()
    for number, values in enumerate(parsed):
        if values.keys() != names:
            row, expected = np.argmax(rows == number), f"those of row 0, {', '.join(names) or 'none'}"
            checks.require(False, f"row {row}: names of candidate_features", expected, list(values))
    arrays = {name: np.zeros(mask.shape) for name in names}
    for name, array in arrays.items():
        array[mask] = list(chain.from_iterable(parsed[row][name] for row in rows.tolist()))
    return arrays


def write_candidate_features(numbers: Mapping[str, np.ndarray], mask: np.ndarray) -> list[str]:
    """Write arrays of numbers of candidates as JSON objects of lists, without padding."""
    if not numbers:
        return ["{}"] * len(mask)
    ends, flat = _ends(mask).tolist(), {name: values[mask].tolist() for name, values in numbers.items()}
    return [json.dumps({name: values[start:end] for name, values in flat.items()}) for start, end in pairwise(ends)]


def _ends(mask: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], mask.sum(axis=1).cumsum()]).astype(np.int32)
