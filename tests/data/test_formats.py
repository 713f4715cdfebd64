"""Files of MovieLens: valid ones become three tables, errors name file and line."""

import re

import pandas as pd
import pytest

from recbandits.data import formats
from recbandits.data.tables import GENRES

NO_GENRE = "|".join(["0"] * 17)
FILES_100K = {
    "u.user": "1|24|M|writer|85711\n2|53|F|other|T8H1N\n",
    "u.item": f"1|A Quiet Harbour (1995)|01-Jan-1995||http://x|0|1|{NO_GENRE}\n"
    f"2|Two Clocks: Again (1987) (V)|01-Jan-1987|||0|0|{NO_GENRE}\n"
    f"3|unknown||||1|0|{NO_GENRE}\n",
    "u.data": "2\t1\t3\t881250949\n1\t2\t5\t881250950\n1\t1\t1\t881250949\n",
    "u.info": "2 users\n3 items\n3 ratings\n",
    "u.genre": "\n".join(f"{name}|{code}" for code, name in enumerate(GENRES)) + "\n\n",
}
FILES_1M = {
    "users.dat": "1::F::1::10::48067\n2::M::56::16::70072\n",
    "movies.dat": "1::The Caf\xe9 of Doors (1995)::Animation|Children's|Comedy\n2::Rain|Sun (1999)::Drama\n",
    "ratings.dat": "1::2::5::978300760\n2::1::3::978302109\n",
}


def write_files(directory, files):
    for name, text in files.items():
        (directory / name).write_bytes(text.encode("latin-1"))
    return directory


def test_the_100k_format_becomes_three_tables_joined_by_id(tmp_path):
    data = formats.read(write_files(tmp_path, FILES_100K), "directory")
    assert data.ratings.columns.tolist() == ["user_id", "movie_id", "rating", "time"]
    assert data.ratings[["user_id", "movie_id", "rating"]].to_numpy().tolist() == [[2, 1, 3], [1, 2, 5], [1, 1, 1]]
    assert data.ratings["time"][0] == pd.Timestamp("1997-12-04T15:55:49", tz="UTC")
    assert data.users.loc[2].tolist() == [53, "F", "other", "T8H1N"]
    assert data.movies["title"].tolist() == ["A Quiet Harbour", "Two Clocks: Again", "unknown"]
    assert data.movies["year"].fillna(0).tolist() == [1995, 1987, 0]
    assert data.movies.columns[2:].tolist() == list(GENRES)
    assert data.movies.loc[1, "Action"]
    assert data.movies.loc[3, "unknown"]
    assert data.movies[list(GENRES)].to_numpy().sum() == 2


def test_the_1m_format_becomes_the_same_tables(tmp_path):
    data = formats.read(write_files(tmp_path, FILES_1M), "directory")
    assert data.source == "foreign data in the MovieLens 1M format (directory)"
    assert data.users.loc[1].tolist() == [1, "F", "K-12 student", "48067"]
    assert data.movies["title"].tolist() == ["The Café of Doors", "Rain|Sun"]
    assert data.movies.columns[data.movies.loc[1].to_numpy() == True].tolist() == ["Animation", "Children's", "Comedy"]  # noqa: E712
    assert data.ratings["rating"].tolist() == [5.0, 3.0]
    assert data.ratings.dtypes.astype(str).tolist() == ["int64", "int64", "float64", "datetime64[us, UTC]"]


def test_the_source_of_a_valid_foreign_set_says_foreign(tmp_path):
    data = formats.read(write_files(tmp_path, FILES_100K), "directory")
    assert data.source == "foreign data in the MovieLens 100K format (directory)"
    assert not data.is_real


