"""The files of MovieLens: 100K (u.data, ...), 1M and 10M (*.dat) and the CSV sets; CSV is written."""

import codecs
import contextlib
import csv
import io
import re
import zipfile
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd

from recbandits.checks import replacing, require
from recbandits.data.tables import (
    DEMOGRAPHICS,
    GENRE_ALIASES,
    GENRES,
    OFFICIAL,
    RATING,
    MovieLens,
    RowError,
    convert_numbers,
)

FORMATS = {  # names of the files of ratings, movies and users
    "100K": ("u.data", "u.item", "u.user"),
    "1M": ("ratings.dat", "movies.dat", "users.dat"),
    "10M": ("ratings.dat", "movies.dat"),
    "CSV": ("ratings.csv", "movies.csv"),
}
DIGESTS = {  # SHA-256 of the official MovieLens 100K
    "u.data": "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490",
    "u.item": "553841ebc7de3a0fd0d6b62a204ea30c1e651aacfb2814c7a6584ac52f2c5701",
}
_OCCUPATIONS = (  # by code, from the README of MovieLens 1M
    "other", "educator", "artist", "clerical", "college student", "customer service", "doctor", "executive", "farmer",
    "homemaker", "K-12 student", "lawyer", "programmer", "retired", "marketing", "scientist", "self-employed",
    "engineer", "craftsman", "unemployed", "writer",
)  # fmt: skip
_MOVIE = ["movie_id", "title", "release_date", "video_date", "url", *GENRES]
_CSV_NAMES = {"user_id": "userId", "movie_id": "movieId", "time": "timestamp"}
_USERS_CSV = "users.csv"  # of this package: a CSV set of MovieLens has none
_TITLE = r"(?P<title>.*?)\s*\((?P<year>[12]\d{3})\)\s*(?:\([A-Z]+\))?$"
_LATEST_SECOND = 2**32 - 1


def read(root: Path | zipfile.Path, origin: str, title: str = "") -> MovieLens:
    """Read the files of a set; the source of a set that is not known to be official says so.

    A year in brackets at the end of a title is parted from it. It is not where a file of 100K has no release date, or
    movies.csv has a column of years.

    Args:
      root: a directory, or a folder in an archive.
      origin: for the source: "directory", "cache" or "download".
      title: of a set whose archive has been verified.

    Raises:
      OSError: the files of one format are missing, or cannot be read.
      ValueError: a file is invalid; the sentence names file, line and reason.
    """
    formats = _find_formats(root)
    if len(formats) != 1:
        expected = "; ".join(f"{', '.join(files)} ({name})" for name, files in FORMATS.items())
        present = ", ".join(sorted(path.name for path in root.iterdir())[:20]) or "nothing"
        raise FileNotFoundError(f"{root} must have the files of one format, {expected}, got {present}")
    (name,) = formats
    files = dict(zip(("ratings", "movies", "users"), (*FORMATS[name], _USERS_CSV), strict=False))
    try:
        ratings, users, movies = {"100K": _read_100k, "CSV": _read_csv}.get(name, _read_dat)(root)
        ratings["time"] = _parse_times(ratings["time"])
        if name == "100K" and all(sha256((root / file).read_bytes()).hexdigest() == DIGESTS[file] for file in DIGESTS):
            title = OFFICIAL
        source = f"{title or f'foreign data in the MovieLens {name} format'} ({origin})"
        return MovieLens(ratings, users.set_index("user_id"), movies.set_index("movie_id"), source)
    except RowError as error:
        line = error.row + (2 if name == "CSV" else 1)
        raise ValueError(f"{root / files[error.table]}, line {line}: {error.reason}") from None


