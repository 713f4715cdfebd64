"""The files of MovieLens 100K (u.data, u.item, u.user, ...) and 1M (*.dat): read, validate line by line, write."""

import csv
import hashlib
import io
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from recbandits.checks import replacing
from recbandits.data.tables import GENRES, OFFICIAL, STARS, MovieLens

DIGESTS = {  # SHA-256 of the official MovieLens 100K
    "u.data": "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490",
    "u.item": "553841ebc7de3a0fd0d6b62a204ea30c1e651aacfb2814c7a6584ac52f2c5701",
}
_OCCUPATIONS = (  # by code, from the README of MovieLens 1M
    "other", "educator", "artist", "clerical", "college student", "customer service", "doctor", "executive", "farmer",
    "homemaker", "K-12 student", "lawyer", "programmer", "retired", "marketing", "scientist", "self-employed",
    "engineer", "craftsman", "unemployed", "writer",
)  # fmt: skip
_RATING = ["user_id", "movie_id", "rating", "time"]
_USER = ["user_id", "age", "gender", "occupation", "zip"]
_MOVIE = ["movie_id", "title", "release_date", "video_date", "url", *GENRES]
_TITLE = r"(?P<title>.*?)\s*\((?P<year>\d{4})\)\s*(?:\([A-Z]+\))?$"
_LARGEST_ID, _LATEST_SECOND = 2**31, 2**32


def read(root: Path | zipfile.Path, origin: str) -> MovieLens:
    """Read the files of MovieLens 100K or 1M; the source of a valid set that is not the official 100K says so.

    Args:
      root: a directory, or a folder in an archive.
      origin: for the source: "directory", "cache" or "download".

    Raises:
      OSError: a file is missing or cannot be read.
      ValueError: a file is invalid; the sentence names file, line and reason.
    """
    if (root / "ratings.dat").exists():
        (ratings, users, movies), kind = _read_1m(root), "foreign data in the MovieLens 1M format"
    else:
        (ratings, users, movies), kind = _read_100k(root), "foreign data in the MovieLens 100K format"
        if all(hashlib.sha256((root / name).read_bytes()).hexdigest() == digest for name, digest in DIGESTS.items()):
            kind = OFFICIAL
    return MovieLens(ratings, users, movies, f"{kind} ({origin})")


def write(data: MovieLens, directory: Path) -> None:
    """Write five files of the MovieLens 100K format into a directory, created if missing; `read` reads them back."""
    years = data.movies["year"].astype(str).where(data.movies["year"].notna(), "")
    movies = data.movies[list(GENRES)].astype(int)
    movies.insert(0, "title", data.movies["title"] + years.map(lambda year: f" ({year})" if year else ""))
    movies.insert(1, "release_date", years.map(lambda year: f"01-Jan-{year}" if year else ""))
    movies.insert(2, "video_date", "")
    movies.insert(3, "url", "")
    seconds = data.ratings["time"].dt.as_unit("s").astype("int64")
    ratings = data.ratings.astype({"rating": int}).assign(time=seconds)
    options = {"header": False, "quoting": csv.QUOTE_NONE, "lineterminator": "\n"}
    files = {
        "u.data": ratings.to_csv(sep="\t", index=False, **options),
        "u.item": movies.to_csv(sep="|", **options),
        "u.user": data.users.to_csv(sep="|", **options),
        "u.genre": "".join(f"{genre}|{code}\n" for code, genre in enumerate(GENRES)),
        "u.info": f"{len(data.users)} users\n{len(movies)} items\n{len(ratings)} ratings\n",
    }
    for name, text in files.items():
        with replacing(directory / name) as draft:
            draft.write_bytes(text.encode("latin-1"))


def _read_100k(root):
    users = _read_table(root / "u.user", "|", _USER, text=["occupation", "zip"])
    movies = _read_table(root / "u.item", "|", _MOVIE, text=_MOVIE[1:5])
    flags = movies[list(GENRES)].isin([0, 1]).all(axis=1)
    _check_rows(root / "u.item", flags, movies["title"], "genre flags must be 0 or 1")
    ratings = _read_table(root / "u.data", "\t", _RATING)
    tables = _check_tables(root, ("u.data", "u.user", "u.item"), ratings, users, movies)
    if (info := root / "u.info").exists():
        expected = [int(number) for number in re.findall(r"\d+", info.read_text())]
        counts = [len(users), len(movies), len(ratings)]
        if expected != counts:
            raise ValueError(
                f"{info} has {expected} users, items and ratings, but the files have {counts}: one looks truncated"
            )
    if (genres := root / "u.genre").exists():
        for number, line in enumerate(genres.read_text().split(), start=1):
            if number > len(GENRES) or line != f"{GENRES[number - 1]}|{number - 1}":
                raise ValueError(f"{genres}, line {number}: genres must be {', '.join(GENRES)}, got {line!r}")
    return tables


