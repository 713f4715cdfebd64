"""Raw columns of a table as numbers: fitted once, saved with each policy, the same in training and serving."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any, Self

import numpy as np
import pandas as pd

from recbandits.checks import require, require_each, require_rows, whole
from recbandits.records.fields import NAME, TEXT

_LARGEST = float(np.finfo(np.float32).max)
_ROUNDING = 1e-9  # relative error of a computed deviation, of float64 numbers


@dataclass(frozen=True)
class Encoder:
    """The encoding of columns as float32.

    Numbers are standardised, flags are 0 or 1, categories are one-hot, and the numbers of a vector stay as they are. A
    value that is missing and a level that is not known are 0: the mean, or no level.

    Attributes:
      columns: from the name of a column to what was fitted: {"mean", "deviation"} of a number, {} of a flag, {"levels"}
        of a category, or {"size"} of a vector, which is the columns `<name>_0`, `<name>_1` and so on.
    """

    columns: Mapping[str, Mapping[str, Any]]

    @classmethod
    def fit(
        cls, frame: pd.DataFrame, max_levels: int = 100, vectors: Sequence[str] = (), categories: Sequence[str] = ()
    ) -> Self:
        """Fit the encoding of all columns of a table.

        A column of 0, 1, True and False is a flag, other numbers are numbers, and text is a category. So are all values
        of pandas' type `category`, numbers as well.

        Args:
          frame: raw columns; missing values are left out.
          max_levels: of a category, the most frequent ones.
          vectors: names of vectors, and of single numbers that stay as they are.
          categories: columns that are categories even if they hold numbers.

        Raises:
          ValueError: a column has a name that is not text or occurs twice, no value at all, an infinite number, or
            times or other objects; the sentence names the column and the value.
        """
        require_each(whole(), max_levels=max_levels)
        names = list(frame.columns)
        for name in names:
            NAME.accept("the name of a column", name)
            require(names.count(name) == 1, f"column {name!r}", "there once", names.count(name))
        for name in categories:
            require(name in names, "categories", f"among {', '.join(names)}", name)
        fitted: dict[str, dict] = {}
        vector_of: dict[str, str] = {}
        for name in vectors:
            if name in names:
                fitted[name] = {"mean": 0.0, "deviation": 1.0}
                continue
            parts = [column for column in names if re.fullmatch(re.escape(name) + r"_\d+", column)]
            expected = [f"{name}_{number}" for number in range(len(parts))]
            require(bool(parts) and set(parts) == set(expected), f"vector {name!r}", f"columns {name}_0 and on", parts)
            fitted[name] = {"size": len(parts)}
            vector_of |= dict.fromkeys(parts, name)
        columns: dict[str, dict] = {}
        for column in names:
            name = vector_of.get(column, column)
            if name not in columns:
                columns[name] = fitted.get(name) or _fit_column(frame[name], name, max_levels, name in categories)
        return cls(columns)

    @cached_property
    def names(self) -> list[str]:
        """Names of the numbers, in order."""
        return [each for name in self.columns for each in self._names(name)]

    @cached_property
    def blocks(self) -> dict[str, slice]:
        """Slice of the numbers of each column."""
        ends = np.cumsum([0, *(len(self._names(name)) for name in self.columns)]).tolist()
        return {name: slice(*ends[number : number + 2]) for number, name in enumerate(self.columns)}

    def encode(self, frame: pd.DataFrame) -> np.ndarray:
        """Encode the rows of a table, float32 [rows, numbers].

        A column that is not known, or a value of another kind than the column was fitted to, raises ValueError, whose
        sentence names the column, the row and the value.
        """
        given = frame.columns.tolist()
        self._require_known(given)
        require(len(set(given)) == len(given), "columns", "all different", given)
        values = np.zeros((len(frame), len(self.names)), np.float32)
        numbers = [name for name in given if name in self._scales]
        if numbers:
            table = frame if len(numbers) == len(given) else frame[numbers]
            plain = all(map(_is_plain, table.dtypes.tolist()))  # one conversion of all columns takes less time
            converted = [] if plain else [_as_numbers(column, name) for name, column in table.items()]
            raw = table.to_numpy(float) if plain else np.column_stack(converted)
            position, mean, deviation, flag = np.array([self._scales[name] for name in numbers]).T
            missing = np.isnan(raw)
            good = missing | np.where(flag, (raw == 0) | (raw == 1), np.abs(raw) <= _LARGEST)
            for number in np.flatnonzero(~good.all(axis=0)):
                expected = "0 or 1" if flag[number] else "a finite number"
                require_rows(good[:, number], f"column {numbers[number]!r}", expected, table[numbers[number]])
            values[:, position.astype(int)] = np.where(missing, 0.0, (raw - mean) / deviation)
        for name in self._levels:
            if name in frame:
                codes = pd.Index(self.columns[name]["levels"], dtype=object).get_indexer(_as_levels(frame[name], name))
                rows = np.flatnonzero(codes >= 0)
                values[rows, self.blocks[name].start + codes[rows]] = 1.0
        return values

    def encode_row(self, row: Mapping[str, Any]) -> np.ndarray:
        """Encode one row as `encode` does, float32 [numbers], in the time of a request.

        None, NaN and pd.NA are missing values.
        """
        self._require_known(row)
        values, scales = np.zeros(len(self.names), np.float32), self._scales
        for name, value in row.items():
            if value is None or value is pd.NA or value != value:
                continue
            if name not in scales:
                position = self._levels[name].get(_as_level(value, name))
                if position is not None:
                    values[position] = 1.0
                continue
            position, mean, deviation, flag = scales[name]
            number = isinstance(value, (float, int, np.bool_, Real))  # the abstract type last: it is slow to check
            if not number or not abs(value) <= _LARGEST or (flag and value not in (0, 1)):
                require(False, f"column {name!r}", "0 or 1" if flag else "a finite number", value)
            values[position] = (float(value) - mean) / deviation
        return values

    @cached_property
    def _scales(self) -> dict[str, tuple[int, float, float, bool]]:
        """Position, mean and deviation of each number and flag, and whether it is a flag."""
        return {
            part: (self.blocks[name].start + number, fitted.get("mean", 0.0), fitted.get("deviation", 1.0), not fitted)
            for name, fitted in self.columns.items()
            if "levels" not in fitted
            for number, part in enumerate(self._parts(name))
        }

    @cached_property
    def _levels(self) -> dict[str, dict[str, int]]:
        """Position of each level of each category."""
        return {
            name: {level: position for position, level in enumerate(fitted["levels"], self.blocks[name].start)}
            for name, fitted in self.columns.items()
            if "levels" in fitted
        }

    def _require_known(self, names: Iterable[str]) -> None:
        for name in names:
            if name not in self._scales and name not in self._levels:
                known = [part for column in self.columns for part in self._parts(column)]
                require(False, "column", f"one of {', '.join(known) or 'none'}", name)

    def _parts(self, name: str) -> list[str]:
        """Return the columns of the table that are encoded under a name."""
        size = self.columns[name].get("size")
        return [name] if size is None else [f"{name}_{number}" for number in range(size)]

    def _names(self, name: str) -> list[str]:
        levels = self.columns[name].get("levels")
        return self._parts(name) if levels is None else [f"{name}={level}" for level in levels]


def _fit_column(values: pd.Series, name: str, max_levels: int, category: bool) -> dict:
    present = values.dropna()
    require(len(present) > 0, f"column {name!r}", "a column with at least one value", "none")
    times = pd.api.types.is_datetime64_any_dtype(values) or pd.api.types.is_timedelta64_dtype(values)
    require(not times, f"column {name!r}", "numbers, such as the hour of a time, or text", str(values.dtype))
    category = category or isinstance(values.dtype, pd.CategoricalDtype)
    kinds = set(map(type, present.tolist()))  # Arrow cannot compare text with 0 and 1
    if not category and str not in kinds and present.astype(object).isin([0, 1]).all():
        return {}
    objects = values.dtype == object and all(issubclass(kind, Real) and kind is not bool for kind in kinds)
    if not category and (objects or pd.api.types.is_numeric_dtype(values)):
        numbers = _as_numbers(values, name)
        deviation = float(np.nanstd(numbers))  # of a constant it may be a rounding error instead of 0
        varies = deviation > _ROUNDING * np.nanmax(np.abs(numbers))
        return {"mean": float(np.nanmean(numbers)), "deviation": deviation if varies else 1.0}
    counts = Counter(_as_levels(present, name)).most_common(max_levels)
    return {"levels": sorted(TEXT.accept(f"column {name!r}", level) for level, _ in counts)}


def _is_plain(dtype: Any) -> bool:
    return isinstance(dtype, np.dtype) and dtype.kind in "fiub"


def _as_numbers(values: pd.Series, name: str) -> np.ndarray:
    """Return numbers as float64 [n], NaN where they are missing."""
    if _is_plain(values.dtype):
        converted = values.to_numpy(float)
        require_rows(~(np.abs(converted) > _LARGEST), f"column {name!r}", "a finite number", values)
        return converted
    missing = values.isna().to_numpy()
    if not pd.api.types.is_numeric_dtype(values):
        numbers = np.array([isinstance(value, (Real, np.bool_)) for value in values.tolist()], bool)
        require_rows(numbers | missing, f"column {name!r}", "a finite number", values)
    converted = pd.to_numeric(values).to_numpy(float, na_value=np.nan)
    require_rows(missing | (np.abs(converted) <= _LARGEST), f"column {name!r}", "a finite number", values)
    return converted


def _as_levels(values: pd.Series, name: str) -> np.ndarray:
    """Return categories as text, an object array; missing ones are None, which is no level."""
    levels = np.empty(len(values), object)
    for row, value in enumerate(values.tolist()):
        if value is not None and not (pd.api.types.is_scalar(value) and pd.isna(value)):
            levels[row] = _as_level(value, name, f"row {row}: ")
    return levels


def _as_level(value: Any, name: str, where: str = "") -> str:
    """Return a category as text; a whole number has no decimals."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        value = int(value)
    kinds = (str, bool, int, np.bool_, np.integer)
    require(isinstance(value, kinds), f"{where}column {name!r}", "text or a whole number", value)
    return str(value)
