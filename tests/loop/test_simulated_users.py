import dataclasses
import json
from datetime import UTC, datetime, timedelta
from math import comb
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from recbandits.data import synthetic
from recbandits.data.features import Features
from recbandits.environments.factorization import als
from recbandits.exploration import Exploration
from recbandits.loop.ingest import titles_of
from recbandits.loop.settings import Settings
from recbandits.loop.simulated_users import STARS, SimulatedUsers
from tests.commands import run_python

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def data():
    return synthetic.generate()


@pytest.fixture(scope="module")
def visits(users):
    return users.visits(2000, np.random.default_rng(1))


def test_the_truth_is_the_factorisation_of_the_most_rated_movies(data, users, visits):
    """Factors are turned to their principal axes, which changes no rating."""
    count = data.ratings["movie_id"].value_counts()
    movies = users.item_ids.astype(int)
    assert count.loc[movies].min() >= count.drop(movies).max()
    model = als(data.ratings[data.ratings["movie_id"].isin(movies)], 4, 0.06)
    user_ids, item_ids = (ids.astype(int) for ids in (users.user_ids[visits[0]], users.candidate_ids(visits[1])))
    predicted = model.predict(np.repeat(user_ids, 10), item_ids.ravel()).reshape(-1, 10)
    np.testing.assert_allclose(users.expected(*visits), predicted.clip(1, 5), atol=1e-9)
    sizes = np.linalg.norm(users.model.user_factors, axis=0) * np.linalg.norm(users.model.movie_factors, axis=0)
    assert (np.diff(sizes) < 0).all()


@pytest.mark.parametrize("mean", [1.0, 2.75, 5.0])
def test_stars_have_exactly_the_expected_mean(users, mean):
    """1 + Binomial(4, q) with q = (mean - 1) / 4: sum over s of (1 + s) C(4, s) q^s (1-q)^(4-s) = 1 + 4 q = mean."""
    q = (mean - 1) / 4
    shares = np.array([comb(4, s) * q**s * (1 - q) ** (4 - s) for s in range(5)])
    assert shares @ np.arange(1, 6) == pytest.approx(mean)
    stars = users.rate(np.full(100_000, mean), np.random.default_rng(0))
    assert set(stars) <= {1.0, 2.0, 3.0, 4.0, 5.0}
    frequency = np.bincount(stars.astype(int), minlength=6)[1:] / len(stars)
    np.testing.assert_allclose(frequency, shares, atol=0.007)  # above four standard errors, sqrt(0.25 / 100,000)


@pytest.mark.parametrize("drift", [0.3, 1.0])
def test_a_linear_model_of_the_products_represents_the_preferences_at_any_drift(users, visits, drift):
    """Least squares of the true means on the features leaves nothing, except where they were clipped."""
    rows, items = visits
    features = users.features
    encoded = features.context_encoder.encode(users.contexts(rows))
    context = np.repeat(features.context(encoded), items.shape[1], axis=0)
    arms = features.per_arm(encoded, features.items[items]).reshape(len(context), -1)
    x = np.concatenate([context, arms], axis=1).astype(float)
    y = users.expected(rows, items, drift).ravel()
    inside = (y > 1) & (y < 5)
    theta = np.linalg.lstsq(x[inside], y[inside])[0]
    np.testing.assert_allclose(x[inside] @ theta, y[inside], atol=1e-5)


def test_drift_turns_the_first_half_of_the_factors(users, visits):
    """Their weight is cos(pi drift): 0 at 0.5, -1 at 1; the mean of the ratings at 0 and 1 is that at 0.5."""
    before, half, after = (users.expected(*visits, drift) for drift in (0.0, 0.5, 1.0))
    inside = (np.minimum(before, after) > 1) & (np.maximum(before, after) < 5)
    np.testing.assert_allclose(((before + after) / 2)[inside], half[inside])
    assert (before.argmax(axis=1) != after.argmax(axis=1)).mean() > 0.3


def test_visits_have_uniform_users_and_different_movies_in_random_order(users):
    rows, items = users.visits(30_000, np.random.default_rng(0), candidates=10)
    assert (np.diff(np.sort(items, axis=1), axis=1) > 0).all()
    first, counts = np.unique(items[:, 0], return_counts=True)
    assert list(first) == list(range(len(users.item_ids)))
    assert np.abs(counts - 1000).max() < 5 * np.sqrt(1000)
    assert set(rows) == set(range(len(users.user_ids)))


def test_requests_are_json_with_text_ids_and_the_context_of_the_user(users):
    rows, items = users.visits(3, np.random.default_rng(0), candidates=5)
    requests = users.requests(rows, items)
    assert json.loads(json.dumps(requests)) == requests
    assert [request["user_id"] for request in requests] == list(users.user_ids[rows])
    assert [request["candidates"] for request in requests] == users.candidate_ids(items).tolist()
    contexts = pd.DataFrame([request["context"] for request in requests])
    pd.testing.assert_frame_equal(contexts, users.contexts(rows), check_exact=True)


