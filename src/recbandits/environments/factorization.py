"""From a table of ratings to a reward for every (user, movie): ALS on what was rated, or TF-Agents' zero-filled SVD."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import sparse

from recbandits.data.features import FeatureBundle


@dataclass(frozen=True)
class Factorization:
    """A rating model `mean + user_bias + movie_bias + user_factors . movie_factors`.

    Attributes:
      user_ids: int array [users], ascending; row u of the user arrays belongs to `user_ids[u]`.
      movie_ids: int array [movies], ascending.
      mean: rating points.
      user_bias: float array [users], rating points.
      movie_bias: float array [movies], rating points.
      user_factors: float array [users, rank].
      movie_factors: float array [movies, rank].
      biased: False for a model of factors alone.
      regularization: penalty per rating with which the factors were fitted.
      bias_regularization: penalty with which the biases were fitted, in pseudo-ratings at the mean.
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

    @property
    def rank(self):
        """Number of factors."""
        return self.user_factors.shape[1]

    def matrix(self):
        """Predicted rating of every movie by every user, float array [users, movies]."""
        bias = self.mean + self.user_bias[:, None] + self.movie_bias[None, :]
        return bias + self.user_factors @ self.movie_factors.T

    def user_features(self):
        """What a linear model per movie needs of a user, [users, size]: 1, bias and factors, or the factors alone."""
        if not self.biased:
            return self.user_factors
        return np.column_stack([np.ones(len(self.user_ids)), self.user_bias, self.user_factors])

    def movie_features(self):
        """What describes a movie, [movies, size]: bias and factors; without biases the factors alone."""
        if not self.biased:
            return self.movie_factors
        return np.column_stack([self.movie_bias, self.movie_factors])

    def predict(self, user_ids, movie_ids):
        """Predict the ratings of (user, movie) pairs.

        Args:
          user_ids: int array [n].
          movie_ids: int array [n].

        Returns:
          float array [n], rating points; for an id without a rating in training its bias and factors count as zero.
        """
        user, known_user = _rows(self.user_ids, user_ids)
        movie, known_movie = _rows(self.movie_ids, movie_ids)
        taste = np.einsum("nk,nk->n", self.user_factors[user], self.movie_factors[movie])
        return (
            self.mean
            + np.where(known_user, self.user_bias[user], 0.0)
            + np.where(known_movie, self.movie_bias[movie], 0.0)
            + np.where(known_user & known_movie, taste, 0.0)
        )

    def fold_in(self, ratings):
        """Add users by their ratings of the movies, which stay as they are: half a sweep of `als`.

        The bias and the factors of each user in `ratings` are the ridge regressions that `als` solves for a user, with
        the penalties that it had. The ratings must be all that are to count: a user whom the model has is replaced.
        Ratings of movies that it does not have are left out; who has no others gets zeros, the prior mean.

        Args:
          ratings: DataFrame with columns user_id, movie_id, rating.

        Returns:
          A `Factorization` with these users and all that it had; mean and movies are the same.

        Raises:
          ValueError: no ratings, or a model without biases, whose zeros count as ratings.
        """
        if ratings.empty:
            raise ValueError("ratings must have at least one row, got none")
        if not self.biased:
            raise ValueError("users can be folded into a model with biases, as als fits them, got one without")
        user_ids, user = np.unique(ratings["user_id"], return_inverse=True)
        movie, known = _rows(self.movie_ids, ratings["movie_id"])
        user, movie = user[known], movie[known]
        deviation = ratings["rating"].to_numpy(float)[known] - self.mean - self.movie_bias[movie]
        penalised = np.maximum(np.bincount(user, minlength=len(user_ids)) + self.bias_regularization, 1e-12)
        bias = np.bincount(user, deviation, minlength=len(user_ids)) / penalised
        shape = len(user_ids), len(self.movie_ids)
        residual = sparse.csr_matrix((deviation - bias[user], (user, movie)), shape)
        rated = sparse.csr_matrix((np.ones(len(user)), (user, movie)), shape)
        factors = _ridge(rated, residual, self.movie_factors, self.regularization)
        kept = ~np.isin(self.user_ids, user_ids)
        every = np.concatenate([self.user_ids[kept], user_ids])
        order = np.argsort(every)
        return replace(
            self,
            user_ids=every[order],
            user_bias=np.concatenate([self.user_bias[kept], bias])[order],
            user_factors=np.concatenate([self.user_factors[kept], factors])[order],
        )

    def user_frame(self):
        """Bias (where the model has biases) and factors of the users, a DataFrame indexed by user id, for joins."""
        return self._frame("user_id", self.user_ids, self.user_bias, self.user_factors)

    def movie_frame(self):
        """The same for the movies, indexed by movie id."""
        return self._frame("movie_id", self.movie_ids, self.movie_bias, self.movie_factors)

    def bundle(self, movie_ids=None):
        """Features with which a linear model that all arms share can represent the ratings, as a FeatureBundle.

        Its view is "product": of a user a constant and the bias (where the model has biases) and the factors, of a
        candidate likewise, and the products of the factors, of which the rating is a sum.

        Args:
          movie_ids: the movies that it is to know, in order; None for all.
        """
        users, movies = self.user_frame(), self.movie_frame()
        if self.biased:
            users.insert(0, "constant", 1.0)
        return FeatureBundle(users, movies if movie_ids is None else movies.loc[movie_ids], view="product")

    def _frame(self, name, ids, bias, factors):
        columns = [f"factor_{k}" for k in range(self.rank)]
        frame = pd.DataFrame(factors, pd.Index(ids, name=name), columns)
        if self.biased:
            frame.insert(0, "bias", bias)
        return frame


