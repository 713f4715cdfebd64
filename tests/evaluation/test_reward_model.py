"""The cross-fitted reward model: what it has seen, what it predicts, and what it does for an estimate."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsRegressor

from benchmarks.synthetic_log import draw_logs, make_world
from recbandits.evaluation.off_policy import estimates
from recbandits.evaluation.reward_model import cross_fit
from recbandits.records.bandit_log import BanditLog

WORLD = make_world()
KINDS, ARMS = WORLD.expected.shape


def make_log(n=3000, users=300, seed=0, **changes):
    """Log of the synthetic world as a `BanditLog`; user ids say nothing about kinds. Returns it with the kinds."""
    drawn = {name: column[0] for name, column in draw_logs(WORLD, "0 or 1", n, seed=seed).items()}
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
    return BanditLog(**columns | changes), drawn["kind"]


def one_hot(kind):
    """Features [n, ARMS, KINDS * ARMS] in which every pair of kind and arm has a column of its own."""
    return np.eye(KINDS * ARMS)[kind[:, None] * ARMS + np.arange(ARMS)]


def test_the_model_finds_the_mean_reward_of_every_kind_and_arm():
    """48 columns of some 100 or more rewards each."""
    log, kind = make_log(20_000)
    q = cross_fit(log, one_hot(kind))
    assert np.abs(q - WORLD.expected[kind]).mean() < 0.03
    np.testing.assert_allclose(q, WORLD.expected[kind], atol=0.2)


def test_the_model_has_not_seen_the_user():
    """Rewards are the user's own number: the nearest neighbour would know it exactly, and never meets it."""
    log, _ = make_log(1000, users=100)
    log = BanditLog(**vars(log) | {"reward": log.user_id.astype(float)})
    features = np.broadcast_to(log.user_id[:, None, None].astype(float), (1000, ARMS, 1))
    nearest = KNeighborsRegressor(n_neighbors=1)
    assert (nearest.fit(features[:, 0], log.reward).predict(features[:, 0]) == log.reward).all()

    class Weightless(KNeighborsRegressor):
        def fit(self, X, y, sample_weight=None):
            return super().fit(X, y)

    q = cross_fit(log, features, model=Weightless(n_neighbors=1))
    assert (q != log.reward[:, None]).all()
    assert np.abs(q - log.reward[:, None]).mean() < 5


def test_a_record_of_pass_prob_a_half_is_learnt_from_like_two():
    log, kind = make_log(2000)
    kept = np.where(log.reward > 0, 0.5, 1.0)
    rows = np.repeat(np.arange(2000), np.where(log.reward > 0, 2, 1))
    columns = {name: values[rows] for name, values in vars(log).items()} | {
        "event_id": np.arange(len(rows)).astype(str)
    }
    q = cross_fit(BanditLog(**vars(log) | {"pass_prob": kept}), one_hot(kind))
    np.testing.assert_allclose(q[rows], cross_fit(BanditLog(**columns), one_hot(kind)[rows]), rtol=1e-9)
    assert q.mean() > cross_fit(log, one_hot(kind)).mean() + 0.1


def test_arrays_functions_and_bundles_of_features_are_the_same():
    """A dict as of `FeatureBundle.observation` stands for its two parts side by side; 9,000 records are two pieces."""
    log, _ = make_log(9000)
    of_user, of_arm, seen = np.random.default_rng(0).normal(size=(300, 5)), np.eye(ARMS + 1), []

    def observation(user_ids, candidates, mask):
        assert candidates.shape == mask.shape == (len(user_ids), ARMS)
        seen.append(len(user_ids))
        return {"global": of_user[user_ids], "per_arm": of_arm[candidates]}

    def side_by_side(user_ids, candidates, mask):
        repeated = np.repeat(of_user[user_ids][:, None], ARMS, axis=1)
        return np.concatenate([repeated, of_arm[candidates]], axis=2)

    expected = cross_fit(log, side_by_side(log.user_id, log.candidates, log.mask))
    np.testing.assert_allclose(cross_fit(log, observation), expected)
    np.testing.assert_allclose(cross_fit(log, side_by_side), expected)
    assert max(seen) < 9000
    assert np.ptp(expected, axis=1).min() > 0.01


def test_padding_has_no_prediction():
    log, kind = make_log(500)
    mask = np.ones((500, ARMS), bool)
    mask[log.action < ARMS - 1, -1] = False
    padded = BanditLog(**vars(log) | {"mask": mask, "candidates": np.where(mask, log.candidates, 0)})
    features = np.where(mask[:, :, None], one_hot(kind), np.nan)
    assert (np.isnan(cross_fit(padded, features)) == ~mask).all()


def test_the_same_seed_gives_the_same_predictions_and_another_other_folds():
    log, kind = make_log(1000)
    q = cross_fit(log, one_hot(kind), seed=3)
    np.testing.assert_array_equal(q, cross_fit(log, one_hot(kind), seed=3))
    assert (q != cross_fit(log, one_hot(kind), seed=4)).any()


def test_the_model_makes_dr_more_certain_than_ips():
    log, kind = make_log(4000)
    q = cross_fit(log, one_hot(kind))
    found = estimates(log, WORLD.target[kind], q)
    assert np.ptp(found["DR"].interval()) < 0.85 * np.ptp(found["IPS"].interval())
    low, high = found["DR"].interval()
    assert low < WORLD.truth < high


def test_folds_and_features_that_do_not_fit_are_refused():
    log, kind = make_log(100, users=3)
    for folds in (1, 4):
        with pytest.raises(ValueError, match=f"folds must be from 2 to the number of users in the log, 3, got {folds}"):
            cross_fit(log, one_hot(kind), folds=folds)
    with pytest.raises(ValueError, match=r"features must have the shape \[100, 8, 'D'\], got \[100, 7, 48\]"):
        cross_fit(log, one_hot(kind)[:, :7], folds=2)
