"""Slates that are served, logged and evaluated: identities, replays, and attraction learnt from low slots."""

import numpy as np
import pytest
import tensorflow as tf

from recbandits.agents.factory import make_agent
from recbandits.agents.ranking.parameters import (
    CascadingLinTS,
    OptimalRanking,
    PopularityRanking,
    RandomRanking,
    Ranking,
)
from recbandits.environments import SyntheticRankingEnvironment
from recbandits.environments.base import observation_spec
from recbandits.environments.clicks import Cascade, PositionBased
from recbandits.environments.ranking import RankingBatch, RankingEnvironment
from recbandits.evaluation.slates import slate_estimates
from recbandits.training.slates import (
    compute_slate_probabilities,
    log_slates,
    serve_slates,
    train_off_policy,
)
from tests.variables import assert_values

ITEMS, SLOTS = 6, 3


def make_environment(**options):
    return SyntheticRankingEnvironment(**({"num_items": ITEMS, "num_slots": SLOTS, "context_size": 2} | options))


def make_drawing_policy(environment, seed=0, **options):
    """The policy of an untrained network that draws its slates."""
    return make_agent(Ranking(layers=(4,), **options), environment, seed).collect_policy


def test_the_value_of_a_slate_is_that_of_the_click_model_and_the_best_slates_have_the_optimal_one():
    environment = make_environment()
    # The third batch is served in part.
    served = serve_slates(environment, make_drawing_policy(environment), slates=20, seed=3)
    attraction = np.take_along_axis(served.attraction, served.slate, axis=1)
    np.testing.assert_allclose(served.value, attraction @ np.arange(1, 4) ** -1.3, rtol=1e-5)
    assert served.slate.shape == served.reward.shape == (20, SLOTS)
    assert (served.value <= served.optimal).all()
    best = make_agent(OptimalRanking(), environment).policy
    np.testing.assert_array_equal(serve_slates(environment, best, 20, seed=3).value, served.optimal)


def test_a_seed_brings_the_same_users_and_slates_in_any_state_of_the_environment():
    environment = make_environment()
    policy = make_drawing_policy(environment, temperature=1.0)
    first, other = serve_slates(environment, policy, 16, seed=1), serve_slates(environment, policy, 16, seed=2)
    repetition = serve_slates(environment, policy, 16, seed=1)
    assert_values(first, repetition)
    assert (first.attraction != other.attraction).all()
    assert (first.slate != other.slate).any()


@pytest.mark.parametrize("feedback", ["score_vector", "cascading"])
def test_a_log_has_the_slates_clicks_and_probabilities_of_its_policy(feedback):
    """Of a cascade both kinds of feedback tell the same clicks; random slates of 3 from 6 have 1/6, 1/5 and 1/4."""
    environment = make_environment(clicks=Cascade(), feedback=feedback)
    policy = make_agent(RandomRanking(), environment).policy
    log, served = log_slates(environment, policy, 20, seed=4), serve_slates(environment, policy, 20, seed=4)
    np.testing.assert_array_equal(log.slate, served.slate)
    np.testing.assert_array_equal(log.reward, served.reward)
    np.testing.assert_array_equal(log.shown, served.shown)
    np.testing.assert_allclose(log.propensity, np.tile([1 / 6, 1 / 5, 1 / 4], (20, 1)))
    np.testing.assert_allclose(log.position_propensity, 1 / 6, rtol=1e-9)
    assert set(log.reward.sum(axis=1)) == {0.0, 1.0}


def test_a_log_leaves_out_what_has_no_formula():
    environment = make_environment()
    assert (
        log_slates(
            environment, make_drawing_policy(environment, policy="cosine_distance"), 8, seed=0
        ).position_propensity
        is None
    )
    with pytest.raises(ValueError, match="CascadingLinTS has no exact propensities"):
        log_slates(environment, make_agent(CascadingLinTS(), environment).collect_policy, 8, seed=0)


def test_the_probabilities_of_the_policy_that_wrote_a_log_are_those_in_it():
    environment = make_environment()
    policy = make_drawing_policy(environment)
    log = log_slates(environment, policy, 20, seed=5)
    probabilities = compute_slate_probabilities(environment, policy, log, seed=5)
    np.testing.assert_allclose(probabilities.propensity, log.propensity)
    np.testing.assert_allclose(probabilities.position, log.position_propensity)
    np.testing.assert_allclose(probabilities.conditional.sum(axis=2), 1)
    of_logged = np.take_along_axis(probabilities.conditional, log.slate[:, :, None], axis=2)[:, :, 0]
    np.testing.assert_allclose(of_logged, log.propensity)
    with pytest.raises(ValueError, match="in this environment with seed 6, got 'other events"):
        compute_slate_probabilities(environment, policy, log, seed=6)
    larger = make_environment(num_items=7)
    with pytest.raises(ValueError, match="in this environment with seed 5, got 'other candidates"):
        compute_slate_probabilities(larger, make_agent(RandomRanking(), larger).policy, log, seed=5)


