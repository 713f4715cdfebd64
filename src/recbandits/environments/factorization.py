"""Rating models: ALS on the observed ratings, and TF-Agents' SVD of the ratings matrix filled with zeros."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import sparse

from recbandits.checks import FINITE, distinct, require, require_each, require_rows, whole
from recbandits.data.encoder import Encoder
from recbandits.data.features import Features
from recbandits.data.rating_features import BIAS, FACTOR, RatingFeatures
from recbandits.data.tables import check_ratings
from recbandits.records.log import as_ids

_ALL = slice(None)


@dataclass(frozen=True)
class Factorization:
    """A rating model `mean + user_bias + movie_bias + user_factors . movie_factors`.

    Attributes:
      user_ids: int array [users], all different; row u of the user arrays belongs to `user_ids[u]`.
      movie_ids: int array [movies], likewise.
      mean: rating points.
      user_bias: float array [users], rating points.
      movie_bias: float array [movies], rating points.
      user_factors: float array [users, rank].
      movie_factors: float array [movies, rank].
      biased: False for a model of factors alone.
      regularization: penalty per rating with which the factors were fitted.
      bias_regularization: penalty with which the biases were fitted, in pseudo-ratings at the mean.

    Raises:
      ValueError: an id that occurs twice, or a mean, bias or factor that is not finite.
    """

    user_ids: np.ndarray
    movie_ids: np.ndarray
    mean: float
    user_bias: np.ndarray
    movie_bias: np.ndarray
    user_factors: np.ndarray
    movie_factors: np.ndarray
    biased: bool = True
    regularization: float = 0.12
    bias_regularization: float = 5.0

    def __post_init__(self):
        require_each(FINITE, mean=self.mean)
        for kind in ("user", "movie"):
            ids, bias, factors = (np.asarray(getattr(self, f"{kind}_{part}")) for part in ("ids", "bias", "factors"))
            require(distinct(ids[None])[0], f"{kind}_ids", "different from each other", ids)
            require_rows(np.isfinite(bias), f"{kind}_bias", "finite", bias, ids)
            require_rows(np.isfinite(factors), f"{kind}_factors", "finite", factors, ids)

    @property
    def rank(self) -> int:
        """Number of factors."""
        return self.user_factors.shape[1]

    def matrix(self, users: np.ndarray | slice = _ALL, movies: np.ndarray | slice = _ALL) -> np.ndarray:
        """Predict the rating of movies by users, float array [users, movies].

        Rows of users and movies are whole numbers or a slice, all by default. Where they are not all, the last bits of
        the products may differ from those of all.
        """
        bias = self.mean + self.user_bias[users, None] + self.movie_bias[None, movies]
        return bias + self.user_factors[users] @ self.movie_factors[movies].T

    def predict(self, user_ids: ArrayLike, movie_ids: ArrayLike) -> np.ndarray:
        """Predict the ratings float [n] of pairs of a user and a movie.

        Bias and factors of an id without a rating in training count as zero.
        """
        user, movie = find_rows(self.user_ids, user_ids), find_rows(self.movie_ids, movie_ids)
        user_known, movie_known = user >= 0, movie >= 0
        interaction = np.einsum("nk,nk->n", self.user_factors[user], self.movie_factors[movie])
        return (
            self.mean
            + np.where(user_known, self.user_bias[user], 0.0)
            + np.where(movie_known, self.movie_bias[movie], 0.0)
            + np.where(user_known & movie_known, interaction, 0.0)
        )

    def fold_in(self, ratings: pd.DataFrame) -> "Factorization":
        """Add users by their ratings, with the movies unchanged: half a sweep of `als`.

        The bias and the factors of each user in `ratings` are the ridge regressions that `als` solves for a user, with
        the penalties of this model. Users that the model has are replaced. Ratings of unknown movies are left out; a
        user without other ratings gets zeros, the prior mean.

        Args:
          ratings: DataFrame with columns user_id, movie_id, rating; all ratings of these users.

        Raises:
          ValueError: ratings that `check_ratings` refuses, or a model without biases, whose zeros count as ratings.
        """
        check_ratings(ratings)
        require(self.biased, "the model", "one with biases, as als fits them", "one without")
        user_ids, user = np.unique(ratings["user_id"], return_inverse=True)
        movie = find_rows(self.movie_ids, ratings["movie_id"])
        movie_known = movie >= 0
        user, movie = user[movie_known], movie[movie_known]
        deviation = ratings["rating"].to_numpy(float)[movie_known] - self.mean - self.movie_bias[movie]
        weight = np.maximum(np.bincount(user, minlength=len(user_ids)) + self.bias_regularization, 1e-12)
        bias = np.bincount(user, deviation, minlength=len(user_ids)) / weight
        cells, residual = _sparse(user, movie, deviation - bias[user], (len(user_ids), len(self.movie_ids)))
        factors = _ridge(cells, residual, self.movie_factors, self.regularization)
        others = ~np.isin(self.user_ids, user_ids)
        all_ids = np.concatenate([self.user_ids[others], user_ids])
        order = np.argsort(all_ids)
        return replace(
            self,
            user_ids=all_ids[order],
            user_bias=np.concatenate([self.user_bias[others], bias])[order],
            user_factors=np.concatenate([self.user_factors[others], factors])[order],
        )

    def user_frame(self) -> pd.DataFrame:
        """Return bias (where the model has biases) and factors of the users, indexed by user id, for joins."""
        return self._frame(pd.Index(self.user_ids, name="user_id"), self.user_bias, self.user_factors)

    def movie_frame(self) -> pd.DataFrame:
        """Return the same for the movies, indexed by movie id."""
        return self._frame(pd.Index(self.movie_ids, name="movie_id"), self.movie_bias, self.movie_factors)

    def features(self, movie_ids: ArrayLike | None = None) -> RatingFeatures:
        """Return features with which a linear model that all arms share can represent the ratings.

        They are a constant, bias and factors of a user, bias and factors of a candidate, and the element-wise products
        of their factors, of which the rating is a sum. Constant and biases are left out where the model has no biases.

        Args:
          movie_ids: the movies of the features, in order; None for all.
        """
        users, movies = self.user_frame(), self.movie_frame()
        movies = movies if movie_ids is None else movies.loc[movie_ids]
        columns = {BIAS: {"mean": 0.0, "deviation": 1.0}} if self.biased else {}
        encoder = Encoder(columns | ({FACTOR: {"size": self.rank}} if self.rank else {}))
        features = Features(
            item_ids=as_ids(movies.index, "movies"),
            items=encoder.encode(movies),
            item_encoder=encoder,
            context_encoder=encoder,
            products=((FACTOR, FACTOR),) if self.rank else (),
            intercept=self.biased,
        )
        return RatingFeatures(features, users)

    def _frame(self, index, bias, factors):
        frame = pd.DataFrame(factors, index, [f"{FACTOR}_{k}" for k in range(self.rank)])
        if self.biased:
            frame.insert(0, BIAS, bias)
        return frame


def als(
    ratings: pd.DataFrame,
    rank: int = 20,
    regularization: float = 0.12,
    bias_regularization: float = 5.0,
    iterations: int = 12,
    seed: int = 0,
) -> Factorization:
    """Fit biases and factors to the observed ratings only, by alternating least squares.

    The biases are ridge regressions on the ratings; the factors then alternate on the residuals with a penalty that
    grows with the number of ratings of a row (ALS-WR: Zhou et al. 2008, "Large-scale Parallel Collaborative Filtering
    for the Netflix Prize", section 3.1).

    Args:
      ratings: DataFrame with columns user_id, movie_id, rating.
      rank: number of factors; 0 leaves the biases alone.
      regularization: penalty per rating on the factors.
      bias_regularization: penalty on the biases, in pseudo-ratings at the mean.
      iterations: sweeps over users and movies.
      seed: of the initial movie factors.

    Raises:
      ValueError: ratings that `check_ratings` refuses, a negative rank, or a penalty outside its range.
    """
    check_ratings(ratings)
    require_each(whole(0), rank=rank)
    require(regularization > 0, "regularization", "positive", regularization)
    require(bias_regularization >= 0, "bias_regularization", "0 or more", bias_regularization)
    user_ids, user = np.unique(ratings["user_id"], return_inverse=True)
    movie_ids, movie = np.unique(ratings["movie_id"], return_inverse=True)
    rating = ratings["rating"].to_numpy(float)
    mean = rating.mean()
    user_bias, movie_bias = _biases(user, movie, rating - mean, bias_regularization)
    shape = (len(user_ids), len(movie_ids))
    cells, residual = _sparse(user, movie, rating - mean - user_bias[user] - movie_bias[movie], shape)
    movie_factors = np.random.default_rng(seed).normal(scale=0.1, size=(shape[1], rank))
    user_factors = np.zeros((shape[0], rank))
    for _ in range(iterations if rank else 0):
        user_factors = _ridge(cells, residual, movie_factors, regularization)
        movie_factors = _ridge(cells.T, residual.T, user_factors, regularization)
    parameters = float(mean), user_bias, movie_bias, user_factors, movie_factors
    return Factorization(user_ids, movie_ids, *parameters, True, regularization, bias_regularization)


def svd(ratings: pd.DataFrame, rank: int = 20, num_movies: int | None = None) -> Factorization:
    """Factorise the ratings matrix with zeros where nothing was rated, as TF-Agents' own MovieLens environment does.

    An unrated movie counts as rated 0, so the rewards are not ratings; use it to compare with TF-Agents. The model has
    no biases, and its factors carry the square roots of the singular values.

    Args:
      ratings: DataFrame with columns user_id, movie_id, rating.
      rank: singular values kept.
      num_movies: only the first of the rated movies in the order of their ids, and only users who rated one of them;
        None for all.

    Raises:
      ValueError: ratings that `check_ratings` refuses, or a rank that the matrix does not have.
    """
    check_ratings(ratings)
    movie_ids = np.unique(ratings["movie_id"])[:num_movies]
    movie = find_rows(movie_ids, ratings["movie_id"])
    ratings, movie = ratings[movie >= 0], movie[movie >= 0]
    user_ids, user = np.unique(ratings["user_id"], return_inverse=True)
    max_rank = min(len(user_ids), len(movie_ids))
    require(1 <= rank <= max_rank, "rank", f"in [1, {max_rank}]", rank)
    matrix = np.zeros((len(user_ids), len(movie_ids)))
    matrix[user, movie] = ratings["rating"]
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    scale = np.sqrt(values[:rank])
    zeros = np.zeros(len(user_ids)), np.zeros(len(movie_ids))
    factors = left[:, :rank] * scale, right[:rank].T * scale
    return Factorization(user_ids, movie_ids, 0.0, *zeros, *factors, biased=False)


def find_rows(known_ids: np.ndarray, ids: ArrayLike) -> np.ndarray:
    """Return the row of each id [n] in `known_ids`, which are all different; -1 where it is unknown."""
    return pd.Index(known_ids).get_indexer(pd.Index(ids))


def _sparse(user, movie, values, shape):
    """Return ones and values [n] in the cells (user, movie) of two sparse arrays [users, movies]."""
    return tuple(sparse.csr_matrix((data, (user, movie)), shape) for data in (np.ones_like(values), values))


def _biases(user, movie, deviation, penalty, sweeps=10):
    """Fit user and movie biases by ridge regression to deviations [n] from the mean, alternating."""
    user_count, movie_count = np.bincount(user), np.bincount(movie)
    user_bias, movie_bias = np.zeros(len(user_count)), np.zeros(len(movie_count))
    for _ in range(sweeps):
        movie_bias = np.bincount(movie, deviation - user_bias[user]) / (movie_count + penalty)
        user_bias = np.bincount(user, deviation - movie_bias[movie]) / (user_count + penalty)
    return user_bias, movie_bias


def _ridge(cells, residual, factors, regularization):
    """Solve the ridge regression of every row; cells, residual: sparse [rows, columns]; factors: [columns, rank].

    A row without ratings gets zeros.
    """
    rank = factors.shape[1]
    row, column = np.tril_indices(rank)  # Gram matrices are symmetric
    half = cells @ (factors[:, row] * factors[:, column])
    gram = np.empty((cells.shape[0], rank, rank))
    gram[:, row, column] = gram[:, column, row] = half
    count = np.maximum(np.asarray(cells.sum(axis=1)).reshape(-1, 1, 1), 1.0)
    return np.linalg.solve(gram + regularization * count * np.eye(rank), (residual @ factors)[:, :, None])[:, :, 0]
