"""The SavedModel of a policy, with TF-Agents' `action` and a signature of scores for TensorFlow Serving."""

import logging

from recbandits.tf import tf

from tf_agents.policies import policy_saver
from tf_agents.policies.tf_policy import TFPolicy
from tf_agents.typing import types

from recbandits.data.features import GLOBAL, PER_ARM
from recbandits.serving.scorer import Scorer


def write(policy: TFPolicy, scorer: Scorer | None, directory: str) -> None:
    """Write a policy, and its `Scorer` if it has one, as a SavedModel that needs neither this package nor TF-Agents.

    Its signature `action` takes TF-Agents' time step apart. Where the policy has a scorer, `serving_default` takes
    `context` float32 [n, G] and, where arms have features, `per_arm` float32 [n, k, D], and gives `scores`
    float32 [n, arms]; n and k are free. (TensorFlow refuses to name an argument `global`, a keyword of Python.)
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # TensorFlow notes the spelling of every argument of every signature
    try:
        saver = policy_saver.PolicySaver(policy)
        if hasattr(policy, "score_pairs"):
            policy.score_pairs.get_concrete_function()  # traced, which is what makes it part of the file
            saver.register_concrete_function("score_pairs", policy.score_pairs)
        if scorer is not None:
            saver.signatures["serving_default"] = _signature(scorer, observation_spec(policy))
        saver.save(directory)
    finally:
        logging.disable(disabled)


def observation_spec(policy: TFPolicy) -> types.NestedTensorSpec:
    """Return the spec of a policy's observation without the mask: a tensor's, or a dict of `global` and `per_arm`."""
    spec = policy.time_step_spec.observation
    return spec[0] if isinstance(spec, tuple) else spec


def _signature(scorer, spec):
    parts = [spec[GLOBAL], spec[PER_ARM]] if isinstance(spec, dict) else [spec]
    inputs = [tf.TensorSpec([None, parts[0].shape[-1]], name="context")]
    inputs += [tf.TensorSpec([None, None, part.shape[-1]], name="per_arm") for part in parts[1:]]
    activate = getattr(tf.nn, scorer.activation)

    def score(*observation):
        return {"scores": scorer.scores(*observation, activate=activate)}

    return tf.function(score, input_signature=inputs, autograph=False).get_concrete_function()
