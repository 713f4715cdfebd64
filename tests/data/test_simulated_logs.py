"""Simulated logs: known values, exact propensities, and importance weighting that estimates the known values."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from recbandits.data.simulated_logs import explore_scores, log_decisions, popularity, uniform


def make_ratings(rows):
    """Make ratings of (user, movie, rating, seconds)."""
    ratings = pd.DataFrame(rows, columns=["user_id", "movie_id", "rating", "time"])
    return ratings.assign(
        rating=ratings["rating"].astype(float), time=pd.to_datetime(ratings["time"], unit="s", utc=True)
    )


SMALL = make_ratings([(4, 7, 5, 100), (9, 7, 1, 50), (4, 3, 2, 300), (9, 5, 3, 60), (4, 5, 4, 200), (6, 3, 1, 10)])


def lowest_id(user_ids, candidates, mask):
    """Choose the movie of the lowest id with probability 3/4, else any other; a single candidate always."""
    lowest = np.where(mask, candidates, 99).min(axis=1, keepdims=True) == candidates
    others = mask.sum(axis=1, keepdims=True) - 1
    return np.where(others == 0, mask, np.where(lowest, 0.75, 0.25 * mask / np.maximum(others, 1)))


@pytest.fixture(scope="module", params=[10, (2, 20)], ids=["10", "2 to 20"])
def logged(request, movielens):
    return log_decisions(movielens.ratings, popularity(movielens.ratings, 2.0), request.param, 20_000)


def test_the_value_of_a_small_log_is_known():
    """User 4 rated movies 3, 5, 7 with 2, 4, 5 and is the only one with three: the value is .75 * 2 + .125 * 9."""
    logged = log_decisions(SMALL, lowest_id, candidates=3, decisions=8)
    assert logged.user_ids.tolist() == [4] * 8
    assert logged.value(logged.probabilities) == pytest.approx(0.75 * 2 + 0.125 * (4 + 5))
    assert logged.value(uniform(None, None, logged.log.mask)) == pytest.approx(11 / 3)
    for movies, ratings in zip(logged.movie_ids, logged.ratings, strict=True):
        assert dict(zip(movies, ratings, strict=True)) == {3: 2, 5: 4, 7: 5}
    chosen_lowest = logged.arm == 3
    np.testing.assert_allclose(logged.log.propensity, np.where(chosen_lowest, 0.75, 0.125))
    np.testing.assert_allclose(logged.log.reward, pd.Series({3: 2, 5: 4, 7: 5})[logged.arm])


def test_a_decision_has_the_time_of_the_latest_of_its_ratings():
    """User 9 rated at 50 and 60 seconds; of user 4 two of 100, 200 and 300 are drawn: the latest is 200 or 300."""
    visits = log_decisions(SMALL, uniform, candidates=2, decisions=200)
    log = visits.log
    seconds = log.time.astype("datetime64[s]").astype(int)
    assert set(seconds[visits.user_ids == 9]) == {60}
    expected = np.where((visits.movie_ids == 3).any(axis=1), 300, 200)
    np.testing.assert_array_equal(seconds[visits.user_ids == 4], expected[visits.user_ids == 4])
    assert (np.diff(log.time) >= np.timedelta64(0)).all()


def test_padding_does_not_change_the_time_of_a_decision():
    """User 4 rated movies 7, 3 and 5 at 100, 300 and 200 seconds."""
    ratings = SMALL.sort_values("time", ascending=False)
    visits = log_decisions(ratings, uniform, candidates=(1, 3), decisions=300)
    log = visits.log
    of_four = visits.user_ids == 4
    rated = pd.Series({0: 0, 7: 100, 3: 300, 5: 200})[visits.movie_ids[of_four].ravel()].to_numpy().reshape(-1, 3)
    np.testing.assert_array_equal(log.time[of_four].astype("datetime64[s]").astype(int), rated.max(axis=1))


def test_every_position_is_chosen_as_often_as_its_probability():
    """The random order of candidates would hide a draw that prefers the last ones."""
    shares = np.array([0.5, 0.3, 0.2])
    actions = log_decisions(SMALL, lambda user_ids, candidates, mask: np.where(mask, shares, 0), 3, 6000).log.action
    assert stats.chisquare(np.bincount(actions), 6000 * shares).pvalue > 0.01


def test_users_and_sets_are_drawn_evenly():
    """Of 6,000 decisions 3,000 are for user 9, and 1,000 have each pair of user 4; 3 standard errors are 116 and 87."""
    visits = log_decisions(SMALL, uniform, candidates=2, decisions=6000)
    pairs = pd.Series(["".join(map(str, sorted(movies))) for movies in visits.movie_ids])
    number = pd.MultiIndex.from_arrays([visits.user_ids, pairs]).value_counts()
    assert number[9, "57"] == pytest.approx(3000, abs=116)
    for pair in ("35", "37", "57"):
        assert number[4, pair] == pytest.approx(1000, abs=87)


def test_active_users_visit_in_proportion_to_their_ratings():
    """Of 6 ratings user 4 gave 3, user 9 two, user 6 one."""
    users = log_decisions(SMALL, uniform, candidates=1, decisions=6000, visits="active").user_ids
    assert stats.chisquare([(users == user).sum() for user in (4, 9, 6)], [3000, 2000, 1000]).pvalue > 0.01
    with pytest.raises(ValueError, match="visits must be one of equal, active, got 'often'"):
        log_decisions(SMALL, uniform, candidates=1, visits="often")


def test_every_order_of_the_candidates_is_as_likely():
    """6 orders of user 4's three movies, 1,000 each; 3 standard errors are 87."""
    visits = log_decisions(SMALL, uniform, candidates=3, decisions=6000)
    orders = pd.Series(map(tuple, visits.movie_ids)).value_counts()
    assert len(orders) == 6
    np.testing.assert_allclose(orders, 1000, atol=87)


