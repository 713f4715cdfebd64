"""The synthetic set has the shape and the statistics of MovieLens 100K, and nothing of its content."""

import numpy as np
import pandas as pd
import pytest

from recbandits.data import synthetic
from recbandits.data.splits import random_split
from recbandits.data.tables import GENRES
from recbandits.environments.factorization import als

# Published for MovieLens 100K.
RATING_SHARES = [0.061, 0.114, 0.271, 0.342, 0.212]
EXPLAINED_BY_BIASES, EXPLAINED_BY_ALS = 0.307, 0.341


@pytest.fixture(scope="module")
def data():
    return synthetic.generate()


def test_it_has_the_shape_of_the_real_set(data):
    ratings = data.ratings
    assert (len(data.users), len(data.movies), len(ratings)) == (943, 1682, 100_000)
    assert not ratings.duplicated(["user_id", "movie_id"]).any()
    assert set(ratings["user_id"]) == set(data.users.index)
    assert set(ratings["movie_id"]) == set(data.movies.index)


def test_the_same_seed_gives_the_same_set_and_another_seed_another(data):
    again = synthetic.generate()
    pd.testing.assert_frame_equal(again.ratings, data.ratings)
    pd.testing.assert_frame_equal(again.movies, data.movies)
    assert not synthetic.generate(seed=7).ratings["movie_id"].equals(data.ratings["movie_id"])


def test_its_marginals_are_close_to_the_published_ones(data):
    shares = data.ratings["rating"].value_counts(normalize=True).sort_index()
    np.testing.assert_allclose(shares, RATING_SHARES, atol=0.002)
    activity = data.ratings["user_id"].value_counts()
    assert (activity.min(), activity.max()) == (20, 737)
    assert activity.median() == pytest.approx(65, abs=5)
    popularity = data.ratings["movie_id"].value_counts()
    assert popularity.min() == 1
    assert popularity.max() == pytest.approx(583, abs=60)
    assert popularity.median() == pytest.approx(27, abs=4)
    assert (popularity == 1).sum() == pytest.approx(141, abs=50)


def test_its_users_and_movies_are_plausible(data):
    users, movies = data.users, data.movies
    assert (users["gender"] == "M").sum() == 670
    assert users["age"].between(7, 73).all()
    assert users["age"].median() == pytest.approx(31, abs=2)
    assert users["occupation"].nunique() == 21
    assert (
        users[users["occupation"] == "student"]["age"].median()
        < 25
        < 55
        < users[users["occupation"] == "retired"]["age"].median()
    )
    assert movies["title"].is_unique
    assert movies["year"].isna().sum() == movies["unknown"].sum() == 1
    assert movies[list(GENRES)].any(axis=1).all()
    assert movies["Drama"].sum() == pytest.approx(725, abs=120)


def test_titles_have_the_article_an_before_a_vowel_only(data):
    titles = data.movies["title"]
    assert not titles.str.contains(r"\bA [AEIOU]|\bAn [^AEIOU]").any()
    assert titles.str.startswith("An ").any()


def test_no_title_is_that_of_a_real_movie(data, real_movielens):
    assert not set(data.movies["title"]) & set(real_movielens.movies["title"])


def explained_share(ratings, rank):
    """Return the share of the held-out variance that a factorisation of the other 80 % explains."""
    train, test = (ratings.iloc[rows] for rows in random_split(ratings))
    error = als(train, rank=rank).predict(test["user_id"], test["movie_id"]) - test["rating"]
    return 1 - (error**2).mean() / test["rating"].var()


def test_preferences_are_of_low_rank_and_as_strong_as_in_the_real_set(data):
    biases, factors = explained_share(data.ratings, rank=0), explained_share(data.ratings, rank=20)
    assert biases == pytest.approx(EXPLAINED_BY_BIASES, abs=0.02)
    assert factors == pytest.approx(EXPLAINED_BY_ALS, abs=0.02)
    assert factors > biases + 0.015


def test_the_real_set_has_the_explained_shares_that_the_synthetic_one_aims_at(real_movielens):
    assert explained_share(real_movielens.ratings, rank=0) == pytest.approx(EXPLAINED_BY_BIASES, abs=0.01)
    assert explained_share(real_movielens.ratings, rank=20) == pytest.approx(EXPLAINED_BY_ALS, abs=0.01)
