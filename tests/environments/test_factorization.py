"""Factorisation: exact on rank-one data, good on held-out ratings, equal to TF-Agents where it should be."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge
from tf_agents.bandits.environments import movielens_py_environment

from recbandits.data import splits
from recbandits.environments import als, svd
from tests.environments.samples import table


def full_table(matrix):
    """Every cell of a matrix as a rating; ids are 10, 11, ... and 1, 2, ..."""
    user, movie = np.indices(matrix.shape)
    return pd.DataFrame(
        {"user_id": user.ravel() + 10, "movie_id": movie.ravel() + 1, "rating": matrix.ravel().astype(float)}
    )


def rmse(model, ratings):
    error = model.predict(ratings["user_id"], ratings["movie_id"]) - ratings["rating"]
    return float(np.sqrt(np.mean(error**2)))


def test_biases_alone_recover_an_additive_table():
    """Rating = 3 + a_u + b_m with biases that sum to zero: the fit without penalty is exact."""
    matrix = 3.0 + np.array([[-1.0], [0.0], [1.0]]) + np.array([[-0.5, 0.25, 0.25]])
    model = als(full_table(matrix), rank=0, bias_regularization=0.0)
    np.testing.assert_allclose(model.matrix(), matrix, atol=1e-12)
    np.testing.assert_allclose(model.user_bias, [-1.0, 0.0, 1.0], atol=1e-12)


def test_factors_recover_an_interaction_that_biases_cannot():
    """Rating = 3 + a_u b_m with centred a and b has no biases at all."""
    interaction = np.outer([-1.0, 1.0, 2.0, -2.0], [-1.0, 0.0, 1.0])
    ratings = full_table(3.0 + interaction)
    assert rmse(als(ratings, rank=0, bias_regularization=0.0), ratings) > 1.0
    model = als(ratings, rank=1, regularization=1e-9, bias_regularization=0.0, iterations=50)
    np.testing.assert_allclose(model.matrix(), 3.0 + interaction, atol=1e-6)
    users, movies = np.array([3, 1]), np.array([2, 0])
    np.testing.assert_allclose(model.matrix(users, movies), model.matrix()[np.ix_(users, movies)], rtol=1e-12)


def test_held_out_ratings_of_movielens_are_predicted_better_by_factors_than_by_biases(real_movielens):
    train, test = splits.random_split(real_movielens.ratings)
    train, test = real_movielens.ratings.iloc[train], real_movielens.ratings.iloc[test]
    biases, factors = rmse(als(train, rank=0), test), rmse(als(train), test)
    assert factors <= 0.925
    assert 0.93 <= biases <= 0.945


def test_bias_and_factors_of_unknown_ids_count_as_zero():
    model = als(full_table(np.array([[1.0, 3.0], [3.0, 5.0]])), rank=1)
    np.testing.assert_allclose(model.predict([999], [999]), [model.mean])
    np.testing.assert_allclose(model.predict([10], [999]), [model.mean + model.user_bias[0]])


SPARSE = table(users=40, movies=25, share=0.5)


def test_folding_in_is_a_ridge_regression_on_the_movies():
    """Bias: sum of deviations / (n + 3). Factors: scikit-learn's Ridge of what is left, penalty 0.2 for each rating."""
    new = SPARSE["user_id"] <= 5
    model, new = als(SPARSE[~new], rank=3, regularization=0.2, bias_regularization=3.0), SPARSE[new]
    folded = model.fold_in(new)
    np.testing.assert_array_equal(folded.user_ids, np.arange(1, 41))
    for row, (_, user_ratings) in enumerate(new.groupby("user_id")):
        movies = np.searchsorted(model.movie_ids, user_ratings["movie_id"])
        deviation = user_ratings["rating"].to_numpy() - model.mean - model.movie_bias[movies]
        bias = deviation.sum() / (len(user_ratings) + 3.0)
        ridge = Ridge(alpha=0.2 * len(user_ratings), fit_intercept=False, solver="cholesky")
        factors = ridge.fit(model.movie_factors[movies], deviation - bias).coef_
        assert folded.user_bias[row] == pytest.approx(bias, rel=1e-12)
        np.testing.assert_allclose(folded.user_factors[row], factors, atol=1e-10)
    np.testing.assert_array_equal(folded.user_bias[5:], model.user_bias)
    np.testing.assert_array_equal(folded.user_factors[5:], model.user_factors)
    np.testing.assert_array_equal(folded.movie_factors, model.movie_factors)