def als(ratings, rank=20, regularization=0.12, bias_regularization=5.0, iterations=12, seed=0):
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

    Returns:
      A `Factorization` over the users and movies that occur in `ratings`.

    Raises:
      ValueError: no ratings, a negative rank, or a penalty outside its range.
    """
    if ratings.empty:
        raise ValueError("ratings must have at least one row, got none")
    if rank < 0:
        raise ValueError(f"rank must be 0 or more, got {rank}")
    if not (regularization > 0 and bias_regularization >= 0):
        raise ValueError(
            "regularization must be positive and bias_regularization 0 or more, "
            f"got {regularization} and {bias_regularization}"
        )
    user_ids, user = np.unique(ratings["user_id"], return_inverse=True)
    movie_ids, movie = np.unique(ratings["movie_id"], return_inverse=True)
    rating = ratings["rating"].to_numpy(float)
    mean = rating.mean()
    user_bias, movie_bias = _biases(user, movie, rating - mean, bias_regularization)
    residual = rating - mean - user_bias[user] - movie_bias[movie]
    shape = (len(user_ids), len(movie_ids))
    by_user = sparse.csr_matrix((residual, (user, movie)), shape)
    rated = sparse.csr_matrix((np.ones_like(residual), (user, movie)), shape)
    movie_factors = np.random.default_rng(seed).normal(scale=0.1, size=(shape[1], rank))
    user_factors = np.zeros((shape[0], rank))
    for _ in range(iterations if rank else 0):
        user_factors = _ridge(rated, by_user, movie_factors, regularization)
        movie_factors = _ridge(rated.T, by_user.T, user_factors, regularization)
    return Factorization(
        user_ids,
        movie_ids,
        float(mean),
        user_bias,
        movie_bias,
        user_factors,
        movie_factors,
        regularization=regularization,
        bias_regularization=bias_regularization,
    )


def svd(ratings, rank=20, num_movies=None):
    """Factorise the ratings matrix with zeros where nothing was rated, as TF-Agents' own MovieLens environment does.

    It is kept to compare with TF-Agents: an unrated movie counts as rated 0, so its rewards are no ratings.

    Args:
      ratings: DataFrame with columns user_id, movie_id, rating.
      rank: singular values kept.
      num_movies: only the movies with ids 1 to num_movies, and only users who rated one of them; None for all.

    Returns:
      A `Factorization` without biases whose factors carry the square roots of the singular values.

    Raises:
      ValueError: a rank that the matrix does not have, or no rating of the movies kept.
    """
    movie_ids = np.arange(1, int(num_movies or ratings["movie_id"].max()) + 1)
    kept = ratings[ratings["movie_id"].between(1, movie_ids[-1])]
    user_ids, user = np.unique(kept["user_id"], return_inverse=True)
    if not 1 <= rank <= min(len(user_ids), len(movie_ids)):
        raise ValueError(f"rank must be in [1, {min(len(user_ids), len(movie_ids))}], got {rank}")
    matrix = np.zeros((len(user_ids), len(movie_ids)))
    matrix[user, kept["movie_id"] - 1] = kept["rating"]
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    scale = np.sqrt(values[:rank])
    zeros = np.zeros(len(user_ids)), np.zeros(len(movie_ids))
    factors = left[:, :rank] * scale, right[:rank].T * scale
    return Factorization(user_ids, movie_ids, 0.0, *zeros, *factors, biased=False)


def _biases(user, movie, deviation, penalty, sweeps=10):
    """Ridge estimates of user and movie biases from deviations [n] from the mean, alternating."""
    user_count, movie_count = np.bincount(user), np.bincount(movie)
    user_bias, movie_bias = np.zeros(len(user_count)), np.zeros(len(movie_count))
    for _ in range(sweeps):
        movie_bias = np.bincount(movie, deviation - user_bias[user]) / (movie_count + penalty)
        user_bias = np.bincount(user, deviation - movie_bias[movie]) / (user_count + penalty)
    return user_bias, movie_bias


def _ridge(rated, residual, factors, regularization):
    """Solve the ridge regression of every row; rated, residual: sparse [rows, columns]; factors: [columns, rank].

    A row without ratings gets zeros.
    """
    rank = factors.shape[1]
    outer = (factors[:, :, None] * factors[:, None, :]).reshape(len(factors), rank * rank)
    gram = (rated @ outer).reshape(rated.shape[0], rank, rank)
    count = np.maximum(np.asarray(rated.sum(axis=1)).reshape(-1, 1, 1), 1.0)
    return np.linalg.solve(gram + regularization * count * np.eye(rank), (residual @ factors)[:, :, None])[:, :, 0]


def _rows(known_ids, ids):
    """Row of each id in the ascending `known_ids` (any row where it is unknown), and whether it is known."""
    ids = np.asarray(ids)
    row = np.minimum(np.searchsorted(known_ids, ids), len(known_ids) - 1)
    return row, known_ids[row] == ids
