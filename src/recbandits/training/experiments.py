"""Solve a problem of the training task with an agent: simulate, fit from logs, or rank, once for each seed."""

from functools import partial

import numpy as np
import pandas as pd

from recbandits.agents.factory import make_agent
from recbandits.agents.parameters import LinUCB
from recbandits.data.examples import cross_fit_examples
from recbandits.data.features import FeatureBundle
from recbandits.data.logged import log_decisions, popularity, uniform
from recbandits.environments.factorization import als, svd
from recbandits.environments.movielens import MovieLensEnvironment
from recbandits.evaluation.off_policy import estimates
from recbandits.evaluation.regret import totals
from recbandits.evaluation.reward_model import cross_fit
from recbandits.exploration import epsilon_greedy
from recbandits.training.distribution import get_strategy
from recbandits.training.offline import Specs, fit, score_candidates
from recbandits.training.online import simulate
from recbandits.training.parts import known_and_held_out
from recbandits.training.problems import Fit, Outcome, Rank, Simulation
from recbandits.training.ranking_experiments import ranked

_LABEL = "agent"


def solve(problem, agent, data, places):
    """Solve a problem with an agent.

    Args:
      problem: `Simulation`, `Fit` or `Rank`.
      agent: its parameters.
      data: MovieLens
      places: `Places`; checkpoints and event files go there.

    Returns:
      `Outcome`
    """
    return {Simulation: _simulated, Fit: _fitted, Rank: ranked}[type(problem)](problem, agent, data, places)


def make_environment(problem, data):
    """The environment of a `Simulation`, fixed while agents are tuned on it."""
    ratings, arms = data.ratings, problem.num_actions
    if problem.factorization == "svd":
        model, movies = svd(ratings, problem.rank, None if problem.per_arm else arms), None
    else:
        model = als(ratings, problem.rank)
        movies = None if problem.per_arm else ratings["movie_id"].value_counts().index[:arms].sort_values()
    return MovieLensEnvironment(model, arms, problem.batch_size, problem.per_arm, movies)


def _simulated(problem, agent, data, places):
    """Mean expected reward over the whole window, with the same users for whatever agent is tried."""
    environment = make_environment(problem, data)
    first, *others = problem.seeds
    exported = make_agent(agent, environment, first)
    run = partial(
        simulate, environment, steps=problem.steps, tensorboard=places.tensorboard, checkpoints=places.checkpoints
    )
    runs = [run({_LABEL: exported}, seeds=[first])] + ([run({_LABEL: agent}, seeds=others)] if others else [])
    table = totals(pd.concat(runs, ignore_index=True)).rename(columns={"reward": "mean_reward"})
    measures = ["mean_reward", "regret", "suboptimal"]
    return Outcome(
        policy=exported.policy,
        features=environment.bundle(),
        arms=None if problem.per_arm else environment.movie_ids,
        by_seed={name: table[name].tolist() for name in measures},
        examples=problem.steps * problem.batch_size,
    )


def _fitted(problem, agent, data, places):
    replicas = get_strategy(problem.strategy)  # first of all: workers meet before anything else of TensorFlow
    rows, exported = [], None
    for seed in problem.seeds:
        world = World(problem, data, seed)
        with replicas.scope():
            made = make_agent(agent, Specs(world.bundle.spec(problem.candidates)), seed)
        fit(
            made,
            world.examples(),
            epochs=1 if isinstance(agent, LinUCB) else problem.epochs,
            batch_size=problem.batch_size,
            weights=None if problem.weights == "none" else problem.weights,
            seed=seed,
            checkpoints=places.checkpoints and places.checkpoints / f"seed-{seed}",
            tensorboard=places.tensorboard and places.tensorboard / f"seed-{seed}",
        )
        rows.append(world.judge(made, world.bundle))
        exported = exported or (made.policy, world.bundle)
    by_seed = pd.DataFrame(rows).to_dict("list")
    return Outcome(*exported, arms=None, by_seed=by_seed, examples=problem.decisions)


class World:
    """What a seed of a `Fit` leaves to learn from, and to be judged by.

    Args:
      problem: Fit
      data: MovieLens
      seed: one of the problem's.

    Attributes:
      known: DataFrame of the ratings that may be learnt from.
      held_out: DataFrame of those to be judged by.
      bundle: FeatureBundle of the known ones.
    """

    def __init__(self, problem, data, seed):
        self._data, self._problem = data, problem
        self.known, self.held_out = known_and_held_out(problem, data.ratings, seed)
        behaviour = uniform if problem.behaviour == "uniform" else popularity(self.known)
        options = {"behaviour": behaviour, "candidates": problem.candidates, "seed": seed, "visits": "active"}
        self._log = partial(log_decisions, **options)
        self._judged = self._log(self.held_out, decisions=problem.judged)
        self.bundle = self._describe(self.known)

    def examples(self):
        """Examples of the log to learn from, with features that have not seen its rewards."""
        log = self._log(self.known, decisions=self._problem.decisions).log
        return cross_fit_examples(log, self.known, self._describe)

    def judge(self, model, bundle):
        """Measure the greedy policy of an agent, or of whatever else `offline.score_candidates` takes.

        Returns:
          dict of `mean_reward` (its true value), `estimated_reward` (what the log alone tells of it, by the
          self-normalised doubly robust estimator) and `mse` (squared error of the held-out ratings).
        """
        log, table = self._judged.log, self.held_out
        greedy = epsilon_greedy(score_candidates(model, bundle, log.user_id, log.candidates, log.mask), log.mask, 0.0)
        users, movies = table["user_id"].to_numpy(), table["movie_id"].to_numpy()[:, None]
        error = score_candidates(model, bundle, users, movies)[:, 0] - table["rating"].to_numpy()
        estimate = estimates(log, greedy, cross_fit(log, self.bundle.observation), names=["SNDR"])["SNDR"]
        return {
            "mean_reward": self._judged.value(greedy),
            "estimated_reward": float(estimate.value),
            "mse": float(np.mean(error**2)),
        }

    def _describe(self, ratings):
        factors = als(ratings)
        frames = factors.user_frame(), factors.movie_frame()
        return FeatureBundle.fit(ratings, self._data.users, self._data.movies, *frames)
