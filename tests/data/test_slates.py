"""Slates as training examples: their content, features fitted without the ratings of a list, and errors."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from recbandits.data.slates import (
    cascading_feedback,
    cross_fitted_lists,
    list_examples,
    rated_lists,
    slate_examples,
)
from recbandits.records.slate_log import SlateLog
from tests.rating_tables import rating_features

USERS, MOVIES = np.arange(1, 5), np.arange(11, 23)
RATINGS = pd.DataFrame(
    [(user, movie, 1.0 + (user * movie) % 5) for user in USERS for movie in MOVIES],
    columns=["user_id", "movie_id", "rating"],
)


def fit_features(ratings):
    """Fit features in which user and movie match by 1 if their rating is among the given ones, else by 0.

    The feature `rating 11`, ... of a user is 1 for each of the given ratings.
    """
    known = pd.crosstab(ratings["user_id"], ratings["movie_id"]).reindex(index=USERS, columns=MOVIES, fill_value=0)
    factors = [f"factor_{number}" for number in range(len(MOVIES))]
    index = pd.Index(USERS, name="user_id")
    users = pd.DataFrame(known.to_numpy("float32"), index, factors)
    users = users.join(pd.DataFrame(known.to_numpy("float32"), index, [f"rating {movie}" for movie in MOVIES]))
    movies = pd.DataFrame(np.eye(len(MOVIES), dtype="float32"), pd.Index(MOVIES, name="movie_id"), factors)
    return rating_features(users, movies.assign(id=np.float32(MOVIES)))


def test_a_list_keeps_its_order_and_its_ratings():
    """Rows 14, 12 are user 2's movies 13 and 11: ratings 1 + 26 mod 5 = 2 and 1 + 22 mod 5 = 3."""
    examples = list_examples(RATINGS, [[14, 12], [0, 1]], fit_features(RATINGS))
    assert {name: part.shape for name, part in examples._asdict().items()} == {
        "context": (2, 12),
        "arm": (2, 2, 2),
        "reward": (2, 2),
        "event": (2,),
    }
    np.testing.assert_array_equal(examples.reward, [[2, 3], [2, 3]])
    np.testing.assert_array_equal(examples.arm[:, :, 0], [[13, 11], [11, 12]])
    assert examples.event.dtype == np.int64


def test_equal_lists_are_different_events_the_same_in_every_process():
    rows = [[14, 12], [14, 12], [12, 14]]
    first, again = (list_examples(RATINGS, rows, fit_features(RATINGS)).event for _ in range(2))
    assert len(set(first)) == 3
    np.testing.assert_array_equal(first, again)
    expected = pd.util.hash_pandas_object(pd.DataFrame(rows)).to_numpy().view(np.int64)
    np.testing.assert_array_equal(first, expected)


def test_rows_that_are_not_lists_of_one_user_are_refused():
    with pytest.raises(ValueError, match=r"rows must be \[lists, size\] with size at least 1, got \[2\]"):
        list_examples(RATINGS, [1, 2], fit_features(RATINGS))
    with pytest.raises(ValueError, match=r"row 1: users of a list must be the same, got \[1 2\]"):
        list_examples(RATINGS, [[0, 1], [0, 12]], fit_features(RATINGS))


def test_examples_of_logged_slates_have_the_movies_as_shown():
    """Candidates 11, 12, 13 with slate (2, 0): movies 13 and 11, in that order."""
    log = SlateLog(
        event_id=["a", "b"],
        user_id=[2, 1],
        candidates=[[11, 12, 13], [20, 21, 22]],
        slate=[[2, 0], [1, 2]],
        reward=[[0.0, 1.0], [0.0, 0.0]],
        propensity=[[0.5, 0.5], [0.2, 1.0]],
    )
    examples = slate_examples(log, fit_features(RATINGS))
    np.testing.assert_array_equal(examples.arm[:, :, 0], [[13, 11], [21, 22]])
    np.testing.assert_array_equal(examples.reward, [[0, 1], [0, 0]])
    np.testing.assert_array_equal(examples.event, pd.util.hash_array(np.array(["a", "b"], object)).view(np.int64))


def test_features_of_a_list_are_fitted_without_its_ratings():
    """Neither the match of a movie nor the context depends on them; without cross-fitting both do."""
    examples = cross_fitted_lists(RATINGS, 3, fit_features, lists=7, folds=4)
    assert examples.arm.shape == (4 * 7 * 4, 3, 2)
    match, movies = examples.arm[:, :, 1], examples.arm[:, :, 0].astype(int)
    np.testing.assert_array_equal(match, 0)
    np.testing.assert_array_equal(np.take_along_axis(examples.context, movies - 11, axis=1), 0)
    assert list_examples(RATINGS, [[0, 1]], fit_features(RATINGS)).arm[0, :, 1].tolist() == [1, 1]