def test_estimates_from_a_log_hold_the_true_value():
    """Random slates judge a network's draws: IIPS and RIPS within 4 standard errors of the mean of true values."""
    environment = make_environment(batch_size=500)
    log = log_slates(environment, make_agent(RandomRanking(), environment).policy, 4000, seed=7)
    target = make_drawing_policy(environment, temperature=0.3)
    probabilities = compute_slate_probabilities(environment, target, log, seed=7)
    truth = serve_slates(environment, target, 20_000, seed=8).value.mean()
    estimates = slate_estimates(log, probabilities.propensity, probabilities.position, names=["IIPS", "RIPS"])
    for name, estimate in estimates.items():
        error = estimate.influence.std() / np.sqrt(len(log))
        assert abs(estimate.value - truth) < 4 * error, name


class OneByOne(RankingEnvironment):
    """Four items of the same attraction a; the popular ones always stand above the others."""

    def __init__(self, attraction, **options):
        self._a = attraction
        super().__init__(
            observation_spec({"global": [1], "per_arm": [4, 4]}), 4, 3, 64, PositionBased(eta=1.0), **options
        )

    def _draw(self):
        items = tf.broadcast_to(tf.range(4), [64, 4])
        observation = {"global": tf.ones([64, 1]), "per_arm": tf.one_hot(items, 4)}
        attraction = tf.fill([64, 4], self._a)
        popularity = tf.cast(4 - items, tf.float32)
        return RankingBatch(observation, items[:, 0], items, attraction, attraction, {"popularity": popularity})


def test_what_always_stands_low_is_learnt_too_low_unless_clicks_are_weighed_by_their_rarity():
    """Attraction 0.5, looked at with 1, 1/2 and 1/3. Naive: 0.5, 0.25, 0.167. Inverse propensity: 0.5 in every slot."""
    environment = OneByOne(0.5)
    one = {"learning_rate": 0.01, "layers": (8,), "severity": 1.0}
    agents = {"naive": Ranking(**one), "inverse": Ranking(position_bias="inverse_propensity", **one)}
    expected = {"naive": [1 / 2, 1 / 4, 1 / 6], "inverse": [1 / 2, 1 / 2, 1 / 2]}
    popular = make_agent(PopularityRanking(), environment).policy
    scores = {name: [] for name in agents}
    for _, trained in train_off_policy(environment, popular, agents, steps=400, seeds=[0, 1]):
        for name, agent in trained.items():
            scores[name].append(agent.policy.scores(environment.batch().observation, [0, 0]).numpy()[0, :3])
    for name, values in scores.items():
        np.testing.assert_allclose(np.mean(values, axis=0), expected[name], atol=0.08, err_msg=name)


def test_trainings_beside_a_policy_are_those_of_their_seed_alone():
    environment = make_environment()
    policy, agents = make_agent(RandomRanking(), environment).policy, {"ranking": Ranking(layers=(4,))}

    def weights(seeds):
        return [
            [variable.numpy() for variable in trained["ranking"].variables]
            for _, trained in train_off_policy(environment, policy, agents, 5, seeds)
        ]

    assert_values(weights([1, 2, 3])[2], weights([3])[0])


def test_weights_that_are_not_finite_are_refused_by_label_and_seed():
    """A learning rate of 1e38 turns them infinite at the first step."""
    environment = make_environment()
    agents = {"small": Ranking(layers=(4,)), "large": Ranking(layers=(4,), learning_rate=1e38)}
    policy = make_agent(RandomRanking(), environment).policy
    with pytest.raises(FloatingPointError, match=r"^large, seed 3: weights must stay finite, .* not after step 5"):
        next(train_off_policy(environment, policy, agents, 5, [3]))


def test_invalid_arguments_are_refused():
    environment = make_environment()
    with pytest.raises(ValueError, match="slates must be a whole number of at least 1, got 0"):
        serve_slates(environment, make_drawing_policy(environment), 0, seed=0)
    with pytest.raises(ValueError, match="environment must be a RankingEnvironment, got "):
        serve_slates("movielens", None, 1, seed=0)
    message = r"seed must be a whole number from 0 to 2\*\*63 - 1, got "
    with pytest.raises(ValueError, match=message + "0.5"):
        serve_slates(environment, make_drawing_policy(environment), 1, seed=0.5)
    message = r"^seeds must be whole numbers from 0 to 2\*\*63 - 1, .* all different, got "
    for seeds in ([0, 2**63], [0, 0], [], 0.5, 3):
        with pytest.raises(ValueError, match=message):
            next(train_off_policy(environment, make_drawing_policy(environment), {}, 1, seeds))
    with pytest.raises(ValueError, match="steps must be a whole number of at least 1, got 0"):
        next(train_off_policy(environment, make_drawing_policy(environment), {}, 0, [0]))
