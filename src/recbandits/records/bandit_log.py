"""Decisions with their rewards as arrays, for estimators and trainers."""

from dataclasses import dataclass
from typing import Annotated, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recbandits import checks
from recbandits.records.array_log import EVENT_ID, TIME, ArrayLog, Column
from recbandits.records.records import Interaction, Reward, arrow_schema
from recbandits.records.tables import check_table

REPORT_RULES = ("first", "last", "sum", "max")  # by which one reward is made of several reports


@dataclass(frozen=True, eq=False)
class BanditLog(ArrayLog):
    """Decisions with their rewards.

    Attributes:
      event_id: str [n], unique, not empty.
      time: datetime64[us] [n], UTC.
      user_id: int64 [n]; where a user has no id, objects [n], each an int or None, so that code that needs ids raises
        an error instead of taking a number for the id of no user.
      candidates: int64 [n, k], ids of the arms that could be shown, different within a decision; 0 in padding.
      mask: bool [n, k], False in padding.
      action: int64 [n], column of the chosen candidate.
      propensity: float64 [n] in (0, 1], probability with which it was chosen.
      reward: float64 [n], finite.
      pass_prob: float64 [n] in (0, 1], probability with which the record was kept in the log.

    Raises:
      ValueError: a field breaks its rule; the sentence names the field and the row.
    """

    event_id: Annotated[np.ndarray, Column(object, rule=EVENT_ID)]
    time: Annotated[np.ndarray, Column(np.datetime64, rule=TIME)]
    user_id: Annotated[np.ndarray, Column(np.int64, nullable=True)]
    candidates: Annotated[np.ndarray, Column(np.int64, "k")]
    mask: Annotated[np.ndarray, Column(np.bool_, "k")]
    action: Annotated[np.ndarray, Column(np.int64)]
    propensity: Annotated[np.ndarray, Column(np.float64, rule=checks.POSITIVE_PROBABILITY)]
    reward: Annotated[np.ndarray, Column(np.float64, rule=checks.FINITE)]
    pass_prob: Annotated[np.ndarray, Column(np.float64, rule=checks.POSITIVE_PROBABILITY)]

    def __post_init__(self) -> None:
        super().__post_init__()
        chosen = (np.arange(self.mask.shape[1]) == self.action[:, None]) & self.mask
        self._require(chosen.any(axis=1), "action", "the column of a candidate")
        self._require(self.mask | (self.candidates == 0), "candidates", "0 in padding")
        self._require(checks.distinct(self.candidates, self.mask), "candidates", "different from each other")

    @property
    def arm(self) -> np.ndarray:
        """Ids of the chosen candidates, int64 [n]."""
        return self.candidates[np.arange(len(self)), self.action]

    def to_tables(self, policy_version: str = "") -> tuple[pa.Table, pa.Table]:
        """Write the log as a table of `Interaction`s and a table of `Reward`s, in the order of the log.

        Contexts are empty, because they are joined by user id. A reward has the time of its decision. The version is
        that of the logging policy.
        """
        ends = np.concatenate([[0], self.mask.sum(axis=1).cumsum()]).astype(np.int32)
        interactions = {
            "event_id": self.event_id,
            "time": self.time,
            "policy_version": np.full(len(self), policy_version, dtype=object),
            "user_id": pa.array(self.user_id, pa.int64()),
            "context": pa.ListArray.from_arrays(np.zeros_like(ends), pa.array([], pa.float64())),
            "candidates": pa.ListArray.from_arrays(ends, self.candidates[self.mask]),
            "action": self.arm,
            "propensity": self.propensity,
            "pass_prob": self.pass_prob,
        }
        rewards = {"event_id": self.event_id, "time": self.time, "value": self.reward}
        return pa.table(interactions, arrow_schema(Interaction)), pa.table(rewards, arrow_schema(Reward))

    @classmethod
    def from_tables(
        cls,
        interactions: pa.Table | pd.DataFrame,
        rewards: pa.Table | pd.DataFrame,
        default_reward: float | None = None,
        take: str | None = None,
    ) -> Self:
        """Join decisions and rewards by event id, in the order of the decisions.

        Args:
          interactions: table of `Interaction`s.
          rewards: table of `Reward`s; those of other decisions are left out.
          default_reward: reward of a decision without one, such as 0.0 for no click; None refuses the decision.
          take: rule for several rewards of one decision, one of `REPORT_RULES`: the one of the first or last time (of
            equal times the smaller value is first), the sum, or the largest. Equal rows are one. None refuses several.

        Raises:
          ValueError: a row makes no record, a decision has no reward or several, an event id occurs twice, or another
            rule.
        """
        checks.require(take is None or take in REPORT_RULES, "take", f"one of {', '.join(REPORT_RULES)}", take)
        interactions, rewards = check_table(interactions, Interaction), check_table(rewards, Reward)
        event_id = pd.Index(interactions["event_id"].to_pylist(), dtype=object)
        rewarded = pd.Index(rewards["event_id"].to_pylist(), dtype=object)
        values = rewards["value"].to_numpy()
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
        reward = np.append(values, default_reward or 0.0)[row]  # row -1 is the appended one
        users = interactions["user_id"]
        candidates, mask = _pad(interactions["candidates"].combine_chunks())
        return cls(
            event_id=event_id.to_numpy(),
            time=interactions["time"].to_numpy().astype("datetime64[us]"),
            user_id=users.to_numpy() if not users.null_count else np.array(users.to_pylist(), object),
            candidates=candidates,
            mask=mask,
            action=(candidates == interactions["action"].to_numpy()[:, None]).argmax(axis=1),
            propensity=interactions["propensity"].to_numpy(),
            reward=reward,
            pass_prob=interactions["pass_prob"].to_numpy(),
        )


def _pad(lists: pa.ListArray) -> tuple[np.ndarray, np.ndarray]:
    """Convert lists to an array of values, int64 [n, k], and a mask, bool [n, k]."""
    size = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    mask = np.arange(size.max(initial=1)) < size[:, None]
    values = np.zeros(mask.shape, np.int64)
    values[mask] = lists.flatten().to_numpy()
    return values, mask
