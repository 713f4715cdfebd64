"""The three tables of MovieLens, with the columns that all other modules rely on."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from recbandits.checks import require

GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
STARS = (1, 2, 3, 4, 5)
OFFICIAL = "MovieLens 100K"


@dataclass(frozen=True, eq=False)
class MovieLens:
    """Ratings, with the users and movies that they belong to.

    Attributes:
      ratings: DataFrame [ratings] in file order; user_id and movie_id (int64), rating (float64, 1 to 5), time (UTC).
      users: DataFrame indexed by user_id; age (int64), gender ("F" or "M"), occupation and zip (str).
      movies: DataFrame indexed by movie_id; title (str, without the year), year (Int64, may be missing), then one bool
        column for each of GENRES.
      source: of the tables, in words; every result shows it.
    """

    ratings: pd.DataFrame
    users: pd.DataFrame
    movies: pd.DataFrame
    source: str

    @property
    def is_real(self) -> bool:
        """True for the official MovieLens 100K, verified by its digests; False for synthetic and foreign sets."""
        return self.source.startswith(OFFICIAL)

    def __repr__(self) -> str:
        return f"{self.source}: {len(self.users):,} users, {len(self.movies):,} movies, {len(self.ratings):,} ratings"


def check_ratings(ratings: pd.DataFrame) -> None:
    """Check ratings before anything is computed from them.

    Args:
      ratings: one row for each rating, with columns user_id, movie_id and rating.

    Raises:
      ValueError: a column is missing, there is no rating, an id is missing, a rating is not a finite number, or a user
        has rated a movie twice.
    """
    columns = ["user_id", "movie_id", "rating"]
    require(ratings.columns.isin(columns).sum() == 3, "columns of ratings", ", ".join(columns), list(ratings.columns))
    require(not ratings.empty, "the number of ratings", "at least 1", 0)
    require(
        pd.api.types.is_numeric_dtype(ratings["rating"]), "the type of ratings", "numeric", str(ratings["rating"].dtype)
    )
    valid = np.isfinite(ratings["rating"].to_numpy(float, na_value=np.nan))
    valid &= ratings[["user_id", "movie_id"]].notna().to_numpy().all(axis=1)
    if not valid.all():
        row = int(np.argmin(valid))
        values = ", ".join(f"{name} {ratings[name].iloc[row]}" for name in columns)
        raise ValueError(f"row {row} of the ratings must have a user, a movie and a finite rating, got {values}")
    if (repeated := ratings.duplicated(["user_id", "movie_id"])).any():
        user, movie = ratings.loc[repeated, ["user_id", "movie_id"]].iloc[0]
        raise ValueError(f"a user must have rated a movie once, user {user} has rated movie {movie} again")
