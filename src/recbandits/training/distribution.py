"""Training on several devices or machines: which `tf.distribute` strategy, by one argument."""

from functools import cache

from recbandits.tf import tf

STRATEGIES = ("none", "mirrored", "multi_worker")


def get_strategy(name="none"):
    """Strategy in whose scope an agent is made; `fit` then trains it there.

    Every replica takes its share of each batch. Gradients and sums are added up, so that the result is that of one
    replica with the whole batch.

    Args:
      name: "none" for one device; "mirrored" for all GPUs of this machine, or its CPU where it has none;
        "multi_worker" for the machines that the environment variable TF_CONFIG lists, each running the same program on
        the same data. The latter must be called before anything else of TensorFlow.

    Returns:
      A `tf.distribute.Strategy`, the same at every call: `with get_strategy("mirrored").scope(): ...`.

    Raises:
      ValueError: another name.
    """
    if name not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, got {name!r}")
    if name == "mirrored":
        return _only(tf.distribute.MirroredStrategy)
    if name == "multi_worker":
        return _only(tf.distribute.MultiWorkerMirroredStrategy)
    return tf.distribute.get_strategy()


@cache
def _only(kind):
    """The one strategy of a kind in this process: TensorFlow would mix up the sums of a second one with its own."""
    return kind()


def strategy_of(agent):
    """The strategy in whose scope an agent was made."""
    return getattr(agent.train_step_counter, "distribute_strategy", None) or tf.distribute.get_strategy()
