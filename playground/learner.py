"""An agent of the playground with its settings, and the decisions that it has made and learnt from."""

from dataclasses import dataclass
from functools import partial

from recbandits.tf import tf

import numpy as np
import pandas as pd
from tf_agents.trajectories import time_step as ts

from playground.catalogue import compile_graph, make_specs
from recbandits.agents import LinUCB
from recbandits.agents.agent import BanditAgent, ScoringPolicy
from recbandits.agents.factory import make_agent
from recbandits.agents.linear import arm_inputs
from recbandits.agents.parameters import EpsilonGreedy
from recbandits.environments import MovieLensEnvironment
from recbandits.environments.base import Batch
from recbandits.exploration import epsilon_greedy
from recbandits.training.checkpoints import assign_values, read_values
from recbandits.training.experience import convert_decision

AGENTS = ("LinUCB", "linear model", "reward network")


@dataclass(frozen=True)
class Settings:
    """The settings of an agent.

    Attributes:
      agent: one of `AGENTS`.
      exploration_rate: share of uniform choices, in [0, 1].
      alpha: confidence widths that LinUCB adds to its estimates, 0 or more.
    """

    agent: str = "LinUCB"
    exploration_rate: float = 0.1
    alpha: float = 1.0

    def make(self, environment: MovieLensEnvironment, seed: int) -> BanditAgent:
        """Make an agent that collects by epsilon-greedy exploration around its scores, with exact propensities."""
        alpha = self.alpha if self.agent == "LinUCB" else 0.0
        parameters = EpsilonGreedy() if self.agent == "reward network" else LinUCB(alpha, tikhonov=1.0)
        inner = make_agent(parameters, environment, seed)
        rate = tf.Variable(self.exploration_rate, trainable=False)

        def explore(scores, mask):
            return epsilon_greedy(scores, mask, rate.read_value())

        agent = BanditAgent(
            *(environment.time_step_spec(), environment.action_spec(), seed),
            inner.policy.scores,
            inner.collect_policy.scores,
            model=inner.model,
            make_collect_policy=partial(ScoringPolicy, explore=explore),
        )
        agent.exploration_rate = rate  # a variable of the agent: another rate needs no other graph
        return agent


class Learner:
    """An agent with the decisions that it has made and learnt from.

    A decision is a function of the seed, the step and what the agent has learnt, with the draws that the agent makes in
    `training.simulate`. It can be looked at before it is played.

    Args:
      settings: of the agent.
      environment: of which the agent gets the specs.
      seed: of exploration and initial weights.
    """

    def __init__(self, settings: Settings, environment: MovieLensEnvironment, seed: int):
        self.settings, self._environment = settings, environment
        self.agent = settings.make(environment, seed)
        batches, steps = make_specs(environment), tf.TensorSpec([None], tf.int64)
        ratings = tf.TensorSpec([None], tf.float32)
        self._look = compile_graph(self._look, batches.observation, steps)
        self._play = compile_graph(self._play, batches, steps, ratings)
        self._seed = tf.Variable(seed, dtype=tf.int64, trainable=False)
        self.decisions = pd.DataFrame({"action": [], "propensity": [], "reward": [], "expected": []})

    def restart(self, seed: int) -> None:
        """Forget all decisions and begin with another seed."""
        assign_values(self.agent.variables, read_values(self.settings.make(self._environment, seed).variables))
        self._seed.assign(seed)
        self.decisions = self.decisions[:0]

    @property
    def is_linear(self) -> bool:
        """True if the agent learns a linear model, which has confidence widths."""
        return self.settings.agent != "reward network"

    def look(self, observations: dict) -> tuple[int, pd.DataFrame]:
        """Return the next action, and a row for each candidate: predicted, width (NaN without) and propensity.

        The observations are those of the next batch alone, [1, 1, ...].
        """
        action, *columns = self._look(observations, tf.constant([len(self.decisions)], tf.int64))
        columns = [column.numpy()[0].astype(float) for column in columns]
        return int(action[0]), pd.DataFrame(dict(zip(("predicted", "width", "propensity"), columns, strict=True)))

    def play(self, batches: Batch, ratings: np.ndarray) -> None:
        """Decide and learn, batch after batch.

        Args:
          batches: of one decision each, stacked: [n, 1, ...].
          ratings: float [n], rewards in place of the simulated ones; NaN for those.
        """
        steps = tf.range(len(self.decisions), len(self.decisions) + len(ratings), dtype=tf.int64)
        columns = self._play(batches, steps, tf.constant(ratings, tf.float32))
        played = pd.DataFrame(dict(zip(self.decisions, (column.numpy() for column in columns), strict=True)))
        self.decisions = pd.concat([self.decisions, played], ignore_index=True) if len(self.decisions) else played

    def posterior(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and confidence width of each coefficient of the linear model, float [size]."""
        unit_vectors = tf.eye(self.agent.model.theta.shape[1])[None]
        return tuple(values.numpy()[0] for values in self.agent.model.estimate(unit_vectors))

    def _decide(self, observation, step):
        time_step = ts.restart(observation, 1, self._environment.reward_spec())
        return self.agent.collect_policy.action(time_step, seed=tf.stack([self._seed.read_value(), step + 1]))

    def _look(self, observations, steps):
        observation, step = tf.nest.map_structure(lambda part: part[0], (observations, steps))
        predicted = self.agent.policy.scores(observation, tf.zeros([2], tf.int64))
        width = tf.fill(tf.shape(predicted), np.float32("nan"))
        if self.is_linear:
            width = self.agent.model.estimate(arm_inputs(observation))[1]
        propensity = self.agent.collect_policy.probabilities(observation)
        return self._decide(observation, step).action, predicted, width, propensity

    def _play(self, batches, steps, ratings):
        def play(elements):
            batch, step, rating = elements
            decision = self._decide(batch.observation, step)
            propensity = tf.gather(self.agent.collect_policy.probabilities(batch.observation), decision.action, axis=1)
            response = self._environment.respond(batch._replace(mask=None), decision.action)
            reward = tf.where(tf.math.is_nan(rating), response.reward, rating)
            self.agent.train(convert_decision(self.agent, batch.observation, decision, reward))
            return decision.action[0], propensity[0, 0], reward[0], response.expected[0]

        types = tf.int32, tf.float32, tf.float32, tf.float32
        return tf.map_fn(play, (batches, steps, ratings), fn_output_signature=types, parallel_iterations=1)
