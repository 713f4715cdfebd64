"""Training on several devices or machines: strategies of `tf.distribute` by name."""

from functools import cache

from recbandits.tf import tf

from tf_agents.agents.tf_agent import TFAgent

from recbandits.checks import one_of, require_each

STRATEGIES = ("none", "mirrored", "multi_worker")


def get_strategy(name: str = "none") -> tf.distribute.Strategy:
    """Return the strategy in whose scope an agent is made; `fit` then trains it there.

    Every replica takes its share of each batch. Gradients and sums are added up, so that the result is that of one
    replica with the whole batch.

    Args:
      name: "none" for one device; "mirrored" for all GPUs of this machine, or its CPU where it has none;
        "multi_worker" for the machines that the environment variable TF_CONFIG lists, each running the same program on
        the same data. The latter must be called before anything else of TensorFlow.

    Returns:
      The same strategy at every call: `with get_strategy("mirrored").scope(): agent = make_agent(...)`.

    Raises:
      ValueError: another name.
    """
    require_each(one_of(STRATEGIES), strategy=name)
    return tf.distribute.get_strategy() if name == "none" else _make_strategy(name)


@cache  # one of a kind in a process: TensorFlow would mix the sums of a second one with its own
def _make_strategy(name):
    return tf.distribute.MirroredStrategy() if name == "mirrored" else tf.distribute.MultiWorkerMirroredStrategy()


def get_strategy_of(agent: TFAgent) -> tf.distribute.Strategy:
    """Return the strategy in whose scope an agent was made."""
    return getattr(agent.train_step_counter, "distribute_strategy", None) or tf.distribute.get_strategy()
