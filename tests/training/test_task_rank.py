"""The training task `rank`: from lists of ratings to a policy that serves slates, as a job on any platform."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import ndcg_score

from recbandits.agents.factory import make_agent
from recbandits.agents.ranking.parameters import CascadingLinUCB
from recbandits.config import Config
from recbandits.data import formats
from recbandits.data.slates import rated_lists
from recbandits.platforms.gcp.rehearsal import rehearse
from recbandits.platforms.jobs import Job
from recbandits.platforms.local.jobs import LocalJobs
from recbandits.serving.policy import describe, load
from recbandits.training import task
from recbandits.training.offline import Specs
from recbandits.training.problems import Rank
from recbandits.training.ranking_experiments import Lists

RANK = ("rank", "--agent=ranking", "--temperature=0.3", "--lists=2", "--weight_decay=0.01", "--size=5", "--seeds=1")


@pytest.fixture(scope="module")
def data(movielens, tmp_path_factory):
    """The argument that names the data's directory."""
    directory = tmp_path_factory.mktemp("data")
    formats.write(movielens, directory)
    return f"--data={directory}"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["rank", "--agent=linucb"], "argument --agent: rank takes ranking, cascading_linucb, cascading_lints, got"),
        (["fit", "--agent=ranking"], "squarecb, neural_linucb, exp3_mixture, got 'ranking'"),
        (["simulate", "--agent", "cascading_lints"], "argument --agent: simulate takes linucb, lints, "),
        (["rank", "--agent=als_ranking"], "rank takes ranking, cascading_linucb, cascading_lints, got 'als_ranking'"),
        (["rank", "--temperature=0"], "Ranking: temperature must be positive and finite, got 0.0"),
        (["rank", "--policy=cosine_distance"], "Rank: policy must be no_penalty or descending_scores, got 'cosine_dis"),
        (
            ["rank", "--position_bias=base"],
            "Rank: position_bias must be none, as lists are in random order, got 'base'",
        ),
        (["rank", "--candidates=10"], "Rank: candidates must be a whole number of at least 11, got 10"),
        (["rank", "--split=movie"], "Rank: split must be one of user, random, time, got 'movie'"),
        (["rank", "--feedback=clicks"], "Rank: feedback must be one of score_vector, cascading, got 'clicks'"),
        (["rank", "--judged=100"], "unknown argument '--judged=100'; did you mean --judge?"),
    ],
)
def test_what_cannot_be_ranked_is_refused_in_one_sentence(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as refusal:
        task.main(arguments)
    assert refusal.value.code == 2
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert f"recbandits.training.task: {sentence}" in shown or sentence in shown


def test_without_a_name_the_usual_agent_of_the_command_learns():
    assert [task.parse([command]).name for command in ("simulate", "fit", "rank")] == ["linucb", "linucb", "ranking"]


@pytest.mark.parametrize(("judge", "share"), [("validation", 0.16), ("test", 0.2)])
def test_held_out_users_are_told_of_by_half_of_their_ratings_and_not_learnt_from(judge, share, movielens):
    world = Lists(Rank(judge=judge, seeds=(0,)), movielens, seed=0)
    known, told, held_out = (set(table["user_id"]) for table in (world.known, world.told, world.held_out))
    assert not known & held_out
    assert len(held_out) == pytest.approx(share * movielens.ratings["user_id"].nunique(), rel=0.02)
    assert held_out <= told
    history = world.told.index.difference(world.known.index)
    assert len(history) == pytest.approx(len(world.held_out), abs=1)
    assert not set(history) & set(world.held_out.index)
    factors = world.bundle.users.filter(like="factor_").loc[sorted(held_out)]
    assert (factors.abs().sum(axis=1) > 0).all()


def test_lists_to_learn_from_are_of_known_users_with_ratings_or_likes(movielens):
    """Cascading feedback reads which reward is positive: there, which movie has 4 stars or more."""
    few = replace(movielens, ratings=movielens.ratings[movielens.ratings["user_id"] <= 200])
    worlds = [Lists(Rank(size=3, lists=1, feedback=name), few, seed=0) for name in ("score_vector", "cascading")]
    rated, liked = (world.examples().reward for world in worlds)
    known = worlds[0].known
    assert rated.shape == (known["user_id"].nunique() * 5, 3)
    assert rated.mean() == pytest.approx(known.groupby("user_id")["rating"].mean().mean(), abs=0.1)
    assert set(np.unique(rated)) == {1, 2, 3, 4, 5}
    np.testing.assert_array_equal(liked, rated >= 4)


def test_agents_are_judged_by_the_ndcg_of_scikit_learn_over_users(movielens):
    """Of the factorization, which `ndcg_over_als` compares with: gains 2^r - 1, ten places, all held-out movies."""
    world = Lists(Rank(split="random"), movielens, seed=0)
    agent = make_agent(CascadingLinUCB(), Specs(world.bundle.spec(50), 10))
    measures = world.judge(agent)
    expected = []
    for user, table in world.held_out.groupby("user_id"):
        if len(table) > 1:
            movies = table["movie_id"].to_numpy()
            predicted = world.factors.predict(np.full(len(movies), user), movies)
            expected.append(ndcg_score([2.0 ** table["rating"] - 1], [predicted], k=10))
    assert measures["ndcg"] - measures["ndcg_over_als"] == pytest.approx(np.mean(expected), abs=1e-3)
    assert len(expected) == len(rated_lists(world.held_out).user_id)


def test_a_job_leaves_a_policy_that_serves_slates_with_propensities_and_titles(data, movielens, tmp_path):
    """In a process of its own: the network learns to rank held-out users' movies better than popularity does."""
    jobs = LocalJobs(Config(artifacts=str(tmp_path)))
    record = jobs.run(Job("rank", (*RANK, data)))
    assert record.state == "succeeded", record.error
    assert record.metrics["ndcg_over_popularity"] > 0.03
    assert record.metrics["ndcg"] > record.metrics["ndcg_over_popularity"]
    policy = load(record.model)
    assert (policy.exploration.name, policy.exploration.value) == ("plackett_luce", 0.3)
    answer = policy.recommend(int(movielens.users.index[0]), k=5, rng=0)
    weights = dict(zip(policy.candidates.tolist(), np.exp(policy.scores([answer.user_id])[0] / 0.3), strict=True))
    shown = np.array([weights[movie] for movie in answer.movie_ids])
    assert answer.propensities == pytest.approx(shown / (sum(weights.values()) - np.cumsum(shown) + shown))
    assert answer.titles == [movielens.movies["title"][movie] for movie in answer.movie_ids]
    assert describe(record.model)["agent"] == "ranking"
    assert list(tmp_path.rglob("tensorboard/seed-1/events.*"))


def test_a_linear_agent_reports_to_the_tuning_service_and_serves_by_score(data, tmp_path, monkeypatch):
    monkeypatch.setenv("AIP_MODEL_DIR", str(tmp_path / "model"))
    monkeypatch.setenv("CLOUD_ML_HP_METRIC_FILE", str(tmp_path / "metrics.jsonl"))
    asked = ["rank", "--agent=cascading_linucb", "--feedback=cascading", "--split=random", "--lists=1", "--seeds=0"]
    assert task.main([*asked, "--serve_epsilon=0", data]) == 0
    record = json.loads((tmp_path / "record.json").read_text())
    (reported,) = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()][:1]
    assert float(reported["ndcg"]) == record["metrics"]["ndcg"]
    assert record["metrics"]["ndcg_over_popularity"] > 0.02
    assert record["problem"]["feedback"] == "cascading"
    policy = load(tmp_path / "model")
    answer = policy.recommend(1, k=4)
    assert answer.scores == sorted(policy.scores([1])[0], reverse=True)[:4]
    assert answer.propensities == [1.0] * 4


def test_vertex_ai_is_sent_the_same_arguments():
    (request,) = rehearse(Config(), lambda platform: platform.jobs.run(Job("rank", RANK)))
    (pool,) = request.body["jobSpec"]["workerPoolSpecs"]
    assert pool["containerSpec"]["args"] == list(RANK)
    assert task.parse(pool["containerSpec"]["args"]).agent.temperature == 0.3
