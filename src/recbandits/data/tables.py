"""The three tables of MovieLens, checked, with the columns that all other modules rely on."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from pandas.api.extensions import ExtensionArray

from recbandits.checks import require

GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
GENRE_ALIASES = {"Children": "Children's", "(no genres listed)": "unknown"}  # of the sets from 10M on
STARS = (1, 2, 3, 4, 5)
RATING = ("user_id", "movie_id", "rating", "time")
DEMOGRAPHICS = ("age", "gender", "occupation", "zip")
OFFICIAL = "MovieLens 100K"
_LARGEST_ID = 2**31
_TIMES = pd.to_datetime([1, 2**32 - 1], unit="s", utc=True)
_NO_LINE = re.compile("[\n\r\0\ud800-\udfff]")  # a lone surrogate cannot be written


class RowError(ValueError):
    """A value in a table that is refused.

    Attributes:
      table: "ratings", "users" or "movies".
      row: position of the value.
      reason: column, rule and value.
    """

    def __init__(self, table: str, row: int, reason: str):
        super().__init__(f"{table}, row {row}: {reason}")
        self.table, self.row, self.reason = table, row, reason


@dataclass(frozen=True, eq=False)
class MovieLens:
    """Ratings, with the users and movies that they belong to.

    Columns of other types are converted if all their values are valid.

    Attributes:
      ratings: DataFrame [ratings] in file order; user_id and movie_id (int64, from 1), rating (float64, 0.5 to 5 in
        halves), time (UTC, in microseconds). A user has rated a movie once.
      users: DataFrame indexed by user_id; age (int64), gender ("F" or "M"), occupation and zip (str), or no column, as
        in the sets from 10M on.
      movies: DataFrame indexed by movie_id; title (str, without the year), year (Int64, may be missing), then one bool
        column for each of GENRES, and for each further genre that a movie has, in alphabetical order.
      source: of the tables, in words; every result shows it.

    Raises:
      RowError: a value is refused; the sentence names table, row, column and value.
      ValueError: a table has no row, or other columns.
    """

    ratings: pd.DataFrame
    users: pd.DataFrame
    movies: pd.DataFrame
    source: str

    def __post_init__(self) -> None:
        tables = {
            "ratings": _convert_ratings(self.ratings),
            "users": _convert_users(self.users),
            "movies": _convert_movies(self.movies),
        }
        for name in ("users", "movies"):
            ids = tables["ratings"][tables[name].index.name]
            require_values("ratings", ids, ids.isin(tables[name].index), f"listed in {name}")
        for name, table in tables.items():
            object.__setattr__(self, name, table)

    @property
    def is_real(self) -> bool:
        """True for the official MovieLens 100K, verified by its digests; False for synthetic and other sets."""
        return self.source.startswith(OFFICIAL)

    def __repr__(self) -> str:
        return f"{self.source}: {len(self.users):,} users, {len(self.movies):,} movies, {len(self.ratings):,} ratings"


def require_values(table: str, values: pd.Series, allowed: ArrayLike, expected: str) -> None:
    """Raise RowError about the first value of a named column that is not allowed, bool [rows]."""
    if not np.all(allowed):
        row = int(np.argmin(allowed))
        raise RowError(table, row, f"{values.name} must be {expected}, got {values.iloc[row]}")


def convert_numbers(
    table: str, values: pd.Series, low: float, high: float, step: float = 1, missing: ArrayLike = False
) -> np.ndarray:
    """Convert a column to float64; refuse what is not in [low, high], or no multiple of `step`, and not `missing`.

    The step is 1, 0.5, or 0 for any number.
    """
    dated = values.dtype.kind in "bmM"  # bools, durations and dates, which pandas takes for numbers
    parsed = pd.Series(np.nan, values.index) if dated else pd.to_numeric(values, errors="coerce")
    numbers = parsed.to_numpy(float, na_value=np.nan)
    allowed = (numbers >= low) & (numbers <= high)
    if step:
        allowed &= np.where(allowed, numbers, 0) % step == 0
    kind = {1: "a whole number", 0.5: "a half or whole number", 0: "a number"}[step]
    require_values(table, values, allowed | missing, f"{kind} from {low} to {high}")
    return numbers


def check_ratings(ratings: pd.DataFrame) -> None:
    """Check ratings before anything is computed from them.

    Args:
      ratings: one row for each rating, with columns user_id, movie_id and rating.

    Raises:
      ValueError: a column is missing, there is no rating, an id is missing or no number, a rating is not finite, or a
        user has rated a movie twice.
    """
    columns = ["user_id", "movie_id", "rating"]
    require(ratings.columns.isin(columns).sum() == 3, "columns of ratings", ", ".join(columns), list(ratings.columns))
    require(not ratings.empty, "the number of ratings", "at least 1", 0)
    for name in columns:
        numeric = pd.api.types.is_numeric_dtype(ratings[name])
        require(numeric, f"the type of {name}", "numeric", str(ratings[name].dtype))
    valid = np.isfinite(ratings["rating"].to_numpy(float, na_value=np.nan))
    valid &= ratings[["user_id", "movie_id"]].notna().to_numpy().all(axis=1)
    if not valid.all():
        row = int(np.argmin(valid))
        values = ", ".join(f"{name} {ratings[name].iloc[row]}" for name in columns)
        raise ValueError(f"row {row} of the ratings must have a user, a movie and a finite rating, got {values}")
    if (repeated := ratings.duplicated(["user_id", "movie_id"])).any():
        user, movie = ratings.loc[repeated, ["user_id", "movie_id"]].iloc[0]
        raise ValueError(f"a user must have rated a movie once, user {user} has rated movie {movie} again")


def _convert_ratings(ratings: pd.DataFrame) -> pd.DataFrame:
    _require_columns("ratings", ratings, RATING)
    time = ratings["time"]
    utc = isinstance(time.dtype, pd.DatetimeTZDtype) and str(time.dt.tz) == "UTC"
    microseconds = time.dt.as_unit("us") if utc else time
    allowed = time.between(*_TIMES) & (microseconds == time) if utc else np.zeros(len(time), bool)
    table = pd.DataFrame(
        {
            "user_id": convert_numbers("ratings", ratings["user_id"], 1, _LARGEST_ID).astype("int64"),
            "movie_id": convert_numbers("ratings", ratings["movie_id"], 1, _LARGEST_ID).astype("int64"),
            "rating": convert_numbers("ratings", ratings["rating"], 0.5, 5, 0.5),
            "time": microseconds.array,
        }
    )
    require_values("ratings", time, allowed, "in UTC, from 1970 to 2106, and in whole microseconds")
    require_values("ratings", table["movie_id"], ~table.duplicated(["user_id", "movie_id"]), "rated once by a user")
    return table


def _convert_users(users: pd.DataFrame) -> pd.DataFrame:
    columns = DEMOGRAPHICS if users.columns.size else ()
    _require_columns("users", users, columns)
    table = {name: _convert_text("users", users[name]) for name in columns[1:]}
    if columns:
        require_values("users", users["gender"], users["gender"].isin(["F", "M"]), "F or M")
        table["age"] = convert_numbers("users", users["age"], 1, 120).astype("int64")
    return pd.DataFrame(table, _convert_index("users", users, "user_id"), columns)


def _convert_movies(movies: pd.DataFrame) -> pd.DataFrame:
    further = [name for name in movies.columns if name not in ("title", "year", *GENRES)]
    reserved = ("movie_id", *GENRE_ALIASES)
    for name in further:
        valid = isinstance(name, str) and name not in ("", *reserved) and "|" not in name and not _NO_LINE.search(name)
        require(valid, "a genre of movies", f"a line without |, and none of {', '.join(reserved)}", name)
    _require_columns("movies", movies, ("title", "year", *GENRES, *further))
    year = convert_numbers("movies", movies["year"], 1, 9999, missing=movies["year"].isna())
    table = {"title": _convert_text("movies", movies["title"]), "year": pd.array(year, "Int64")}
    for name in (*GENRES, *sorted(further)):
        require_values("movies", movies[name], movies[name].isin([0, 1]), "0 or 1")
        if name in GENRES or movies[name].any():
            table[name] = movies[name].to_numpy(bool)
    return pd.DataFrame(table, _convert_index("movies", movies, "movie_id"))


def _convert_text(table: str, values: pd.Series) -> ExtensionArray:
    allowed = [isinstance(value, str) and not _NO_LINE.search(value) for value in values]
    require_values(table, values, allowed, "text of one line")
    return values.astype(str).array


def _convert_index(table: str, frame: pd.DataFrame, name: str) -> pd.Index:
    ids = frame.index.to_series(name=name)
    index = pd.Index(convert_numbers(table, ids, 1, _LARGEST_ID).astype("int64"), name=name)
    require_values(table, ids, ~index.duplicated(), "different in each row")
    return index


def _require_columns(table: str, frame: pd.DataFrame, columns: Sequence[str]) -> None:
    require(len(frame) > 0, table, "a table with a row", "none")
    equal = len(frame.columns) == len(columns) and set(frame.columns) == set(columns)
    require(equal, table, f"a table with the columns {', '.join(columns)}", frame.columns.tolist())
