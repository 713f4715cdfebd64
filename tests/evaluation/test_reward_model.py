"""Cross-fitted reward models: their predictions, their folds of users, and the errors of estimates with them."""

import tracemalloc
from dataclasses import fields

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor

from benchmarks.synthetic_log import draw_logs, make_environment
from recbandits.data import Features
from recbandits.evaluation import cross_fit, cross_fit_slates, estimates, slate_estimates
from recbandits.evaluation.reward_model import assign_folds
from recbandits.records import Log
from recbandits.records.slate_log import SlateLog

ENVIRONMENT = make_environment()
KINDS, ARMS = ENVIRONMENT.expected.shape


def make_log(n=3000, users=300, seed=0, **changes):
    """Draw a log of the synthetic environment; return it with the kinds of its users, which no user id tells."""
    drawn = {name: column[0] for name, column in draw_logs(ENVIRONMENT, "0 or 1", n, seed=seed).items()}
    columns = {
        "event_id": np.arange(n).astype(str),
        "time": np.full(n, np.datetime64("2026-01-01", "us")),
        "user_id": np.random.default_rng(seed).integers(users, size=n),
        "candidates": np.tile(np.arange(1, ARMS + 1), (n, 1)),
        "mask": np.ones((n, ARMS), bool),
        "action": drawn["action"],
        "propensity": drawn["propensity"],
        "reward": drawn["reward"],
        "pass_prob": np.ones(n),
    }
    return Log(**columns | changes), drawn["kind"]


def one_hot(kind):
    """Features [n, ARMS, KINDS * ARMS] in which every pair of kind and arm has a column of its own."""
    return np.eye(KINDS * ARMS)[kind[:, None] * ARMS + np.arange(ARMS)]


def test_the_model_predicts_the_mean_reward_of_every_kind_and_arm():
    """48 columns of 100 rewards or more each."""
    log, kind = make_log(20_000)
    q = cross_fit(log, one_hot(kind))
    assert np.abs(q - ENVIRONMENT.expected[kind]).mean() < 0.03
    np.testing.assert_allclose(q, ENVIRONMENT.expected[kind], atol=0.2)


def test_the_model_is_fitted_without_the_user():
    """The reward is the number of the user: a nearest neighbour predicts it exactly from other rewards of the user."""
    log, _ = make_log(1000, users=100)
    log = Log(**vars(log) | {"reward": log.user_id.astype(float)})
    features = np.broadcast_to(log.user_id[:, None, None].astype(float), (1000, ARMS, 1))
    nearest = KNeighborsRegressor(n_neighbors=1)
    assert (nearest.fit(features[:, 0], log.reward).predict(features[:, 0]) == log.reward).all()

    class Weightless(KNeighborsRegressor):
        def fit(self, X, y, sample_weight=None):
            return super().fit(X, y)

    q = cross_fit(log, features, model=Weightless(n_neighbors=1))
    assert (q != log.reward[:, None]).all()
    assert np.abs(q - log.reward[:, None]).mean() < 5


def test_a_record_of_pass_prob_a_half_counts_twice():
    log, kind = make_log(2000)
    pass_prob = np.where(log.reward > 0, 0.5, 1.0)
    rows = np.repeat(np.arange(2000), np.where(log.reward > 0, 2, 1))
    columns = {name: vars(log)[name][rows] for name in Log.columns} | {"event_id": np.arange(len(rows)).astype(str)}
    q = cross_fit(Log(**vars(log) | {"pass_prob": pass_prob}), one_hot(kind))
    np.testing.assert_allclose(q[rows], cross_fit(Log(**columns), one_hot(kind)[rows]), rtol=1e-9)
    assert q.mean() > cross_fit(log, one_hot(kind)).mean() + 0.1


