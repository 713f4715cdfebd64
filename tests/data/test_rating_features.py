"""Features belong to the user or movie with that id, and are fitted on the training part."""

import numpy as np
import pandas as pd
import pytest

from recbandits.data import GENRES, GLOBAL, PER_ARM, RatingFeatures, random_split
from recbandits.environments.factorization import als
from tests.rating_tables import rating_features


@pytest.fixture(scope="module")
def small():
    """Three users and three movies whose ids are neither dense nor in the order of the ratings."""
    ratings = pd.DataFrame({"user_id": [30, 10, 30, 30], "movie_id": [7, 7, 5, 9]})
    users = pd.DataFrame(
        {"age": [17, 25, 80], "gender": ["F", "M", "M"], "occupation": ["artist", "writer", "artist"], "zip": "0"},
        index=pd.Index([10, 20, 30], name="user_id"),
    )
    movies = pd.DataFrame(
        {
            "title": ["A", "B", "C"],
            "year": pd.array([1990, pd.NA, 1994], dtype="Int64"),
            **dict.fromkeys(GENRES, False),
        },
        index=pd.Index([5, 7, 9], name="movie_id"),
    )
    movies.loc[7, ["Drama", "War"]] = True
    factors = pd.DataFrame({"factor_0": [0.3, 0.1]}, index=pd.Index([30, 10], name="user_id"))
    return ratings, users, movies, factors


@pytest.fixture(scope="module")
def fitted(movielens):
    train = movielens.ratings.iloc[random_split(movielens.ratings).train]
    model = als(train, rank=4)
    return RatingFeatures.fit(train, movielens.users, movielens.movies, model.user_frame(), model.movie_frame())


def encoded_users(features, ids):
    return pd.DataFrame(features.encode_users(ids), columns=features.features.context_encoder.names)


def encoded_movies(features, ids):
    return pd.DataFrame(features.encode_movies(ids), columns=features.features.item_encoder.names)


def test_particular_users_have_their_own_features(small):
    """Log counts log 2, log 1, log 4 have mean log 2 and standard deviation log 2 * sqrt(2 / 3)."""
    ratings, users, movies, factors = small
    table = encoded_users(RatingFeatures.fit(ratings, users, movies, user_factors=factors), [30, 10, 20, 30])
    assert table["age=0+"].tolist() == [0, 1, 0, 0]
    assert table["age=25+"].tolist() == [0, 0, 1, 0]
    assert table["age=56+"].tolist() == [1, 0, 0, 1]
    assert table["female"].tolist() == [0, 1, 0, 0]
    assert table["occupation=artist"].tolist() == [1, 1, 0, 1]
    assert table["occupation=writer"].tolist() == [0, 0, 1, 0]
    np.testing.assert_allclose(table["activity"], np.array([1, 0, -1, 1]) * np.sqrt(1.5), rtol=1e-6)
    np.testing.assert_allclose(table["factor_0"], [0.3, 0.1, 0, 0.3], rtol=1e-6)


def test_particular_movies_have_their_own_features(small):
    ratings, users, movies, _ = small
    table = encoded_movies(RatingFeatures.fit(ratings, users, movies), [9, 7, 5])
    assert table["Drama"].tolist() == table["War"].tolist() == [0, 1, 0]
    assert table["year"].tolist() == [1, 0, -1]
    np.testing.assert_allclose(table["popularity"], [-0.70710677, 1.4142135, -0.70710677], rtol=1e-5)


def test_users_of_whom_nothing_is_known_have_their_activity_and_factors(small):
    ratings, users, movies, factors = small
    features = RatingFeatures.fit(ratings, users[[]], movies, user_factors=factors)
    assert features.users.columns.tolist() == ["activity", "factor_0"]
    everything = RatingFeatures.fit(ratings, users, movies, user_factors=factors)
    pd.testing.assert_frame_equal(features.users, everything.users[["activity", "factor_0"]])


def test_further_genres_are_further_features(small):
    ratings, users, movies, _ = small
    features = RatingFeatures.fit(ratings, users, movies.assign(IMAX=[True, False, False]))
    assert encoded_movies(features, [5, 7, 9])["IMAX"].tolist() == [1, 0, 0]


def test_movies_without_any_year_have_no_year(small):
    ratings, users, movies, _ = small
    features = RatingFeatures.fit(ratings, users, movies.assign(year=pd.array([pd.NA] * 3, "Int64")))
    assert "year" not in features.features.item_encoder.columns


def test_features_are_joined_by_id_in_any_order_of_the_tables(small):
    ratings, users, movies, factors = small
    features = RatingFeatures.fit(ratings, users, movies, user_factors=factors)
    reversed_tables = RatingFeatures.fit(ratings[::-1], users[::-1], movies[::-1], user_factors=factors[::-1])
    np.testing.assert_allclose(features.encode_users([10, 20, 30]), reversed_tables.encode_users([10, 20, 30]))
    np.testing.assert_allclose(features.encode_movies([5, 7, 9]), reversed_tables.encode_movies([5, 7, 9]))


def test_all_of_movielens_has_finite_float32_features(fitted, movielens):
    users, movies = fitted.encode_users(movielens.users.index), fitted.encode_movies(movielens.movies.index)
    assert users.dtype == movies.dtype == np.float32
    assert users.shape == (943, 7 + 1 + movielens.users["occupation"].nunique() + 1 + 5)
    assert movies.shape == (1682, 19 + 1 + 1 + 5)
    assert np.isfinite(users).all()
    assert np.isfinite(movies).all()
    ages = encoded_users(fitted, movielens.users.index).filter(like="age=")
    assert (ages.sum(axis=1) == 1).all()


