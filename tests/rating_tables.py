"""Small tables of users and movies as features, and logs of MovieLens' own ids, for tests of every layer."""

import numpy as np
import pandas as pd

from recbandits.data import Encoder, Features, RatingFeatures
from recbandits.records import Log


def rating_features(users, movies, product=False):
    """Features of tables of numbers, which stay as they are; `factor_0` and so on match by their dot product.

    With `product` all features stay, and candidates get the element-wise products.
    """
    encoders = [Encoder.fit(table, vectors=_vectors(table)) for table in (movies, users)]
    pairs = (("factor", "factor"),) if all("factor" in encoder.columns for encoder in encoders) else ()
    ids = pd.Index(movies.index.astype(str), dtype=object)
    options = {"products" if product else "crosses": pairs, "intercept": False}
    return RatingFeatures(Features(ids, encoders[0].encode(movies), *encoders, **options), users)


def log_of_ids(user_ids, movie_ids, features=None, mask=None, **columns):
    """Log of decisions for users among movies, by MovieLens' ids; the first is shown, if nothing else is said."""
    user_ids, movie_ids = np.asarray(user_ids), np.asarray(movie_ids)
    mask, n = np.ones(movie_ids.shape, bool) if mask is None else np.asarray(mask), len(user_ids)
    users, movies = np.unique(user_ids), np.unique(movie_ids[mask])
    defaults = {
        "event_id": np.array([f"event {row}" for row in range(n)], object),
        "time": np.datetime64("2026-01-01", "us") + np.arange(n),
        "action": np.zeros(n, int),
        "propensity": 1 / mask.sum(axis=1),
        "reward": np.arange(n, dtype=float),
        "pass_prob": np.ones(n),
    }
    log = Log(
        **(defaults | columns),
        user_id=np.searchsorted(users, user_ids),
        candidates=np.where(mask, np.searchsorted(movies, movie_ids), 0),
        mask=mask,
        item_ids=pd.Index(movies.astype(str), dtype=object),
        user_ids=pd.Index(users.astype(str), dtype=object),
        context=pd.DataFrame(index=range(n)),
    )
    return log if features is None else log.join_users(features.users)


def _vectors(table):
    names = ["factor" if name.startswith("factor_") else name for name in table.columns]
    return list(dict.fromkeys(names))