@pytest.fixture(scope="module")
def log_features_array():
    """A log among 80 items with features of 459 numbers for every candidate, and those features as an array."""
    n, width, generator = 1000, 459, np.random.default_rng(0)
    items = pd.DataFrame(generator.normal(size=(80, width)), columns=[f"taste_{number}" for number in range(width)])
    drawn, _ = make_log(n)
    context = items.sample(n, replace=True, random_state=0).reset_index(drop=True)
    columns = vars(drawn) | {
        "candidates": generator.permuted(np.tile(np.arange(80), (n, 1)), axis=1),
        "mask": np.ones((n, 80), bool),
        "item_ids": pd.Index(items.index.astype(str), dtype=object),
        "user_ids": pd.Index(np.arange(300).astype(str), dtype=object),
    }
    log = Log(**columns | {"context": context.iloc[:, :0]})
    features = Features.fit(items, log, vectors=["taste"])
    array = features.items[log.candidates]
    return log, features, np.concatenate([np.ones((n, 80, 1), np.float32), array], axis=2)


def test_features_and_an_array_of_them_give_the_same_predictions(log_features_array):
    log, features, array = log_features_array
    model = Ridge(solver="cholesky")
    expected = cross_fit(log, array, model=model)
    np.testing.assert_allclose(cross_fit(log, features, model=model), expected, rtol=1e-6, atol=1e-6)


