"""Factorisation: exact on rank-one data, good on held-out ratings, equal to TF-Agents where it should be."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import Ridge
from tf_agents.bandits.environments import movielens_py_environment

from recbandits.data import splits
from recbandits.environments.factorization import als, svd


def table(matrix):
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
    model = als(table(matrix), rank=0, bias_regularization=0.0)
    np.testing.assert_allclose(model.matrix(), matrix, atol=1e-12)
    np.testing.assert_allclose(model.user_bias, [-1.0, 0.0, 1.0], atol=1e-12)


def test_factors_recover_an_interaction_that_biases_cannot():
    """Rating = 3 + a_u b_m with centred a and b has no biases at all."""
    interaction = np.outer([-1.0, 1.0, 2.0, -2.0], [-1.0, 0.0, 1.0])
    ratings = table(3.0 + interaction)
    assert rmse(als(ratings, rank=0, bias_regularization=0.0), ratings) > 1.0
    model = als(ratings, rank=1, regularization=1e-9, bias_regularization=0.0, iterations=50)
    np.testing.assert_allclose(model.matrix(), 3.0 + interaction, atol=1e-6)


def test_held_out_ratings_of_movielens_are_predicted_better_by_factors_than_by_biases(real_movielens):
    train, test = splits.random_split(real_movielens.ratings)
    train, test = real_movielens.ratings.iloc[train], real_movielens.ratings.iloc[test]
    biases, factors = rmse(als(train, rank=0), test), rmse(als(train), test)
    assert factors <= 0.925
    assert 0.93 <= biases <= 0.945


def test_unknown_ids_are_predicted_by_what_is_known_of_the_rest():
    model = als(table(np.array([[1.0, 3.0], [3.0, 5.0]])), rank=1)
    np.testing.assert_allclose(model.predict([999], [999]), [model.mean])
    np.testing.assert_allclose(model.predict([10], [999]), [model.mean + model.user_bias[0]])


def sparse_table(users=40, movies=25, seed=0):
    """Whole stars of invented users for invented movies, half of the cells; ids from 1 and from 101."""
    generator = np.random.default_rng(seed)
    user, movie = np.nonzero(generator.random((users, movies)) < 0.5)
    rating = np.clip(np.round(3.5 + generator.normal(size=len(user))), 1, 5)
    return pd.DataFrame({"user_id": user + 1, "movie_id": movie + 101, "rating": rating})


def test_folding_in_is_a_ridge_regression_on_the_movies():
    """Bias: sum of deviations / (n + 3). Factors: scikit-learn's Ridge of what is left, penalty 0.2 for each rating."""
    ratings = sparse_table()
    model = als(ratings[ratings["user_id"] > 5], rank=3, regularization=0.2, bias_regularization=3.0)
    new = ratings[ratings["user_id"] <= 5]
    folded = model.fold_in(new)
    np.testing.assert_array_equal(folded.user_ids, np.arange(1, 41))
    for row, (_, own) in enumerate(new.groupby("user_id")):
        movies = np.searchsorted(model.movie_ids, own["movie_id"])
        deviation = own["rating"].to_numpy() - model.mean - model.movie_bias[movies]
        bias = deviation.sum() / (len(own) + 3.0)
        ridge = Ridge(alpha=0.2 * len(own), fit_intercept=False, solver="cholesky")
        factors = ridge.fit(model.movie_factors[movies], deviation - bias).coef_
        assert folded.user_bias[row] == pytest.approx(bias, rel=1e-12)
        np.testing.assert_allclose(folded.user_factors[row], factors, atol=1e-10)
    np.testing.assert_array_equal(folded.user_bias[5:], model.user_bias)
    np.testing.assert_array_equal(folded.user_factors[5:], model.user_factors)
    np.testing.assert_array_equal(folded.movie_factors, model.movie_factors)


def test_folding_in_the_users_of_a_converged_model_leaves_it_as_it_was():
    """Alternating least squares that has converged solves the same equations once more."""
    ratings = sparse_table()
    model = als(ratings, rank=2, iterations=3000)
    folded = model.fold_in(ratings.sample(frac=1, random_state=0))
    np.testing.assert_allclose(folded.user_bias, model.user_bias, atol=1e-12)
    np.testing.assert_allclose(folded.user_factors, model.user_factors, atol=1e-8)


def test_users_are_folded_in_between_others_and_a_known_user_is_replaced():
    """Ids 10, 12 are known; 11 comes new between them, 12 comes with other ratings."""
    model = als(table(np.array([[1.0, 3.0], [0.0, 0.0], [3.0, 5.0]])).query("user_id != 11"), rank=1)
    new = pd.DataFrame({"user_id": [12, 11], "movie_id": [1, 2], "rating": [1.0, 5.0]})
    folded = model.fold_in(new)
    np.testing.assert_array_equal(folded.user_ids, [10, 11, 12])
    assert folded.user_bias[0] == model.user_bias[0]
    assert folded.user_bias[1] == pytest.approx((5.0 - model.mean - model.movie_bias[1]) / 6)
    assert folded.user_bias[2] == pytest.approx((1.0 - model.mean - model.movie_bias[0]) / 6)


