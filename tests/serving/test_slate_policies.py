"""Exported policies of agents that rank: the scores and slates of their agents, served without TensorFlow."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from tf_agents.trajectories import time_step as ts

from recbandits.agents.factory import make_agent
from recbandits.agents.ranking.parameters import CascadingLinUCB, Ranking
from recbandits.data.slates import list_examples
from recbandits.serving import policy
from recbandits.training.offline import Specs, fit, score_candidates
from tests.rating_tables import rating_features

ITEMS, SLOTS = 12, 4
AGENTS = {
    "drawn": Ranking(layers=(8,), temperature=0.5),
    "descending, dot product": Ranking(layers=(8,), policy="descending_scores", network="dot_product"),
    "penalised": Ranking(layers=(8,), policy="cosine_distance", temperature=0.5, penalty=3.0),
    "cascading_linucb": CascadingLinUCB(),
}


PARITY = [name for name in AGENTS if name != "drawn"]  # whose network and greedy slates are those of the others
EXPLORATION = policy.Exploration("plackett_luce", AGENTS["drawn"].temperature)


@pytest.fixture(scope="module")
def lists():
    """300 lists of 4 of 40 movies for 30 users whose ratings follow a feature, and features of all of them."""
    rng = np.random.default_rng(0)
    users = pd.DataFrame(rng.normal(size=(30, 3)), range(1, 31), ["age", "factor_0", "factor_1"])
    movies = pd.DataFrame(rng.normal(size=(40, 3)), range(101, 141), ["year", "factor_0", "factor_1"])
    features = rating_features(users, movies)
    pairs = pd.MultiIndex.from_product([users.index, movies.index], names=["user_id", "movie_id"]).to_frame(index=False)
    taste = np.einsum("uf,mf->um", users.to_numpy()[:, 1:], movies.to_numpy()[:, 1:]).ravel()
    ratings = pairs.assign(rating=np.clip(np.rint(3 + taste), 1, 5))
    rows = np.arange(len(ratings)).reshape(30, 40)[rng.integers(0, 30, 300)]
    return list_examples(ratings, rng.permuted(rows, axis=1)[:, :SLOTS], features), features


def train_agent(parameters, lists):
    examples, features = lists
    feedback = "cascading" if parameters == AGENTS["penalised"] else "score_vector"
    if feedback == "cascading":
        examples = examples._replace(reward=(examples.reward >= 4).astype(np.float32))
    agent = make_agent(parameters, Specs(features.spec(ITEMS), SLOTS, feedback))
    fit(agent, examples, epochs=3 if isinstance(parameters, Ranking) else 1, batch_size=32)
    return agent


@pytest.fixture(scope="module")
def agent_and_directory(lists, tmp_path_factory):
    """The agent that draws slates, and the directory of its policy, which explores by the agent's temperature."""
    agent = train_agent(AGENTS["drawn"], lists)
    directory = tmp_path_factory.mktemp("drawn") / "policy"
    return agent, policy.export(agent.policy, directory, lists[1], exploration=EXPLORATION)


def make_inputs(features, number=200, items=ITEMS):
    """Users, candidates, and their features."""
    rng = np.random.default_rng(1)
    users = rng.choice(features.users.index, number)
    movies = rng.permuted(np.tile(features.features.item_ids.astype(int), (number, 1)), axis=1)[:, :items]
    observation = {name: tf.constant(part) for name, part in features.observation(users, movies).items()}
    return users, movies, observation


@pytest.mark.parametrize("name", PARITY)
def test_loaded_policies_score_and_fill_slates_as_their_agents_do(name, lists, tmp_path):
    """By ids, by the plain signature, which takes any number of candidates, and by TF-Agents' action."""
    agent, features = train_agent(AGENTS[name], lists), lists[1]
    directory = policy.export(agent.policy, tmp_path / "policy", features)
    loaded, model = policy.load(directory), tf.saved_model.load(str(directory))
    users, movies, observation = make_inputs(features)
    expected = agent.policy.scores(observation, tf.constant([0, 0])).numpy()
    assert expected.std(axis=1).min() > 0
    scores = loaded.scores(features.contexts(users), movies)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5 * abs(expected).max())
    step = ts.restart(observation, 200, agent.time_step_spec.reward)
    slates = agent.policy.action(step).action.numpy()
    np.testing.assert_array_equal(loaded.action(step).action, slates)
    if name != "penalised":
        for row in range(50):
            answer = loaded.recommend(features.context_of(users[row]), movies[row], k=SLOTS)
            assert answer.item_ids == movies[row, slates[row]].astype(str).tolist()
            assert answer.propensities == [1.0] * SLOTS
    for items in (3, 40):
        users, movies, observation = make_inputs(features, 5, items)
        plain = model.signatures["serving_default"](context=observation["global"], per_arm=observation["per_arm"])
        by_pairs = score_candidates(agent, features, users, movies)
        np.testing.assert_allclose(plain["scores"], by_pairs, rtol=0, atol=1e-5 * abs(by_pairs).max())


def test_served_slates_have_the_propensities_of_the_policy_that_collects(lists, agent_and_directory):
    """The temperature of the agent, given as the exploration: both say the same of every slot of a served slate."""
    agent, loaded = agent_and_directory[0], policy.load(agent_and_directory[1])
    users, movies, observation = make_inputs(lists[1], 60)
    answers = [
        loaded.recommend(lists[1].context_of(user), row, k=SLOTS, rng=seed)
        for seed, (user, row) in enumerate(zip(users, movies, strict=True))
    ]
    item_ids = np.array([answer.item_ids for answer in answers]).astype(int)
    slates = (movies[:, None] == item_ids[:, :, None]).argmax(axis=2)
    exact = agent.collect_policy.propensities(observation, slates).numpy()
    np.testing.assert_allclose([answer.propensities for answer in answers], exact, rtol=1e-4)
    np.testing.assert_allclose([answer.propensity for answer in answers], exact[:, 0], rtol=1e-4)
    assert len(set(exact[:, 0].round(3))) > 20
    assert "given those above it" in (agent_and_directory[1] / "MODEL_CARD.md").read_text()
