"""Requests to a policy by raw columns and text ids."""

import json
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from recbandits.data import Features
from recbandits.exploration import Exploration
from recbandits.records import Log
from recbandits.serving import export, load
from recbandits.training import score_log, train
from tests.videos import make_tables

EXPLORATION = Exploration("epsilon_greedy", 0.4)


@pytest.fixture(scope="module")
def agent_and_data():
    decisions, items, users, _ = make_tables(400)
    decisions["candidates"] = decisions["candidates"].str.split("|")
    items, users = items.set_index("video"), users.set_index("user")
    width = decisions["candidates"].str.len().max()
    price = np.random.default_rng(0).random((len(decisions), width))
    log = Log.from_frame(
        decisions, items.index, item="shown", reward="seconds", default_reward=0.0, propensity="p", time="at",
        context=["device", "hour"], user="user", users=users, candidates="candidates",
        candidate_features={"price": price},
    )  # fmt: skip
    features = Features.fit(items.drop(columns="name"), log, [("plan", "genre")])
    return log, features, train(log, features), items


@pytest.fixture(scope="module")
def policy(agent_and_data, tmp_path_factory):
    _, features, agent, items = agent_and_data
    directory = tmp_path_factory.mktemp("export") / "policy"
    return load(export(agent.policy, directory, features, exploration=EXPLORATION, titles=items["name"]))


def test_numbers_of_candidates_change_their_scores(policy, agent_and_data):
    ids = agent_and_data[0].item_ids[:3].tolist()
    low, high = (
        policy.recommend({}, ids, k=3, rng=0, candidate_features={"price": [price, 0.0, 0.0]}) for price in (0.0, 100.0)
    )
    changed = dict(zip(high.item_ids, high.scores, strict=True))
    for name, score in zip(low.item_ids, low.scores, strict=True):
        assert (changed[name] == pytest.approx(score)) == (name != ids[0])


def test_new_items_are_scored_by_their_raw_columns(policy, agent_and_data):
    """Described as a known item is, a new one gets the same score; what is not known of it is the mean."""
    ids, items = agent_and_data[0].item_ids.tolist(), agent_and_data[3]
    columns = items.loc[ids[0], ["genre", "minutes"]].to_dict()
    numbers = {"price": [0.5, 0.5]}
    answer = policy.recommend({}, [ids[0], "new"], k=2, rng=0, new_items={"new": columns}, candidate_features=numbers)
    assert answer.scores[0] == pytest.approx(answer.scores[1])
    recommendation = policy.recommend({}, new_items={"new": {}}, candidate_features={"price": [0.5] * 13})
    assert recommendation.candidates == [*ids, "new"]


def test_a_policy_that_cannot_score_cannot_be_exported_with_features(agent_and_data, tmp_path):
    _, features, agent, _ = agent_and_data
    with pytest.raises(ValueError, match="policy must score by what it has learnt to be exported with Features"):
        export(agent.collect_policy, tmp_path / "policy", features)
    assert not (tmp_path / "policy").exists()


def test_it_scores_a_whole_log_as_the_agent_does(policy, agent_and_data):
    log, features, agent, _ = agent_and_data
    expected = score_log(agent, log, features)
    np.testing.assert_allclose(score_log(policy, log, features), expected, rtol=1e-5, atol=1e-4)
    arguments = {"candidates": log.candidate_ids, "mask": log.mask, "candidate_features": log.candidate_features}
    np.testing.assert_allclose(policy.scores(log.context, **arguments), expected, rtol=1e-5, atol=1e-4)
    best = (expected == expected.max(axis=1, keepdims=True)) & log.mask
    decisions = policy.decide(log.context, rng=0, **arguments)
    np.testing.assert_allclose(decisions.probabilities[best], 0.6 + 0.4 / log.mask.sum(axis=1), rtol=1e-6)


def test_numbers_of_candidates_are_part_of_the_record(policy, agent_and_data):
    ids = agent_and_data[0].item_ids[:2].tolist()
    answer = policy.recommend({}, ids, candidate_features={"price": np.array([1, 2])})
    assert answer.candidate_features == {"price": [1.0, 2.0]}
    record = answer.interaction(datetime.now(UTC))
    assert json.loads(record.candidate_features) == {"price": [1.0, 2.0]}
    with pytest.raises(ValueError, match=r"candidate feature 'price' must be 2 finite numbers, one for each candidate"):
        policy.scores(pd.DataFrame(index=[0, 1]), [ids, ids], candidate_features={"price": [[1.0, 2.0]]})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"context": {"planet": "mars"}}, "column must be one of device, hour, plan, got 'planet'"),
        ({"candidate_features": {}}, r"candidate_features must be price, got \[\]"),
        ({"candidate_features": {"price": [1.0]}}, "candidate feature 'price' must be 12 finite numbers"),
        ({"candidate_features": {"price": ["a"] * 12}}, "candidate feature 'price' must be 12 finite"),
    ],
)
def test_a_request_that_is_wrong_is_refused_by_name(policy, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        policy.recommend(**{"candidate_features": {"price": [0.5] * 12}} | options)
