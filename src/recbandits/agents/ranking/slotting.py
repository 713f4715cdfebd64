"""The slotting transform: from what a policy saw, all items, to what its agent is trained on, those it showed."""

import sys

import numpy as np

from recbandits.data.features import GLOBAL, PER_ARM


def slotted(observation, slate):
    """Keep the features of the items in a slate, in the order of its slots.

    Args:
      observation: {"global": [batch, G], "per_arm": [batch, items, D]}, arrays or tensors.
      slate: int [batch, slots], columns of `per_arm`, of the same kind.

    Returns:
      {"global": [batch, G], "per_arm": [batch, slots, D]}.
    """
    tf, arms = sys.modules.get("tensorflow"), observation[PER_ARM]
    if tf is not None and tf.is_tensor(arms):
        shown = tf.gather(arms, slate, batch_dims=1)
    else:
        shown = np.take_along_axis(arms, np.asarray(slate)[:, :, None], axis=1)
    return {GLOBAL: observation[GLOBAL], PER_ARM: shown}


def slotted_spec(observation_spec, num_slots):
    """Spec of what `slotted` gives.

    Args:
      observation_spec: {"global": spec [G], "per_arm": spec [items, D]}, TensorFlow's specs.
      num_slots: items of a slate.

    Returns:
      The same with `per_arm` [num_slots, D].
    """
    arms = observation_spec[PER_ARM]
    shown = type(arms)([num_slots, *arms.shape[1:]], arms.dtype, arms.name)
    return {GLOBAL: observation_spec[GLOBAL], PER_ARM: shown}