def test_sizes_of_a_range_are_drawn_evenly_up_to_the_ratings_of_the_user():
    """User 6 has one rating and gets 1; user 9 gets 1 or 2, user 4 any of 1 to 3: 2,000 users, 3 errors below 80."""
    visits = log_decisions(SMALL, uniform, candidates=(1, 5), decisions=6000)
    log = visits.log
    assert visits.movie_ids.shape == (6000, 5)
    size = pd.MultiIndex.from_arrays([visits.user_ids, log.mask.sum(axis=1)]).value_counts()
    expected = {(6, 1): 2000, (9, 1): 1000, (9, 2): 1000, (4, 1): 667, (4, 2): 667, (4, 3): 667}
    assert set(size.index) == set(expected)
    for key, number in expected.items():
        assert size[key] == pytest.approx(number, abs=115)


def test_candidates_are_movies_that_the_user_has_rated(logged, movielens):
    """Every rating is that of the table, for this user and this movie."""
    known = movielens.ratings.set_index(["user_id", "movie_id"])["rating"]
    log = logged.log
    keys = pd.MultiIndex.from_arrays([np.repeat(logged.user_ids, log.mask.sum(axis=1)), logged.movie_ids[log.mask]])
    np.testing.assert_array_equal(known.loc[keys], logged.ratings[log.mask])
    assert np.isnan(logged.ratings[~log.mask]).all()


def test_the_log_has_the_text_ids_of_its_users_and_movies(logged):
    log = logged.log
    np.testing.assert_array_equal(log.candidate_ids[log.mask], logged.movie_ids[log.mask].astype(str))
    np.testing.assert_array_equal(log.user_ids.take(log.user_id), logged.user_ids.astype(str))
    np.testing.assert_array_equal(log.item_ids.take(log.arm), logged.arm.astype(str))
    assert log.context.shape == (len(log), 0)


def test_users_are_joined_as_the_context(logged, movielens):
    users = movielens.users[["occupation"]]
    joined = logged.take(slice(0, 50)).join_users(users)
    assert joined.log.context["occupation"].tolist() == users.loc[logged.user_ids[:50], "occupation"].tolist()


def test_candidates_are_chosen_as_often_as_their_propensities(logged):
    """Among those with a propensity in a band, the share chosen is their mean, within 4 standard errors."""
    log, p = logged.log, logged.probabilities[logged.log.mask]
    chosen = (np.arange(log.mask.shape[1]) == log.action[:, None])[log.mask]
    for band in np.array_split(np.argsort(p), 10):
        error = np.sqrt((p[band] * (1 - p[band])).sum()) / len(band)
        assert abs(chosen[band].mean() - p[band].mean()) < 4 * error


@pytest.mark.parametrize("policy", ["uniform", "logging", "popular"])
def test_importance_weighting_estimates_the_true_value(logged, movielens, policy):
    """Mean of reward * target / propensity, within 3 of its standard errors of the true value."""
    log = logged.log
    target = {
        "uniform": uniform(None, None, log.mask),
        "logging": logged.probabilities,
        "popular": popularity(movielens.ratings, 0.5)(logged.user_ids, logged.movie_ids, log.mask),
    }[policy]
    terms = log.reward * target[np.arange(len(log)), log.action] / log.propensity
    assert abs(terms.mean() - logged.value(target)) < 3 * terms.std() / np.sqrt(len(log))


def test_popularity_is_proportional_to_the_counts():
    """Movies 7, 3 and 5 have 2 ratings, movie 9 none: 3 to 1, or at temperature 0.5 9 to 1."""
    mask = np.array([[True, True, False]])
    # the last bit of a power depends on the processor; the place without a movie is exactly 0
    np.testing.assert_allclose(popularity(SMALL)(None, np.array([[7, 9, 0]]), mask), [[0.75, 0.25, 0]], rtol=1e-12)
    np.testing.assert_allclose(popularity(SMALL, 0.5)(None, np.array([[7, 9, 0]]), mask), [[0.9, 0.1, 0]])
    np.testing.assert_allclose(popularity(SMALL, 1e-9)(None, np.array([[7, 9, 0]]), mask), [[1, 0, 0]])


