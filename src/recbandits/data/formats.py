"""The files of MovieLens 100K (u.data, u.item, u.user, ...) and 1M (*.dat): read, validated line by line, written."""

import csv
import hashlib
import io
import re

import numpy as np
import pandas as pd

from recbandits.data.tables import GENRES, OFFICIAL, STARS, MovieLens

# SHA-256 of the official MovieLens 100K.
DIGESTS = {
    "u.data": "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490",
    "u.item": "553841ebc7de3a0fd0d6b62a204ea30c1e651aacfb2814c7a6584ac52f2c5701",
}

# README of MovieLens 1M: occupations by code.
_OCCUPATIONS = (
    "other",
    "educator",
    "artist",
    "clerical",
    "college student",
    "customer service",
    "doctor",
    "executive",
    "farmer",
    "homemaker",
    "K-12 student",
    "lawyer",
    "programmer",
    "retired",
    "marketing",
    "scientist",
    "self-employed",
    "engineer",
    "craftsman",
    "unemployed",
    "writer",
)

_RATING = ["user_id", "movie_id", "rating", "time"]
_MOVIE = ["movie_id", "title", "release_date", "video_date", "url", *GENRES]
_TITLE = re.compile(r"(?P<title>.*?)\s*\((?P<year>\d{4})\)\s*(?:\([A-Z]+\))?")
_LATEST = 2**32


def read(root, origin):
    """Read the files of MovieLens 100K or 1M.

    A valid set that is not the official 100K is accepted, and its source says so.

    Args:
      root: `pathlib.Path` of a directory, or `zipfile.Path` of a folder in an archive.
      origin: where that is, in one word for the source: "directory", "cache" or "download".

    Returns:
      MovieLens

    Raises:
      OSError: a file is missing or cannot be read.
      ValueError: a file is not what it should be; the sentence names file, line and reason.
    """
    if (root / "ratings.dat").exists():
        tables, kind = _read_1m(root), "foreign data in the MovieLens 1M format"
    else:
        tables, kind = _read_100k(root), "foreign data in the MovieLens 100K format"
        if all(hashlib.sha256((root / name).read_bytes()).hexdigest() == digest for name, digest in DIGESTS.items()):
            kind = OFFICIAL
    return MovieLens(*tables, source=f"{kind} ({origin})")


def write(data, directory):
    """Write the six files of the MovieLens 100K format; `read` gives the same tables back.

    Args:
      data: MovieLens
      directory: `pathlib.Path`, made if missing.
    """
    directory.mkdir(parents=True, exist_ok=True)
    years = data.movies["year"].astype(str).where(data.movies["year"].notna(), "")
    movies = data.movies[list(GENRES)].astype(int)
    movies.insert(0, "title", data.movies["title"] + years.map(lambda year: f" ({year})" if year else ""))
    movies.insert(1, "release_date", years.map(lambda year: f"01-Jan-{year}" if year else ""))
    movies.insert(2, "video_date", "")
    movies.insert(3, "url", "")
    ratings = data.ratings.astype({"rating": int}).assign(time=_seconds(data.ratings["time"]))
    for name, table, separator, index in [
        ("u.data", ratings, "\t", False),
        ("u.item", movies, "|", True),
        ("u.user", data.users, "|", True),
    ]:
        text = table.to_csv(sep=separator, header=False, index=index, quoting=csv.QUOTE_NONE, lineterminator="\n")
        (directory / name).write_bytes(text.encode("latin-1"))
    for name, lines in [
        ("u.genre", [f"{genre}|{code}" for code, genre in enumerate(GENRES)]),
        ("u.occupation", sorted(data.users["occupation"].unique())),
        ("u.info", [f"{len(data.users)} users", f"{len(movies)} items", f"{len(ratings)} ratings"]),
    ]:
        (directory / name).write_text("\n".join(lines) + "\n", encoding="latin-1")


def _read_100k(root):
    users = _table(root / "u.user", "|", ["user_id", "age", "gender", "occupation", "zip"], text=["occupation", "zip"])
    movies = _table(root / "u.item", "|", _MOVIE, text=_MOVIE[1:5])
    flags = movies[list(GENRES)].isin([0, 1]).all(axis=1)
    _refuse(root / "u.item", flags, movies["title"], "genre flags must be 0 or 1")
    ratings = _table(root / "u.data", "\t", _RATING)
    tables = _checked(root, ("u.data", "u.user", "u.item"), ratings, users, movies)
    _check_promises(root, *(len(table) for table in tables))
    return tables


def _read_1m(root):
    columns = ["user_id", "gender", "age", "occupation", "zip"]
    users = _table(root / "users.dat", "::", columns, text=["zip"])
    _whole(root / "users.dat", users, "occupation", 0, len(_OCCUPATIONS) - 1)
    users["occupation"] = users["occupation"].map(dict(enumerate(_OCCUPATIONS)))
    movies = _table(root / "movies.dat", "::", ["movie_id", "title", "genres"], text=["title", "genres"])
    genres = movies.pop("genres")
    known = genres.map(lambda names: set(names.split("|")) <= set(GENRES))
    _refuse(root / "movies.dat", known, genres, f"genres must be among {', '.join(GENRES)}")
    flags = genres.str.get_dummies("|").reindex(columns=list(GENRES), fill_value=0)
    ratings = _table(root / "ratings.dat", "::", _RATING)
    names = ("ratings.dat", "users.dat", "movies.dat")
    return _checked(root, names, ratings, users[["user_id", "age", "gender", "occupation", "zip"]], movies.join(flags))


