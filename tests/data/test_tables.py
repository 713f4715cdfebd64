"""The tables of MovieLens are valid or refused by table, row, column and value."""

import re

import numpy as np
import pandas as pd
import pytest

from recbandits.data.tables import GENRES, MovieLens, RowError

TIME = pd.Timestamp("2026-01-01T00:00:00.000001", tz="UTC")
RATINGS = pd.DataFrame({"user_id": [7, 8], "movie_id": [1, 2], "rating": [3.5, 5.0], "time": TIME})
USERS = pd.DataFrame(
    {"age": [17, 80], "gender": ["F", "M"], "occupation": ["artist", "writer"], "zip": ["1", "2"]}, [7, 8]
)
MOVIES = pd.DataFrame({"title": ["A", "B"], "year": [1990, None]} | dict.fromkeys(GENRES, False), [1, 2])


def test_columns_are_converted_to_their_types():
    ratings = RATINGS.astype({"user_id": "float32", "movie_id": str, "rating": object, "time": "datetime64[ns, UTC]"})
    movies = MOVIES.assign(Tea=[0, 1], Coffee=[True, False], unused=False)
    data = MovieLens(ratings.set_index(np.array([5, 4])), USERS[USERS.columns[::-1]], movies, "test")
    pd.testing.assert_frame_equal(data.ratings, RATINGS.astype({"time": "datetime64[us, UTC]"}))
    assert data.users.columns.tolist() == ["age", "gender", "occupation", "zip"]
    assert data.movies.columns.tolist() == ["title", "year", *GENRES, "Coffee", "Tea"]
    assert data.movies["Tea"].tolist() == [False, True]
    assert (data.users.index.name, data.movies.index.name) == ("user_id", "movie_id")
    assert data.movies["year"].dtype == "Int64"


def test_users_may_be_ids_alone():
    assert MovieLens(RATINGS, USERS[[]], MOVIES, "test").users.index.tolist() == [7, 8]


@pytest.mark.parametrize(
    ("table", "column", "value", "message"),
    [
        ("ratings", "user_id", 0, "user_id must be a whole number from 1 to 2147483648, got 0"),
        ("ratings", "user_id", np.nan, "user_id must be a whole number from 1 to 2147483648, got nan"),
        ("ratings", "movie_id", 3.0, "movie_id must be listed in movies, got 3"),
        ("ratings", "rating", np.nan, "rating must be a half or whole number from 0.5 to 5, got nan"),
        ("ratings", "rating", 3.7, "rating must be a half or whole number from 0.5 to 5, got 3.7"),
        ("ratings", "rating", TIME, "rating must be a half or whole number from 0.5 to 5, got 2026-01-01 00:00:00.0"),
        (
            "ratings",
            "time",
            pd.Timestamp(0, unit="s", tz="UTC"),
            "time must be in UTC, from 1970 to 2106, .*, got 1970",
        ),
        ("ratings", "time", pd.NaT, "time must be in UTC, from 1970 to 2106, .*, got NaT"),
        (
            "ratings",
            "time",
            TIME + pd.Timedelta(1, unit="ns"),
            "time must be .* in whole microseconds, got .*000001001",
        ),
        ("users", "gender", "X", "gender must be F or M, got X"),
        ("users", "occupation", None, "occupation must be text of one line, got "),
        ("movies", "title", "two\nlines", "title must be text of one line, got two\nlines"),
        ("movies", "title", 5, "title must be text of one line, got 5"),
        ("movies", "year", 1990.5, "year must be a whole number from 1 to 9999, got 1990.5"),
        ("movies", "Drama", 0.5, "Drama must be 0 or 1, got 0.5"),
    ],
)
def test_values_are_refused_by_table_row_and_column(table, column, value, message):
    tables = {"ratings": RATINGS, "users": USERS, "movies": MOVIES}
    first = tables[table][column].iloc[0]
    changed = pd.Series([first, value], tables[table].index)
    with pytest.raises(RowError, match=f"^{table}, row 1: {message}"):
        MovieLens(**tables | {table: tables[table].assign(**{column: changed})}, source="test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ratings": RATINGS.assign(user_id=7, movie_id=1)}, "row 1: movie_id must be rated once by a user, got 1"),
        ({"ratings": RATINGS.assign(movie_id=[True, True])}, "row 0: movie_id must be a whole number .*, got True"),
        ({"ratings": RATINGS.assign(time=[1, 2])}, "ratings, row 0: time must be in UTC, .*, got 1"),
        ({"ratings": RATINGS.assign(time=TIME.tz_convert("Asia/Tokyo"))}, "ratings, row 0: time must be in UTC"),
        ({"users": USERS.set_index(np.array([7, 7]))}, "users, row 1: user_id must be different in each row, got 7"),
        ({"users": USERS.set_index(pd.Index(["7", "b"]))}, "users, row 1: user_id must be a whole number .*, got b"),
        (
            {"movies": MOVIES.set_index(np.array([1, 1]))},
            "movies, row 1: movie_id must be different in each row, got 1",
        ),
        ({"ratings": RATINGS[:0]}, "ratings must be a table with a row, got 'none'"),
        ({"ratings": RATINGS.drop(columns="time")}, "ratings must be a table with the columns user_id, .*, got "),
        ({"users": USERS.rename(columns={"age": 0})}, r"users must be a table with the columns age, .*, got \[0, "),
        ({"movies": MOVIES.drop(columns="year")}, "movies must be a table with the columns title, year, .*, got "),
        ({"movies": pd.concat([MOVIES, MOVIES["War"]], axis=1)}, "movies must be a table with the columns .*, got "),
        (
            {"movies": MOVIES.assign(**{"a | b": True})},
            r"a genre of movies must be a line without \|, .*, got 'a \| b'",
        ),
        (
            {"movies": MOVIES.assign(Children=True)},
            "a genre of movies must be .*none of movie_id, Children.*'Children'",
        ),
        ({"movies": MOVIES.set_axis([0, *MOVIES.columns[1:]], axis=1)}, "a genre of movies must be a line .*, got 0"),
    ],
)
def test_tables_are_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        MovieLens(**{"ratings": RATINGS, "users": USERS, "movies": MOVIES} | change, source="test")


def test_a_sentence_shows_a_title_whole():
    with pytest.raises(RowError, match=re.escape("movies, row 0: title must be text of one line, got 煎茶\r")):
        MovieLens(RATINGS, USERS, MOVIES.assign(title="煎茶\r"), "test")