def write(data: MovieLens, directory: Path) -> None:
    """Write the tables as a CSV set in UTF-8 into a directory, created if missing; `read` reads them back.

    Beside the columns of MovieLens' sets, movies.csv has the year, and there is users.csv. ValueError if the directory
    has files of another format, so that it could not be read.
    """
    others = _find_formats(directory) - {"CSV"} if directory.is_dir() else set()
    require(not others, str(directory), "without files of another format of MovieLens", others)
    genres, micros = data.movies.columns[2:].to_numpy(), data.ratings["time"].astype("int64")
    seconds, rest = micros // 10**6, micros % 10**6
    if rest.any():
        seconds = seconds.astype(str) + "." + rest.astype(str).str.zfill(6)
    joined = ["|".join(genres[flags]) for flags in data.movies[genres].to_numpy()]
    tables = {
        "ratings.csv": data.ratings.assign(time=seconds),
        "movies.csv": data.movies[["title"]].assign(genres=joined, year=data.movies["year"]).reset_index(),
        _USERS_CSV: data.users.reset_index(),
    }
    for name, table in tables.items():
        with replacing(directory / name) as draft:
            table.rename(columns=_CSV_NAMES).to_csv(draft, index=False, lineterminator="\n")


def _find_formats(root: Path | zipfile.Path) -> set[str]:
    """Find the formats whose files are all in a folder; where it has those of 1M, they are not taken for 10M."""
    present = {path.name for path in root.iterdir()}
    formats = {name for name, files in FORMATS.items() if present.issuperset(files)}
    return formats - {"10M"} if "1M" in formats else formats


def _read_100k(root):
    users = _read_table(root / "u.user", "|", ["user_id", *DEMOGRAPHICS], text=["occupation", "zip"])
    movies = _read_table(root / "u.item", "|", _MOVIE, text=_MOVIE[1:5])
    ratings = _read_table(root / "u.data", "\t", RATING)
    if (info := root / "u.info").exists():
        expected = [int(number) for number in re.findall(r"\d+", info.read_text())]
        counts = [len(users), len(movies), len(ratings)]
        require(counts == expected, "users, items and ratings", f"as many as {info} says, {expected}", counts)
    if (genres := root / "u.genre").exists():
        for number, line in enumerate(genres.read_text().split(), start=1):
            if number > len(GENRES) or line != f"{GENRES[number - 1]}|{number - 1}":
                raise ValueError(f"{genres}, line {number}: genres must be {', '.join(GENRES)}, got {line!r}")
    return ratings, users, _part_titles(movies).drop(columns=_MOVIE[2:5])


def _read_dat(root):
    ratings = _read_table(root / "ratings.dat", "::", RATING)
    movies = _read_table(root / "movies.dat", "::", ["movie_id", "title", "genres"], text=["title", "genres"])
    users = _list_users(ratings)
    if (file := root / "users.dat").exists():
        users = _read_table(file, "::", ["user_id", "gender", "age", "occupation", "zip"], text=["zip"])
        codes = convert_numbers("users", users["occupation"], 0, len(_OCCUPATIONS) - 1)
        users["occupation"] = np.take(_OCCUPATIONS, codes.astype(int))
    return ratings, users, _expand_genres(_part_titles(movies))


def _read_csv(root):
    ratings = _read_table(root / "ratings.csv", ",", RATING)
    movies = _read_table(root / "movies.csv", ",", ["movie_id", "title", "genres"], ["title", "genres"], ["year"])
    has_year = "year" in movies
    movies = movies.assign(year=movies["year"].mask(movies["year"] == "")) if has_year else _part_titles(movies)
    users = _list_users(ratings)
    if (file := root / _USERS_CSV).exists():
        users = _read_table(file, ",", ["user_id"], DEMOGRAPHICS[1:], DEMOGRAPHICS)
    return ratings, users, _expand_genres(movies)


