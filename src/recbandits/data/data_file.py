"""A data set of your own, described by one TOML file: tables, columns, rewards and features.

[decisions]                       # one row for each decision
file = "decisions.csv"            # CSV or Parquet, beside this file
item = "shown"                    # id of the item that was shown
reward = "seconds"
default_reward = 0.0              # of decisions without a reward; left out, they are refused
reward_range = [0, 3600]          # optional
propensity = "p"
time = "at"
user = "user"                     # optional, as are candidates, event_id, context and candidate_features
candidates = "candidates"         # ids between "|", in Parquet also lists; left out, every item is a candidate
context = ["device", "hour"]

[items]
file = "items.csv"
id = "video"
title = "name"                    # optional, is no feature

[users]                           # optional
file = "users.csv"
id = "user"

[features]                        # optional: the arguments of `Features.fit`
crosses = [["plan", "genre"]]
"""

import inspect
import re
import tomllib
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from recbandits.checks import FINITE, Rule, require, require_rows, whole
from recbandits.data.features import Features
from recbandits.records.log import Log

SEPARATOR = "|"  # between the candidates of a decision, and between their numbers
_MISSING = ("NA", "N/A", "n/a", "NaN", "nan", "None", "null", "NULL")  # numbers of CSV that are not known
_FLAGS = {"true": True, "false": False}


def _read_keys(call: Callable, *others: str) -> dict[str, bool]:
    """Return the parameters of a function but for some others, and whether each is required."""
    parameters = inspect.signature(call).parameters.items()
    return {name: parameter.default is parameter.empty for name, parameter in parameters if name not in others}


_KEYS = {  # of each table, and whether they are required
    "decisions": {"file": True} | _read_keys(Log.from_frame, "frame", "items", "users"),
    "items": {"file": True, "id": True, "title": False},
    "users": {"file": True, "id": True},
    "features": _read_keys(Features.fit, "items", "context"),
}
_TEXT = Rule("text that is not empty", bool, str)
_TEXTS = Rule("a list of texts", lambda values: all(map(_TEXT.accepts, values)), list)
_PAIR = Rule("two texts", lambda values: len(values) == 2 and _TEXTS.accepts(values), list)
_PAIRS = "pairs [column of the context, column of the items]"
_LIMIT = Rule("a number", lambda value: value == value)
_RULES = {  # of the values of keys; the others are text
    "default_reward": Rule("a number", FINITE.holds),
    "reward_range": Rule("[lowest, highest]", lambda values: all(map(_LIMIT.accepts, values)), list),
    "context": _TEXTS,
    "candidate_features": _TEXTS,
    "vectors": _TEXTS,
    "categories": _TEXTS,
    "crosses": Rule(_PAIRS, lambda values: all(map(_PAIR.accepts, values)), list),
    "max_levels": whole(),
}


class LoggedData(NamedTuple):
    """A data set that `load` read.

    Attributes:
      log: all decisions.
      items: raw columns of the items, indexed by their ids.
      titles: Series from id to title; None if no column has them.
      settings: arguments of `Features.fit`.
      source: the file that describes it.
    """

    log: Log
    items: pd.DataFrame
    titles: pd.Series | None
    settings: dict[str, Any]
    source: str

    def __repr__(self) -> str:
        return f"{self.source}: {len(self.log):,} decisions, {len(self.items):,} items"

    def fit_features(self, log: Log) -> Features:
        """Fit the features to all items and to the part of the log that is learned from."""
        return Features.fit(self.items, log, **self.settings)


def load(path: str | PathLike) -> LoggedData:
    """Read a data set by the path of its TOML file.

    Raises:
      FileNotFoundError: the file, or one that it names, does not exist.
      ValueError: the file has an unknown table or key, or lacks one; and as `Log.from_frame`.
    """
    path = Path(path)
    tables = _read_toml(path)
    items = _read_indexed(path, tables["items"])
    title = tables["items"].get("title")
    if title is not None:
        require(title in items, f"{path.name}: title of items", f"one of {', '.join(map(str, items))}", title)
    titles = None if title is None else items.pop(title)
    users = _read_indexed(path, tables["users"]) if "users" in tables else None
    columns = dict(tables["decisions"])
    numbers = columns.pop("candidate_features", [])
    texts = [columns[name] for name in ("item", "user", "candidates", "event_id") if name in columns]
    frame = _read_table(path, columns, [*texts, *numbers])
    require(len(frame) > 0, columns["file"], "a table with one or more decisions", "none")
    if "user" in columns:
        frame[columns["user"]] = _read_ids(frame[columns["user"]])
    del columns["file"]
    if "candidates" in columns:
        frame[columns["candidates"]] = frame[columns["candidates"]].astype(object).map(_split)
    features = {name: _read_lists(frame, name, columns.get("candidates"), len(items)) for name in numbers}
    log = Log.from_frame(frame, items.index, users=users, candidate_features=features, **columns)
    return LoggedData(log, items, titles, tables.get("features", {}), path.name)