def _table(file, separator, columns, text=()):
    """Split a file into columns; those in `text` stay text, the others are numbers where all of the column is."""
    raw = file.read_bytes()
    if not raw.strip():
        raise ValueError(f"{file} is empty")
    content = raw.decode("latin-1").replace("\r\n", "\n")
    lines = content.split("\n")
    if lines.pop():
        raise ValueError(f"{file}, line {len(lines) + 1}: the line does not end, so the file looks truncated")
    for number, line in enumerate(lines, start=1):
        if line.count(separator) != len(columns) - 1:
            found = line.count(separator) + 1
            raise ValueError(f"{file}, line {number}: expected the {len(columns)} columns {columns}, got {found}")
    one_character = separator if len(separator) == 1 else "\x1f"  # pandas' fast parser takes no other
    return pd.read_csv(
        io.StringIO(content.replace(separator, one_character)),
        sep=one_character,
        names=columns,
        dtype=dict.fromkeys(text, str),
        lineterminator="\n",
        quoting=csv.QUOTE_NONE,
        na_filter=False,
        low_memory=False,
    )


def _checked(root, names, ratings, users, movies):
    """Validate the three tables (of files `names`) and give them the columns and types that `MovieLens` promises."""
    rating_file, user_file, movie_file = (root / name for name in names)
    _whole(user_file, users, "user_id", 1)
    _whole(user_file, users, "age", 1, 120)
    _refuse(user_file, users["gender"].isin(["F", "M"]), users["gender"], "gender must be F or M")
    _refuse(user_file, ~users["user_id"].duplicated(), users["user_id"], "user_id must occur once")
    _whole(movie_file, movies, "movie_id", 1)
    _refuse(movie_file, ~movies["movie_id"].duplicated(), movies["movie_id"], "movie_id must occur once")
    _whole(rating_file, ratings, "rating", STARS[0], STARS[-1])
    _whole(rating_file, ratings, "time", 1, _LATEST)
    for column, known, where in [("user_id", users, user_file), ("movie_id", movies, movie_file)]:
        _whole(rating_file, ratings, column, 1)
        listed = ratings[column].isin(known[column])
        _refuse(rating_file, listed, ratings[column], f"{column} must be listed in {where.name}")
    pair = ratings["user_id"].astype(str) + " and " + ratings["movie_id"].astype(str)
    _refuse(rating_file, ~pair.duplicated(), pair, "a pair of user_id and movie_id must occur once")
    ratings = ratings.astype({"rating": float}).assign(time=pd.to_datetime(ratings["time"], unit="s", utc=True))
    return ratings, users.set_index("user_id"), _movies(movies)


def _movies(table):
    """Part the title from its year and make the flags bool."""
    parts = table["title"].str.extract(_TITLE.pattern + "$")
    title = parts["title"].fillna(table["title"]).rename("title")
    year = pd.to_numeric(parts["year"]).astype("Int64").rename("year")
    movies = pd.concat([table["movie_id"], title, year, table[list(GENRES)].astype(bool)], axis=1)
    return movies.set_index("movie_id")


def _check_promises(root, ratings, users, movies):
    """Compare with the counts in u.info and the names in u.genre, where those files came along."""
    if (root / "u.info").exists():
        promised = [int(number) for number in re.findall(r"\d+", (root / "u.info").read_text())]
        if promised != [users, movies, ratings]:
            raise ValueError(
                f"{root / 'u.info'} promises {promised} users, items and ratings, but the files hold "
                f"{[users, movies, ratings]}: one looks truncated"
            )
    if (root / "u.genre").exists():
        for number, line in enumerate((root / "u.genre").read_text().split(), start=1):
            if number > len(GENRES) or line != f"{GENRES[number - 1]}|{number - 1}":
                raise ValueError(f"{root / 'u.genre'}, line {number}: genres must be {', '.join(GENRES)}, got {line!r}")


def _whole(file, table, column, low, high=2**31):
    """Refuse a column with anything but whole numbers in [low, high]; make it int64."""
    value = pd.to_numeric(table[column], errors="coerce")
    good = value.between(low, high) & (value % 1 == 0)
    _refuse(file, good, table[column], f"{column} must be a whole number from {low} to {high}")
    table[column] = value.astype("int64")


def _refuse(file, good, values, expected):
    """Raise with the file and line of the first row that is not good, bool [lines]."""
    if not good.all():
        row = int(np.argmin(good.to_numpy()))
        raise ValueError(f"{file}, line {row + 1}: {expected}, got {values.iloc[row]}")


def _seconds(time):
    """Unix seconds of a UTC datetime column."""
    return time.dt.as_unit("s").astype("int64")
