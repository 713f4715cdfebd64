"""Agents that show slates, simulated: sums checked by hand, common random numbers, TF-Agents' agent, resuming."""

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.bandits.agents import ranking_agent
from tf_agents.bandits.networks import global_and_arm_feature_network as networks

from recbandits.agents.factory import make_agent
from recbandits.agents.ranking.parameters import CascadingLinUCB, OptimalRanking, RandomRanking, Ranking
from recbandits.environments import SyntheticRankingEnvironment
from recbandits.environments.clicks import Cascade
from recbandits.training import online
from recbandits.training.online import simulate


def environment(**options):
    return SyntheticRankingEnvironment(**({"num_items": 6, "num_slots": 3, "context_size": 2} | options))


def test_measures_equal_a_loop_by_hand():
    """Random slates on 4 batches of 8, measured twice: clicks and their expectation in plain Python."""
    world = environment()
    frame = simulate(world, RandomRanking(), steps=4, points=2, seeds=[5])
    agent, regret, reward, suboptimal = make_agent(RandomRanking(), world, 5), [], [], []
    world.restart(5)
    for _ in range(4):
        batch = world.batch()
        slate = agent.collect_policy.action(world.current_time_step()).action
        attraction = np.take_along_axis(batch.attraction.numpy(), slate.numpy(), axis=1)
        look = np.arange(1, 4) ** -1.3
        expected = attraction @ look
        best = np.sort(batch.attraction.numpy(), axis=1)[:, :2:-1] @ look
        regret.append((best - expected).mean())
        suboptimal.append((expected < best - 1e-6).mean())
        reward.append(world.step(slate).reward.numpy().sum(axis=1).mean())
    for column, by_hand in (("regret", regret), ("reward", reward), ("suboptimal", suboptimal)):
        np.testing.assert_allclose(frame[column], np.reshape(by_hand, (2, 2)).mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(frame["cumulative_regret"], 8 * np.cumsum(regret)[[1, 3]], rtol=1e-5)


@pytest.mark.parametrize("feedback", ["score_vector", "cascading"])
def test_learning_lowers_the_regret_and_the_best_slates_have_none(feedback):
    """A linear model ranks the items of this world perfectly, so what is left after 100 batches is small."""
    world = environment(clicks=Cascade(), feedback=feedback, batch_size=16)
    contenders = {"learns": CascadingLinUCB(), "random": RandomRanking(), "best": OptimalRanking()}
    runs = simulate(world, contenders, steps=100, points=2).set_index(["agent", "step"])
    assert runs.loc[("learns", 100), "regret"] < 0.15 * runs.loc[("random", 100), "regret"]
    assert (runs.loc["best", ["regret", "suboptimal"]] == 0).all(axis=None)


def test_the_clicks_of_agents_are_common_random_numbers(monkeypatch):
    """Two agents that show the same slates get the same clicks; other slates are met by the same users."""
    seen, respond = {}, SyntheticRankingEnvironment.respond

    def record(environment, batch, action):
        """Keep the attraction of all items to the users of each batch, for each agent, which has its own copy."""
        tf.numpy_function(seen.setdefault(environment, []).append, [batch.attraction], [])
        return respond(environment, batch, action)

    with monkeypatch.context() as patch:
        patch.setattr(SyntheticRankingEnvironment, "respond", record)
        runs = simulate(environment(), {"a": OptimalRanking(), "b": OptimalRanking(), "c": RandomRanking()}, 5, [3], 5)
    a, b, c = (runs[runs["agent"] == name] for name in "abc")
    np.testing.assert_array_equal(a["reward"], b["reward"])
    value = simulate(environment(), OptimalRanking(), 5, [3], points=5)["reward"]
    np.testing.assert_array_equal(a["reward"], value)
    assert (c["regret"] > 0).all()
    first, *others = map(np.array, seen.values())
    assert (len(others), first.shape) == (2, (5, 8, 6))
    assert len(np.unique(first)) == first.size, "new users and items at each step"
    for other in others:
        np.testing.assert_array_equal(first, other)


def test_tf_agents_own_ranking_agent_can_be_simulated():
    world = environment(feedback="cascading", clicks=Cascade(), batch_size=16)
    network = networks.create_feed_forward_common_tower_network(world.observation_spec(), (16,), (16,), (16,))
    tf.random.set_seed(0)
    theirs = ranking_agent.RankingAgent(
        world.time_step_spec(),
        world.action_spec(),
        network,
        tf.keras.optimizers.legacy.Adam(0.01),
        ranking_agent.RankingPolicyType.DESCENDING_SCORES,
        enable_summaries=False,
    )
    runs = simulate(world, {"theirs": theirs}, steps=200, points=2)
    random = simulate(world, RandomRanking(), steps=200, points=2)
    assert runs["regret"].iloc[-1] < 0.6 * random["regret"].iloc[-1]


def test_an_interrupted_simulation_of_slates_continues_to_the_same_end(tmp_path, monkeypatch):
    """Stopped after the second of five measurements, before the third is kept.

    Another click model, feedback or number of slots makes it another simulation.
    """
    monkeypatch.setattr(online, "INTERVAL", 0.0)  # a checkpoint after each measurement
    world, agent = environment(), {"ranking": Ranking(layers=(4,))}
    undisturbed = simulate(world, agent, steps=10, points=5, seeds=[1], checkpoints=tmp_path / "undisturbed")

    save = tf.train.CheckpointManager.save

    def fail(self, number):
        if number == 3:
            raise KeyboardInterrupt
        return save(self, number)

    cut = {"steps": 10, "points": 5, "seeds": [1], "checkpoints": tmp_path / "cut"}
    monkeypatch.setattr(tf.train.CheckpointManager, "save", fail)
    with pytest.raises(KeyboardInterrupt):
        simulate(world, agent, **cut)
    monkeypatch.setattr(tf.train.CheckpointManager, "save", save)
    assert simulate(world, agent, **cut).equals(undisturbed)
    for other in ({"clicks": Cascade()}, {"feedback": "cascading"}, {"num_slots": 2}):
        with pytest.raises(ValueError, match="belong to another simulation"):
            simulate(environment(**other), agent, **cut)


def test_agents_of_the_other_kind_are_refused():
    with pytest.raises(ValueError, match="actions must be single int32 numbers"):
        simulate(environment(), "linucb", steps=1)
