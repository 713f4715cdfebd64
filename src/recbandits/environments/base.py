"""Simulated recommenders as TF-Agents environments: reproducible batches of users, rewards and their optimum."""

import abc
import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from recbandits.tf import tf

import numpy as np
from tf_agents.bandits.environments import bandit_tf_environment
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

from recbandits.checks import FINITE, NON_NEGATIVE, POSITIVE_PROBABILITY, SEED, require_each, whole
from recbandits.data.features import GLOBAL, PER_ARM

# Each purpose has a stream of random numbers of its own: noise or masks that are switched on do not change the users.
USERS, ARMS, NOISE, MASK = range(4)
_STREAMS = 4


class Batch(NamedTuple):
    """All that an environment knows about one batch of interactions; the agent sees `observation` only.

    It is float [batch, features], or a dict with `global` [batch, features] and `per_arm` [batch, arms, features]; in a
    pair with the mask int32 [batch, arms] when arms can be unavailable. `arms` int [batch, arms] is the item of each
    action (row of a movie, index of an arm); `expected_reward` and `unpersonalised`, its average over all users, are
    float [batch, arms]. `noise` float [batch] is added to the reward of any action, so that policies are compared on
    common random numbers. `mask` bool [batch, arms] is True where the arm is available; None when all always are.
    """

    observation: tf.Tensor | dict | tuple
    arms: tf.Tensor
    expected_reward: tf.Tensor
    unpersonalised: tf.Tensor
    noise: tf.Tensor | None = None
    mask: tf.Tensor | None = None

    def expected(self, action: tf.Tensor) -> tf.Tensor:
        """Return the expected reward [batch] of the actions int [batch]."""
        return tf.gather(self.expected_reward, action, batch_dims=1)

    def optimal_reward(self) -> tf.Tensor:
        """Return the largest expected reward [batch] among the available arms."""
        rewards = self.expected_reward
        return tf.reduce_max(rewards if self.mask is None else tf.where(self.mask, rewards, -float("inf")), axis=1)


class Response(NamedTuple):
    """Answers of the users of a batch to the actions taken: what the agent learns from, as in the reward spec.

    `reward` float [batch] is the reward or the number of clicks, `expected` its expectation, and `optimal` the largest
    expected reward of any action.
    """

    feedback: tf.Tensor | dict
    reward: tf.Tensor
    expected: tf.Tensor
    optimal: tf.Tensor


class SeededEnvironment(bandit_tf_environment.BanditTFEnvironment, abc.ABC):
    """A TF-Agents bandit environment whose only `state`, variables for checkpoints, is a seed and a step number.

    The batch of step t is a pure function of (seed, t). Hence any two policies run with one seed meet the same users,
    candidates and uniform draws (common random numbers), and an interrupted simulation continues exactly. `user_ids`
    int [users] are those who can be drawn; the arms or items of a batch are rows of `movie_ids` int [movies]; both are
    None where there are no ids.
    """

    user_ids: np.ndarray | None = None
    movie_ids: np.ndarray | None = None

    def __init__(self, time_step_spec: ts.TimeStep, action_spec: tf.TypeSpec, batch_size: int, seed: int = 0):
        require_each(whole(), batch_size=batch_size)
        require_each(SEED, seed=seed)
        self._make_state(seed, 0)
        super().__init__(time_step_spec, action_spec, batch_size)

    def _make_state(self, seed, step):
        self._seed = tf.Variable(seed, dtype=tf.int64, trainable=False, name="seed")
        self._step_number = tf.Variable(step, dtype=tf.int64, trainable=False, name="step_number")
        self.state = [self._seed, self._step_number]

    def twin(self) -> "SeededEnvironment":
        """Return an environment with the same users, items and rewards, at the same step, with a state of its own."""
        other = copy.copy(self)
        other._make_state(*self.state)
        # TF-Agents' own variables: the last time step, and whether there is one
        variables = self._time_step_variables, self._reset_called
        other._time_step_variables, other._reset_called = tf.nest.map_structure(tf.Variable, variables)
        return other

    def restart(self, seed: int, step: int = 0) -> None:
        """Go to a step of a seed's stream."""
        require_each(SEED, seed=seed)
        require_each(whole(0), step=step)
        self._seed.assign(seed)
        self._step_number.assign(step)

    def batch(self) -> Any:
        """Return the current batch, a named tuple; a graph computes only those parts that it uses."""
        return self._draw()

    def advance(self) -> None:
        """Go to the next batch."""
        self._step_number.assign_add(1)

    def stream(self, purpose: int) -> tf.Tensor:
        """Return the seed int64 [2] of the draws for one purpose at this step."""
        return tf.stack([self._seed.read_value(), self._step_number.read_value() * _STREAMS + purpose])

    @abc.abstractmethod
    def respond(self, batch: Any, action: tf.Tensor) -> Response:
        """Compute the response to actions, as the action spec has them, on the current batch, before `advance`."""

    @abc.abstractmethod
    def _draw(self):
        """Draw the batch of the current step."""

    def _draw_users(self, count):
        """Draw rows int32 [batch] of `count` users, uniformly and with replacement."""
        return tf.random.stateless_uniform([self.batch_size], self.stream(USERS), 0, count, tf.int32)

    def _draw_keys(self, count):
        """Draw uniform keys [batch, count] of items: those with the largest keys are a sample without replacement."""
        return tf.random.stateless_uniform([self.batch_size, count], self.stream(ARMS))

    def _current_time_step(self):
        # TF-Agents keeps the last time step, whose users are not those of the batch after `advance` or `restart`.
        return super()._current_time_step()._replace(observation=self.batch().observation)

    def _observe(self):
        return self.batch().observation

    def _apply_action(self, action):
        feedback = self.respond(self.batch(), action).feedback
        self.advance()
        return feedback


