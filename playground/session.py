"""One session of the playground: two agents on common random numbers, their logs and their regret; no widgets."""

from dataclasses import replace
from itertools import groupby

from recbandits.tf import tf

import numpy as np
import pandas as pd

from playground.catalogue import CANDIDATES, Catalogue, make_draw
from playground.learner import Learner, Settings
from recbandits.agents.linear import arm_inputs
from recbandits.data import GLOBAL
from recbandits.environments.base import Batch
from recbandits.evaluation import cross_fit, estimates, tabulate
from recbandits.exploration import greedy
from recbandits.records import Log

ESTIMATORS, FEWEST = ("IPS", "SNIPS", "DR"), 5  # decisions, one for each fold of the reward model of DR
POLICIES = UNIFORM, GREEDY, ORACLE = "uniform random policy", "greedy policy", "oracle"  # whose values are estimated


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
        self._draw = make_draw(self._environment)

    def restart(self, seed: int) -> None:
        """Begin again, with a seed."""
        self.seed, self._batches, self._user_ids, self._played = seed, [], [], []
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

    def change_noise(self, noise: float) -> None:
        """Begin again with other noise, and repeat the interactions with their users and simulated rewards."""
        played, user_id, self.noise = self._played, self.user_id, noise
        self.restart(self.seed)
        for each, counts in groupby(played, key=lambda pair: pair[0]):
            self.choose_user(each)
            self.play(sum(count for _, count in counts))
        self.choose_user(user_id)

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
        self._played.append((self.user_id, count))

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

    def log(self, label: str) -> Log:
        """Return the decisions of an agent with their propensities and rewards."""
        decisions = self.learners[label].decisions
        movies = self._environment.movie_ids[self._history().arms.numpy()[:, 0]]
        numbers = np.arange(len(movies))
        return Log(
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