def test_only_what_is_needed_is_described_in_parts_of_64_mib(log_features_array):
    """All candidates at once would take 147 MB, those of a fold 29 MB, the chosen ones 1.8 MB."""
    log, features, _ = log_features_array
    parts = []

    class CountingFeatures(Features):
        def observe(self, log, cells):
            for part in super().observe(log, cells):
                parts.append(sum(each.nbytes for each in part))
                yield part

    counting_features = CountingFeatures(**{field.name: getattr(features, field.name) for field in fields(features)})
    tracemalloc.start()
    cross_fit(log, counting_features, model=Ridge(solver="cholesky"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert max(parts) <= 2**26
    assert sum(parts) == 4 * 460 * (1000 + 80 * 1000)
    assert peak < 2**28


def test_padding_has_no_prediction():
    log, kind = make_log(500)
    mask = np.ones((500, ARMS), bool)
    mask[log.action < ARMS - 1, -1] = False
    padded = Log(**vars(log) | {"mask": mask, "candidates": np.where(mask, log.candidates, 0)})
    features = np.where(mask[:, :, None], one_hot(kind), np.nan)
    assert (np.isnan(cross_fit(padded, features)) == ~mask).all()


def test_the_seed_decides_the_folds():
    log, kind = make_log(1000)
    first, again, other = (cross_fit(log, one_hot(kind), seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_the_model_makes_the_interval_of_dr_shorter_than_that_of_ips():
    log, kind = make_log(4000)
    q = cross_fit(log, one_hot(kind))
    results = estimates(log, ENVIRONMENT.target[kind], q)
    assert np.ptp(results["DR"].interval()) < 0.85 * np.ptp(results["IPS"].interval())
    low, high = results["DR"].interval()
    assert low < ENVIRONMENT.truth < high


def test_invalid_folds_and_features_are_refused():
    log, kind = make_log(100, users=3)
    for folds in (1, 4):
        with pytest.raises(ValueError, match=f"folds must be from 2 to the number of users in the log, 3, got {folds}"):
            cross_fit(log, one_hot(kind), folds=folds)
    with pytest.raises(ValueError, match=r"shape of features must be \[100, 8, D\], got \[100, 7, 48\]"):
        cross_fit(log, one_hot(kind)[:, :7], folds=2)


# slates

N, ITEMS, SLOTS, USERS = 600, 5, 3, 40


@pytest.fixture
def problem():
    """Uniform slates, features of items that differ by user, a target that prefers the first candidates."""
    generator = np.random.default_rng(0)
    user = generator.integers(USERS, size=N)
    features = generator.normal(size=(USERS, ITEMS, 2))[user]
    slate = generator.permuted(np.tile(np.arange(ITEMS), (N, 1)), axis=1)[:, :SLOTS]
    availability = np.ones((N, SLOTS, ITEMS))
    for slot in range(1, SLOTS):
        availability[:, slot] = availability[:, slot - 1]
        availability[np.arange(N), slot, slate[:, slot - 1]] = 0
    conditional = availability * np.arange(ITEMS, 0, -1.0)
    return features, slate, user, conditional / conditional.sum(axis=2, keepdims=True)


def log_of(slate, user, reward):
    choices = np.arange(ITEMS, ITEMS - SLOTS, -1)
    return SlateLog(
        event_id=[f"{row}" for row in range(N)],
        user_id=user,
        candidates=np.tile(np.arange(ITEMS), (N, 1)),
        slate=slate,
        reward=reward,
        propensity=np.tile(1 / choices, (N, 1)),
    )


def item_features(features, slate):
    return np.take_along_axis(features, slate[:, :, None], axis=1)


def test_predictions_are_those_of_a_ridge_regression_on_the_next_prediction(problem):
    """An independent loop over slots and folds, with scikit-learn on written-out inputs."""
    features, slate, user, conditional = problem
    log = log_of(slate, user, np.random.default_rng(1).normal(size=(N, SLOTS)))
    predicted, fold = cross_fit_slates(log, features, conditional, folds=3, seed=5), assign_folds(user, 3, 5)
    chosen = item_features(features, slate)
    for held_out in range(3):
        train = fold != held_out
        value = np.zeros(N)
        for slot in (2, 1, 0):
            others = np.hstack([chosen[:, :slot].sum(axis=1), features.mean(axis=1)])
            model = Ridge().fit(np.hstack([chosen[:, slot], others])[train], (log.reward[:, slot] + value)[train])
            q = np.column_stack([model.predict(np.hstack([features[:, item], others])) for item in range(ITEMS)])
            np.testing.assert_allclose(predicted[~train, slot], q[~train], rtol=1e-9, atol=1e-12)
            value = (conditional[:, slot] * q).sum(axis=1)


def test_rewards_of_a_user_do_not_change_the_predictions_for_that_user(problem):
    features, slate, user, conditional = problem
    reward = np.random.default_rng(1).normal(size=(N, SLOTS))
    before = cross_fit_slates(log_of(slate, user, reward), features, conditional)
    reward[user == 7] += 100
    after = cross_fit_slates(log_of(slate, user, reward), features, conditional)
    np.testing.assert_array_equal(before[user == 7], after[user == 7])
    assert (np.abs(before[user != 7] - after[user != 7]) > 0.01).any()


def test_slates_without_user_ids_can_be_numbered(problem):
    """One id for all leaves no fold to fit; numbered, each slate is predicted without its own rewards."""
    features, slate, _, conditional = problem
    reward = np.random.default_rng(1).normal(size=(N, SLOTS))
    one_id, numbers = np.zeros(N, int), np.arange(N)
    with pytest.raises(ValueError, match="folds must be from 2 to the number of users in the log, 1, got 5"):
        cross_fit_slates(log_of(slate, one_id, reward), features, conditional)
    before = cross_fit_slates(log_of(slate, one_id, reward), features, conditional, users=numbers)
    np.testing.assert_array_equal(before, cross_fit_slates(log_of(slate, numbers, reward), features, conditional))
    reward[7] += 100
    after = cross_fit_slates(log_of(slate, one_id, reward), features, conditional, users=numbers)
    np.testing.assert_array_equal(before[7], after[7])


def test_the_model_makes_the_error_of_cascade_dr_smaller_than_that_of_rips(problem):
    features, slate, user, conditional = problem
    chosen = item_features(features, slate)
    reward = 1 + chosen @ [1.0, -1.0] + np.random.default_rng(1).normal(0, 0.3, (N, SLOTS))
    log = log_of(slate, user, reward)
    target = np.take_along_axis(conditional, slate[:, :, None], axis=2)[:, :, 0]
    q = cross_fit_slates(log, features, conditional)
    results = slate_estimates(log, target, q=q, target_conditional=conditional)
    assert results["cascade-DR"].influence.std() < 0.6 * results["RIPS"].influence.std()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"features": np.ones((N, ITEMS))}, r"shape of features must be \[600, 5, D\], got \[600, 5\]"),
        ({"folds": 1}, "folds must be from 2 to the number of users in the log, 40, got 1"),
        ({"folds": 41}, "folds must be from 2 to the number of users in the log, 40, got 41"),
        ({"target_conditional": np.ones((N, ITEMS))}, r"shape of target_conditional must be \[600, 3, 5\]"),
    ],
)
def test_invalid_slate_inputs_are_refused(problem, change, sentence):
    features, slate, user, conditional = problem
    log = log_of(slate, user, np.ones((N, SLOTS)))
    with pytest.raises(ValueError, match=sentence):
        cross_fit_slates(log, **{"features": features, "target_conditional": conditional} | change)
