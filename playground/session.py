"""One session of the playground: simulated users, two agents on common random numbers, and their logs; no widgets."""

from copy import copy
from dataclasses import dataclass, replace
from functools import partial

from recbandits.tf import tf

import numpy as np
import pandas as pd
from tf_agents.trajectories import time_step as ts

from recbandits.agents import LinUCB
from recbandits.agents.agent import BanditAgent, ScoringPolicy
from recbandits.agents.factory import make_agent
from recbandits.agents.linear import arm_inputs
from recbandits.agents.parameters import EpsilonGreedy
from recbandits.data import GENRES, GLOBAL, MovieLens
from recbandits.environments import MovieLensEnvironment, als
from recbandits.environments.base import Batch
from recbandits.evaluation import cross_fit, estimates, tabulate
from recbandits.exploration import epsilon_greedy, greedy
from recbandits.records import BanditLog
from recbandits.training.checkpoints import assign_values, read_values
from recbandits.training.experience import convert_decision

RANK, MOVIES, CANDIDATES = 3, 300, 8
AGENTS = ("LinUCB", "linear model", "reward network")
ESTIMATORS, FEWEST = ("IPS", "SNIPS", "DR"), 5  # decisions, one for each fold of the reward model of DR
POLICIES = UNIFORM, GREEDY, ORACLE = "uniform random policy", "greedy policy", "oracle"  # whose values are estimated


class Catalogue:
    """The movies and users of a data set, and the users that a person has described.

    Args:
      data: ratings, from which ALS predicts the expected reward of every movie for every user.

    Attributes:
      titles: Series of text, title and year of the most rated movies, by movie_id.
      genres: Series of text, by movie_id.
      users: Series of text, by user_id.
      source: of the data, in words.
    """

    def __init__(self, data: MovieLens):
        self._factorization = als(data.ratings, RANK)
        movies = data.movies.loc[data.ratings["movie_id"].value_counts().index[:MOVIES]]
        self.titles = movies["title"] + movies["year"].map(" ({})".format, na_action="ignore").fillna("")
        self.genres = movies[list(GENRES)].apply(lambda row: ", ".join(row.index[row]), axis=1)
        self.source = repr(data)
        users = data.users.reindex(columns=["occupation", "age", "gender"]).dropna(axis=1)
        columns = [users.index.map("user {}".format), *(users[name].astype(str) for name in users)]
        self.users = pd.Series([", ".join(texts) for texts in zip(*columns, strict=True)], users.index)

    def with_user(self, ratings: dict[int, float]) -> tuple["Catalogue", int]:
        """Return a catalogue with a further user, described by ratings by movie_id, and the new user_id."""
        other, user_id = copy(self), int(self.users.index.max()) + 1
        table = pd.DataFrame({"user_id": user_id, "movie_id": list(ratings), "rating": list(ratings.values())})
        other._factorization = self._factorization.fold_in(table)
        other.users = pd.concat([self.users, pd.Series(f"user {user_id}, described by you", [user_id])])
        return other, user_id

    def make_environment(self, user_id: int | None = None, noise: float = 0.5) -> MovieLensEnvironment:
        """Make an environment with one user, or with all of them, each with equal probability."""
        return MovieLensEnvironment(
            self._factorization,
            CANDIDATES,
            batch_size=1,
            per_arm=True,
            movie_ids=self.titles.index,
            user_ids=None if user_id is None else [user_id],
            reward_noise=noise,
        )

    def coefficients(self) -> pd.Series:
        """Return the coefficients with which a linear model of the observation is the expected reward, by name."""
        user, movie = ([f"{kind} factor {k + 1}" for k in range(RANK)] for kind in ("user", "movie"))
        products = {f"product {k + 1}": 1.0 for k in range(RANK)}
        none = dict.fromkeys
        values = {"constant": self._factorization.mean, "user bias": 1.0, **none(user, 0.0), "movie bias": 1.0}
        return pd.Series(values | none(movie, 0.0) | products)


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
        batches, steps = _make_specs(environment), tf.TensorSpec([None], tf.int64)
        ratings = tf.TensorSpec([None], tf.float32)
        self._look = _compile(self._look, batches.observation, steps)
        self._play = _compile(self._play, batches, steps, ratings)
        self._seed = tf.Variable(seed, dtype=tf.int64, trainable=False)
        self.decisions = pd.DataFrame({"action": [], "propensity": [], "reward": [], "expected": []})

    def restart(self, seed: int) -> None:
        """Forget all decisions and begin with another seed."""
        assign_values(self.agent.variables, read_values(self.settings.make(self._environment, seed).variables))
        self._seed.assign(seed)
        self.decisions = self.decisions[:0]

    @property
    def is_linear(self) -> bool:
        """Whether the agent learns a linear model, which has confidence widths."""
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