def _read_1m(root):
    users = _read_table(root / "users.dat", "::", ["user_id", "gender", "age", "occupation", "zip"], text=["zip"])
    _convert_integers(root / "users.dat", users, "occupation", 0, len(_OCCUPATIONS) - 1)
    users["occupation"] = users["occupation"].map(dict(enumerate(_OCCUPATIONS)))
    movies = _read_table(root / "movies.dat", "::", ["movie_id", "title", "genres"], text=["title", "genres"])
    genres = movies.pop("genres")
    known = genres.map(lambda names: set(names.split("|")) <= set(GENRES))
    _check_rows(root / "movies.dat", known, genres, f"genres must be among {', '.join(GENRES)}")
    flags = genres.str.get_dummies("|").reindex(columns=list(GENRES), fill_value=0)
    ratings = _read_table(root / "ratings.dat", "::", _RATING)
    names = ("ratings.dat", "users.dat", "movies.dat")
    return _check_tables(root, names, ratings, users[_USER], movies.join(flags))


def _read_table(file, separator: str, columns: list[str], text: Sequence[str] = ()) -> pd.DataFrame:
    """Split a file into columns; those in `text` stay text, the others are numbers if all of the column is."""
    content = file.read_bytes().decode("latin-1").replace("\r\n", "\n")
    if not content.strip():
        raise ValueError(f"{file} is empty")
    lines = content.split("\n")
    if lines.pop():
        raise ValueError(f"{file}, line {len(lines) + 1}: the line does not end, so the file looks truncated")
    for number, line in enumerate(lines, start=1):
        if (count := line.count(separator) + 1) != len(columns):
            raise ValueError(f"{file}, line {number}: expected the {len(columns)} columns {columns}, got {count}")
    character = separator if len(separator) == 1 else "\x1f"  # pandas' fast parser takes no longer separator
    return pd.read_csv(
        io.StringIO(content.replace(separator, character)),
        sep=character,
        names=columns,
        dtype=dict.fromkeys(text, str),
        lineterminator="\n",
        quoting=csv.QUOTE_NONE,
        na_filter=False,
        low_memory=False,
    )


def _check_tables(root, names, ratings, users, movies):
    """Validate the tables of the files `names`; return them with the columns and types of `MovieLens`."""
    rating_file, user_file, movie_file = (root / name for name in names)
    for file, table, column in ((user_file, users, "user_id"), (movie_file, movies, "movie_id")):
        _convert_integers(file, table, column, 1)
        _check_rows(file, ~table[column].duplicated(), table[column], f"{column} must occur once")
        _convert_integers(rating_file, ratings, column, 1)
        listed = ratings[column].isin(table[column])
        _check_rows(rating_file, listed, ratings[column], f"{column} must be listed in {file.name}")
    _convert_integers(user_file, users, "age", 1, 120)
    _check_rows(user_file, users["gender"].isin(["F", "M"]), users["gender"], "gender must be F or M")
    _convert_integers(rating_file, ratings, "rating", STARS[0], STARS[-1])
    _convert_integers(rating_file, ratings, "time", 1, _LATEST_SECOND)
    pair = ratings["user_id"].astype(str) + " and " + ratings["movie_id"].astype(str)
    _check_rows(rating_file, ~pair.duplicated(), pair, "a pair of user_id and movie_id must occur once")
    ratings = ratings.astype({"rating": float}).assign(time=pd.to_datetime(ratings["time"], unit="s", utc=True))
    parts = movies["title"].str.extract(_TITLE)
    title = parts["title"].fillna(movies["title"])
    year = pd.to_numeric(parts["year"]).astype("Int64")
    movies = pd.concat([movies["movie_id"], title, year, movies[list(GENRES)].astype(bool)], axis=1)
    return ratings, users.set_index("user_id"), movies.set_index("movie_id")


def _convert_integers(file, table: pd.DataFrame, column: str, low: int, high: int = _LARGEST_ID) -> None:
    """Convert a column to int64; refuse it unless it has integers in [low, high] only."""
    value = pd.to_numeric(table[column], errors="coerce")
    valid = value.between(low, high) & (value % 1 == 0)
    _check_rows(file, valid, table[column], f"{column} must be a whole number from {low} to {high}")
    table[column] = value.astype("int64")


def _check_rows(file, valid: pd.Series, values: pd.Series, expected: str) -> None:
    """Raise ValueError with the file and the line of the first row that is not valid, bool [lines]."""
    if not valid.all():
        row = int(np.argmin(valid.to_numpy()))
        raise ValueError(f"{file}, line {row + 1}: {expected}, got {values.iloc[row]}")
