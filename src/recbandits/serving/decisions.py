"""What a policy answers: a decision for one user, or decisions for many."""

from typing import NamedTuple

import numpy as np

from recbandits.records import Interaction


class Recommendation(NamedTuple):
    """One decision of a policy.

    Attributes:
      event_id: names the decision; new for each, whatever the seed.
      policy_version: of the policy that decided.
      user_id: as asked; None for a user without one.
      item_ids: list [k]; the first was drawn, the others follow by their scores, or were drawn after it where the
        policy's exploration draws slates.
      titles: list [k].
      scores: list [k], predicted rewards.
      propensity: probability with which the first was drawn from the candidates.
      candidates: int array, ids that could have been drawn.
      context: float32 array, what the policy saw of the user.
      propensities: list [k], probability of each item in its place given those above it; the first is `propensity`,
        and where the others follow by their scores they are 1. Their product is the probability of the slate.
      logged: whether a server has put the decision into its event log.
    """

    event_id: str
    policy_version: str
    user_id: int | None
    item_ids: list
    titles: list
    scores: list
    propensity: float
    candidates: np.ndarray
    context: np.ndarray
    propensities: list
    logged: bool = False

    def interaction(self, time, pass_prob=1.0):
        """The record of the decision: an `Interaction` at a time, kept in the log with probability `pass_prob`.

        Raises:
          ValueError: the record is refused.
        """
        return Interaction(
            event_id=self.event_id,
            time=time,
            policy_version=self.policy_version,
            user_id=self.user_id,
            context=tuple(self.context.tolist()),
            candidates=tuple(self.candidates.tolist()),
            action=self.item_ids[0],
            propensity=self.propensity,
            pass_prob=pass_prob,
        )


class Decisions(NamedTuple):
    """Decisions for many users.

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
