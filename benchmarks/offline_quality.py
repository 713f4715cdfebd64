"""Quality of agents that learnt from logged decisions, and errors of off-policy estimates.

Five splits of the ratings, 80 % for training. A behaviour policy chooses among 10 movies that the user has rated, and
the log keeps the rating of its choice. Features come from biases and ALS factors of the training part, cross-fitted for
the logged decisions. Everything is evaluated on the other 20 %: the error of predicted ratings, and the mean rating
that a visitor would have given to the best of 10 held-out movies as the agent ranks them.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from benchmarks.profiles import choose
from benchmarks.training import fit_features
from recbandits.agents.factory import make_agent
from recbandits.agents.parameters import EpsilonGreedy, LinUCB, NeuralLinUCB
from recbandits.data.examples import cross_fit_examples, make_doubly_robust_examples, make_examples
from recbandits.data.simulated_logs import LoggedDecisions, log_decisions, popularity, uniform
from recbandits.data.splits import random_split
from recbandits.environments.factorization import als
from recbandits.evaluation import cross_fit, evaluate, mean_interval
from recbandits.exploration import epsilon_greedy, softmax
from recbandits.training.offline import Specs, fit, score_candidates

SEEDS = range(choose(5, 2))
CANDIDATES, DECISIONS, TEST_DECISIONS = 10, choose(200_000, 20_000), choose(10_000, 2_000)
SKEWED, LOG_SIZE, LOGS = choose(30_000, 10_000), 2000, choose(20, 2)
SHRINKAGE = 100.0  # of DRos, whose default fits it to the weights
NETWORK = {"learning_rate": 0.001, "weight_decay": 0.3}
TRAINING = {"epochs": choose(30, 3), "patience": 4, "batch_size": 512}
AGENTS = {
    "LinUCB": LinUCB(),
    "epsilon-greedy, common tower": EpsilonGreedy(**NETWORK),
    "epsilon-greedy, dot product": EpsilonGreedy(**NETWORK, network="dot_product"),
    "NeuralLinUCB, common tower": NeuralLinUCB(layers=(64, 32), **NETWORK),
    "NeuralLinUCB, dot product": NeuralLinUCB(layers=(64, 32), **NETWORK, network="dot_product"),
}


class Part(NamedTuple):
    """Ratings and decisions of one seed, for training, validation and test."""

    data: object
    train: pd.DataFrame
    log_ratings: pd.DataFrame
    validation_ratings: pd.DataFrame
    test: pd.DataFrame
    test_decisions: LoggedDecisions
    seed: int

    def features(self, ratings):
        """Features fitted on some of the ratings."""
        return fit_features(self.data, ratings)

    def errors(self, predict):
        """(MSE on held-out ratings, true value of the greedy policy) of predict(user_ids [n], candidates [n, k])."""
        predictions = predict(self.test["user_id"].to_numpy(), self.test["movie_id"].to_numpy()[:, None])[:, 0]
        visits = self.test_decisions
        greedy_policy = epsilon_greedy(predict(visits.user_ids, visits.movie_ids), visits.log.mask, 0.0)
        return np.mean((predictions - self.test["rating"].to_numpy()) ** 2), visits.value(greedy_policy)


def measure(data):
    """Measure agents, weights and estimators; intervals are of 95 % over five splits."""
    parts = [split(data, seed) for seed in SEEDS]
    agents, weights, errors = (
        pd.concat([table(part).assign(seed=part.seed) for part in parts])
        for table in (evaluate_agents, evaluate_weights, evaluate_estimators)
    )
    return {
        f"Learnt from {DECISIONS:,} decisions of a uniform policy among {CANDIDATES} movies": as_text(
            agents, {"MSE": "user + movie bias", "true value": "ALS"}
        ),
        f"Learnt from {SKEWED:,} decisions of a policy that prefers the popular": as_text(
            weights, {"MSE": "LinUCB", "true value": "LinUCB"}
        ),
        f"Estimates of LinUCB's value from logs of {LOG_SIZE:,} decisions, {LOGS * len(SEEDS)} of each policy": (
            errors_as_text(errors)
        ),
    }


def split(data, seed):
    """Ratings of one seed."""
    train, test = (data.ratings.iloc[rows] for rows in random_split(data.ratings, seed))
    log_ratings, validation_ratings = (train.iloc[rows] for rows in random_split(train, seed, 0.1))
    test_decisions = log_decisions(test, uniform, CANDIDATES, TEST_DECISIONS, seed, "active")
    return Part(data, train, log_ratings, validation_ratings, test, test_decisions, seed)


def evaluate_agents(part):
    """Baselines and agents of one seed, a row each."""
    mean, count = part.train["rating"].mean(), part.train["movie_id"].value_counts()
    biases, factors = als(part.train, rank=0), als(part.train)
    rows = {
        "global mean": part.errors(lambda users, movies: np.full(movies.shape, mean)),
        "popularity": (np.nan, part.errors(lambda users, movies: count_ratings(count, movies))[1]),
        "user + movie bias": part.errors(lambda users, movies: score_candidates(biases, None, users, movies)),
        "ALS": part.errors(lambda users, movies: score_candidates(factors, None, users, movies)),
    }
    logs = [
        log_decisions(part.log_ratings, uniform, CANDIDATES, DECISIONS, part.seed, "active").log,
        log_decisions(part.validation_ratings, uniform, 1, None, part.seed, "active").log,
    ]
    examples, validation = (cross_fit_examples(log, part.train, part.features) for log in logs)
    features = part.features(part.train)
    for name, parameters in AGENTS.items():
        agent = train_agent(features, parameters, examples, validation, part.seed)
        rows[name] = part.errors(lambda users, movies, agent=agent: score_candidates(agent, features, users, movies))
    return as_frame(rows)


def evaluate_weights(part):
    """Agents that learn, plainly and weighted, from a skewed log; features are fitted on other ratings."""
    history, recent_ratings = (part.log_ratings.iloc[rows] for rows in random_split(part.log_ratings, part.seed, 0.5))
    features, behaviour, rows = part.features(history), popularity(history), {}
    log = log_decisions(recent_ratings, behaviour, CANDIDATES, SKEWED, part.seed, "active").log
    validation = log_decisions(part.validation_ratings, behaviour, 2, None, part.seed, "active").log
    log, validation = (records.join_users(features.users) for records in (log, validation))
    plain_examples, validation_examples, dr_examples = (
        make_examples(log, features.features),
        make_examples(validation, features.features),
        make_doubly_robust_examples(log, features.features, cross_fit(log, features.features)),
    )
    for name in ("LinUCB", "epsilon-greedy, common tower"):
        for suffix, examples, weights in (
            ("", plain_examples, None),
            (", IPS", plain_examples, "ips"),
            (", DR", dr_examples, None),
        ):
            agent = train_agent(features, AGENTS[name], examples, validation_examples, part.seed, weights)
            rows[name + suffix] = part.errors(
                lambda users, movies, agent=agent: score_candidates(agent, features, users, movies)
            )
    return as_frame(rows)


def evaluate_estimators(part):
    """Error of every estimator, and whether its interval has the truth, on logs of three behaviours."""
    features, model, rows = part.features(part.train), als(part.train), []
    log = log_decisions(part.log_ratings, uniform, CANDIDATES, DECISIONS, part.seed, "active").log
    agent = train_agent(features, LinUCB(), cross_fit_examples(log, part.train, part.features), None, part.seed)

    def target(visits):
        scores = score_candidates(agent, features, visits.user_ids, visits.movie_ids)
        return epsilon_greedy(scores, visits.log.mask, 0.1)

    def als_policy(users, movies, mask):
        return softmax(score_candidates(model, None, users, movies), mask, 0.5)

    large_sample = log_decisions(part.test, uniform, CANDIDATES, 20 * TEST_DECISIONS, part.seed, "active")
    truth = large_sample.value(target(large_sample))
    behaviours = {"uniform": uniform, "popularity": popularity(part.train), "softmax of ALS": als_policy}
    for behaviour, function in behaviours.items():
        for seed in range(LOGS):
            visits = log_decisions(part.test, function, CANDIDATES, LOG_SIZE, 1000 * (part.seed + 1) + seed, "active")
            log = visits.log.join_users(features.users)
            table = evaluate(log, target(visits), cross_fit(log, features.features), shrinkage=SHRINKAGE)
            contains_truth = (table["low"] <= truth) & (truth <= table["high"])
            rows.append(
                pd.DataFrame({"behaviour": behaviour, "error": table["value"] - truth, "covered": contains_truth})
            )
    return pd.concat(rows).rename_axis("estimator").reset_index()


def train_agent(features, parameters, examples, validation, seed, weights=None):
    """An agent trained on examples; networks stop by the others."""
    agent = make_agent(parameters, Specs(features.spec(CANDIDATES)), seed)
    training = {} if isinstance(parameters, LinUCB) else TRAINING | {"validation": validation}
    fit(agent, examples, weights=weights, seed=seed, **training)
    return agent


def count_ratings(count, movies):
    """Number of training ratings of each movie, int [n, k]."""
    return count.reindex(movies.ravel(), fill_value=0).to_numpy(float).reshape(movies.shape)


def as_frame(rows):
    """Columns name, MSE (of held-out ratings) and true value (of the greedy policy)."""
    return pd.DataFrame([(name, *errors) for name, errors in rows.items()], columns=["name", "MSE", "true value"])


def as_text(table, baselines):
    """Means with intervals over seeds, and paired differences to a baseline each."""
    text = {}
    for metric, baseline in baselines.items():
        wide = table.pivot(index="seed", columns="name", values=metric)[table["name"].unique()]
        text[metric] = wide.apply(lambda values: interval(values, "{:.3f}"))
        differences = wide.sub(wide[baseline], axis=0).drop(columns=baseline)
        text[f"{metric} minus that of {baseline}"] = differences.apply(lambda values: interval(values, "{:+.3f}"))
    return pd.DataFrame(text).reindex(table["name"].unique()).fillna("").rename_axis("").reset_index()


def interval(values, form):
    """Mean and 95 % interval as text; empty where nothing was measured."""
    if values.isna().any():
        return ""
    mean, low, high = (form.format(number) for number in mean_interval(values))
    return f"{mean} ({low} to {high})"


def errors_as_text(table):
    """A row per estimator, a column per behaviour: bias, RMSE, share of intervals with the truth."""
    grouped = table.groupby(["estimator", "behaviour"], sort=False)
    bias, rmse = grouped["error"].mean(), np.sqrt(grouped["error"].agg(lambda error: (error**2).mean()))
    coverage = 100 * grouped["covered"].mean()
    cells = [f"{b:+.3f}, {r:.3f}, {c:.0f} %" for b, r, c in zip(bias, rmse, coverage, strict=True)]
    wide = pd.Series(cells, bias.index).unstack("behaviour")[table["behaviour"].unique()]
    return wide.loc[table["estimator"].unique()].reset_index().rename_axis(columns=None)
