"""A log of decisions: arrays for estimators and trainers, with text ids and raw columns of what was known."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa

from recbandits import checks
from recbandits.checks import require
from recbandits.records import log_columns
from recbandits.records.array_log import EVENT_ID, TIME, ArrayLog, Column
from recbandits.records.fields import TEXT
from recbandits.records.log_columns import as_ids, as_text
from recbandits.records.records import Interaction, Reward
from recbandits.records.schemas import arrow_schema, convert_table


@dataclass(frozen=True, eq=False)
class Log(ArrayLog):
    """Decisions with their rewards, and with what was known when they were made.

    Attributes:
      event_id: str [n], unique, not empty.
      time: datetime64[us] [n], UTC.
      user_id: int64 [n], rows of `user_ids`. A decision for a user without an id has a number of its own, from
        `len(user_ids)` on.
      candidates: int64 [n, k], rows of `item_ids`, the items that could be shown, different within a decision; 0 in
        padding.
      mask: bool [n, k], False in padding.
      action: int64 [n], column of the chosen candidate.
      propensity: float64 [n] in (0, 1], probability with which it was chosen.
      reward: float64 [n], finite.
      pass_prob: float64 [n] in (0, 1], probability with which the record was kept in the log.
      item_ids: text ids of all items, different from each other. Without them, items and users have any numbers, and
        the log neither tables nor features.
      user_ids: text ids of the users, different from each other.
      context: raw columns of what was known of each request, one row for each decision.
      candidate_features: from name to float64 [n, k], numbers of each candidate of each decision, such as its price at
        that moment; not read in padding.

    Raises:
      ValueError: a field breaks its rule; the sentence names the field, and the row where it has rows.
    """

    event_id: Annotated[np.ndarray, Column(object, rule=EVENT_ID)]
    time: Annotated[np.ndarray, Column(np.datetime64, rule=TIME)]
    user_id: Annotated[np.ndarray, Column(np.int64)]
    candidates: Annotated[np.ndarray, Column(np.int64, "k")]
    mask: Annotated[np.ndarray, Column(np.bool_, "k")]
    action: Annotated[np.ndarray, Column(np.int64)]
    propensity: Annotated[np.ndarray, Column(np.float64, rule=checks.POSITIVE_PROBABILITY)]
    reward: Annotated[np.ndarray, Column(np.float64, rule=checks.FINITE)]
    pass_prob: Annotated[np.ndarray, Column(np.float64, rule=checks.POSITIVE_PROBABILITY)]
    item_ids: pd.Index = field(default_factory=lambda: pd.Index([], dtype=object))
    user_ids: pd.Index = field(default_factory=lambda: pd.Index([], dtype=object))
    context: pd.DataFrame = field(default_factory=pd.DataFrame)
    candidate_features: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require((self.chosen & self.mask).any(axis=1), "action", "the column of a candidate")
        self._require(self.mask | (self.candidates == 0), "candidates", "0 in padding")
        self._require(checks.distinct(self.candidates, self.mask), "candidates", "different from each other")
        for name in ("item_ids", "user_ids"):
            vars(self)[name] = as_ids(getattr(self, name), name, least=0).rename(name.removesuffix("s"))
        items, users = len(self.item_ids), len(self.user_ids)
        if items:
            known = (self.candidates >= 0) & ((self.candidates < items) | ~self.mask)
            self._require(known, "candidates", f"rows of item_ids, 0 to {items - 1}")
            anonymous = self.user_id >= users
            again = anonymous & pd.Index(np.where(anonymous, self.user_id, -1)).duplicated()
            allowed = (self.user_id >= 0) & ~again
            self._require(allowed, "user_id", "a row of user_ids, or a number of its own after them")
        for name in (*self.context.columns, *self.candidate_features):
            TEXT.accept("the name of a column", name)
        require(self.context.columns.is_unique, "columns of the context", "different", list(self.context.columns))
        context = self.context if self.context.shape != (0, 0) else pd.DataFrame(index=range(len(self)))
        require(len(context) == len(self), "context", f"a table of {len(self)} rows", len(context))
        vars(self)["context"] = context.reset_index(drop=True)
        numbers = vars(self)["candidate_features"] = {
            name: np.asarray(values, float) for name, values in self.candidate_features.items()
        }
        for name, values in numbers.items():
            label = f"candidate feature {name!r}"
            checks.require_shape(values, label, *self.mask.shape)
            checks.require_rows(np.isfinite(values) | ~self.mask, label, "finite", values, self.event_id)

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
        """Read a table of decisions; ids are text or whole numbers, which become their text.

        Args:
          frame: one row for each decision.
          items: ids of all items.
          item: column with the id of the item that was shown.
          reward: column, or a function from the frame to its rewards, such as `lambda f: f["seconds"] / 60`.
            They belong to the rows by their index, in any order; those of an array, by their position.
          propensity: column with the probability of that item, given what was known.
          time: column, of times or ISO 8601 text; without a zone they are UTC.
          context: columns with what was known of the request, without the item, its propensity and the reward.
          user: column with the id of the user; missing for users without an account. None if users have no ids.
          users: table of what is known of users, as for `join_users`.
          candidates: column of lists of ids; None if all items are candidates of each decision.
          candidate_features: from name to an array [n, k] of numbers of each candidate.
          event_id: column with unique names of the decisions; None numbers them.
          default_reward: reward of a decision without one, such as 0.0 for no click; None refuses missing rewards.
          reward_range: (lowest, highest) reward; None for any.

        Raises:
          ValueError: a column or a value is missing, an item is unknown or not among its candidates, or a number breaks
            the rule of its column; the sentence names the column and the row.
        """
        require(not isinstance(context, str), "context", "a list of columns", context)
        n, item_ids = len(frame), as_ids(items, "items")
        named = [item, propensity, time, *context]
        named += [name for name in (reward, user, candidates, event_id) if isinstance(name, str)]
        for name in named:
            count = frame.columns.tolist().count(name)
            require(count > 0, "column", f"one of {', '.join(map(str, frame.columns))}", name)
            require(count == 1, f"column {name!r}", "there once", count)
        for role, column in (("item that was shown", item), ("propensity", propensity), ("reward", reward)):
            require(column not in list(context), "context", f"known before the decision, without the {role}", column)
        require(users is None or user is not None, "user", "the column by which users are joined", user)
        rows = np.broadcast_to(np.arange(len(item_ids)), (n, len(item_ids)))
        mask = np.ones(rows.shape, bool)
        if candidates is not None:
            rows, mask, _ = log_columns.read_candidates(log_columns.read_lists(frame[candidates]), item_ids, candidates)
        no_ids = pd.Series([None] * n, dtype=object)
        user_id, user_ids = log_columns.number_users(no_ids if user is None else frame[user])
        names = pd.Series([f"decision {row}" for row in range(n)]) if event_id is None else frame[event_id]
        log = cls(
            event_id=as_text(names),
            time=log_columns.read_times(frame, time),
            user_id=user_id,
            candidates=rows,
            mask=mask,
            action=log_columns.find_action(frame[item], item_ids, rows, mask),
            propensity=log_columns.read_numbers(frame[propensity], propensity),
            reward=log_columns.read_rewards(frame, reward, default_reward, reward_range),
            pass_prob=np.ones(n),
            item_ids=item_ids,
            user_ids=user_ids,
            context=frame[list(context)],
            candidate_features=candidate_features or {},
        )
        return log if users is None else log.join_users(users)

    @classmethod
    def from_tables(
        cls,
        interactions: pa.Table | pd.DataFrame,
        rewards: pa.Table | pd.DataFrame,
        default_reward: float | None = None,
        take: str | None = None,
        item_ids: Sequence | None = None,
    ) -> Self:
        """Join decisions and rewards by event id, in the order of the decisions.

        Args:
          interactions: table of `Interaction` records.
          rewards: table of `Reward` records; those of other decisions are left out.
          default_reward: reward of a decision without one, such as 0.0 for no click; None refuses the decision.
          take: rule for several rewards of one decision, one of `REPORT_RULES`: the one of the first or last time (of
            equal times the smaller value is first), the sum, or the largest. Equal rows are one to a rule. None refuses
            several rows of a decision, equal ones too.
          item_ids: ids of all items; None for the ids of the table, sorted.

        Raises:
          ValueError: a row makes no record, an item is unknown, decisions have different candidate features, a decision
            has no reward or several, an event id occurs twice, or another rule.
        """
        interactions, rewards = convert_table(interactions, Interaction), convert_table(rewards, Reward)
        event_id = interactions["event_id"].to_numpy()
        reward = log_columns.join_rewards(event_id, rewards, default_reward, take)
        lists = interactions["candidates"].combine_chunks()
        ids = None if item_ids is None else as_ids(item_ids, "item_ids")
        candidates, mask, item_ids = log_columns.read_candidates(lists, ids)
        users, shown = (
            pd.Series(interactions[name].to_numpy(), dtype=object, name=name) for name in ("user_id", "action")
        )
        user_id, user_ids = log_columns.number_users(users)
        return cls(
            event_id=event_id,
            time=interactions["time"].to_numpy().astype("datetime64[us]"),
            user_id=user_id,
            candidates=candidates,
            mask=mask,
            action=log_columns.find_action(shown, item_ids, candidates, mask),
            propensity=interactions["propensity"].to_numpy(),
            reward=reward,
            pass_prob=interactions["pass_prob"].to_numpy(),
            item_ids=item_ids,
            user_ids=user_ids,
            context=log_columns.read_contexts(interactions["context"]),
            candidate_features=log_columns.read_candidate_features(interactions["candidate_features"], mask),
        )

    def to_tables(self, policy_version: str = "") -> tuple[pa.Table, pa.Table]:
        """Write the log as tables of `Interaction` and `Reward` records, in the order of the log.

        A reward has the time of its decision. The version is that of the logging policy. A value of the context that
        `Interaction` refuses raises ValueError.
        """
        self.require_ids()
        interactions = {
            "event_id": self.event_id,
            "time": self.time,
            "policy_version": np.full(len(self), policy_version, dtype=object),
            "user_id": np.array([*self.user_ids, None], object)[np.minimum(self.user_id, len(self.user_ids))],
            "context": log_columns.write_contexts(self.context),
            "candidates": log_columns.write_candidates(self.candidates, self.mask, self.item_ids),
            "action": self.item_ids.to_numpy()[self.arm],
            "propensity": self.propensity,
            "pass_prob": self.pass_prob,
            "candidate_features": log_columns.write_candidate_features(self.candidate_features, self.mask),
        }
        rewards = {"event_id": self.event_id, "time": self.time, "value": self.reward}
        TEXT.accept("policy_version", policy_version)
        table = pa.table(interactions, arrow_schema(Interaction))
        log_columns.read_contexts(table["context"])  # refuses what `Interaction` does
        return table, pa.table(rewards, arrow_schema(Reward))

    def require_ids(self) -> None:
        """Raise ValueError if there are decisions, and no ids of items."""
        require(len(self.item_ids) > 0 or not len(self), "item_ids", "the ids of all items", "none")

    @property
    def arm(self) -> np.ndarray:
        """Numbers of the chosen items, int64 [n]."""
        return self.candidates[np.arange(len(self)), self.action]

    @property
    def chosen(self) -> np.ndarray:
        """Cells of the logged actions, bool [n, k]."""
        return np.arange(self.mask.shape[1]) == self.action[:, None]

    @property
    def candidate_ids(self) -> np.ndarray:
        """Text ids of the candidates, objects [n, k]; empty in padding."""
        ids = np.full(self.mask.shape, "", object)
        ids[self.mask] = self.item_ids.to_numpy()[self.candidates[self.mask]]
        return ids

    def join_users(self, users: pd.DataFrame) -> Self:
        """Join raw columns of users, indexed by user id, to the context.

        They are missing in decisions for users who are not in the table or have no id; a warning says so where this
        holds for all users. A user id that occurs twice, or a column that the context has, raises ValueError.
        """
        table = users.set_axis(as_ids(users.index, "users"))
        for name in table.columns:
            require(name not in self.context, "column of users", "none of the context", name)
        rows = np.append(table.index.get_indexer(self.user_ids), -1)[np.minimum(self.user_id, len(self.user_ids))]
        known = self.user_id < len(self.user_ids)
        if known.any() and (rows < 0).all():
            first = self.user_ids[self.user_id[known.argmax()]]
            warnings.warn(f"no user of the log is in the table of users: {first!r} is not, for example", stacklevel=2)
        columns = table.reset_index(drop=True).reindex(np.where(rows < 0, len(table), rows))
        return replace(self, context=self.context.join(columns.reset_index(drop=True)))

    def split(self, share: float = 0.7) -> tuple[Self, Self]:
        """Split by time: the earliest `share` of the decisions, and the later ones, each in the order of the log."""
        checks.require_each(checks.FRACTION, share=share)
        order, size = np.argsort(self.time, kind="stable"), round(share * len(self))
        return self.take(np.sort(order[:size])), self.take(np.sort(order[size:]))

    def _take_parts(self, rows: Any) -> dict[str, Any]:
        return super()._take_parts(rows) | {
            "context": self.context.iloc[np.arange(len(self))[rows]],
            "candidate_features": {name: values[rows] for name, values in self.candidate_features.items()},
        }
