"""What every simulated recommender has in common: a batch of users, candidate arms, rewards, and the optimum."""

import abc
from typing import NamedTuple

from recbandits.tf import tf

from tf_agents.bandits.environments import bandit_tf_environment
from tf_agents.bandits.specs.utils import GLOBAL_FEATURE_KEY, PER_ARM_FEATURE_KEY
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts

GLOBAL, PER_ARM = GLOBAL_FEATURE_KEY, PER_ARM_FEATURE_KEY

# Each purpose draws from a stream of its own, so that switching noise or masks on does not change the users.
USERS, ARMS, _NOISE, _MASK = range(4)
_STREAMS = 4


class Batch(NamedTuple):
    """All that an environment knows about one batch of interactions; the agent sees `observation` only.

    Attributes:
      observation: float [batch, features], or a dict with `global` [batch, features] and `per_arm` [batch, arms,
        features]; in a pair with `mask` when arms can be unavailable.
      arms: int [batch, arms], what each action stands for (row of a movie, index of an arm).
      expected_reward: float [batch, arms].
      unpersonalised: float [batch, arms], expected reward of each arm averaged over all users.
      noise: float [batch], added to whatever reward is revealed: the same for every arm, so that policies compared on
        one seed meet the same uniforms.
      mask: bool [batch, arms], True where the arm is available; None when all always are.
    """

    observation: tf.Tensor
    arms: tf.Tensor
    expected_reward: tf.Tensor
    unpersonalised: tf.Tensor
    noise: tf.Tensor
    mask: tf.Tensor | None

    def available(self, scores):
        """Scores [batch, arms] with minus infinity where the arm is unavailable."""
        return scores if self.mask is None else tf.where(self.mask, scores, -float("inf"))

    def expected(self, action):
        """Expected reward [batch] of the actions int [batch]."""
        return tf.gather(self.expected_reward, action, batch_dims=1)

    def optimal_reward(self):
        """Largest expected reward [batch] among the available arms."""
        return tf.reduce_max(self.available(self.expected_reward), axis=1)

    def optimal_action(self):
        """Action int32 [batch] with that reward, the first one on ties."""
        return tf.argmax(self.available(self.expected_reward), axis=1, output_type=tf.int32)


class Response(NamedTuple):
    """What comes of a batch of decisions.

    Attributes:
      feedback: what the agent learns from, a nest as in the reward spec of the environment.
      reward: float [batch], one number for each user: the reward, or the number of clicks.
      expected: float [batch], its expectation.
      optimal: float [batch], the best expectation that any action has.
    """

    feedback: tf.Tensor | dict
    reward: tf.Tensor
    expected: tf.Tensor
    optimal: tf.Tensor


class SeededEnvironment(bandit_tf_environment.BanditTFEnvironment, abc.ABC):
    """A TF-Agents bandit environment whose only state is a seed and a step number.

    The batch of step t is a pure function of (seed, t). Hence any two policies run with one seed meet the same users,
    the same candidates and the same uniforms (common random numbers), and an interrupted simulation continues exactly.

    Args:
      time_step_spec: TF-Agents' spec of a time step.
      action_spec: of an action.
      batch_size: users served per step.
      seed: of all random draws.

    Raises:
      ValueError: a batch size below 1.
    """

    def __init__(self, time_step_spec, action_spec, batch_size, seed=0):
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self._seed = tf.Variable(seed, dtype=tf.int64, trainable=False, name="seed")
        self._step_number = tf.Variable(0, dtype=tf.int64, trainable=False, name="step_number")
        super().__init__(time_step_spec, action_spec, batch_size)

    @property
    def state(self):
        """The variables that a checkpoint needs: seed and step number."""
        return [self._seed, self._step_number]

    def restart(self, seed, step=0):
        """Go to a step of a seed's stream."""
        self._seed.assign(seed)
        self._step_number.assign(step)

    def batch(self):
        """The current batch; reading it changes nothing.

        Returns:
          What the environment knows of it, a named tuple. What a graph does not use of it is not computed.
        """
        return self._batch(self._step_number.read_value())

    def advance(self):
        """Go to the next batch."""
        self._step_number.assign_add(1)

    def stream(self, purpose):
        """Seed int64 [2] of what is drawn at this step for a purpose: USERS or ARMS."""
        return tf.stack([self._seed.read_value(), self._step_number.read_value() * _STREAMS + purpose])

    def respond(self, batch, action):
        """What comes of actions on the current batch; to be asked before `advance`.

        Args:
          batch: as `batch` gives it.
          action: int32 [batch, ...], as the action spec says.

        Returns:
          A `Response`.
        """
        return self._respond(batch, action)

    @abc.abstractmethod
    def _batch(self, step):
        """The batch of the current step, whose number is given."""

    @abc.abstractmethod
    def _respond(self, batch, action):
        """As `respond`."""

    def _current_time_step(self):
        # TF-Agents keeps the last time step; after `advance` and `restart` it would show users who are gone.
        return super()._current_time_step()._replace(observation=self.batch().observation)

    def _observe(self):
        return self.batch().observation

    def _apply_action(self, action):
        feedback = self.respond(self.batch(), action).feedback
        self.advance()
        return feedback


