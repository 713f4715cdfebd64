"""Synthetic users whose expected reward is exactly linear, optionally drifting: the textbook problem."""

from recbandits.tf import tf

import numpy as np
from tf_agents.specs import tensor_spec

from recbandits.environments.base import ARMS, GLOBAL, PER_ARM, USERS, Environment


class StationaryLinearEnvironment(Environment):
    """Standard normal users (and arms), rewards linear in what the agent sees.

    With `per_arm=False` arm a pays theta_a . [1, u] and the agent sees [1, u]. With `per_arm=True` every user meets
    new arms v; the agent sees u, v and the interaction u * v, and all arms share one theta on their concatenation.

    Args:
      num_actions: arms.
      context_size: length of u (and of v).
      batch_size: users per step.
      per_arm: whether arms are described by features.
      drift: radians per step by which theta turns towards a second, independent theta; 0 is stationary.
      problem_seed: of theta; `seed` draws the users and arms, so that seeds are replications of one problem.
      **options: `reward_noise`, `available`, `seed` of `Environment`.

    Raises:
      ValueError: a context size below 1 or a drift that is not finite.
    """

    def __init__(
        self, num_actions=5, context_size=4, batch_size=8, per_arm=False, drift=0.0, problem_seed=0, **options
    ):
        if context_size < 1:
            raise ValueError(f"context_size must be at least 1, got {context_size}")
        if not np.isfinite(drift):
            raise ValueError(f"drift must be finite, got {drift}")
        self._size, self._drift = context_size, drift
        shape = [3 * context_size] if per_arm else [num_actions, 1 + context_size]
        theta = np.random.default_rng(problem_seed).normal(size=[2, *shape])
        self._start, self._target = tf.constant(theta, tf.float32)
        spec = tensor_spec.TensorSpec([context_size if per_arm else 1 + context_size], tf.float32, GLOBAL)
        if per_arm:
            arm_spec = tensor_spec.TensorSpec([num_actions, 2 * context_size], tf.float32, PER_ARM)
            spec = {GLOBAL: spec, PER_ARM: arm_spec}
        self._draw_batch = self._draw_arms if per_arm else self._draw_contexts
        super().__init__(spec, num_actions, batch_size, **options)

    def theta(self, step):
        """Coefficients at a step: [arms, 1 + context_size], or [3 * context_size] with per-arm features."""
        if not self._drift:
            return self._start
        angle = self._drift * tf.cast(step, tf.float32)
        return tf.cos(angle) * self._start + tf.sin(angle) * self._target

    def _draw(self, step):
        users = tf.random.stateless_normal([self.batch_size, self._size], self.stream(USERS))
        shape = [self.batch_size, self.num_actions]
        return {
            "arms": tf.broadcast_to(tf.range(self.num_actions), shape),
            **self._draw_batch(users, self.theta(step)),
        }

    def _draw_contexts(self, users, theta):
        context = tf.concat([tf.ones([self.batch_size, 1]), users], axis=1)
        return {
            "observation": context,
            "expected_reward": tf.matmul(context, theta, transpose_b=True),
            # Users average to zero, which leaves the constant.
            "unpersonalised": tf.broadcast_to(theta[:, 0], [self.batch_size, self.num_actions]),
        }

    def _draw_arms(self, users, theta):
        arms = tf.random.stateless_normal([self.batch_size, self.num_actions, self._size], self.stream(ARMS))
        described = tf.concat([arms, users[:, None, :] * arms], axis=2)
        by_user, by_arm, _ = tf.split(theta, 3)
        from_user = tf.linalg.matvec(users, by_user)
        return {
            "observation": {GLOBAL: users, PER_ARM: described},
            "expected_reward": from_user[:, None] + tf.linalg.matvec(described, theta[self._size :]),
            "unpersonalised": tf.linalg.matvec(arms, by_arm),
        }