def test_a_fold_leaves_out_its_share_of_the_ratings_of_a_user_but_enough_for_a_list():
    """12 ratings each, 4 folds: 3 are left out for lists of 2 or 3, 5 for lists of 5."""
    for size, left_out in ((2, 3), (3, 3), (5, 5)):
        fits = []
        cross_fitted_lists(
            RATINGS, size, lambda ratings, fits=fits: fits.append(ratings) or fit_features(ratings), 1, 4
        )
        assert [set(part["user_id"].value_counts()) for part in fits] == [{12 - left_out}] * 4


def test_lists_of_a_fold_are_without_repetition_and_have_the_rewards_of_their_movies():
    examples = cross_fitted_lists(RATINGS, 4, fit_features, lists=20, folds=2, seed=3)
    movies = examples.arm[:, :, 0]
    assert (np.diff(np.sort(movies, axis=1)) > 0).all()
    users = np.tile(np.repeat(USERS, 20), 2)
    np.testing.assert_array_equal(examples.reward, 1 + (users[:, None] * movies) % 5)
    assert len(set(examples.event)) == len(examples.event)


def test_positions_in_a_list_are_independent_of_the_movies():
    """Counts of 12 movies in 4 slots of 1,600 lists: independent by the chi-square test."""
    movies = cross_fitted_lists(RATINGS, 4, fit_features, lists=40, folds=10).arm[:, :, 0].astype(int)
    counts = np.stack([np.bincount(slot - 11, minlength=12) for slot in movies.T])
    assert stats.chi2_contingency(counts).pvalue > 0.001


def test_lists_are_seeded_and_users_with_too_few_ratings_have_none():
    few = RATINGS[(RATINGS["user_id"] != 2) | (RATINGS["movie_id"] < 14)]
    one, two, other = (cross_fitted_lists(few, 3, fit_features, lists=2, folds=2, seed=seed) for seed in (1, 1, 2))
    for first, second in zip(one, two, strict=True):
        np.testing.assert_array_equal(first, second)
    assert not np.array_equal(one.arm, other.arm)
    assert len(one.event) == 3 * 2 * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be a whole number of at least 1, got 0"),
        ({"lists": 0}, "lists must be a whole number of at least 1, got 0"),
        ({"folds": 1}, "folds must be a whole number of at least 2, got 1"),
        ({"size": 12}, "the most ratings of a user must be more than size, 12, got 12"),
    ],
)
def test_invalid_draws_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        cross_fitted_lists(RATINGS, **({"size": 3, "fit_features": fit_features} | options))


def test_cascading_feedback_is_the_first_slot_with_a_positive_reward():
    feedback = cascading_feedback(np.array([[0.0, 4.0, 5.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [-1.0, 0.0, 2.0]]))
    assert feedback[0].tolist() == [1, 3, 0, 2]
    assert feedback[1].tolist() == [4, 0, 1, 2]
    assert [part.dtype for part in feedback] == [np.int32, np.float32]


def test_rated_lists_have_every_rating_of_a_user_once():
    few = RATINGS[(RATINGS["user_id"] != 3) | (RATINGS["movie_id"] < 14)].sample(frac=1, random_state=0)
    single = few.groupby("user_id").head(1).assign(user_id=lambda each: each["user_id"] + 10)
    lists = rated_lists(pd.concat([few, single]))
    assert lists.user_id.tolist() == [1, 2, 3, 4]
    assert lists.mask.sum(axis=1).tolist() == [12, 12, 3, 12]
    user = np.repeat(lists.user_id, lists.mask.sum(axis=1))
    pairs = pd.DataFrame(
        {"user_id": user, "movie_id": lists.candidates[lists.mask], "rating": lists.rating[lists.mask]}
    )
    both = [table.sort_values(["user_id", "movie_id"]).reset_index(drop=True) for table in (pairs, few)]
    pd.testing.assert_frame_equal(*both, check_dtype=False)
    with pytest.raises(ValueError, match="ratings must be two or more of some user, got 'none'"):
        rated_lists(single)
    with pytest.raises(ValueError, match="a user must have rated a movie once, user 1 has rated movie"):
        rated_lists(pd.concat([few, few]))
