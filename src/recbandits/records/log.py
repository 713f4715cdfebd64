"""A log of decisions as a team keeps it: text ids, raw columns of what was known, any reward."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pandas as pd

from recbandits.checks import require
from recbandits.records.bandit_log import BanditLog


@dataclass(frozen=True, eq=False)
class Log:
    """Decisions with what was known when they were made.

    Attributes:
      decisions: `BanditLog`, whose candidates are rows of `item_ids`, and whose user ids number the users; a decision
        for a user without an id has a number of its own.
      item_ids: text ids of all items, different from each other.
      context: raw columns of what was known of each request, one row for each decision.
      candidate_features: from name to float64 [n, k], numbers of each candidate of each decision, such as its price at
        that moment; not read in padding.

    Raises:
      ValueError: parts of different lengths, an item id that occurs twice, or a number of a candidate that is not
        finite.
    """

    decisions: BanditLog
    item_ids: pd.Index
    context: pd.DataFrame
    candidate_features: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n, mask = len(self.decisions), self.decisions.mask
        require(len(self.context) == n, "context", f"a table of {n} rows, one for each decision", len(self.context))
        for name, values in self.candidate_features.items():
            values = np.asarray(values, float)
            shape = list(mask.shape)
            require(list(values.shape) == shape, f"candidate feature {name!r}", f"an array {shape}", list(values.shape))
            good = np.isfinite(values) | ~mask
            if not good.all():
                row, column = np.argwhere(~good)[0]
                event, value = self.decisions.event_id[row], values[row, column]
                raise ValueError(f"row {row} ({event}): candidate feature {name!r} must be finite, got {value}")

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        items: Sequence,
        *,
        item: str,
        reward: str | Callable[[pd.DataFrame], pd.Series],
        propensity: str,
        time: str,
        context: Sequence[str] = (),
        user: str | None = None,
        users: pd.DataFrame | None = None,
        candidates: str | None = None,
        candidate_features: Mapping[str, np.ndarray] | None = None,
        event_id: str | None = None,
        default_reward: float | None = None,
        reward_range: tuple[float, float] | None = None,
    ) -> Self:
        """Read a table of decisions.

        Ids may be text or whole numbers, which become their text.

        Args:
          frame: one row for each decision.
          items: ids of all items.
          item: column with the id of the item that was shown.
          reward: column, or a function from the frame to its rewards, such as `lambda f: f["seconds"] / 60`.
          propensity: column with the probability of that item, given what was known.
          time: column, of times or ISO 8601 text; without a zone they are UTC.
          context: columns with what was known of the request.
          user: column with the id of the user; missing for users without an account. None if users have no ids.
          users: table of what is known of users, indexed by their ids, whose columns join the context.
          candidates: column of lists of ids; None if all items are candidates of each decision.
          candidate_features: from name to an array [n, k] of numbers of each candidate.
          event_id: column with unique names of the decisions; None numbers them.
          default_reward: reward of a decision without one, such as 0.0 for no click; None refuses missing rewards.
          reward_range: (lowest, highest) reward; None for any.

        Raises:
          ValueError: a column or a value is missing, an item is unknown or not among its candidates, or a number breaks
            the rule of its column; the sentence names the column and the row.
        """
        n, item_ids = len(frame), as_ids(items, "items")
        named = [item, propensity, time, *context]
        named += [name for name in (reward, user, candidates, event_id) if isinstance(name, str)]
        for name in named:
            require(name in frame.columns, "column", f"one of {', '.join(map(str, frame.columns))}", name)
        rows, mask = _find_candidates(frame, candidates, item_ids)
        shown = item_ids.get_indexer(as_text(frame[item]))
        chosen = (rows == shown[:, None]) & mask
        _require_known(shown >= 0, frame[item], item, "the id of an item")
        _require_known(chosen.any(axis=1), frame[item], item, "one of the candidates")
        known = frame[list(context)].reset_index(drop=True)
        if users is not None:
            known = known.join(_join_users(frame, user, users))
        decisions = BanditLog(
            event_id=np.array(
                [f"decision {row}" for row in range(n)] if event_id is None else as_text(frame[event_id])
            ),
            time=_read_times(frame, time),
            user_id=_number_users(frame, user),
            candidates=rows,
            mask=mask,
            action=chosen.argmax(axis=1),
            propensity=_read_numbers(frame[propensity], propensity),
            reward=_read_rewards(frame, reward, default_reward, reward_range),
            pass_prob=np.ones(n),
        )
        return cls(decisions, item_ids, known, dict(candidate_features or {}))

    def __len__(self) -> int:
        return len(self.decisions)

    def take(self, rows: Any) -> Self:
        """Return the log of some rows, each at most once: row numbers, a bool array or a slice."""
        numbers = {name: np.asarray(values)[rows] for name, values in self.candidate_features.items()}
        context = self.context.iloc[np.arange(len(self))[rows]].reset_index(drop=True)
        return type(self)(self.decisions.take(rows), self.item_ids, context, numbers)

    def split(self, share: float = 0.7) -> tuple[Self, Self]:
        """Split by time: the earliest `share` of the decisions, and the later ones, each in the order of the log."""
        require(0 < share < 1, "share", "in (0, 1)", share)
        order, size = np.argsort(self.decisions.time, kind="stable"), round(share * len(self))
        return self.take(np.sort(order[:size])), self.take(np.sort(order[size:]))


def as_text(values: Any) -> np.ndarray:
    """Return ids as text, an object array: text as it is, whole numbers as their text.

    Raises:
      ValueError: an id is missing, empty, or neither text nor a whole number, with its row.
    """
    ids = np.empty(len(values), object)
    for row, value in enumerate(np.asarray(values, dtype=object)):
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if not whole and not (isinstance(value, str) and value):
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


def _find_candidates(frame: pd.DataFrame, candidates: str | None, item_ids: pd.Index) -> tuple[np.ndarray, np.ndarray]:
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


def _require_known(good: np.ndarray, values: pd.Series, name: str, expected: str) -> None:
    if not good.all():
        row = good.argmin()
        raise ValueError(f"row {row}: {name} must be {expected}, got {values.iloc[row]!r}")


def _join_users(frame: pd.DataFrame, user: str | None, users: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of the users of all rows; missing for users who are not in the table or have no id."""
    if user is None:
        raise ValueError("users need a column of the frame by which they are joined: pass user")
    table = users.set_axis(as_ids(users.index, "users"))
    present = frame[user].notna().to_numpy()
    found = np.full(len(frame), -1)
    found[present] = table.index.get_indexer(as_text(frame.loc[present, user]))
    columns = table.reset_index(drop=True).reindex(np.where(found < 0, len(table), found))
    return columns.reset_index(drop=True)


