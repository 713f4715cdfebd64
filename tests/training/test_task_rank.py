"""The training job `rank`: from lists of ratings to a policy that serves slates, on any platform."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from recbandits.agents.factory import make_agent
from recbandits.agents.ranking.parameters import CascadingLinUCB
from recbandits.config import Config
from recbandits.data.slates import rated_lists
from recbandits.platforms.jobs import Job
from recbandits.platforms.local.jobs import LocalJobs
from recbandits.serving.policy import describe, load
from recbandits.training import task
from recbandits.training.experiments import RankingTask, _split
from recbandits.training.job_paths import read_users
from recbandits.training.offline import Specs
from recbandits.training.problems import Rank

RANK = ("rank", "--agent=ranking", "--temperature=0.3", "--lists=2", "--weight_decay=0.01", "--size=5", "--seeds=1")


@pytest.mark.parametrize(("judge", "share"), [("validation", 0.16), ("test", 0.2)])
def test_features_of_held_out_users_are_from_half_of_their_ratings(judge, share, movielens):
    """Those support ratings are neither learnt from nor evaluated on."""
    ranking_task = RankingTask(Rank(judge=judge, seeds=(0,)), movielens, seed=0)
    tables = ranking_task.train, ranking_task.known, ranking_task.held_out
    train, known, held_out = (set(table["user_id"]) for table in tables)
    assert not train & held_out
    assert len(held_out) == pytest.approx(share * movielens.ratings["user_id"].nunique(), rel=0.02)
    assert held_out <= known
    support = ranking_task.known.index.difference(ranking_task.train.index)
    assert len(support) == pytest.approx(len(ranking_task.held_out), abs=1)
    assert not set(support) & set(ranking_task.held_out.index)
    factors = ranking_task.features.users.filter(like="factor_").loc[sorted(held_out)]
    assert (factors.abs().sum(axis=1) > 0).all()


@pytest.mark.parametrize("split", ["user", "random"])
def test_all_seeds_share_the_test_split_and_none_of_it_chooses_a_setting(split, movielens):
    """Of five validation splits, as of the default seeds: no test user, or rating, is in one of them."""
    unit = movielens.ratings["user_id"] if split == "user" else movielens.ratings.index.to_series()
    tested, validated = (
        [set(unit[_split(Rank(split=split, judge=judge), movielens.ratings, seed)[1].index]) for seed in range(5)]
        for judge in ("test", "validation")
    )
    assert all(units == tested[0] for units in tested)
    assert not tested[0] & set.union(*validated)
    assert len(validated[0] & validated[1]) / len(validated[0]) == pytest.approx(0.2, abs=0.07)


def test_lists_to_learn_from_have_ratings_or_likes_of_training_users(movielens):
    """Under cascading feedback a reward is positive where a movie has 4 stars or more."""
    subset = replace(movielens, ratings=movielens.ratings[movielens.ratings["user_id"] <= 200])
    tasks = [
        RankingTask(Rank(size=3, lists=1, feedback=name), subset, seed=0) for name in ("score_vector", "cascading")
    ]
    rated, liked = (each.examples().reward for each in tasks)
    train = tasks[0].train
    assert rated.shape == (train["user_id"].nunique() * 5, 3)
    assert rated.mean() == pytest.approx(train.groupby("user_id")["rating"].mean().mean(), abs=0.1)
    assert set(np.unique(rated)) == {1, 2, 3, 4, 5}
    np.testing.assert_array_equal(liked, rated >= 4)


def test_the_ndcg_of_an_agent_is_that_of_scikit_learn(movielens):
    """Of the factorization, which `ndcg_over_als` compares with: gains 2^r - 1, ten places, all held-out movies."""
    ranking_task = RankingTask(Rank(split="random"), movielens, seed=0)
    agent = make_agent(CascadingLinUCB(), Specs(ranking_task.features.spec(50), 10))
    measures = ranking_task.evaluate(agent, ranking_task.features)
    expected = []
    for user, table in ranking_task.held_out.groupby("user_id"):
        if len(table) > 1:
            movies = table["movie_id"].to_numpy()
            predicted = ranking_task.factors.predict(np.full(len(movies), user), movies)
            expected.append(ndcg_score([2.0 ** table["rating"] - 1], [predicted], k=10))
    assert measures["ndcg"] - measures["ndcg_over_als"] == pytest.approx(np.mean(expected), abs=1e-3)
    assert len(expected) == len(rated_lists(ranking_task.held_out).user_id)


def test_a_job_leaves_a_policy_that_serves_slates_with_propensities_and_titles(data, movielens, tmp_path):
    """In a process of its own: the network learns to rank held-out users' movies better than popularity does."""
    jobs = LocalJobs(Config(artifacts=str(tmp_path)))
    record = jobs.run(Job("rank", (*RANK, data)))
    assert record.state == "succeeded", record.error
    assert record.metrics["ndcg_over_popularity"] > 0.03
    assert record.metrics["ndcg"] > record.metrics["ndcg_over_popularity"]
    policy = load(record.model)
    assert (policy.exploration.name, policy.exploration.value) == ("plackett_luce", 0.3)
    contexts = read_users(record.model)
    answer = policy.recommend(contexts.iloc[0].to_dict(), k=5, rng=0)
    weights = dict(zip(policy.candidates, np.exp(policy.scores(contexts[:1])[0] / 0.3), strict=True))
    slate_weights = np.array([weights[movie] for movie in answer.item_ids])
    assert answer.propensities == pytest.approx(
        slate_weights / (sum(weights.values()) - np.cumsum(slate_weights) + slate_weights)
    )
    assert answer.titles == [movielens.movies["title"][int(movie)] for movie in answer.item_ids]
    assert describe(record.model)["agent"] == "ranking"
    assert list(tmp_path.rglob("tensorboard/seed-1/events.*"))


def test_a_linear_agent_reports_to_the_tuning_service_and_serves_by_score(data, tmp_path, monkeypatch):
    monkeypatch.setenv("AIP_MODEL_DIR", str(tmp_path / "model"))
    monkeypatch.setenv("CLOUD_ML_HP_METRIC_FILE", str(tmp_path / "metrics.jsonl"))
    arguments = ["rank", "--agent=cascading_linucb", "--feedback=cascading", "--split=random", "--lists=1", "--seeds=0"]
    assert task.main([*arguments, "--serve_epsilon=0", data]) == 0
    record = json.loads((tmp_path / "record.json").read_text())
    (first_record,) = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()][:1]
    assert float(first_record["ndcg"]) == record["metrics"]["ndcg"]
    assert record["metrics"]["ndcg_over_popularity"] > 0.02
    assert record["problem"]["feedback"] == "cascading"
    policy = load(tmp_path / "model")
    contexts = read_users(tmp_path / "model")
    answer = policy.recommend(contexts.loc[1].to_dict(), k=4)
    assert answer.scores == sorted(policy.scores(contexts.loc[[1]])[0], reverse=True)[:4]
    assert answer.propensities == [1.0] * 4
