"""Run the experiment of a training job: simulate, fit from a log, or rank, once for each seed."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from recbandits.agents.factory import make_agent
from recbandits.agents.parameters import LinUCB
from recbandits.agents.ranking.parameters import Ranking
from recbandits.checks import require
from recbandits.data import splits
from recbandits.data.data_file import LoggedData
from recbandits.data.examples import Examples, cross_fit_examples
from recbandits.data.features import Features
from recbandits.data.rating_features import RatingFeatures
from recbandits.data.simulated_logs import log_decisions, popularity, uniform
from recbandits.data.slates import SlateExamples, cross_fitted_lists, rated_lists
from recbandits.data.tables import STARS, MovieLens
from recbandits.environments.factorization import Factorization, als, svd
from recbandits.environments.movielens import MovieLensEnvironment
from recbandits.evaluation.intervals import mean_interval
from recbandits.evaluation.off_policy import estimates
from recbandits.evaluation.ranking_metrics import measure, rank
from recbandits.evaluation.regret import totals
from recbandits.evaluation.reward_model import cross_fit
from recbandits.exploration import Exploration, epsilon_greedy
from recbandits.training.checkpoints import compute_digest
from recbandits.training.distribution import get_strategy
from recbandits.training.job_paths import JobPaths
from recbandits.training.logs import evaluate, target_probabilities, train
from recbandits.training.offline import Specs, fit, score_candidates
from recbandits.training.online import simulate
from recbandits.training.problems import Fit, Learn, Problem, Rank, Simulation

LIKED = 4.0  # stars from which a movie counts as one that its user likes
_LABEL = "agent"
_FOLDS = 5  # of a split, each of which is left out once
_FACTORS: dict[str, Factorization] = {}  # of the split and of its folds that were fitted last, by digest


class Outcome(NamedTuple):
    """Result of an experiment: the policy of the first seed's agent, to be exported, and the features of its training.

    `arms` are the movie ids of its fixed arms in order; None where arms have features. `by_seed` has a list of floats,
    one a seed, for each metric. The agent learnt from `examples` interactions or examples.
    """

    policy: Any
    features: Features | RatingFeatures
    arms: np.ndarray | None
    by_seed: dict[str, list[float]]
    examples: int

    def metrics(self) -> dict[str, tuple[float, ...] | float]:
        """Return (mean, low, high) of each metric over the seeds, in 95 % intervals; without an interval, the mean."""
        intervals = {name: mean_interval(values) for name, values in self.by_seed.items()}
        return {name: each if np.isfinite(each.low) else each.value for name, each in intervals.items()}


def run_experiment(
    problem: Simulation | Fit | Rank | Learn, agent: Any, data: MovieLens | LoggedData, paths: JobPaths
) -> Outcome:
    """Run an agent, given by its parameters, on a problem, once for each seed.

    The data is MovieLens, or for `Learn` the `LoggedData` of its file; checkpoints and event files go to the paths.
    """
    if isinstance(problem, Simulation):
        return _simulate(problem, agent, data, paths)
    if isinstance(problem, Learn):
        return _learn(problem, agent, data, paths)
    replicas = get_strategy(problem.strategy)  # first of all: workers meet before anything else of TensorFlow
    make_task: Callable = OfflineTask if isinstance(problem, Fit) else RankingTask
    rows = []
    exported: tuple = ()
    for seed in problem.seeds:
        task = make_task(problem, data, seed)
        with replicas.scope():
            learner = make_agent(agent, task.specs(), seed)
        examples = task.examples()
        fit(learner, examples, seed=seed, **_get_fit_options(problem, agent, paths, seed))
        rows.append(task.evaluate(learner, task.features))
        exported = exported or (learner.policy, task.features, len(examples.event))
    policy, features, count = exported
    return Outcome(policy, features, arms=None, by_seed=pd.DataFrame(rows).to_dict("list"), examples=count)


def make_environment(problem: Simulation, data: MovieLens) -> MovieLensEnvironment:
    """Make the environment of a `Simulation`, the same for all agents."""
    ratings, arms = data.ratings, problem.num_actions
    if problem.factorization == "svd":
        model, movies = svd(ratings, problem.rank, None if problem.per_arm else arms), None
    else:
        model = als(ratings, problem.rank)
        movies = None if problem.per_arm else ratings["movie_id"].value_counts().index[:arms].sort_values()
    users = None if problem.users == "all" else splits.half_of_users(model.user_ids, problem.users)
    return MovieLensEnvironment(model, arms, problem.batch_size, problem.per_arm, movies, users)


def _simulate(problem, agent, data, paths):
    """Measure the mean expected reward over all steps; users of a seed are the same for all agents."""
    environment = make_environment(problem, data)
    first, *others = problem.seeds
    exported = make_agent(agent, environment, first)
    run = partial(
        simulate, environment, steps=problem.steps, tensorboard=paths.tensorboard, checkpoints=paths.checkpoints
    )
    runs = [run({_LABEL: exported}, seeds=[first])] + ([run({_LABEL: agent}, seeds=others)] if others else [])
    table = totals(pd.concat(runs, ignore_index=True)).rename(columns={"reward": "mean_reward"})
    return Outcome(
        policy=exported.policy,
        features=environment.features,
        arms=None if problem.per_arm else environment.movie_ids,
        by_seed={name: table[name].tolist() for name in ("mean_reward", "regret", "suboptimal")},
        examples=problem.steps * problem.batch_size,
    )


def _learn(problem, agent, data, paths):
    """Learn from the earlier decisions of a log, and estimate the value of the policy that is exported by the later."""
    earlier, later = data.log.split(1 - problem.test_share)
    expected = f"a share of the {len(data.log):,} decisions that leaves some to learn and some to evaluate"
    require(len(earlier) > 0 and len(later) > 0, "test_share", expected, problem.test_share)
    features, exploration = data.fit_features(earlier), get_exploration(problem, agent)
    rows, policy = [], None
    for seed in problem.seeds:
        learner = train(earlier, features, agent, seed, **_get_fit_options(problem, agent, paths, seed))
        probabilities = target_probabilities(learner, later, features, exploration)
        model = None if problem.estimator == "SNIPS" else features
        table = evaluate(later, {_LABEL: probabilities}, model, [problem.estimator], seed)
        logged, estimate = table.loc["logging policy"].iloc[0], table.loc[_LABEL].iloc[0]
        names = ("gain", "gain_low", "gain_high", "effective_sample_size")
        rows.append({"logged_reward": logged["value"], "estimated_reward": estimate["value"]})
        rows[-1] |= {name: estimate[name] for name in names}
        policy = policy or learner.policy
    metrics = pd.DataFrame(rows).dropna(axis="columns").to_dict("list")  # an interval may be impossible
    return Outcome(policy, features, arms=None, by_seed=metrics, examples=len(earlier))


def _get_fit_options(problem, agent, paths, seed):
    return {
        "epochs": 1 if isinstance(agent, LinUCB) else problem.epochs,
        "batch_size": problem.batch_size,
        "weights": None if problem.weights == "none" else problem.weights,
        "checkpoints": paths.checkpoints and paths.checkpoints / f"seed-{seed}",
        "tensorboard": paths.tensorboard and paths.tensorboard / f"seed-{seed}",
    }


def get_exploration(problem: Problem, agent: Any) -> Exploration | None:
    """Return the exploration of the exported policy: that of its agent, or epsilon-greedy; None for none."""
    if isinstance(agent, Ranking) and agent.policy == "no_penalty":
        return Exploration("plackett_luce", agent.temperature)
    exploration = getattr(agent, "exploration", Exploration("epsilon_greedy", problem.serve_epsilon))
    return exploration if exploration.value else None


class OfflineTask:
    """Data of one seed of a `Fit`: `train`, the ratings to learn from, `held_out` ones, and `features` of the former.

    The test split is the same for every seed, so that a setting chosen on validation ratings of any seed has seen none
    of its ratings. Validation split, log and weights of networks vary with the seed.
    """

    def __init__(self, problem: Fit, data: MovieLens, seed: int):
        self._problem = problem
        self.train, self.held_out = _split(problem, data.ratings, seed)
        behaviour = uniform if problem.behaviour == "uniform" else popularity(self.train)
        candidates = problem.candidates
        self._log = partial(log_decisions, policy=behaviour, candidates=candidates, seed=seed, visits="active")
        self._fit_features = partial(_fit_features, data)
        self.features = self._fit_features(self.train)
        self._evaluation = self._log(self.held_out, decisions=problem.judged).join_users(self.features.users)

    def specs(self) -> Specs:
        """Return the specs for which the agent is made."""
        return Specs(self.features.spec(self._problem.candidates))

    def examples(self) -> Examples:
        """Log decisions to learn from, with features that have not seen their rewards."""
        log = self._log(self.train, decisions=self._problem.decisions).log
        return cross_fit_examples(log, self.train, self._fit_features, _FOLDS)

    def evaluate(self, model: Any, features: RatingFeatures | None) -> dict[str, float]:
        """Evaluate the greedy policy of an agent or another model for `score_candidates`, with its features or None.

        Returns `mean_reward` (the policy's true value), `estimated_reward` (its value as estimated from the log alone,
        by the self-normalised doubly robust estimator) and `mse` (squared error of the held-out ratings).
        """
        visits, log, table = self._evaluation, self._evaluation.log, self.held_out
        scores = score_candidates(model, features, visits.user_ids, visits.movie_ids, log.mask)
        greedy = epsilon_greedy(scores, log.mask, 0.0)
        users, movies = table["user_id"].to_numpy(), table["movie_id"].to_numpy()[:, None]
        error = score_candidates(model, features, users, movies)[:, 0] - table["rating"].to_numpy()
        estimate = estimates(log, greedy, cross_fit(log, self.features.features), names=["SNDR"])["SNDR"]
        return {
            "mean_reward": visits.value(greedy),
            "estimated_reward": float(estimate.value),
            "mse": float(np.mean(error**2)),
        }


class RankingTask:
    """Data of one seed of a `Rank`: ratings to draw lists from (`train`), and `held_out` ones to be evaluated on.

    `features` and `factors` are those of the `known` ratings: the training ratings and, where users are held out, their
    support ratings, half of all they have, by which they are folded in. The test split is the same for every seed, as
    in an `OfflineTask`; validation split, support ratings, lists and weights of networks vary with the seed.
    """

    def __init__(self, problem: Rank, data: MovieLens, seed: int):
        self._problem, self._seed = problem, seed
        self.train, self.held_out = _split(problem, data.ratings, seed)
        self.factors, self.known = als(self.train), self.train
        if problem.split == "user":
            halves = splits.random_split(self.held_out, seed, test_share=0.5)
            support, self.held_out = (self.held_out.iloc[half] for half in halves)
            self.factors, self.known = self.factors.fold_in(support), pd.concat([self.train, support])
        self._fit_features = partial(_fit_features, data)
        self.features = self._fit_features(self.known, self.factors)

    def specs(self) -> Specs:
        """Return the specs for which the agent is made."""
        problem = self._problem
        return Specs(self.features.spec(problem.candidates), problem.size, problem.feedback)

    def examples(self) -> SlateExamples:
        """Draw lists to learn from, with features that have not seen their ratings."""
        problem = self._problem
        lists = cross_fitted_lists(self.train, problem.size, self._fit_features, problem.lists, seed=self._seed)
        if problem.feedback == "score_vector":
            return lists
        return lists._replace(reward=(lists.reward >= LIKED).astype(np.float32))

    def evaluate(self, model: Any, features: RatingFeatures | None) -> dict[str, float]:
        """Rank the held-out movies of each user; arguments as `OfflineTask.evaluate`.

        Returns ndcg, err, map and mrr at `top`, means over the users for whom they are defined, and by how much the
        NDCG is above those of rankings by popularity and by the factorization (`ndcg_over_popularity`,
        `ndcg_over_als`).
        """
        lists, top = rated_lists(self.held_out), self._problem.top
        rows = lists.user_id, lists.candidates, lists.mask
        popular = self.known["movie_id"].value_counts().reindex(lists.candidates.ravel(), fill_value=0).to_numpy()
        ordered = {
            "agent": score_candidates(model, features, *rows),
            "popularity": popular.reshape(lists.mask.shape),
            "als": score_candidates(self.factors, None, *rows),
        }
        slates = {name: rank(values, top, lists.mask, self._seed) for name, values in ordered.items()}
        means = {name: measure(slate, lists.rating, LIKED, STARS[-1]).mean() for name, slate in slates.items()}
        over = {f"ndcg_over_{name}": means["agent"]["ndcg"] - means[name]["ndcg"] for name in ("popularity", "als")}
        own = means["agent"][["ndcg", "err", "map", "mrr"]].to_dict()
        return {name: float(value) for name, value in (own | over).items()}


def _split(problem: Fit | Rank, ratings: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split ratings into (those to learn from, those to be evaluated on).

    Every seed has the same test split, so that none of its ratings or users has chosen a setting by the validation
    split of another seed; by time, the validation split is the same too.
    """
    split = {
        "random": splits.random_split,
        "user": splits.split_by_user,
        "time": lambda ratings, seed: splits.split_by_time(ratings),
    }[problem.split]
    rest, held_out = (ratings.iloc[rows] for rows in split(ratings, seed=0))
    if problem.judge == "validation":
        rest, held_out = (rest.iloc[rows] for rows in split(rest, seed=seed))
    return rest, held_out


def _fit_features(data: MovieLens, ratings: pd.DataFrame, factors: Factorization | None = None) -> RatingFeatures:
    factors = factors or _fit_factors(ratings)
    return RatingFeatures.fit(ratings, data.users, data.movies, factors.user_frame(), factors.movie_frame())


def _fit_factors(ratings: pd.DataFrame) -> Factorization:
    """Fit ALS, once for a split that several seeds have in common."""
    digest = compute_digest(ratings[column] for column in ("user_id", "movie_id", "rating"))
    if digest not in _FACTORS:
        if len(_FACTORS) > _FOLDS:
            _FACTORS.pop(next(iter(_FACTORS)))
        _FACTORS[digest] = als(ratings)
    return _FACTORS[digest]
