"""Features that are fitted without the reward that they predict."""

import numpy as np
import pandas as pd
import pytest

from recbandits.data.examples import cross_fit_examples, make_examples
from tests.rating_tables import log_of_ids, rating_features

USERS, MOVIES = np.arange(1, 5), np.arange(11, 17)
RATINGS = pd.DataFrame(
    [(user, movie, 3.0) for user in USERS for movie in MOVIES], columns=["user_id", "movie_id", "rating"]
)


def log_of(user_id, movie_id):
    return log_of_ids(user_id, np.reshape(movie_id, [-1, 1]))


def seen(ratings):
    """Features in which user and movie match by 1 if their rating was among those it was fitted on, else by 0."""
    known = pd.crosstab(ratings["user_id"], ratings["movie_id"]).reindex(index=USERS, columns=MOVIES, fill_value=0)
    names = [f"factor_{number}" for number in range(len(MOVIES))]
    users = pd.DataFrame(known.to_numpy("float32"), pd.Index(USERS, name="user_id"), names)
    movies = pd.DataFrame(np.eye(len(MOVIES), dtype="float32"), pd.Index(MOVIES, name="movie_id"), names)
    return rating_features(users, movies)


def test_no_example_is_described_by_features_that_saw_its_rating():
    """24 ratings, some of them the reward of two decisions: the plain features have seen all of them, these none."""
    rows = np.r_[0:24, 3, 7, 7]
    log = log_of(RATINGS["user_id"].to_numpy()[rows], RATINGS["movie_id"].to_numpy()[rows])
    plain = seen(RATINGS)
    np.testing.assert_array_equal(make_examples(log.join_users(plain.users), plain.features).arm, np.ones((27, 1)))
    np.testing.assert_array_equal(cross_fit_examples(log, RATINGS, seen, folds=3).arm, np.zeros((27, 1)))


def test_everything_else_stays_in_the_order_of_the_log():
    log = log_of(RATINGS["user_id"].to_numpy()[::-1], RATINGS["movie_id"].to_numpy()[::-1])
    features = seen(RATINGS)
    plain = make_examples(log.join_users(features.users), features.features)
    crossed = cross_fit_examples(log, RATINGS, seen)
    for field in ("context", "reward", "propensity", "pass_prob", "event"):
        np.testing.assert_array_equal(getattr(crossed, field), getattr(plain, field))


def test_each_fold_is_fitted_on_all_the_others():
    """24 ratings in 4 folds: each fit gets 18 of them, and each rating is left out once."""
    fits = []
    cross_fit_examples(log_of([1], [11]), RATINGS, lambda ratings: fits.append(ratings) or seen(ratings), folds=4)
    assert [len(ratings) for ratings in fits] == [18] * 4
    assert pd.concat(fits).value_counts().eq(3).all()


def test_what_cannot_be_described_is_refused():
    with pytest.raises(ValueError, match="folds must be a whole number of at least 2, got 1"):
        cross_fit_examples(log_of([1], [11]), RATINGS, seen, folds=1)
    with pytest.raises(ValueError, match=r"row 1: user and movie must be among the ratings, got \('2', '99'\)"):
        cross_fit_examples(log_of([1, 2], [11, 99]), RATINGS, seen)
    with pytest.raises(ValueError, match="a user must have rated a movie once, user 1 has rated movie 11 again"):
        cross_fit_examples(log_of([1], [11]), pd.concat([RATINGS, RATINGS[:1]]), seen)