def test_records_of_decisions_have_their_requests_and_actions(users):
    """Two decisions, whose actions are the third and the first of their candidates."""
    visits = users.visits(2, np.random.default_rng(0), candidates=5)
    records = users.interactions(visits, ["a", "b"], [NOON] * 2, ["v", "w"], np.array([2, 0]), np.array([0.5, 0.25]))
    for record, request, column in zip(records, users.requests(*visits), (2, 0), strict=True):
        assert (record.user_id, json.loads(record.context)) == (request["user_id"], request["context"])
        assert list(record.candidates) == request["candidates"]
        assert record.action == request["candidates"][column]
    assert [(each.event_id, each.policy_version, each.propensity) for each in records] == [
        ("a", "v", 0.5),
        ("b", "w", 0.25),
    ]


def test_reports_are_delayed_repeated_or_missing_with_the_given_rates(users):
    """20,000 decisions: 10 % silent; 5 % of the others are reported on again, by at most one star differently."""
    n, rng = 20_000, np.random.default_rng(0)
    ids, times = [f"e{row}" for row in range(n)], [NOON + timedelta(seconds=row) for row in range(n)]
    values = rng.integers(1, 6, n).astype(float)
    rewards = dataclasses.replace(users, delay=3.0).reports(ids, times, values, rng)
    assert [reward.time for reward in rewards] == sorted(reward.time for reward in rewards)
    first, second = {}, {}
    for reward in rewards:
        (second if reward.event_id in first else first)[reward.event_id] = reward
    assert len(rewards) == len(first) + len(second)
    assert len(first) / n == pytest.approx(0.9, abs=0.01)
    assert len(second) / len(first) == pytest.approx(0.05, abs=0.007)
    row = {name: number for number, name in enumerate(ids)}
    assert all(reward.value == values[row[name]] for name, reward in first.items())
    waits = [(reward.time - times[row[name]]).total_seconds() for name, reward in first.items()]
    assert min(waits) > 0
    assert np.mean(waits) == pytest.approx(3.0, abs=0.1)  # above four standard errors, 3 / sqrt(18,000)
    change = np.array([reward.value - first[name].value for name, reward in second.items()])
    assert set(change) == {-1.0, 0.0, 1.0}
    order = [row[reward.event_id] for reward in rewards]
    assert order != sorted(order)


def test_values_of_policies_are_true_means_between_chance_and_oracle(users, visits):
    """The greedy policy of the true scores is the oracle; equal scores are the uniform policy."""

    def policy(scores, *exploration):
        return SimpleNamespace(scores=lambda context, candidates: scores, exploration=Exploration(*exploration))

    truth = users.expected(*visits)
    best = users.value(policy(truth), visits)
    np.testing.assert_array_equal(best, users.oracle_value(visits))
    uniform = users.value(policy(np.zeros(truth.shape), "softmax", 0.25), visits)
    np.testing.assert_allclose(uniform, users.uniform_value(visits))
    soft = users.value(policy(truth, "softmax", 0.25), visits)
    assert (users.uniform_value(visits) < soft).all()
    assert (soft <= best).all()


def test_saved_users_are_the_same_byte_by_byte(users, visits, tmp_path):
    for name in ("one", "two"):
        dataclasses.replace(users, never=0.2).save(tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["features.npz", "titles.json", "users.npz"]
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert titles_of(tmp_path / "one") == dict(zip(users.item_ids, users.titles, strict=True))
    features = Features.load(tmp_path / "one")
    np.testing.assert_array_equal(features.items, users.features.items)
    assert features.spec(3) == users.features.spec(3)
    loaded = SimulatedUsers.load(tmp_path / "one")
    assert (loaded.titles, loaded.never, loaded.delay) == (users.titles, 0.2, 1.0)
    np.testing.assert_array_equal(loaded.expected(*visits, 0.3), users.expected(*visits, 0.3))
    with pytest.raises(FileNotFoundError, match=r"there are no simulated users in .*three"):
        SimulatedUsers.load(tmp_path / "three")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"never": 1.0}, r"never must be in \[0, 1\), got 1.0"),
        ({"twice": -0.1}, r"twice must be in \[0, 1\], got -0.1"),
        ({"delay": 0.0}, "delay must be positive and finite, got 0.0"),
        ({"delay": float("nan")}, "delay must be positive and finite, got nan"),
        ({"titles": ("one",)}, "titles must be one for each of the 30 movies, got 1"),
    ],
)
def test_an_invalid_setting_is_refused(users, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        dataclasses.replace(users, **settings)


def test_unknown_ids_are_refused_by_name(data, users):
    assert users.find_items(users.candidate_ids([[3, 2]])).tolist() == [[3, 2]]
    with pytest.raises(KeyError, match="unknown item ids: 5000000"):
        users.find_items([["5000000"]])
    with pytest.raises(ValueError, match=r"drift must be in \[0, 1\], got 1.5"):
        users.expected(np.zeros(1, int), np.zeros((1, 3), int), 1.5)
    with pytest.raises(ValueError, match=r"candidates must be in \[1, 30\], got 31"):
        users.visits(1, np.random.default_rng(0), 31)
    with pytest.raises(ValueError, match="movies must be from the rank, 4, to the number of rated movies"):
        SimulatedUsers.of(Settings(STARS, movies=3, rank=4, candidates=2), data)


def test_simulating_users_needs_no_tensorflow():
    modules = "simulated_users, simulate, ingest, models"
    code = f"import sys; from recbandits.loop import {modules}; print('tensorflow' in sys.modules)"
    assert run_python(code) == "False\n"