def test_scores_are_explored():
    def scores(user_ids, candidates, mask):
        return candidates * user_ids[:, None]

    def explore(scores, mask, share):
        best = np.where(mask, scores, -np.inf)
        return share * mask / mask.sum(axis=1, keepdims=True) + (1 - share) * (best == best.max(axis=1, keepdims=True))

    logged = log_decisions(SMALL, explore_scores(scores, partial(explore, share=0.2)), (2, 3), 50)
    best = logged.arm == logged.movie_ids.max(axis=1)
    size = logged.log.mask.sum(axis=1)
    np.testing.assert_allclose(logged.log.propensity, np.where(best, 0.8, 0) + 0.2 / size)


def test_the_same_seed_gives_the_same_log_and_another_seed_other_event_ids():
    first, again, other = (log_decisions(SMALL, uniform, 2, 50, seed).log for seed in (1, 1, 2))
    assert first.event_id.tolist() == again.event_id.tolist()
    np.testing.assert_array_equal(first.candidates, again.candidates)
    np.testing.assert_array_equal(first.action, again.action)
    assert not set(first.event_id) & set(other.event_id)


def test_some_decisions_are_taken_with_all_their_ratings():
    logged = log_decisions(SMALL, lowest_id, (1, 3), 20)
    part = logged.take([3, 5])
    assert part.log.event_id.tolist() == logged.log.event_id[[3, 5]].tolist()
    np.testing.assert_array_equal(part.ratings, logged.ratings[[3, 5]])
    assert np.isfinite(part.value(part.probabilities))


@pytest.mark.parametrize("candidates", [0, (3, 2), 2.5, "ten"])
def test_invalid_numbers_of_candidates_are_refused(candidates):
    with pytest.raises(ValueError, match=r"candidates must be a positive number or a pair such as \(2, 20\), got"):
        log_decisions(SMALL, uniform, candidates)


def test_more_candidates_than_ratings_of_any_user_are_refused():
    with pytest.raises(ValueError, match="candidates must be at most 3, the most ratings of a user, got 4"):
        log_decisions(SMALL, uniform, 4)


@pytest.mark.parametrize("decisions", [-1, 2.5])
def test_an_invalid_number_of_decisions_is_refused(decisions):
    with pytest.raises(ValueError, match="decisions must be a whole number of at least 0, got"):
        log_decisions(SMALL, uniform, candidates=2, decisions=decisions)


def test_a_movie_rated_twice_by_a_user_is_refused():
    with pytest.raises(ValueError, match="user 4 has rated movie 7 again"):
        log_decisions(pd.concat([SMALL, SMALL[:1]]), uniform, 2)


@pytest.mark.parametrize(
    ("policy", "sentence"),
    [
        (
            lambda users, candidates, mask: mask * 0.3,
            "row 0: probabilities must be 0 or more and sum to 1",
        ),
        (lambda users, candidates, mask: np.full(mask.shape, 0.2), "sum to 1, and be 0 in padding"),
        (lambda users, candidates, mask: mask * np.nan, "probabilities must be 0 or more and sum to 1"),
        (
            lambda users, candidates, mask: np.ones((len(users), 1)),
            r"shape of probabilities must be \[6, 5\], got \[6, 1\]",
        ),
    ],
)
def test_a_policy_without_probabilities_is_refused(policy, sentence):
    with pytest.raises(ValueError, match=sentence):
        log_decisions(SMALL, policy, (1, 5))


def test_a_value_needs_probabilities_and_decisions():
    logged = log_decisions(SMALL, uniform, 2, 10)
    with pytest.raises(ValueError, match="probabilities must be 0 or more and sum to 1"):
        logged.value(logged.probabilities / 2)
    with pytest.raises(ValueError, match="decisions must be at least one to have a value, got 0"):
        logged.take([]).value(logged.probabilities[:0])


def test_ratings_that_are_not_finite_and_times_that_are_missing_are_refused():
    for column, message in (
        ("rating", "row 2 of the ratings must have a user"),
        ("time", r"row 2 \(4\): time must be"),
    ):
        ratings = SMALL.copy()
        ratings.loc[2, column] = None
        with pytest.raises(ValueError, match=message):
            log_decisions(ratings, uniform, 2)


def test_times_without_a_zone_are_refused():
    with pytest.raises(ValueError, match=r"time must be a column of times with a zone, such as UTC, got .datetime64"):
        log_decisions(SMALL.assign(time=SMALL["time"].dt.tz_localize(None)), uniform, 2)


@pytest.mark.parametrize("temperature", [0, float("nan")])
def test_a_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match="temperature must be positive and finite, got"):
        popularity(SMALL, temperature)
