"""One epoch in one graph: shuffled examples, TF-Agents' `train`, and the loss of every batch."""

from functools import partial

from recbandits.tf import tf

import numpy as np

from recbandits.training.distribution import strategy_of
from recbandits.training.experience import gathered, tensors


def make_epoch(agent, examples, weights, batch_size, xla=False, averages=True, **options):
    """Make a function that trains an agent once on each example.

    Args:
      agent: a TF-Agents agent for arms with features.
      examples: Examples or SlateExamples, kept in memory.
      weights: float [n], of the examples; None for 1.
      batch_size: of all but the last batch, which has what remains.
      xla: whether to compile the graph with XLA.
      averages: whether the agent learns from the mean over a batch, as networks do, and not from its sum.
      **options: passed to `agent.train`.

    Returns:
      Function from an order, a permutation of the row numbers, to the loss of every batch and the sizes of the batches.

    Raises:
      ValueError: XLA for several replicas.
    """
    strategy, rows = strategy_of(agent), len(examples.reward)
    batch_size = min(batch_size, rows)
    sizes = np.diff([*range(0, rows, batch_size), rows])
    replicas = strategy.num_replicas_in_sync
    if xla and replicas > 1:
        raise ValueError(f"xla must be False for an agent on several replicas, it has {replicas}")
    data = tensors(agent, examples)
    if weights is None and replicas > 1:
        weights = np.ones(rows)
    weights = None if weights is None else tf.constant(weights, tf.float32)

    def learn(rows, present):
        """A replica's share of a batch; `present` is 0 for rows that only fill up the shares."""
        if replicas > 1:
            mine = tf.distribute.get_replica_context().replica_id_in_sync_group
            rows, present = (tf.reshape(part, [-1, replicas])[:, mine] for part in (rows, present))
        weight = None if weights is None else tf.gather(weights, rows) * present
        return agent.train(gathered(data, rows), weight, **options).loss

    def train(rows):
        filling = -rows.shape[0] % replicas
        filled = (rows.shape[0] + filling) / rows.shape[0]  # means over the shares count the filling
        present = tf.pad(tf.fill(rows.shape, filled if averages else 1.0), [[0, filling]])
        losses = strategy.run(learn, (tf.pad(rows, [[0, filling]]), present))
        return strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None) * (1.0 if averages else filled)

    def train_all(order):
        whole = rows // batch_size
        batches = tf.reshape(order[: whole * batch_size], [whole, batch_size])
        losses = tf.map_fn(train, batches, fn_output_signature=tf.float32, parallel_iterations=1)
        if whole * batch_size == rows:
            return losses
        return tf.concat([losses, [train(order[whole * batch_size :])]], axis=0)

    # a partial, because TensorFlow counts traces by code, and warns when many agents have one each
    signature = [tf.TensorSpec([rows], tf.int32)]
    epoch = tf.function(partial(train_all), signature, autograph=False, jit_compile=xla)
    return lambda order: (epoch(tf.constant(order, tf.int32)).numpy(), sizes)