def test_lines_may_end_with_carriage_returns(tmp_path):
    files = {name: text.replace("\n", "\r\n") for name, text in FILES_100K.items()}
    assert formats.read(write_files(tmp_path, files), "directory").users["zip"].tolist() == ["85711", "T8H1N"]


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("u.data", "1\t2\t5\t881250950", "1\t2\t5", "u.data, line 2: expected the 4 columns .*, got 3"),
        ("u.data", "\t881250950", "\t881250950\t9", "u.data, line 2: expected the 4 columns .*, got 5"),
        ("u.data", "1\t2\t5", "\n1\t2\t5", "u.data, line 2: expected the 4 columns .*, got 1"),
        ("u.data", "1\t2\t5", "1\t2\t7", "u.data, line 2: rating must be a whole number from 1 to 5, got 7"),
        ("u.data", "1\t2\t5", "1\t2\t0", "u.data, line 2: rating must be .*, got 0"),
        ("u.data", "1\t2\t5", "1\t2\t4.5", "u.data, line 2: rating must be .*, got 4.5"),
        ("u.data", "1\t2\t5", "1\t2\tfive", "u.data, line 2: rating must be .*, got five"),
        ("u.data", "1\t2\t5", "1\t2\t", "u.data, line 2: rating must be .*, got $"),
        ("u.data", "1\t2\t5", "1\t2\tnan", "u.data, line 2: rating must be .*, got nan"),
        ("u.data", "\t881250950", "\t-5", "u.data, line 2: time must be a whole number .*, got -5"),
        ("u.data", "1\t2\t5", "1\t1\t5", "u.data, line 3: a pair of user_id and movie_id must occur once, got 1 and 1"),
        ("u.data", "1\t2\t5", "77\t2\t5", "u.data, line 2: user_id must be listed in u.user, got 77"),
        ("u.data", "1\t2\t5", "1\t99\t5", "u.data, line 2: movie_id must be listed in u.item, got 99"),
        ("u.data", FILES_100K["u.data"], "", "u.data is empty"),
        ("u.data", "881250949\n1\t2", "881250949 1\t2", "u.data, line 1: expected the 4 columns"),
        ("u.user", "1|24|M", "1|24|X", "u.user, line 1: gender must be F or M, got X"),
        ("u.user", "1|24|M", "1|240|M", "u.user, line 1: age must be a whole number from 1 to 120, got 240"),
        ("u.user", "2|53", "1|53", "u.user, line 2: user_id must occur once, got 1"),
        ("u.user", "|writer|", "|", "u.user, line 1: expected the 5 columns"),
        ("u.item", "3|unknown", "2|unknown", "u.item, line 3: movie_id must occur once, got 2"),
        ("u.item", "||||1|0|", "||||1|8|", "u.item, line 3: genre flags must be 0 or 1, got unknown"),
        ("u.info", "3 ratings", "4 ratings", r"u.info has \[2, 3, 4\] .* files have \[2, 3, 3\]: one looks truncated"),
        ("u.genre", "Drama|8", "Tragedy|8", r"u.genre, line 9: genres must be .*, got 'Tragedy\|8'"),
    ],
)
def test_invalid_files_are_refused_by_file_line_and_reason(tmp_path, name, old, new, message):
    assert old in FILES_100K[name]
    write_files(tmp_path, FILES_100K | {name: FILES_100K[name].replace(old, new, 1)})
    with pytest.raises(ValueError, match=f"{re.escape(str(tmp_path))}/{message}"):
        formats.read(tmp_path, "directory")


@pytest.mark.parametrize("name", ["u.data", "u.item", "u.user"])
def test_a_file_cut_in_the_middle_of_its_last_line_is_refused(tmp_path, name):
    write_files(tmp_path, FILES_100K | {name: FILES_100K[name][:-1]})
    lines = FILES_100K[name].count("\n")
    with pytest.raises(ValueError, match=f"{name}, line {lines}: the line does not end, so the file looks truncated"):
        formats.read(tmp_path, "directory")


@pytest.mark.parametrize("name", ["u.data", "u.item", "u.user"])
def test_a_missing_file_is_named(tmp_path, name):
    write_files(tmp_path, {key: text for key, text in FILES_100K.items() if key != name})
    with pytest.raises(FileNotFoundError, match=name):
        formats.read(tmp_path, "directory")


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("ratings.dat", "1::2::5", "1::2::7", "ratings.dat, line 1: rating must be a whole number from 1 to 5, got 7"),
        ("ratings.dat", "2::1::3", "2::1", "ratings.dat, line 2: expected the 4 columns .*, got 3"),
        ("users.dat", "::10::", "::21::", "users.dat, line 1: occupation must be a whole number from 0 to 20, got 21"),
        ("movies.dat", "Comedy", "Comic", r"line 1: genres must be among .*, got Animation\|Children's\|Comic"),
    ],
)
def test_invalid_files_of_the_1m_format_are_refused(tmp_path, name, old, new, message):
    write_files(tmp_path, FILES_1M | {name: FILES_1M[name].replace(old, new, 1)})
    with pytest.raises(ValueError, match=message):
        formats.read(tmp_path, "directory")


def test_the_official_set_is_known_by_its_digests(real_movielens):
    assert real_movielens.source == "MovieLens 100K (directory)"
    assert real_movielens.ratings["rating"].mean() == pytest.approx(3.52986)
    assert real_movielens.ratings["rating"].var(ddof=0) == pytest.approx(1.26713, abs=5e-6)
    assert real_movielens.movies["year"].isna().sum() == 1
    assert not real_movielens.movies["title"].str.contains(r"\(\d{4}\)").any()