def test_users_are_folded_in_between_others_and_a_known_user_is_replaced():
    """Ids 10, 12 are known; 11 comes new between them, 12 comes with other ratings."""
    model = als(full_table(np.array([[1.0, 3.0], [0.0, 0.0], [3.0, 5.0]])).query("user_id != 11"), rank=1)
    new = pd.DataFrame({"user_id": [12, 11], "movie_id": [1, 2], "rating": [1.0, 5.0]})
    folded = model.fold_in(new)
    np.testing.assert_array_equal(folded.user_ids, [10, 11, 12])
    assert folded.user_bias[0] == model.user_bias[0]
    assert folded.user_bias[1] == pytest.approx((5.0 - model.mean - model.movie_bias[1]) / 6)
    assert folded.user_bias[2] == pytest.approx((1.0 - model.mean - model.movie_bias[0]) / 6)


def test_ratings_of_unknown_movies_are_left_out_of_folding_in():
    model = als(SPARSE, rank=2)
    unknown = pd.DataFrame({"user_id": [77, 78, 78], "movie_id": [999, 999, 101], "rating": [5.0, 5.0, 4.0]})
    folded, known = model.fold_in(unknown), model.fold_in(unknown.iloc[2:])
    assert folded.user_bias[-2] == 0.0
    assert not folded.user_factors[-2].any()
    np.testing.assert_array_equal(folded.user_factors[-1], known.user_factors[-1])
    assert folded.user_bias[-1] == known.user_bias[-1]
    biases = als(SPARSE, rank=0).fold_in(unknown)
    assert biases.user_factors.shape == (42, 0)


ONES = full_table(np.ones((3, 4)))


@pytest.mark.parametrize(
    ("ratings", "message"),
    [
        (ONES.iloc[:0], "number of ratings must be at least 1, got 0"),
        (
            ONES.drop(columns="rating"),
            r"columns of ratings must be user_id, movie_id, rating, got \['user_id', 'movie_id'\]",
        ),
        (ONES.assign(rating="4"), "type of rating must be numeric, got"),
        (
            ONES.assign(rating=[np.nan, *[1.0] * 11]),
            "row 0 of the ratings .* finite rating, got user_id 10, movie_id 1, rating nan",
        ),
        (
            ONES.assign(user_id=[None, *range(11)]),
            "row 0 of the ratings must have a user, .*, got user_id nan, movie_id 1",
        ),
        (pd.concat([ONES, ONES.iloc[5:6]]), "user 11 has rated movie 2 again"),
    ],
    ids=["no ratings", "no column", "text", "NaN", "no user", "twice"],
)
def test_ratings_that_would_be_averaged_away_are_refused(ratings, message):
    """One NaN rating of MovieLens made all predictions NaN, and a simulation with them had a regret of 0.000."""
    for fit in (als, svd, als(ONES, rank=1).fold_in):
        with pytest.raises(ValueError, match=message):
            fit(ratings)


@pytest.mark.parametrize("first", [-3, 2**62])
def test_ids_are_no_positions(first):
    """`svd` took movie ids as columns: none from 5001 on, 74 GiB for ids near 10^10, and no movie of id 0."""
    plain, moved = SPARSE, SPARSE.assign(movie_id=SPARSE["movie_id"] - 101 + first, user_id=SPARSE["user_id"] + first)
    for fit in (lambda ratings: als(ratings, rank=3), lambda ratings: svd(ratings, rank=3, num_movies=20)):
        expected, model = fit(plain), fit(moved)
        np.testing.assert_array_equal(model.movie_ids, expected.movie_ids - 101 + first)
        np.testing.assert_array_equal(model.matrix(), expected.matrix())
        known = plain["movie_id"].isin(expected.movie_ids)
        pairs = (table[known][name] for table in (moved, plain) for name in ("user_id", "movie_id"))
        users, movies, plain_users, plain_movies = pairs
        np.testing.assert_array_equal(model.predict(users, movies), expected.predict(plain_users, plain_movies))


