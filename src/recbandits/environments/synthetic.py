"""Synthetic users and arms with a known formula of their rewards: linear for one action, logistic for slates."""

from typing import Any

from recbandits.tf import tf

import numpy as np

from recbandits.checks import FINITE, require_each, whole
from recbandits.data.features import GLOBAL, PER_ARM
from recbandits.environments.base import ARMS, USERS, Batch, Environment, observation_spec
from recbandits.environments.ranking import RankingBatch, RankingEnvironment

OFFSET, SCALE = -1.5, 1.5  # of the logit: attraction is 0.24 on average, 0.67 for the best of twenty items


class StationaryLinearEnvironment(Environment):
    """Standard normal users u of `context_size` features, and rewards that are linear in the observation.

    With `per_arm=False` the reward of arm a is theta_a . [1, u] and the agent sees [1, u]. With `per_arm=True` every
    user has new standard normal arms v of that size; the agent sees u, v and the interaction u * v, and all arms share
    one theta on their concatenation. Theta is always the same: seeds are replications of one problem. By `drift`, a
    finite angle in radians per step, it turns towards a second, independent theta; 0 is stationary. Options are those
    of `Environment`.
    """

    def __init__(
        self,
        num_actions: int = 5,
        context_size: int = 4,
        batch_size: int = 8,
        per_arm: bool = False,
        drift: float = 0.0,
        **options: Any,
    ):
        require_each(whole(), context_size=context_size)
        require_each(whole(2), num_actions=num_actions)
        require_each(FINITE, drift=drift)
        self._size, self._drift = context_size, drift
        shape = [3 * context_size] if per_arm else [num_actions, 1 + context_size]
        theta = np.random.default_rng(0).normal(size=[2, *shape])
        self._start, self._target = tf.constant(theta, tf.float32)
        size = context_size if per_arm else 1 + context_size
        spec = observation_spec({GLOBAL: [size], PER_ARM: [num_actions, 2 * context_size]})
        super().__init__(spec if per_arm else spec[GLOBAL], num_actions, batch_size, **options)

    def theta(self, step: int | tf.Tensor) -> tf.Tensor:
        """Return the coefficients at a step: [arms, 1 + context_size], or [3 * context_size] with per-arm features."""
        if not self._drift:
            return self._start
        angle = self._drift * tf.cast(step, tf.float32)
        return tf.cos(angle) * self._start + tf.sin(angle) * self._target

    def _draw(self):
        shape = [self.batch_size, self.num_actions]
        users = tf.random.stateless_normal([self.batch_size, self._size], self.stream(USERS))
        indices, theta = tf.broadcast_to(tf.range(self.num_actions), shape), self.theta(self._step_number.read_value())
        if not self.per_arm:
            context = _with_constant(users)
            # The mean of u is 0, which leaves the constant.
            mean = tf.broadcast_to(theta[:, 0], shape)
            return Batch(context, indices, tf.matmul(context, theta, transpose_b=True), mean)
        arms = tf.random.stateless_normal([*shape, self._size], self.stream(ARMS))
        features = _with_interaction(users, arms)
        by_user, by_arm, _ = tf.split(theta, 3)
        rewards = tf.linalg.matvec(users, by_user)[:, None] + tf.linalg.matvec(features, theta[self._size :])
        return Batch({GLOBAL: users, PER_ARM: features}, indices, rewards, tf.linalg.matvec(arms, by_arm))


class SyntheticRankingEnvironment(RankingEnvironment):
    """Standard normal users u, and standard normal items v that are new for every user, of `context_size` features.

    The logit of an item's attraction is OFFSET + SCALE (a . v + u^T M v) / n with a random a, a random diagonal M and n
    such that the bracket has variance 1. Both are always the same: seeds are replications of one problem. The agent
    sees [1, u], and for each item v and the interaction u * v: a model that is linear in them can rank items perfectly.
    Relevance is the attraction, and no item is popular. Options are those of `RankingEnvironment`.
    """

    def __init__(
        self, num_items: int = 20, num_slots: int = 5, context_size: int = 4, batch_size: int = 8, **options: Any
    ):
        require_each(whole(), context_size=context_size, num_items=num_items)
        theta = np.random.default_rng(0).normal(size=2 * context_size)
        self._theta = tf.constant(SCALE * theta / np.linalg.norm(theta), tf.float32)
        self._size = context_size
        spec = observation_spec({GLOBAL: [1 + context_size], PER_ARM: [num_items, 2 * context_size]})
        super().__init__(spec, num_items, num_slots, batch_size, **options)

    def _draw(self):
        shape = [self.batch_size, self.num_items]
        users = tf.random.stateless_normal([self.batch_size, self._size], self.stream(USERS))
        features = _with_interaction(users, tf.random.stateless_normal([*shape, self._size], self.stream(ARMS)))
        attraction = tf.sigmoid(OFFSET + tf.linalg.matvec(features, self._theta))
        return RankingBatch(
            {GLOBAL: _with_constant(users), PER_ARM: features},
            tf.zeros([self.batch_size], tf.int32),
            tf.broadcast_to(tf.range(self.num_items), shape),
            attraction,
            attraction,
            {"popularity": tf.zeros(shape)},
        )


def _with_constant(users):
    """Prepend a 1 to the features [batch, size] of users."""
    return tf.concat([tf.ones([users.shape[0], 1]), users], axis=1)


def _with_interaction(users, arms):
    """Append the products with the user's features [batch, size] to those of the arms [batch, arms, size]."""
    return tf.concat([arms, users[:, None, :] * arms], axis=2)
