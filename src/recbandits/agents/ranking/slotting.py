"""The slotting transform: from the features of all items, which a policy reads, to those of a slate, which train it."""

import sys
from typing import Any

import numpy as np

from recbandits.data.features import GLOBAL, PER_ARM


def slotted(observation: dict, slate: Any) -> dict:
    """Keep the features of the items in a slate, in the order of its slots: {"global", "per_arm" [batch, slots, D]}.

    `observation` is {"global": [batch, G], "per_arm": [batch, items, D]}, and `slate` int [batch, slots] has columns of
    `per_arm`; both are arrays or tensors.
    """
    tf, arms = sys.modules.get("tensorflow"), observation[PER_ARM]
    if tf is not None and tf.is_tensor(arms):
        items = tf.gather(arms, slate, batch_dims=1)
    else:
        items = np.take_along_axis(arms, np.asarray(slate)[:, :, None], axis=1)
    return {GLOBAL: observation[GLOBAL], PER_ARM: items}