class Environment(SeededEnvironment):
    """A choice of one arm among several, for each user of a batch.

    Args:
      observation_spec: spec of one observation without the batch dimension and without the mask.
      num_actions: arms to choose from.
      batch_size: users served per step.
      reward_noise: standard deviation of the Gaussian noise on the reward, in units of the reward.
      available: probability in (0, 1] that an arm is available; below 1 the observation becomes (features, mask) and
        at least one arm stays available.
      seed: of all random draws.

    Raises:
      ValueError: a size, noise or probability outside its range.
    """

    def __init__(self, observation_spec, num_actions, batch_size, reward_noise=0.0, available=1.0, seed=0):
        if num_actions < 2:
            raise ValueError(f"num_actions must be at least 2, got {num_actions}")
        if not 0.0 <= reward_noise < float("inf"):
            raise ValueError(f"reward_noise must be 0 or more and finite, got {reward_noise}")
        if not 0.0 < available <= 1.0:
            raise ValueError(f"available must be in (0, 1], got {available}")
        self.num_actions = num_actions
        self._reward_noise = reward_noise
        self._available = available
        if self.masked:
            observation_spec = (observation_spec, tensor_spec.BoundedTensorSpec([num_actions], tf.int32, 0, 1, "mask"))
        action_spec = tensor_spec.BoundedTensorSpec([], tf.int32, 0, num_actions - 1, "action")
        super().__init__(ts.time_step_spec(observation_spec), action_spec, batch_size, seed)

    @property
    def masked(self):
        """True when the observation comes with a mask of available arms."""
        return self._available < 1.0

    @property
    def per_arm(self):
        """True when the observation has features of its own for each arm."""
        features = self.observation_spec()[0] if self.masked else self.observation_spec()
        return isinstance(features, dict)

    def _respond(self, batch, action):
        expected = batch.expected(action)
        reward = expected + batch.noise
        return Response(reward, reward, expected, batch.optimal_reward())

    def _batch(self, step):
        context = self._draw(step)
        noise = tf.zeros([self.batch_size])
        if self._reward_noise:
            noise = self._reward_noise * tf.random.stateless_normal([self.batch_size], self.stream(_NOISE))
        mask = self._draw_mask() if self.masked else None
        observation = context["observation"]
        return Batch(
            observation if mask is None else (observation, tf.cast(mask, tf.int32)),
            context["arms"],
            context["expected_reward"],
            context["unpersonalised"],
            noise,
            mask,
        )

    @abc.abstractmethod
    def _draw(self, step):
        """Draw the batch of a step: a dict of observation, arms, expected_reward and unpersonalised (see `Batch`)."""

    def _draw_mask(self):
        uniforms = tf.random.stateless_uniform([self.batch_size, self.num_actions], self.stream(_MASK))
        luckiest = tf.one_hot(tf.argmin(uniforms, axis=1), self.num_actions, True, False, dtype=tf.bool)
        return (uniforms < self._available) | luckiest
