"""Decisions with their rewards as arrays, for estimators and trainers."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from recbandits import checks
from recbandits.records.array_log import EVENT_ID, TIME, ArrayLog, Column


@dataclass(frozen=True, eq=False)
class BanditLog(ArrayLog):
    """Decisions with their rewards.

    Attributes:
      event_id: str [n], unique, not empty.
      time: datetime64[us] [n], UTC.
      user_id: int64 [n], a number for each user.
      candidates: int64 [n, k], numbers of the items that could be shown, different within a decision; 0 in padding.
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
    user_id: Annotated[np.ndarray, Column(np.int64)]
    candidates: Annotated[np.ndarray, Column(np.int64, "k")]
    mask: Annotated[np.ndarray, Column(np.bool_, "k")]
    action: Annotated[np.ndarray, Column(np.int64)]
    propensity: Annotated[np.ndarray, Column(np.float64, rule=checks.POSITIVE_PROBABILITY)]
    reward: Annotated[np.ndarray, Column(np.float64, rule=checks.FINITE)]
    pass_prob: Annotated[np.ndarray, Column(np.float64, rule=checks.POSITIVE_PROBABILITY)]

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require((self.chosen & self.mask).any(axis=1), "action", "the column of a candidate")
        self._require(self.mask | (self.candidates == 0), "candidates", "0 in padding")
        self._require(checks.distinct(self.candidates, self.mask), "candidates", "different from each other")

    @property
    def arm(self) -> np.ndarray:
        """Numbers of the chosen items, int64 [n]."""
        return self.candidates[np.arange(len(self)), self.action]

    @property
    def chosen(self) -> np.ndarray:
        """Cells of the logged actions, bool [n, k]."""
        return np.arange(self.mask.shape[1]) == self.action[:, None]
