"""A log of decisions as arrays, one row a decision: what estimators and trainers read."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recbandits.records import Interaction, Reward, arrow_schema, check_table
from recbandits.records.log import Records

_TYPES = {
    "time": np.datetime64,
    "user_id": np.int64,
    "candidates": np.int64,
    "mask": np.bool_,
    "action": np.int64,
    "propensity": np.float64,
    "reward": np.float64,
    "pass_prob": np.float64,
}


@dataclass(frozen=True, eq=False)
class BanditLog(Records):
    """Decisions with their rewards; checked when made, never repaired.

    Attributes:
      event_id: str [n], unique, not empty.
      time: datetime64[us] [n], UTC.
      user_id: int64 [n].
      candidates: int64 [n, k] ids of the arms (movies) to choose from, different within a decision; 0 in padding.
      mask: bool [n, k], False in padding.
      action: int64 [n], column of the chosen candidate.
      propensity: float64 [n] in (0, 1], probability with which it was chosen.
      reward: float64 [n], finite.
      pass_prob: float64 [n] in (0, 1], probability with which the record was kept in the log.

    Raises:
      ValueError: a field breaks its rule; the sentence names the field and the row.
    """

    event_id: np.ndarray
    time: np.ndarray
    user_id: np.ndarray
    candidates: np.ndarray
    mask: np.ndarray
    action: np.ndarray
    propensity: np.ndarray
    reward: np.ndarray
    pass_prob: np.ndarray

    def __post_init__(self):
        self._set_columns(_TYPES)
        k = self.candidates.shape[-1] if self.candidates.ndim else 0
        self._check_shapes({"candidates": k, "mask": k})
        self._check_decisions()
        for name in ("propensity", "pass_prob"):
            value = getattr(self, name)
            self._refuse((value > 0) & (value <= 1), name, "in (0, 1]", value)
        self._refuse(np.isfinite(self.reward), "reward", "finite", self.reward)
        self._refuse(~np.isnat(self.time), "time", "a time", self.time)
        self._check_events()

    @property
    def arm(self):
        """Id of the chosen candidate, int64 [n]."""
        return self.candidates[np.arange(len(self)), self.action]

    def to_tables(self, policy_version=""):
        """Give the log as the tables of its records.

        Args:
          policy_version: of the policy that decided.

        Returns:
          (interactions, rewards): `pyarrow.Table`s in the order of the log, with the schemas of `interactions`.
          Contexts are empty, because they are joined by user id; a reward has the time of its decision.
        """
        ends = np.concatenate([[0], self.mask.sum(axis=1).cumsum()]).astype(np.int32)
        interactions = {
            "event_id": self.event_id,
            "time": pa.array(self.time, pa.timestamp("us", "UTC")),
            "policy_version": np.full(len(self), policy_version, dtype=object),
            "user_id": self.user_id,
            "context": pa.ListArray.from_arrays(np.zeros_like(ends), pa.array([], pa.float64())),
            "candidates": pa.ListArray.from_arrays(ends, self.candidates[self.mask]),
            "action": self.arm,
            "propensity": self.propensity,
            "pass_prob": self.pass_prob,
        }
        rewards = {"event_id": self.event_id, "time": interactions["time"], "value": self.reward}
        tables = (interactions, Interaction), (rewards, Reward)
        return tuple(pa.table(columns).cast(arrow_schema(kind)) for columns, kind in tables)

    @classmethod
    def from_tables(cls, interactions, rewards, missing_reward=None):
        """Join decisions and rewards by event id, in the order of the decisions.

        Args:
          interactions: `pyarrow.Table` or DataFrame of `Interaction`s.
          rewards: the same of `Reward`s; those of other decisions are left out.
          missing_reward: what a decision without a reward counts as, such as 0.0 for no click; None refuses it.

        Returns:
          BanditLog

        Raises:
          ValueError: a row is no such record, a decision has two rewards, or none, or occurs twice.
        """
        interactions, rewards = check_table(interactions, Interaction), check_table(rewards, Reward)
        event_id = pd.Index(interactions["event_id"].to_pylist(), dtype=object)
        answered = pd.Index(rewards["event_id"].to_pylist(), dtype=object)
        if answered.has_duplicates:
            raise ValueError(f"a decision must have one reward, {answered[answered.duplicated()][0]!r} has several")
        row = answered.get_indexer(event_id)
        if (row < 0).any() and missing_reward is None:
            raise ValueError(f"every decision must have a reward, {event_id[row < 0][0]!r} has none")
        default = 0.0 if missing_reward is None else missing_reward
        reward = np.append(rewards["value"].to_numpy(), default)[row]  # row -1 is the appended one
        candidates, mask = _padded(interactions["candidates"].combine_chunks())
        arm = interactions["action"].to_numpy()
        return cls(
            event_id=event_id.to_numpy(),
            time=interactions["time"].to_numpy().astype("datetime64[us]"),
            user_id=interactions["user_id"].to_numpy(),
            candidates=candidates,
            mask=mask,
            action=(candidates == arm[:, None]).argmax(axis=1),
            propensity=interactions["propensity"].to_numpy(),
            reward=reward,
            pass_prob=interactions["pass_prob"].to_numpy(),
        )

    def _check_decisions(self):
        column = np.arange(self.mask.shape[1])
        inside = ((column == self.action[:, None]) & self.mask).any(axis=1)
        self._refuse(inside, "action", "the column of a candidate", self.action)
        self._refuse((self.mask | (self.candidates == 0)).all(axis=1), "candidates", "0 in padding", self.candidates)
        # sorted to the end, padding is not taken for a repetition
        ids = np.sort(np.where(self.mask, self.candidates, np.iinfo(np.int64).max), axis=1)
        repeated = (ids[:, 1:] == ids[:, :-1]) & (column[1:] < self.mask.sum(axis=1)[:, None])
        self._refuse(~repeated.any(axis=1), "candidates", "different movies", self.candidates)


def _padded(lists):
    """Values int64 [n, k] and mask bool [n, k] of a `pyarrow.ListArray`."""
    size = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    mask = np.arange(size.max(initial=1)) < size[:, None]
    values = np.zeros(mask.shape, np.int64)
    values[mask] = lists.flatten().to_numpy()
    return values, mask
