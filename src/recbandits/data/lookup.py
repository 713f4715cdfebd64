"""Rows of a table by id, many at a time and without touching the rest of the table."""

import numbers

import numpy as np
import pandas as pd

_LARGEST = float(np.finfo(np.float32).max)


class Table:
    """A table of features as arrays.

    Args:
      frame: DataFrame indexed by whole numbers, different from each other; columns `factor_0`, `factor_1`, ... are
        factors.
      kind: what a row describes, for errors: "user" or "movie".

    Attributes:
      ids: int array [rows], in the order of the frame.
      values: float32 array [rows, columns].
      factors: int array, columns of the factors.
      others: int array, the other columns.
    """

    def __init__(self, frame, kind):
        self.kind, self.ids = kind, frame.index.to_numpy()
        self.values = np.ascontiguousarray(frame.to_numpy(), np.float32)
        self._order = np.argsort(self.ids, kind="stable")
        self._sorted = self.ids[self._order]
        self._columns = {name: number for number, name in enumerate(frame.columns)}
        factors = frame.columns.str.match(r"factor_\d+$")
        self.factors, self.others = np.flatnonzero(factors), np.flatnonzero(~factors)

    @classmethod
    def of_ids(cls, ids, kind):
        """A table of ids without features."""
        return cls(pd.DataFrame(index=pd.Index(ids), columns=pd.Index([], dtype=str)), kind)

    def rows(self, ids):
        """Row of each id, int array of the shape of `ids`; -1 for those that are not in the table.

        Raises:
          ValueError: ids that are no whole numbers.
        """
        ids = np.asarray(ids)
        if ids.size and ids.dtype.kind not in "iu":
            raise ValueError(f"{self.kind} ids must be whole numbers of 64 bits, got {ids.ravel()[:10].tolist()}")
        place = np.searchsorted(self._sorted, ids)
        np.minimum(place, len(self._sorted) - 1, out=place)
        return np.where(self._sorted[place] == ids, self._order[place], -1)

    def known(self, ids, advice):
        """The same for ids that must be in the table.

        Raises:
          KeyError: unknown ids, by name, with the advice.
        """
        rows = self.rows(ids)
        if (missing := rows < 0).any():
            names = ", ".join(str(name) for name in np.unique(np.asarray(ids)[missing])[:10])
            raise KeyError(f"unknown {self.kind} ids: {names}; {advice}")
        return rows

    def mean(self):
        """Mean of every column, float32 [columns]."""
        return self.values.mean(axis=0)

    def described(self, features, row=-1):
        """A row by the names of its columns.

        Args:
          features: dict from column to number. A column that is not named keeps the value of the row; without a row it
            gets the mean of the table, and factors get 0, their prior mean.
          row: that is described anew; -1 for none.

        Returns:
          float32 array [columns]

        Raises:
          ValueError: an unknown column, or a value that is not a finite number.
        """
        values = self.mean() if row < 0 else self.values[row].copy()
        if row < 0:
            values[self.factors] = 0.0
        for name, value in features.items():
            if name not in self._columns:
                raise ValueError(f"a {self.kind} has no feature {name!r}, it has {', '.join(self._columns)}")
            if not _fits(value):
                raise ValueError(f"feature {name!r} of a {self.kind} must be a finite number, got {value!r}")
            values[self._columns[name]] = value
        return values


def asked(user_ids, candidates, mask=None):
    """Users, their candidates and the mask as arrays.

    Args:
      user_ids: int [n].
      candidates: int [n, k], movie ids.
      mask: bool [n, k], False in padding; None for all True.

    Returns:
      The three as arrays.

    Raises:
      ValueError: shapes that do not fit together.
    """
    user_ids, candidates = np.asarray(user_ids), np.asarray(candidates)
    mask = np.ones(candidates.shape, bool) if mask is None else np.asarray(mask, bool)
    if candidates.ndim != 2 or 0 in candidates.shape[1:] or user_ids.shape != candidates.shape[:1]:
        shapes = f"{list(user_ids.shape)} and {list(candidates.shape)}"
        raise ValueError(f"user_ids and candidates must be [n] and [n, k] with k at least 1, got {shapes}")
    if mask.shape != candidates.shape:
        raise ValueError(f"mask must have the shape of candidates, {list(candidates.shape)}, got {list(mask.shape)}")
    return user_ids, candidates, mask


def _fits(value):
    """Whether a value is a number that float32 can hold; compared as a float, for numbers have types of their own."""
    try:
        return isinstance(value, numbers.Real) and abs(float(value)) <= _LARGEST
    except OverflowError:
        return False