class Environment(SeededEnvironment):
    """A choice of one of `num_actions` arms, for each user of a batch; ValueError for an option outside its range.

    `observation_spec` is that of one observation, without batch dimension and mask. Gaussian noise on the reward has
    the standard deviation `reward_noise`; `reward_offset` is subtracted from every reward and expected reward, and
    regret does not depend on it. An arm is available with probability `available` in (0, 1]; below 1 the observation
    becomes (features, mask) and at least one arm stays available.
    """

    def __init__(
        self,
        observation_spec: tf.TypeSpec | dict,
        num_actions: int,
        batch_size: int,
        reward_noise: float = 0.0,
        available: float = 1.0,
        seed: int = 0,
        *,
        reward_offset: float = 0.0,
    ):
        require_each(whole(2), num_actions=num_actions)
        require_each(NON_NEGATIVE, reward_noise=reward_noise)
        require_each(FINITE, reward_offset=reward_offset)
        require_each(POSITIVE_PROBABILITY, available=available)
        self.num_actions = num_actions
        self.per_arm = isinstance(observation_spec, dict)
        self.masked = available < 1.0
        self._reward_noise, self._reward_offset, self._available = reward_noise, reward_offset, available
        if self.masked:
            observation_spec = (observation_spec, tensor_spec.BoundedTensorSpec([num_actions], tf.int32, 0, 1, "mask"))
        action_spec = tensor_spec.BoundedTensorSpec([], tf.int32, 0, num_actions - 1, "action")
        super().__init__(ts.time_step_spec(observation_spec), action_spec, batch_size, seed)

    def batch(self) -> Batch:
        """Return the current batch, with noise and mask, without changing the state."""
        batch, noise, mask = super().batch(), tf.zeros([self.batch_size]), None
        if self._reward_offset:
            rewards = (part - self._reward_offset for part in (batch.expected_reward, batch.unpersonalised))
            batch = Batch(batch.observation, batch.arms, *rewards)
        if self._reward_noise:
            noise = self._reward_noise * tf.random.stateless_normal([self.batch_size], self.stream(NOISE))
        if self.masked:
            uniforms = tf.random.stateless_uniform([self.batch_size, self.num_actions], self.stream(MASK))
            smallest = tf.one_hot(tf.argmin(uniforms, axis=1), self.num_actions, True, False, dtype=tf.bool)
            mask = (uniforms < self._available) | smallest
            batch = batch._replace(observation=(batch.observation, tf.cast(mask, tf.int32)))
        return batch._replace(noise=noise, mask=mask)

    def respond(self, batch: Batch, action: tf.Tensor) -> Response:
        """Compute the reward of actions int32 [batch]."""
        expected = batch.expected(action)
        reward = expected + batch.noise
        return Response(reward, reward, expected, batch.optimal_reward())


def observation_spec(shapes: Mapping[str, Sequence[int]]) -> dict[str, tensor_spec.TensorSpec]:
    """Return the spec of per-arm observations from the shapes of their parts, as `Features.spec` has them."""
    return {part: tensor_spec.TensorSpec(shapes[part], tf.float32, part) for part in (GLOBAL, PER_ARM)}
