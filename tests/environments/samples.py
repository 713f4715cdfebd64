"""Small tables of invented ratings and features, for the tests of environments and of what is trained in them."""

import numpy as np
import pandas as pd

from tests.rating_tables import rating_features

USERS, MOVIES = 30, 12


def table(users=USERS, movies=MOVIES, share=0.75, seed=0):
    """Whole stars of users for movies, in a share of the cells; ids from 1 and from 101."""
    generator = np.random.default_rng(seed)
    user, movie = np.nonzero(generator.random((users, movies)) < share)
    rating = np.clip(np.round(3.5 + generator.normal(size=len(user))), 1, 5)
    return pd.DataFrame({"user_id": user + 1, "movie_id": movie + 101, "rating": rating})


def features(product=False, popularity=True, factors=2):
    """A number for each user and movie, by which tests identify them, and factors."""
    draw = np.random.default_rng(1).normal
    names = [f"factor_{k}" for k in range(factors)]
    users = pd.DataFrame(draw(size=(USERS, 1 + factors)), range(1, USERS + 1), ["activity", *names])
    movies = pd.DataFrame(draw(size=(MOVIES, 1 + factors)), range(101, 101 + MOVIES), ["year", *names])
    if popularity:
        movies["popularity"] = np.log1p(table()["movie_id"].value_counts())
    return rating_features(users, movies, product)