def test_unsigned_ids_are_found_exactly():
    """Next to 2^63, numbers of both kinds would be compared as doubles, which are equal for neighbours."""
    users = np.array([2**63 - 2, 2**63 - 1])
    model = als(full_table(np.array([[1.0, 1.0], [5.0, 5.0]])).assign(user_id=np.repeat(users, 2)), rank=0)
    predicted = model.predict(users.astype(np.uint64), np.array([1, 2], np.uint64))
    np.testing.assert_array_equal(predicted, model.predict(users, [1, 2]))
    assert predicted[0] < 3 < predicted[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"user_ids": np.array([10, 11, 11])}, "user_ids must be different from each other"),
        ({"mean": np.nan}, "mean must be finite, got nan"),
        ({"user_bias": np.array([0.0, np.inf, 0.0])}, r"row 1 \(11\): user_bias must be finite, got inf"),
        ({"movie_factors": np.full((4, 1), np.nan)}, r"row 0 \(1\), column 0: movie_factors must be finite, got nan"),
    ],
)
def test_a_model_with_an_id_twice_or_a_number_that_is_not_finite_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(als(ONES, rank=1), **change)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda ones: svd(ones, rank=1).fold_in(ones), "model must be one with biases, as als fits them, got"),
        (lambda ones: als(ones, rank=-1), "rank must be a whole number of at least 0, got -1"),
        (lambda ones: als(ones, regularization=0), "regularization must be positive, got 0"),
        (lambda ones: als(ones, bias_regularization=-1), "bias_regularization must be 0 or more, got -1"),
        (lambda ones: svd(ones, rank=99), r"rank must be in \[1, 3\], got 99"),
    ],
)
def test_ratings_and_settings_that_cannot_be_fitted_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(ONES)


def test_held_out_users_of_movielens_are_predicted_nearly_as_well_as_those_of_training(real_movielens):
    """Support ratings of 200 held-out users, four fifths, predict their query ratings."""
    ratings = real_movielens.ratings
    users = np.random.default_rng(0).choice(ratings["user_id"].unique(), 200, replace=False)
    held_out, query = ratings["user_id"].isin(users), np.random.default_rng(1).random(len(ratings)) < 0.2
    support, test = ratings[held_out & ~query], ratings[held_out & query]
    folded = rmse(als(ratings[~held_out]).fold_in(support), test)
    biases = rmse(als(ratings[~held_out], rank=0).fold_in(support), test)
    assert folded < rmse(als(ratings[~(held_out & query)]), test) + 0.01
    assert folded < biases - 0.01


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_svd_is_the_reward_of_tf_agents_own_environment(movielens, tmp_path):
    """Play every movie for every user in TF-Agents' environment and compare rewards, users matched by observation."""
    path = tmp_path / "u.data"
    columns = movielens.ratings[["user_id", "movie_id", "rating"]].astype(int).assign(time=0)
    columns.to_csv(path, sep="\t", header=False, index=False)
    model = svd(movielens.ratings, rank=5, num_movies=8)
    reference = movielens_py_environment.MovieLensPyEnvironment(
        str(path), rank_k=5, batch_size=len(model.user_ids), num_movies=8, csv_delimiter="\t"
    )
    time_step = reference.reset()
    for action in range(8):
        distance = np.linalg.norm(time_step.observation[:, None, :] - model.user_factors[None, :, :], axis=2)
        users = distance.argmin(axis=1)
        assert distance.min(axis=1).max() < 1e-5
        time_step = reference.step(np.full(len(users), action))
        np.testing.assert_allclose(time_step.reward, model.matrix()[users, action], atol=1e-5)


def test_features_keep_the_biases_of_ratings_that_are_zero_on_average():
    """Ratings of -1 and 1 have mean 0; users still need their constant and bias."""
    model = als(full_table(np.array([[1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, 1.0]])), rank=1)
    assert model.mean == 0.0
    assert model.features().users.columns.tolist() == ["bias", "factor_0"]
    assert model.features().features.intercept
    assert model.features().features.item_encoder.names == ["bias", "factor_0"]
    assert svd(full_table(np.ones((3, 4))), rank=2).features().users.columns.tolist() == ["factor_0", "factor_1"]
