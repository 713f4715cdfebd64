"""The three tables of MovieLens, as every other module sees them."""

from dataclasses import dataclass

import pandas as pd

GENRES = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)

STARS = (1, 2, 3, 4, 5)

OFFICIAL = "MovieLens 100K"


@dataclass(frozen=True, eq=False)
class MovieLens:
    """Ratings with those who gave them and what they were given to.

    Attributes:
      ratings: DataFrame [ratings] in file order; user_id and movie_id (int64), rating (float64, 1 to 5), time (UTC).
      users: DataFrame indexed by user_id; age (int64), gender ("F" or "M"), occupation and zip (str).
      movies: DataFrame indexed by movie_id; title (str, without the year), year (Int64, may be missing), then one bool
        column for each of GENRES.
      source: what the tables are and where they came from; every result carries it.
    """

    ratings: pd.DataFrame
    users: pd.DataFrame
    movies: pd.DataFrame
    source: str

    @property
    def is_real(self):
        """True for the official MovieLens 100K, known by its digests; False for the synthetic and for foreign sets."""
        return self.source.startswith(OFFICIAL)

    def __repr__(self):
        return f"{self.source}: {len(self.users):,} users, {len(self.movies):,} movies, {len(self.ratings):,} ratings"


def check_rated_once(ratings):
    """Refuse a table of ratings in which a user has rated a movie twice: which of the two is the truth?

    Args:
      ratings: DataFrame with columns user_id and movie_id.

    Raises:
      ValueError: with the first such pair.
    """
    if (twice := ratings.duplicated(["user_id", "movie_id"])).any():
        user, movie = ratings.loc[twice, ["user_id", "movie_id"]].iloc[0]
        raise ValueError(f"a user must have rated a movie once, user {user} has rated movie {movie} again")