def _number_users(frame: pd.DataFrame, user: str | None) -> np.ndarray:
    """Number the users from 0, int64 [n]; every decision for a user without an id has a number of its own."""
    if user is None:
        return np.arange(len(frame))
    numbers, levels = pd.factorize(frame[user])
    missing = numbers < 0
    numbers[missing] = len(levels) + np.arange(missing.sum())
    return numbers.astype(np.int64)


def _read_times(frame: pd.DataFrame, time: str) -> np.ndarray:
    try:
        values = pd.to_datetime(frame[time], utc=True, format="ISO8601")
    except (ValueError, TypeError) as error:
        raise ValueError(f"{time} must be times or ISO 8601 text: {error}") from None
    return values.dt.tz_localize(None).to_numpy("datetime64[us]")


def _read_numbers(values: pd.Series, name: str) -> np.ndarray:
    try:
        return pd.to_numeric(values).to_numpy(float, na_value=np.nan)
    except (ValueError, TypeError):
        bad = pd.to_numeric(values, errors="coerce").isna().to_numpy() & values.notna().to_numpy()
        raise ValueError(f"row {bad.argmax()}: {name} must be a number, got {values.iloc[bad.argmax()]!r}") from None


def _read_rewards(
    frame: pd.DataFrame, reward: Any, default: float | None, limits: tuple[float, float] | None
) -> np.ndarray:
    name = reward if isinstance(reward, str) else "reward"
    values = _read_numbers(pd.Series(reward(frame)) if callable(reward) else frame[reward], name)
    missing = np.isnan(values)
    if missing.any() and default is None:
        raise ValueError(f"row {missing.argmax()}: {name} is missing, pass default_reward for decisions without one")
    values = np.where(missing, default, values) if default is not None else values
    low, high = limits or (-np.inf, np.inf)
    require(low < high, "reward_range", "(lowest, highest), lowest below highest", limits)
    good = (values >= low) & (values <= high)
    if not good.all():
        row = good.argmin()
        raise ValueError(f"row {row}: {name} must be from {low:g} to {high:g}, got {values[row]:g}")
    return values
