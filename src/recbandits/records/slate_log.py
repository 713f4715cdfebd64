"""Slates with their rewards as arrays, for slate estimators and listwise trainers."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from recbandits import checks
from recbandits.records.array_log import EVENT_ID, ArrayLog, Column


@dataclass(frozen=True, eq=False)
class SlateLog(ArrayLog):
    """Slates with the rewards of their slots.

    Attributes:
      event_id: str [n], unique, not empty.
      user_id: int64 [n].
      candidates: int64 [n, items], ids of the items that could be shown, or indices where items have no ids; different
        within a row.
      slate: int64 [n, slots], columns of the candidates that were shown, from the top; different within a row.
      reward: float64 [n, slots] of each slot, such as a click (0 or 1) or a rating; finite.
      propensity: float64 [n, slots] in (0, 1], probability of the item in its slot given the items in the slots above;
        their product is the probability of the slate.
      position_propensity: float64 [n, slots] in (0, 1], marginal probability of the item in its slot, over all items in
        the slots above; None where it is not known.

    Raises:
      ValueError: a field breaks its rule; the sentence names the field and the row.
    """

    event_id: Annotated[np.ndarray, Column(object, rule=EVENT_ID)]
    user_id: Annotated[np.ndarray, Column(np.int64)]
    candidates: Annotated[np.ndarray, Column(np.int64, "items")]
    slate: Annotated[np.ndarray, Column(np.int64, "slots")]
    reward: Annotated[np.ndarray, Column(np.float64, "slots", checks.FINITE)]
    propensity: Annotated[np.ndarray, Column(np.float64, "slots", checks.POSITIVE_PROBABILITY)]
    position_propensity: Annotated[
        np.ndarray | None, Column(np.float64, "slots", checks.POSITIVE_PROBABILITY, optional=True)
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(checks.distinct(self.candidates), "candidates", "different from each other")
        items = self.candidates.shape[1]
        inside = (self.slate >= 0) & (self.slate < items)
        self._require(inside, "slate", f"columns of candidates, 0 to {items - 1}")
        self._require(checks.distinct(self.slate), "slate", "different from each other")

    @property
    def shown(self) -> np.ndarray:
        """Ids of the items of the slate from the top, int64 [n, slots]."""
        return np.take_along_axis(self.candidates, self.slate, axis=1)
