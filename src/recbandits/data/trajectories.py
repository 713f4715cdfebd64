"""Logged decisions as training examples."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from recbandits.data.features import GLOBAL, PER_ARM


class Examples(NamedTuple):
    """What a reward model learns from, one row a decision.

    Attributes:
      context: float32 [n, G], features of the user.
      arm: float32 [n, D], features of the chosen candidate.
      reward: float32 [n].
      propensity: float32 [n], probability with which the candidate was chosen.
      pass_prob: float32 [n], probability with which the record was kept.
      event: int64 [n], hash of the event id, the same in every process.
    """

    context: np.ndarray
    arm: np.ndarray
    reward: np.ndarray
    propensity: np.ndarray
    pass_prob: np.ndarray
    event: np.ndarray


def examples(log, bundle):
    """Training examples of a log.

    Args:
      log: BanditLog
      bundle: FeatureBundle that knows its users and movies.

    Returns:
      Examples in the order of the log.
    """
    observation = bundle.observation(log.user_id, log.arm[:, None])
    return Examples(
        context=observation[GLOBAL],
        arm=observation[PER_ARM][:, 0],
        reward=log.reward.astype(np.float32),
        propensity=log.propensity.astype(np.float32),
        pass_prob=log.pass_prob.astype(np.float32),
        event=pd.util.hash_array(log.event_id).view(np.int64),
    )