class Session:
    """Two agents that meet the same users, candidates and noise.

    Args:
      catalogue: of movies and users.
      settings: of the agents, by label.
      noise: standard deviation of the simulated rewards.
      seed: of users, candidates, noise and exploration.
    """

    def __init__(self, catalogue: Catalogue, settings: dict[str, Settings], noise: float = 0.5, seed: int = 0):
        self.catalogue, self.seed, self.noise, self.user_id = catalogue, seed, noise, None
        self.choose_user(None)
        self.learners = {label: Learner(each, self._environment, seed) for label, each in settings.items()}
        self.restart(seed)

    def choose_user(self, user_id: int | None) -> None:
        """Let the next decisions be for one user, or for all."""
        self.user_id, self._environment = user_id, self.catalogue.make_environment(user_id, self.noise)
        features = self._environment.features
        self._contexts = features.features.context(features.encode_users(self._environment.user_ids))
        self._draw = _make_draw(self._environment)

    def restart(self, seed: int) -> None:
        """Begin again, with a seed."""
        self.seed, self._batches, self._user_ids = seed, [], []
        for learner in self.learners.values():
            learner.restart(seed)

    def change(self, label: str, settings: Settings) -> None:
        """Replace an agent by one that meets the same users and candidates, with simulated rewards."""
        learner = self.learners[label]
        if replace(settings, exploration_rate=0) == replace(learner.settings, exploration_rate=0):
            learner.settings = settings
            learner.restart(self.seed)
        else:
            learner = self.learners[label] = Learner(settings, self._environment, self.seed)
        if self._batches:
            learner.play(self._history(), np.full(self.interactions, np.nan))

    @property
    def interactions(self) -> int:
        """Number of decisions that each agent has made."""
        return sum(map(len, self._user_ids))

    def next_batches(self, count: int = 1) -> Batch:
        """Return the batches of the next interactions, stacked: [count, 1, ...]."""
        start = self.interactions
        self._environment.restart(self.seed)
        return self._draw(tf.range(start, start + count, dtype=tf.int64))

    def next_user(self) -> str:
        """Return the user of the next decision, in words."""
        return self.catalogue.users[self._find_users(self.next_batches())[0]]

    def candidates(self, label: str) -> pd.DataFrame:
        """Return the next candidates, by movie_id: title, predicted, width, propensity, expected, is_shown."""
        batches = self.next_batches()
        action, table = self.learners[label].look(batches.observation)
        movies = self._environment.movie_ids[batches.arms.numpy()[0, 0]]
        table.insert(0, "title", self.catalogue.titles[movies].to_numpy())
        table["expected"], table["is_shown"] = batches.expected_reward.numpy()[0, 0], np.arange(len(table)) == action
        return table.set_index(pd.Index(movies, name="movie_id"))

    def play(self, count: int = 1, ratings: dict[str, float] | None = None) -> None:
        """Let the agents decide and learn.

        Args:
          count: number of interactions.
          ratings: rewards in place of the simulated ones, by label.
        """
        batches = self.next_batches(count)
        for label, learner in self.learners.items():
            learner.play(batches, np.full(count, (ratings or {}).get(label, np.nan)))
        self._batches.append(batches)
        self._user_ids.append(self._find_users(batches))

    def runs(self) -> pd.DataFrame:
        """Return a row for each policy and interaction, as `training.simulate` does: agents, uniform random, oracle."""
        history = self._history()
        expected, noise = (part.numpy()[:, 0].astype(float) for part in (history.expected_reward, history.noise))
        policies = {label: learner.decisions for label, learner in self.learners.items()}
        uniform, best, frames = expected.mean(axis=1), expected.max(axis=1), []
        for name, values in ((UNIFORM, uniform), (ORACLE, best)):
            policies[name] = pd.DataFrame({"expected": values, "reward": values + noise})
        for label, decisions in policies.items():
            regret = best - decisions["expected"].to_numpy()
            frame = pd.DataFrame({"agent": label, "seed": self.seed, "interactions": np.arange(len(best)) + 1})
            frame["regret"], frame["reward"], frame["suboptimal"] = regret, decisions["reward"].to_numpy(), regret > 0
            frames.append(frame.assign(cumulative_regret=regret.cumsum()))
        return pd.concat(frames, ignore_index=True)

    def posterior(self, label: str) -> pd.DataFrame | None:
        """Return mean, width and truth of an agent's coefficients, by name; None where its model is not linear."""
        learner, truth = self.learners[label], self.catalogue.coefficients()
        if not learner.is_linear:
            return None
        mean, width = learner.posterior()
        return pd.DataFrame({"mean": mean, "width": width, "truth": truth}, truth.index)

    def log(self, label: str) -> BanditLog:
        """Return the decisions of an agent with their propensities and rewards."""
        decisions = self.learners[label].decisions
        movies = self._environment.movie_ids[self._history().arms.numpy()[:, 0]]
        numbers = np.arange(len(movies))
        return BanditLog(
            event_id=np.array([str(number + 1) for number in numbers], object),
            time=np.datetime64("2000-01-01", "us") + numbers,  # interactions have an order, but no time
            user_id=np.concatenate(self._user_ids),
            candidates=movies,
            mask=np.ones(movies.shape, bool),
            action=decisions["action"].to_numpy(np.int64),
            propensity=decisions["propensity"].to_numpy(float),
            reward=decisions["reward"].to_numpy(float),
            pass_prob=np.ones(len(movies)),
        )

    def estimates(self, label: str) -> pd.DataFrame:
        """Estimate the value of three policies from the log of an agent, of at least `FEWEST` decisions.

        The reward model of DR is cross-fitted over interactions: given the features, their rewards are independent.

        Returns:
          DataFrame as of `evaluation.tabulate`, indexed by policy and estimator, with the true value `truth`. Estimates
          are NaN for a policy that takes none of the logged actions.
        """
        log, history = self.log(label), self._history()
        expected = history.expected_reward.numpy()[:, 0].astype(float)
        observation = tf.nest.map_structure(lambda part: part[:, 0], history.observation)
        q = cross_fit(replace(log, user_id=np.arange(len(log))), arm_inputs(observation).numpy(), folds=FEWEST)
        learnt = self.learners[label].agent.policy.probabilities(observation).numpy()
        targets, tables = (np.full(expected.shape, 1 / CANDIDATES), learnt, greedy(expected)), {}
        for name, probabilities in zip(POLICIES, targets, strict=True):
            logged = np.take_along_axis(probabilities, log.action[:, None], axis=1)
            table = tabulate(estimates(log, probabilities, q, names=ESTIMATORS if logged.any() else ()))
            table = table.reindex(pd.Index(ESTIMATORS, name="estimator"))
            tables[name] = table.assign(truth=(probabilities * expected).sum(axis=1).mean())
        return pd.concat(tables, names=["policy"])

    def _history(self):
        """Return the batches of all interactions, stacked."""
        if len(self._batches) > 1:
            self._batches = [tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), *self._batches)]
        return self._batches[0]

    def _find_users(self, batches):
        """Return the user_id [n] of each of stacked batches, by its context."""
        distance = np.abs(self._contexts[None] - batches.observation[GLOBAL].numpy()).sum(axis=2)
        return self._environment.user_ids[distance.argmin(axis=1)]


def _make_specs(environment):
    """Return the specs of stacked batches, [n, 1, ...]; their mask is empty, which `map_fn` needs."""
    batch = environment.batch()._replace(mask=())
    return tf.nest.map_structure(lambda part: tf.TensorSpec([None, *part.shape], part.dtype), batch)


def _make_draw(environment):
    """Make a graph that draws the batches of steps int64 [n], stacked."""
    signature = tf.nest.map_structure(lambda spec: tf.TensorSpec(spec.shape[1:], spec.dtype), _make_specs(environment))

    def draw(step):
        environment.state[1].assign(step)
        return environment.batch()._replace(mask=())

    def draw_all(steps):
        return tf.map_fn(draw, steps, fn_output_signature=signature, parallel_iterations=1)

    return _compile(draw_all, tf.TensorSpec([None], tf.int64))


def _compile(function, *specs):
    """Return a function as a graph; TensorFlow counts traces by code and warns of many, but counts a partial alone."""
    return tf.function(partial(function), specs, autograph=False)