def test_ratings_of_unknown_movies_say_nothing_and_models_of_biases_can_be_folded_into():
    model = als(sparse_table(), rank=2)
    unknown = pd.DataFrame({"user_id": [77, 78, 78], "movie_id": [999, 999, 101], "rating": [5.0, 5.0, 4.0]})
    folded, known = model.fold_in(unknown), model.fold_in(unknown.iloc[2:])
    assert folded.user_bias[-2] == 0.0
    assert not folded.user_factors[-2].any()
    np.testing.assert_array_equal(folded.user_factors[-1], known.user_factors[-1])
    assert folded.user_bias[-1] == known.user_bias[-1]
    biases = als(sparse_table(), rank=0).fold_in(unknown)
    assert biases.user_factors.shape == (42, 0)


def test_models_and_tables_into_which_nobody_can_be_folded_are_refused():
    with pytest.raises(ValueError, match="a model with biases, as als fits them, got one without"):
        svd(table(np.ones((3, 4))), rank=1).fold_in(sparse_table())
    with pytest.raises(ValueError, match="ratings must have at least one row, got none"):
        als(sparse_table()).fold_in(sparse_table().iloc[:0])


def test_held_out_users_of_movielens_are_predicted_nearly_as_well_as_those_of_training(real_movielens):
    """The factorisation never saw 200 users; from four fifths of their ratings it predicts the last fifth."""
    ratings = real_movielens.ratings
    chosen = np.random.default_rng(0).choice(ratings["user_id"].unique(), 200, replace=False)
    theirs, last = ratings["user_id"].isin(chosen), np.random.default_rng(1).random(len(ratings)) < 0.2
    history, test = ratings[theirs & ~last], ratings[theirs & last]
    folded = rmse(als(ratings[~theirs]).fold_in(history), test)
    biases = rmse(als(ratings[~theirs], rank=0).fold_in(history), test)
    assert folded < rmse(als(ratings[~(theirs & last)]), test) + 0.01
    assert folded < biases - 0.01


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_svd_is_the_reward_of_tf_agents_own_environment(movielens, tmp_path):
    """Play every movie for every user in TF-Agents' environment and compare rewards, users matched by observation."""
    path = tmp_path / "u.data"
    columns = movielens.ratings[["user_id", "movie_id", "rating"]].astype(int).assign(time=0)
    columns.to_csv(path, sep="\t", header=False, index=False)
    model = svd(movielens.ratings, rank=5, num_movies=8)
    theirs = movielens_py_environment.MovieLensPyEnvironment(
        str(path), rank_k=5, batch_size=len(model.user_ids), num_movies=8, csv_delimiter="\t"
    )
    time_step = theirs.reset()
    for action in range(8):
        distance = np.linalg.norm(time_step.observation[:, None, :] - model.user_factors[None, :, :], axis=2)
        users = distance.argmin(axis=1)
        assert distance.min(axis=1).max() < 1e-5
        time_step = theirs.step(np.full(len(users), action))
        np.testing.assert_allclose(time_step.reward, model.matrix()[users, action], atol=1e-5)


@pytest.mark.parametrize(("rank", "message"), [(0, "rank must be in"), (99, "rank must be in")])
def test_svd_refuses_a_rank_that_the_matrix_does_not_have(rank, message):
    with pytest.raises(ValueError, match=message):
        svd(table(np.ones((3, 4))), rank=rank)


def test_als_refuses_an_empty_table_and_a_negative_rank():
    with pytest.raises(ValueError, match="at least one row"):
        als(table(np.ones((2, 2))).iloc[:0])
    with pytest.raises(ValueError, match="rank must be 0 or more, got -1"):
        als(table(np.ones((2, 2))), rank=-1)
    with pytest.raises(ValueError, match=r"regularization must be positive .* got 0 and 5.0"):
        als(table(np.ones((2, 2))), regularization=0)


def test_features_keep_the_biases_of_ratings_that_are_zero_on_average():
    """Ratings of -1 and 1 have mean 0; users still need their constant and bias."""
    model = als(table(np.array([[1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, 1.0]])), rank=1)
    assert model.mean == 0.0
    assert model.user_features().shape == (4, 3)
    assert model.movie_features().shape == (2, 2)
    assert svd(table(np.ones((3, 4))), rank=2).user_features().shape == (3, 2)