def _read_toml(path: Path) -> dict[str, dict[str, Any]]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} must be a TOML file in UTF-8: {error}") from None
    for table in ("decisions", "items", *tables):
        require(table in _KEYS, f"{path.name}: table", f"one of {', '.join(_KEYS)}", table)
        require(isinstance(tables.get(table), dict), f"{path.name}: {table}", "a table with keys", tables.get(table))
        for key in tables[table]:
            require(key in _KEYS[table], f"{path.name}: key of {table}", f"one of {', '.join(_KEYS[table])}", key)
        for key, required in _KEYS[table].items():
            known = key in tables[table] or not required
            require(known, f"{path.name}: {table}", f"a table with the key {key!r}", list(tables[table]))
        for key, value in tables[table].items():
            rule = _RULES.get(key, _TEXT)
            require(rule.accepts(value), f"{path.name}: {key} of {table}", rule.expected, value)
    return tables


def _read_indexed(path: Path, table: Mapping[str, Any]) -> pd.DataFrame:
    return _read_table(path, table, [table["id"]]).set_index(table["id"])


def _read_table(path: Path, table: Mapping[str, Any], texts: list[str]) -> pd.DataFrame:
    """Read CSV or Parquet beside the TOML file; ids and lists are text."""
    file = path.parent / table["file"]
    if not file.exists():
        raise FileNotFoundError(f"{path.name} names {table['file']}, which is not in {path.parent}")
    try:
        frame = _read_parquet(file) if file.suffix == ".parquet" else _read_csv(file, texts)
    except ValueError as error:  # of pandas and pyarrow, without the name of the file
        raise ValueError(f"{file.name} must be a table in CSV or Parquet: {error}") from None
    for name in texts:
        require(name in frame.columns, f"{file.name}: column", f"one of {', '.join(map(str, frame.columns))}", name)
    return frame


def _read_parquet(file: Path) -> pd.DataFrame:
    frame = pd.read_parquet(file)
    named = any(frame.index.names)  # as of a table that was indexed by its ids
    return frame.reset_index() if named else frame


def _read_csv(file: Path, texts: list[str]) -> pd.DataFrame:
    frame = pd.read_csv(file, dtype=dict.fromkeys(texts, str), keep_default_na=False, na_values=[""])
    for name in frame.columns.difference(texts):
        frame[name] = _read_words(frame[name])
    return frame


def _read_words(values: pd.Series) -> pd.Series:
    """Return numbers, or true and false, without the words for missing values; among texts a word is a text."""
    words = values.isin(_MISSING)
    if not words.any() or words.all():
        return values
    present = values.mask(words)
    if present.dropna().str.lower().isin(_FLAGS).all():
        return present.str.lower().map(_FLAGS).astype(object)
    numbers = pd.to_numeric(present, errors="coerce")
    return values if (numbers.isna() & present.notna()).any() else numbers


def _read_ids(ids: pd.Series) -> pd.Series:
    """Return ids of users without the decimals that pandas writes of all whole numbers beside missing ones."""
    decimals = ids.dropna().map(lambda value: isinstance(value, str) and bool(re.fullmatch(r"\d{1,15}\.0", value)))
    return ids.str.removesuffix(".0") if len(decimals) and decimals.all() else ids


def _split(value: Any) -> list:
    """Return the parts of a text, a list of Parquet, or a single value, as a list; an empty one where it is missing."""
    if isinstance(value, str):
        return value.split(SEPARATOR)
    if isinstance(value, (list, np.ndarray)):
        return list(value)
    return [] if pd.isna(value) else [value]


def _read_lists(frame: pd.DataFrame, name: str, candidates: str | None, items: int) -> np.ndarray:
    """Return numbers between separators, one for each candidate, as an array [n, k], 0 behind the end of a list."""
    lists = list(map(_split, frame[name]))
    size = np.array([len(texts) for texts in lists], int)
    expected = np.full(len(frame), items) if candidates is None else frame[candidates].str.len().to_numpy()
    require_rows(size == expected, name, f"numbers between {SEPARATOR!r}, one for each candidate", frame[name].array)
    values = np.zeros((len(lists), size.max(initial=1)))
    try:
        values[np.arange(values.shape[1]) < size[:, None]] = [float(text) for texts in lists for text in texts]
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name} must be numbers between {SEPARATOR!r}: {error}") from None
    return values