def test_two_real_users_and_two_real_movies_line_up(real_movielens):
    """User 1 is male and 24, user 2 female and 53; movie 1 is an animation, movie 50 a war film."""
    features = RatingFeatures.fit(real_movielens.ratings, real_movielens.users, real_movielens.movies)
    users = encoded_users(features, [2, 1])
    columns = ["age=50+", "female", "occupation=other", "occupation=technician"]
    assert users[columns].to_numpy().tolist() == [[1, 1, 1, 0], [0, 0, 0, 1]]
    movies = encoded_movies(features, [50, 1])
    assert movies[["War", "Animation"]].to_numpy().tolist() == [[1, 0], [0, 1]]
    assert movies["popularity"][0] == encoded_movies(features, real_movielens.movies.index)["popularity"].max()


def test_held_out_ratings_do_not_change_the_features(movielens):
    """Change every held-out rating, movie and user: the features fitted on the training part stay as they were."""
    train, test = random_split(movielens.ratings)
    changed = movielens.ratings.copy()
    changed.loc[test, ["user_id", "movie_id", "rating"]] = [1, 1, 1.0]
    both = []
    for ratings in (movielens.ratings, changed):
        part = ratings.iloc[train]
        model = als(part, rank=2, iterations=2)
        both.append(
            RatingFeatures.fit(part, movielens.users, movielens.movies, model.user_frame(), model.movie_frame())
        )
    pd.testing.assert_frame_equal(both[0].users, both[1].users, check_exact=True)
    np.testing.assert_array_equal(both[0].features.items, both[1].features.items)
    all_ratings = RatingFeatures.fit(movielens.ratings, movielens.users, movielens.movies)
    activity = (features.encode_users([1])[0, 29] for features in (all_ratings, both[0]))
    assert len(set(activity)) == 2


def test_a_context_is_what_a_request_says_of_its_user(small):
    ratings, users, movies, factors = small
    features = RatingFeatures.fit(ratings, users, movies, user_factors=factors)
    context = features.context_of(30)
    assert context == {"age": "56+", "female": False, "occupation": "artist"} | {
        "activity": np.log1p(3),
        "factor_0": 0.3,
    }
    assert {type(value) for value in context.values()} == {str, bool, float}
    encoded = features.features.context_encoder.encode_row(context)
    np.testing.assert_array_equal(encoded, features.encode_users([30])[0])
    assert features.contexts([20, 30])["occupation"].tolist() == ["writer", "artist"]


def test_unknown_ids_are_refused_by_name(fitted):
    with pytest.raises(KeyError, match="unknown user ids: 0, 5000"):
        fitted.contexts([1, 5000, 0, 5000])
    with pytest.raises(KeyError, match="unknown movie ids: 0, 1683"):
        fitted.observation([1], [[1683, 0]])


def test_a_lookup_gives_a_copy(fitted):
    fitted.encode_users([1])[:] = 99
    assert (fitted.encode_users([1]) != 99).all()


def two_factors(users, movies, **options):
    """Features of a bias and two factors."""
    columns = ["bias", "factor_0", "factor_1"]
    return rating_features(
        pd.DataFrame(users, [10, 30], columns, float), pd.DataFrame(movies, [5, 7, 9], columns, float), **options
    )


USERS, MOVIES = [[0.1, 1, 2], [0.2, 3, 4]], [[1, 0, 1], [2, 1, 0], [3, -1, 2]]


def test_a_candidate_carries_the_dot_product_of_the_factors_and_not_the_factors():
    """User 30 has bias 0.2 and factors (3, 4), movie 9 has bias 3 and factors (-1, 2): they match by -3 + 8 = 5."""
    features = two_factors(USERS, MOVIES)
    observation = features.observation([30, 10], [[9, 5], [7, 0]], mask=[[True, True], [True, False]])
    np.testing.assert_array_equal(observation[GLOBAL], np.array([[0.2], [0.1]], "float32"))
    np.testing.assert_array_equal(observation[PER_ARM], [[[3, 5], [1, 4]], [[2, 1], [0, 0]]])
    assert features.spec(2) == {GLOBAL: (1,), PER_ARM: (2, 2)}


def test_products_keep_all_features():
    """Users show bias and both factors; movies theirs, and (3, 4) times (-1, 2) or (0, 1), number by number."""
    features = two_factors(USERS, MOVIES, product=True)
    observation = features.observation([30], [[9, 5]])
    np.testing.assert_array_equal(observation[GLOBAL], np.array([[0.2, 3, 4]], "float32"))
    np.testing.assert_array_equal(observation[PER_ARM], [[[3, -1, 2, -3, 8], [1, 0, 1, 0, 4]]])
    assert features.spec(2) == {GLOBAL: (3,), PER_ARM: (2, 5)}


def test_rotated_factors_give_the_same_observation():
    """Rotated by 90 degrees, (a, b) is (-b, a); a new fit rotates all factors alike."""
    rotated = two_factors([[0.1, -2, 1], [0.2, -4, 3]], [[1, -1, 0], [2, 0, 1], [3, -2, -1]])
    for part in (GLOBAL, PER_ARM):
        first, second = (
            each.observation([30, 10], [[9, 5], [7, 9]])[part] for each in (rotated, two_factors(USERS, MOVIES))
        )
        np.testing.assert_array_equal(first, second)


def test_factors_of_one_side_alone_are_features(small):
    ratings, users, movies, factors = small
    features = RatingFeatures.fit(ratings, users, movies, user_factors=factors)
    observation = features.observation([30], [[9, 7]])
    np.testing.assert_array_equal(observation[PER_ARM][0], features.encode_movies([9, 7]))
    assert observation[GLOBAL][0, -1] == np.float32(0.3)
    assert features.spec(2) == {name: value.shape[1:] for name, value in observation.items()}
