"""The slotting transform: from the features of all items, which a policy reads, to those of a slate, which train it."""

import sys
from typing import Any

import numpy as np

from recbandits.data.features import GLOBAL, PER_ARM


def slotted(observation: dict, slate: Any) -> dict:
    """Keep the features of the items in a slate, in the order of its slots.

    Args:
      observation: {"global": [batch, G], "per_arm": [batch, items, D]}, arrays or tensors.
      slate: int [batch, slots], columns of `per_arm`, of the same kind.

    Returns:
      {"global": [batch, G], "per_arm": [batch, slots, D]}.
    """
    tf, arms = sys.modules.get("tensorflow"), observation[PER_ARM]
    if tf is not None and tf.is_tensor(arms):
        items = tf.gather(arms, slate, batch_dims=1)
    else:
        items = np.take_along_axis(arms, np.asarray(slate)[:, :, None], axis=1)
    return {GLOBAL: observation[GLOBAL], PER_ARM: items}


def slotted_spec(observation_spec: dict, num_slots: int) -> dict:
    """Return the spec of the result of `slotted`.

    Args:
      observation_spec: {"global": spec [G], "per_arm": spec [items, D]}, TensorFlow's specs.
      num_slots: items of a slate.

    Returns:
      The same with `per_arm` [num_slots, D].
    """
    arms = observation_spec[PER_ARM]
    items = type(arms)([num_slots, *arms.shape[1:]], arms.dtype, arms.name)
    return {GLOBAL: observation_spec[GLOBAL], PER_ARM: items}
