"""Ratings of your own, in the form that every part of the package reads: MovieLens' three tables."""

import numpy as np
import pandas as pd

from recbandits.data.tables import GENRES, STARS, MovieLens

COLUMNS = ["user_id", "movie_id", "rating", "time"]
_NOBODY = {"age": 30, "gender": "F", "occupation": "other", "zip": "00000"}


def stars(values):
    """Put a measure of liking on the scale of ratings, by its ranks: the lowest fifth is 1, the highest 5.

    Args:
      values: Series of numbers, such as minutes watched.

    Returns:
      Series of 1.0 to 5.0; equal values get equal stars.
    """
    return np.ceil(values.rank(pct=True) * len(STARS))


def as_movielens(events, titles, source):
    """Make `MovieLens` of what users thought of things; a user who thought twice is taken at the last word.

    What is not known of users and things is the same for all of them, so that nothing can be learnt from it.

    Args:
      events: DataFrame with columns user_id and movie_id (whole numbers from 1), rating (1 to 5), time (UTC).
      titles: dict from movie_id to what people read.
      source: what it is and where it came from; every result carries it.

    Returns:
      MovieLens, to be written by `recbandits.data.formats.write` and named to jobs by `--data`.

    Raises:
      ValueError: a column is missing, a rating is none, or a thing has no title.
    """
    missing = [name for name in COLUMNS if name not in events]
    if missing:
        raise ValueError(f"events must have the columns {', '.join(COLUMNS)}, {missing[0]} is missing")
    if not (good := events["rating"].isin(STARS)).all():
        raise ValueError(f"rating must be one of {STARS}, got {events.loc[~good, 'rating'].iloc[0]}")
    if untitled := sorted(set(events["movie_id"]) - titles.keys()):
        raise ValueError(f"titles must name every movie_id, {untitled[0]} is missing")
    ratings = events[COLUMNS].sort_values("time", kind="stable").drop_duplicates(["user_id", "movie_id"], keep="last")
    users = pd.DataFrame(_NOBODY, index=pd.Index(sorted(ratings["user_id"].unique()), name="user_id"))
    movies = pd.DataFrame({"title": titles}).rename_axis("movie_id").sort_index()
    movies = movies.assign(year=pd.Series(pd.NA, movies.index, "Int64"), **dict.fromkeys(GENRES, False))
    ratings = ratings.astype({"rating": float}).reset_index(drop=True)
    return MovieLens(ratings, users, movies.assign(unknown=True), source)
