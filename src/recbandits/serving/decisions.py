"""Results of a policy: the decision for one request, or decisions for many."""

import json
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from recbandits.records import Interaction


class Recommendation(NamedTuple):
    """One decision of a policy.

    Attributes:
      event_id: new for each decision, with the same seed too.
      item_ids: list [k]; the first was drawn, the others follow by their scores, or were drawn after it where the
        policy's exploration draws slates.
      titles: list [k]; an item without a title has its id.
      scores: list [k], predicted rewards.
      propensity: probability with which the first was drawn from the candidates.
      propensities: list [k], probability of each item in its place given those above it; the first is `propensity`,
        and where the others follow by their scores they are 1. Their product is the probability of the slate.
      logged: whether a server has put the decision into its event log.
    """

    event_id: str
    policy_version: str
    user_id: str | None
    item_ids: list[str]
    titles: list[str]
    scores: list[float]
    propensity: float
    candidates: list[str]
    context: dict[str, Any]
    candidate_features: dict[str, list[float]]
    propensities: list[float]
    logged: bool = False

    @property
    def size(self) -> int:
        """Return about how many bytes of memory the record takes, without ids of candidates that the policy has."""
        user = len(self.user_id or "")
        context = sum(len(name) + len(str(value)) for name, value in self.context.items())
        candidates = sum(map(len, self.candidates)) + (12 + 24 * len(self.candidate_features)) * len(self.candidates)
        return 1000 + user + context + candidates + 80 * len(self.item_ids)

    def interaction(self, time: datetime, pass_prob: float = 1.0) -> Interaction:
        """Return the record of the decision, kept in the log with probability `pass_prob`; ValueError if refused."""
        known = {name: _as_json(value) for name, value in self.context.items()}
        return Interaction(
            event_id=self.event_id,
            time=time,
            policy_version=self.policy_version,
            user_id=self.user_id,
            context=json.dumps(known, ensure_ascii=False, default=float),
            candidates=tuple(self.candidates),
            action=self.item_ids[0],
            propensity=self.propensity,
            pass_prob=pass_prob,
            candidate_features=json.dumps(self.candidate_features),
        )


class Decisions(NamedTuple):
    """Decisions for many requests.

    Attributes:
      action: int array [n], columns of the candidates that were drawn.
      propensity: float array [n], their probabilities.
      scores: float array [n, k], minus infinity where the mask is False.
      probabilities: float array [n, k].
    """

    action: np.ndarray
    propensity: np.ndarray
    scores: np.ndarray
    probabilities: np.ndarray


def _as_json(value: Any) -> Any:
    """Return a value of a raw column as JSON can hold it: NumPy's scalars as Python's, missing numbers as None."""
    if value is None or value is pd.NA or value != value:
        return None
    return value.item() if isinstance(value, np.generic) else value
