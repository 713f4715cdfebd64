"""A log of slates as arrays, one row a slate: what slate estimators and listwise trainers read."""

from dataclasses import dataclass

import numpy as np

from recbandits.records.log import Records

_TYPES = {
    "user_id": np.int64,
    "candidates": np.int64,
    "slate": np.int64,
    "reward": np.float64,
    "propensity": np.float64,
    "position_propensity": np.float64,
}


@dataclass(frozen=True, eq=False)
class SlateLog(Records):
    """Slates with the rewards of their slots; checked when made, never repaired.

    Attributes:
      event_id: str [n], unique, not empty.
      user_id: int64 [n].
      candidates: int64 [n, items] ids of what could have been shown, different within a row. Without ids, indices.
      slate: int64 [n, slots], columns of the candidates that were shown, from the top; different within a row.
      reward: float64 [n, slots] of each slot, such as a click (0 or 1) or a rating; finite.
      propensity: float64 [n, slots] in (0, 1], probability of this item in the slot given the items in the slots above;
        their product is the probability of the slate.
      position_propensity: float64 [n, slots] in (0, 1], probability of this item in the slot whatever stands above, or
        None where the policy cannot tell.

    Raises:
      ValueError: a field breaks its rule; the sentence names the field and the row.
    """

    event_id: np.ndarray
    user_id: np.ndarray
    candidates: np.ndarray
    slate: np.ndarray
    reward: np.ndarray
    propensity: np.ndarray
    position_propensity: np.ndarray | None = None

    def __post_init__(self):
        self._set_columns(_TYPES)
        items, slots = (self._width(name) for name in ("candidates", "slate"))
        by_slot = dict.fromkeys(["slate", "reward", "propensity", "position_propensity"], slots)
        self._check_shapes({"candidates": items, **by_slot})
        self._refuse(_different(self.candidates), "candidates", "different from each other", self.candidates)
        inside = (self.slate >= 0) & (self.slate < items)
        self._refuse(inside, "slate", f"columns of candidates, 0 to {items - 1}", self.slate)
        self._refuse(_different(self.slate), "slate", "different items", self.slate)
        self._refuse(np.isfinite(self.reward), "reward", "finite", self.reward)
        self._check_probability("propensity", self.propensity)
        if self.position_propensity is not None:
            self._check_probability("position_propensity", self.position_propensity)
        self._check_events()

    @property
    def shown(self):
        """Ids of the shown items from the top, int64 [n, slots]."""
        return np.take_along_axis(self.candidates, self.slate, axis=1)

    def _width(self, name):
        shape = getattr(self, name).shape
        if len(shape) != 2:
            raise ValueError(
                f"{name} must have the shape [n, {'items' if name == 'candidates' else 'slots'}], got {list(shape)}"
            )
        return shape[1]

    def _check_probability(self, name, value):
        self._refuse((value > 0) & (value <= 1), name, "in (0, 1]", value)


def _different(values):
    ordered = np.sort(values, axis=1)
    return ordered[:, 1:] != ordered[:, :-1]
