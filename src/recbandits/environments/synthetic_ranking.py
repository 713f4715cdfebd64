"""Synthetic users and items whose attraction is logistic in what the agent sees: the textbook problem for slates."""

from recbandits.tf import tf

import numpy as np

from recbandits.environments.base import ARMS, GLOBAL, PER_ARM, USERS
from recbandits.environments.ranking import RankingBatch, RankingEnvironment, ranking_spec

OFFSET, SCALE = -1.5, 1.5  # of the logit: attraction is 0.24 on average, 0.67 for the best of twenty items


class SyntheticRankingEnvironment(RankingEnvironment):
    """Standard normal users u and items v; every user meets new items.

    The logit of an item's attraction is OFFSET + SCALE (a . v + u^T M v) / n with a random a, a random diagonal M and n
    such that the bracket has variance 1. The agent sees [1, u], and for each item v and the interaction u * v: a model
    that is linear in them can rank items perfectly. Relevance is the attraction, and no item is popular.

    Args:
      num_items: candidates per user.
      num_slots: items shown.
      context_size: length of u and of v.
      batch_size: users served per step.
      problem_seed: of a and M; `seed` draws the users and items, so that seeds are replications of one problem.
      **options: `clicks`, `feedback`, `seed` of `RankingEnvironment`.

    Raises:
      ValueError: a context size below 1, or what `RankingEnvironment` refuses.
    """

    def __init__(self, num_items=20, num_slots=5, context_size=4, batch_size=8, problem_seed=0, **options):
        if context_size < 1:
            raise ValueError(f"context_size must be at least 1, got {context_size}")
        theta = np.random.default_rng(problem_seed).normal(size=2 * context_size)
        self._theta = tf.constant(SCALE * theta / np.linalg.norm(theta), tf.float32)
        self._size = context_size
        spec = ranking_spec(1 + context_size, 2 * context_size, num_items)
        super().__init__(spec, num_items, num_slots, batch_size, **options)

    def _batch(self, step):
        shape = [self.batch_size, self.num_items]
        users = tf.random.stateless_normal([self.batch_size, self._size], self.stream(USERS))
        items = tf.random.stateless_normal([*shape, self._size], self.stream(ARMS))
        described = tf.concat([items, users[:, None, :] * items], axis=2)
        attraction = tf.sigmoid(OFFSET + tf.linalg.matvec(described, self._theta))
        return RankingBatch(
            {GLOBAL: tf.concat([tf.ones([self.batch_size, 1]), users], axis=1), PER_ARM: described},
            tf.zeros([self.batch_size], tf.int32),
            tf.broadcast_to(tf.range(self.num_items), shape),
            attraction,
            attraction,
            {"popularity": tf.zeros(shape)},
        )