def _read_table(file, separator: str, columns: Sequence[str], text=(), optional: Sequence[str] = ()) -> pd.DataFrame:
    """Split a file into columns; those in `text` stay text, the others are numbers if all of the column is.

    A CSV file has a header, the names of MovieLens for `columns`, and all or none of the optional ones.
    """
    content = _read_content(file)
    columns, is_csv = list(columns), separator == ","
    if is_csv:
        header = next(csv.reader([content[: content.index(b"\n")].decode()]), [])
        columns += optional if len(header) > len(columns) else []
        expected = [_CSV_NAMES.get(column, column) for column in columns]
        require(header == expected, f"{file}, line 1: the header", ",".join(expected), ",".join(header))
    character = separator if len(separator) == 1 else "\x1f"  # the fast parser takes no longer separator
    content = content.replace(separator.encode(), character.encode())
    counts = _count_fields(file, content, character)
    if (wrong := np.flatnonzero(counts != len(columns))).size:
        row, names = int(wrong[0]), f"the {len(columns)} columns {columns}"
        line = content.split(b"\n", row + 1)[row].decode().replace(character, separator)
        raise ValueError(f"{file}, line {row + 1}: expected {names}, got {counts[row]} in {line[:80]!r}")
    return pd.read_csv(
        io.BytesIO(content),
        sep=character,
        names=columns,
        header=0 if is_csv else None,
        dtype=dict.fromkeys(text, str),
        lineterminator="\n",
        quoting=csv.QUOTE_MINIMAL if is_csv else csv.QUOTE_NONE,
        na_filter=False,
        low_memory=False,
        skip_blank_lines=False,
    )


def _read_content(file: Path | zipfile.Path) -> bytes:
    """Read UTF-8, or Latin-1 of Windows or ISO; return UTF-8 in which a newline ends each line."""
    content = file.read_bytes().removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n")
    if not content.strip():
        raise ValueError(f"{file} is empty")
    if not content.endswith(b"\n"):
        number = content.count(b"\n") + 1
        raise ValueError(f"{file}, line {number}: the line does not end, so the file looks truncated")
    for encoding in () if content.isascii() else ("utf-8", "cp1252", "latin-1"):
        with contextlib.suppress(UnicodeDecodeError):
            return content.decode(encoding).encode()
    return content


def _count_fields(file: Path | zipfile.Path, content: bytes, separator: str) -> np.ndarray:
    """Count the fields of each line, int array [lines]."""
    if separator != "," or b'"' not in content:
        characters = np.frombuffer(content, np.uint8)
        starts = np.append(0, np.flatnonzero(characters == ord("\n"))[:-1])
        return np.add.reduceat(characters == ord(separator), starts, dtype=np.int64) + 1
    rows, counts = csv.reader(io.StringIO(content.decode(), newline="\n"), strict=True), []
    try:
        for number, row in enumerate(rows, start=1):
            if rows.line_num > number:
                raise csv.Error("a field in quotes must end on its line")
            counts.append(len(row))
    except csv.Error as error:
        raise ValueError(f"{file}, line {len(counts) + 1}: {error}") from error
    return np.array(counts)


def _list_users(ratings: pd.DataFrame) -> pd.DataFrame:
    return ratings[["user_id"]].drop_duplicates().sort_values("user_id")


def _expand_genres(movies: pd.DataFrame) -> pd.DataFrame:
    """Replace the column of genres, as `Drama|War`, by a column of flags for each of GENRES and each further genre."""
    genres = [[GENRE_ALIASES.get(name, name) for name in text.split("|") if name] for text in movies.pop("genres")]
    names = {*GENRES}.union(*genres)
    clash = names.intersection(movies.columns)
    require(not clash, "a genre", f"none of the columns {', '.join(movies.columns)}", clash)
    return movies.assign(**{name: [name in row for row in genres] for name in names})


def _part_titles(movies: pd.DataFrame) -> pd.DataFrame:
    """Part the years from the titles of movies, but for those of 100K without a release date."""
    parts = movies["title"].str.extract(_TITLE)
    year = pd.to_numeric(parts["year"])
    if "release_date" in movies:
        year = year.where(movies["release_date"] != "")
    return movies.assign(title=parts["title"].where(year.notna(), movies["title"]), year=year)


def _parse_times(seconds: pd.Series) -> pd.DatetimeIndex:
    """Convert Unix seconds, whole or not, to times; doubles of this size are exact to less than half a microsecond."""
    micros = np.rint(convert_numbers("ratings", seconds, 1, _LATEST_SECOND, step=0) * 1e6).astype("int64")
    return pd.DatetimeIndex(micros.view("datetime64[us]"), tz="UTC")
