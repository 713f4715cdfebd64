"""The model of what a slate earns from a slot on: against worlds that it can learn, and against seeing the answers."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from recbandits.evaluation.reward_model import user_folds
from recbandits.evaluation.slate_reward_model import slate_reward_model
from recbandits.evaluation.slates import slate_estimates
from recbandits.records.slate_log import SlateLog

N, ITEMS, SLOTS, USERS = 600, 5, 3, 40


@pytest.fixture
def problem():
    """Uniform slates, features of items that differ by user, a target that prefers the first candidates."""
    generator = np.random.default_rng(0)
    user = generator.integers(USERS, size=N)
    features = generator.normal(size=(USERS, ITEMS, 2))[user]
    slate = generator.permuted(np.tile(np.arange(ITEMS), (N, 1)), axis=1)[:, :SLOTS]
    free = np.ones((N, SLOTS, ITEMS))
    for slot in range(1, SLOTS):
        free[:, slot] = free[:, slot - 1]
        free[np.arange(N), slot, slate[:, slot - 1]] = 0
    conditional = free * np.arange(ITEMS, 0, -1.0)
    return features, slate, user, conditional / conditional.sum(axis=2, keepdims=True)


def log_of(slate, user, reward):
    left = np.arange(ITEMS, ITEMS - SLOTS, -1)
    return SlateLog(
        event_id=[f"{row}" for row in range(N)],
        user_id=user,
        candidates=np.tile(np.arange(ITEMS), (N, 1)),
        slate=slate,
        reward=reward,
        propensity=np.tile(1 / left, (N, 1)),
    )


def of_shown(features, slate):
    return np.take_along_axis(features, slate[:, :, None], axis=1)


def test_rewards_that_are_linear_in_the_items_down_to_a_slot_are_found_exactly_in_the_last_slot(problem):
    """r_3 = 1 + x_3 (2, -1) + (x_1 + x_2) (0.5, 1): with almost no penalty the prediction is that for every item."""
    features, slate, user, conditional = problem
    shown = of_shown(features, slate)
    above = shown[:, :2].sum(axis=1) @ [0.5, 1.0]
    reward = np.zeros((N, SLOTS))
    reward[:, 2] = 1 + shown[:, 2] @ [2.0, -1.0] + above
    q = slate_reward_model(log_of(slate, user, reward), features, conditional, alpha=1e-9)
    np.testing.assert_allclose(q[:, 2], 1 + features @ [2.0, -1.0] + above[:, None], atol=1e-6)


def test_the_slots_below_are_filled_by_the_evaluated_policy(problem):
    """Rewards 1 in slots 1, 2 and 3 whatever is shown: 3, 2 and 1 are still to come, whoever decides."""
    features, slate, user, conditional = problem
    q = slate_reward_model(log_of(slate, user, np.ones((N, SLOTS))), features, conditional)
    np.testing.assert_allclose(q, np.broadcast_to(np.array([3.0, 2.0, 1.0])[:, None], q.shape), atol=1e-9)


def test_predictions_are_those_of_a_ridge_regression_on_the_next_prediction(problem):
    """An oracle that fits slot by slot on the users outside a fold, with scikit-learn on written-out inputs."""
    features, slate, user, conditional = problem
    log = log_of(slate, user, np.random.default_rng(1).normal(size=(N, SLOTS)))
    found, fold = slate_reward_model(log, features, conditional, folds=3, seed=5), user_folds(user, 3, 5)
    shown = of_shown(features, slate)
    for left_out in range(3):
        seen = fold != left_out
        value = np.zeros(N)
        for slot in (2, 1, 0):
            others = np.hstack([shown[:, :slot].sum(axis=1), features.mean(axis=1)])
            model = Ridge().fit(np.hstack([shown[:, slot], others])[seen], (log.reward[:, slot] + value)[seen])
            q = np.column_stack([model.predict(np.hstack([features[:, item], others])) for item in range(ITEMS)])
            np.testing.assert_allclose(found[~seen, slot], q[~seen], rtol=1e-9, atol=1e-12)
            value = (conditional[:, slot] * q).sum(axis=1)


def test_a_user_s_own_rewards_do_not_touch_the_predictions_for_that_user(problem):
    features, slate, user, conditional = problem
    reward = np.random.default_rng(1).normal(size=(N, SLOTS))
    before = slate_reward_model(log_of(slate, user, reward), features, conditional)
    reward[user == 7] += 100
    after = slate_reward_model(log_of(slate, user, reward), features, conditional)
    np.testing.assert_array_equal(before[user == 7], after[user == 7])
    assert (np.abs(before[user != 7] - after[user != 7]) > 0.01).any()


def test_slates_of_users_without_an_id_can_be_left_out_one_by_one(problem):
    """One id for everybody leaves nothing to learn from; numbered, each slate is predicted without its own rewards."""
    features, slate, _, conditional = problem
    reward = np.random.default_rng(1).normal(size=(N, SLOTS))
    nobody, numbers = np.zeros(N, int), np.arange(N)
    with pytest.raises(ValueError, match="folds must be from 2 to the number of users in the log, 1, got 5"):
        slate_reward_model(log_of(slate, nobody, reward), features, conditional)
    before = slate_reward_model(log_of(slate, nobody, reward), features, conditional, users=numbers)
    np.testing.assert_array_equal(before, slate_reward_model(log_of(slate, numbers, reward), features, conditional))
    reward[7] += 100
    after = slate_reward_model(log_of(slate, nobody, reward), features, conditional, users=numbers)
    np.testing.assert_array_equal(before[7], after[7])


def test_a_model_that_knows_something_makes_cascade_dr_less_uncertain_than_rips(problem):
    features, slate, user, conditional = problem
    shown = of_shown(features, slate)
    reward = 1 + shown @ [1.0, -1.0] + np.random.default_rng(1).normal(0, 0.3, (N, SLOTS))
    log = log_of(slate, user, reward)
    target = np.take_along_axis(conditional, slate[:, :, None], axis=2)[:, :, 0]
    q = slate_reward_model(log, features, conditional)
    found = slate_estimates(log, target, q=q, target_conditional=conditional)
    assert found["cascade-DR"].influence.std() < 0.6 * found["RIPS"].influence.std()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"features": np.ones((N, ITEMS))}, r"features must have the shape \[600, 5, 'D'\], got \[600, 5\]"),
        ({"folds": 1}, "folds must be from 2 to the number of users in the log, 40, got 1"),
        ({"folds": 41}, "folds must be from 2 to the number of users in the log, 40, got 41"),
        ({"target_conditional": np.ones((N, ITEMS))}, r"target_conditional must have the shape \[600, 3, 5\]"),
    ],
)
def test_what_does_not_fit_is_refused(problem, change, sentence):
    features, slate, user, conditional = problem
    log = log_of(slate, user, np.ones((N, SLOTS)))
    with pytest.raises(ValueError, match=sentence):
        slate_reward_model(log, **{"features": features, "target_conditional": conditional} | change)
