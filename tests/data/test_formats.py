"""Files of MovieLens: valid ones become three tables, errors name file and line."""

import re
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbandits.data import formats, movielens
from recbandits.data.tables import GENRE_ALIASES, GENRES, MovieLens

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


FILES_10M = {
    "movies.dat": "1::Le Café (1995)::Adventure|Children|IMAX\n6::“Elsewhere” (2004)::(no genres listed)\n",
    "ratings.dat": "7::6::3.5::838985046\n3::1::5::838983525\n7::1::0.5::838983392\n",
}
FILES_CSV = {
    "movies.csv": 'movieId,title,genres\n1,"Harbour, The ""Quiet"" (1995)",Adventure|Children\n'
    "6,煎茶 (a.k.a. Tea) (2004),IMAX|(no genres listed)\n9,Two Clocks,Drama\n",
    "ratings.csv": "userId,movieId,rating,timestamp\n7,6,3.5,838985046\n3,1,5.0,838983525\n7,9,0.5,838983392\n",
    "links.csv": "not read",
}


def write_files(directory, files, encoding="latin-1"):
    for name, text in files.items():
        (directory / name).write_bytes(text.encode(encoding))
    return directory


def test_the_100k_format_becomes_three_tables_joined_by_id(tmp_path):
    data = formats.read(write_files(tmp_path, FILES_100K), "directory")
    assert data.source == "foreign data in the MovieLens 100K format (directory)"
    assert not data.is_real
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


def test_the_10m_format_has_half_stars_and_nothing_of_the_users(tmp_path):
    data = formats.read(write_files(tmp_path, FILES_10M, "utf-8"), "directory")
    assert data.source == "foreign data in the MovieLens 10M format (directory)"
    assert data.ratings["rating"].tolist() == [3.5, 5.0, 0.5]
    assert (data.users.index.tolist(), data.users.columns.tolist()) == ([3, 7], [])
    assert data.movies["title"].tolist() == ["Le Café", "“Elsewhere”"]


def test_the_csv_sets_have_quoted_titles_half_stars_and_nothing_of_the_users(tmp_path):
    data = formats.read(write_files(tmp_path, FILES_CSV, "utf-8"), "directory")
    assert data.source == "foreign data in the MovieLens CSV format (directory)"
    assert data.ratings["rating"].tolist() == [3.5, 5.0, 0.5]
    assert data.ratings["time"][2] == pd.Timestamp(838983392, unit="s", tz="UTC")
    assert (data.users.index.tolist(), data.users.columns.tolist()) == ([3, 7], [])
    assert data.movies["title"].tolist() == ['Harbour, The "Quiet"', "煎茶 (a.k.a. Tea)", "Two Clocks"]
    assert data.movies["year"].fillna(0).tolist() == [1995, 2004, 0]
    assert data.ratings.dtypes.astype(str).tolist() == ["int64", "int64", "float64", "datetime64[us, UTC]"]


@pytest.mark.parametrize("files", [FILES_10M, FILES_CSV])
def test_genres_of_the_later_sets_have_the_names_of_the_first_and_further_ones_are_further_columns(tmp_path, files):
    movies = formats.read(write_files(tmp_path, files, "utf-8"), "directory").movies
    assert movies.columns.tolist() == ["title", "year", *GENRES, "IMAX"]
    assert movies.index[movies["Children's"]].tolist() == [1]
    assert movies.index[movies["unknown"]].tolist() == [6]
    assert movies["IMAX"].sum() == 1


@pytest.mark.parametrize("suffix", [".0", ".000000"])
def test_times_of_csv_sets_are_whole_or_decimal_numbers(tmp_path, suffix):
    ratings = re.sub(r"(\d{9})\n", rf"\1{suffix}\n", FILES_CSV["ratings.csv"])
    data = formats.read(write_files(tmp_path, FILES_CSV | {"ratings.csv": ratings}, "utf-8"), "directory")
    assert (data.ratings["time"].astype("int64") // 10**6).tolist() == [838985046, 838983525, 838983392]


@pytest.mark.parametrize(
    ("encoding", "title", "end"),
    [
        ("utf-8", "Earl’s 煎茶 Café", "\n"),
        ("utf-8-sig", "Earl’s 煎茶 Café", "\r\n"),
        ("latin-1", "Café", "\r\n"),
        ("cp1252", "Earl’s Café", "\n"),
    ],
)
def test_titles_are_read_in_utf8_and_latin1(tmp_path, encoding, title, end):
    files = {"movies.csv": f"movieId,title,genres\n1,{title},Drama\n", "ratings.csv": FILES_CSV["ratings.csv"]}
    files["ratings.csv"] = "userId,movieId,rating,timestamp\n7,1,3.5,838985046\n"
    data = formats.read(
        write_files(tmp_path, {name: text.replace("\n", end) for name, text in files.items()}, encoding), "directory"
    )
    assert data.movies["title"].tolist() == [title]


def test_the_year_of_an_item_without_a_release_date_is_part_of_its_name(tmp_path):
    files = FILES_100K | {"u.item": FILES_100K["u.item"].replace("3|unknown|", "3|Lease (2024)|")}
    data = formats.read(write_files(tmp_path, files), "directory")
    assert (data.movies["title"][3], data.movies["year"].isna().tolist()) == ("Lease (2024)", [False, False, True])


@pytest.mark.parametrize(
    ("files", "present"),
    [
        ({}, "nothing"),
        ({"ml-1m.zip": "", "ratings.dat": "", "users.dat": ""}, "ml-1m.zip, ratings.dat, users.dat"),
    ],
)
def test_files_that_fit_no_format_are_listed_beside_those_looked_for(tmp_path, files, present):
    with pytest.raises(
        FileNotFoundError,
        match=rf"{tmp_path} must have the files of one format, u.data, u.item, u.user \(100K\); "
        r"ratings.dat, movies.dat, users.dat \(1M\); ratings.dat, movies.dat \(10M\); "
        rf"ratings.csv, movies.csv \(CSV\), got {present}$",
    ):
        movielens.load(write_files(tmp_path, files))


def test_files_of_two_formats_are_refused_by_the_reader_and_the_writer(tmp_path):
    data = formats.read(write_files(tmp_path, FILES_100K), "directory")
    with pytest.raises(ValueError, match=r"must be without files of another format of MovieLens, got \{'100K'\}"):
        formats.write(data, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == FILES_100K.keys()
    with pytest.raises(FileNotFoundError, match=r"must have the files of one format"):
        formats.read(write_files(tmp_path, FILES_CSV, "utf-8"), "directory")


TEXT = st.text(st.characters(exclude_characters="\n\r\0", exclude_categories=["Cs"]), max_size=8)
TITLES = TEXT | st.sampled_from(
    ["煎茶", "Earl’s", "a | b", "Lease (2024)", "Harbour, The", '"', "NA", "", " a\t", "\x85"]
)
NAMES = TEXT.filter(lambda name: name and "|" not in name and name not in ("movie_id", "title", "year", *GENRE_ALIASES))


@st.composite
def sets(draw):
    """Draw valid tables: any titles and genres, half stars, microseconds, users with demographics or without."""
    ids = st.lists(st.integers(1, 2**31), min_size=1, max_size=5, unique=True)
    users, movies = draw(ids), draw(ids)
    pairs = draw(st.lists(st.tuples(*map(st.sampled_from, (users, movies))), min_size=1, unique=True))
    ratings = pd.DataFrame(pairs, columns=["user_id", "movie_id"])
    columns = {"rating": st.integers(1, 10).map(lambda half: half / 2), "time": st.integers(10**6, (2**32 - 1) * 10**6)}
    ratings = ratings.assign(**{name: [draw(values) for _ in pairs] for name, values in columns.items()})
    ratings["time"] = pd.to_datetime(ratings["time"], unit="us", utc=True)
    columns = {"age": st.integers(1, 120), "gender": st.sampled_from("FM"), "occupation": TEXT, "zip": TEXT}
    columns = draw(st.sampled_from([columns, {}]))
    people = pd.DataFrame({name: [draw(values) for _ in users] for name, values in columns.items()}, users)
    columns = {"title": TITLES, "year": st.none() | st.integers(1, 9999)}
    columns |= dict.fromkeys([*GENRES, *draw(st.lists(NAMES, max_size=2))], st.booleans())
    items = pd.DataFrame({name: [draw(values) for _ in movies] for name, values in columns.items()}, movies)
    return MovieLens(ratings, people, items.astype({"year": "Int64"}), "drawn")


@settings(max_examples=40, deadline=None)
@given(sets())
def test_what_is_written_is_read_back_equal(data):
    with tempfile.TemporaryDirectory() as directory:
        formats.write(data, Path(directory))
        back = formats.read(Path(directory), "directory")
    for name in ("ratings", "users", "movies"):
        pd.testing.assert_frame_equal(getattr(back, name), getattr(data, name), check_exact=True)


def test_lines_may_end_with_carriage_returns(tmp_path):
    files = {name: text.replace("\n", "\r\n") for name, text in FILES_100K.items()}
    assert formats.read(write_files(tmp_path, files), "directory").users["zip"].tolist() == ["85711", "T8H1N"]


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("u.data", "1\t2\t5\t881250950", "1\t2\t5", "u.data, line 2: expected the 4 columns .*, got 3"),
        ("u.data", "\t881250950", "\t881250950\t9", "u.data, line 2: expected the 4 columns .*, got 5"),
        ("u.data", "1\t2\t5", "\n1\t2\t5", "u.data, line 2: expected the 4 columns .*, got 1"),
        ("u.data", "1\t2\t5", "1\t2\t7", "u.data, line 2: rating must be a half or whole number from 0.5 to 5, got 7"),
        ("u.data", "1\t2\t5", "1\t2\tfive", "u.data, line 2: rating must be .*, got five"),
        ("u.data", "1\t2\t5", "1\t2\t", "u.data, line 2: rating must be .*, got $"),
        ("u.data", "\t881250950", "\t-5", "u.data, line 2: time must be a number .*, got -5"),
        ("u.data", FILES_100K["u.data"], "", "u.data is empty"),
        ("u.data", "881250949\n1\t2", "881250949 1\t2", "u.data, line 1: expected the 4 columns"),
        ("u.user", "1|24|M", "1|24|X", "u.user, line 1: gender must be F or M, got X"),
        (
            "u.item",
            "2|Two Clocks: Again (1",
            "2|a | b (1",
            r"u.item, line 2: expected .*, got 25 in '2\|a \| b \(1987\)",
        ),
        ("u.genre", "Drama|8", "Tragedy|8", r"u.genre, line 9: genres must be .*, got 'Tragedy\|8'"),
    ],
)
def test_invalid_files_are_refused_by_file_line_and_reason(tmp_path, name, old, new, message):
    assert old in FILES_100K[name]
    write_files(tmp_path, FILES_100K | {name: FILES_100K[name].replace(old, new, 1)})
    with pytest.raises(ValueError, match=f"{re.escape(str(tmp_path))}/{message}"):
        formats.read(tmp_path, "directory")


def test_files_with_fewer_lines_than_u_info_counts_are_refused(tmp_path):
    write_files(tmp_path, FILES_100K | {"u.info": "2 users\n3 items\n4 ratings\n"})
    with pytest.raises(ValueError, match=r"as many as .*/u.info says, \[2, 3, 4\], got \[2, 3, 3\]"):
        formats.read(tmp_path, "directory")


def test_a_file_cut_in_the_middle_of_its_last_line_is_refused(tmp_path):
    write_files(tmp_path, FILES_100K | {"u.data": FILES_100K["u.data"][:-1]})
    with pytest.raises(ValueError, match=r"u.data, line 3: the line does not end, so the file looks truncated"):
        formats.read(tmp_path, "directory")


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (
            "ratings.dat",
            "1::2::5",
            "1::2::7",
            "ratings.dat, line 1: rating must be a half or whole number from 0.5 to 5, got 7",
        ),
        ("ratings.dat", "2::1::3", "2::1", "ratings.dat, line 2: expected the 4 columns .*, got 3"),
        ("users.dat", "::10::", "::21::", "users.dat, line 1: occupation must be a whole number from 0 to 20, got 21"),
        ("movies.dat", "Comedy", "year", r"a genre must be none of the columns movie_id, title, year, got \{'year'\}"),
    ],
)
def test_invalid_files_of_the_1m_format_are_refused(tmp_path, name, old, new, message):
    write_files(tmp_path, FILES_1M | {name: FILES_1M[name].replace(old, new, 1)})
    with pytest.raises(ValueError, match=message):
        formats.read(tmp_path, "directory")


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("ratings.csv", "userId", "user", "ratings.csv, line 1: the header must be userId,.*, got 'user,movieId,"),
        ("movies.csv", "genres", "genres,,", "movies.csv, line 1: the header must be movieId,title,genres,year, got"),
        ("ratings.csv", "838983525", "", "ratings.csv, line 3: time must be a number .*, got $"),
        ("ratings.csv", "3,1,5.0,", "3,1,", "ratings.csv, line 3: expected the 4 columns .*, got 3"),
        ("ratings.csv", "\n3,1", "\n\n3,1", "ratings.csv, line 3: expected the 4 columns .*, got 1"),
        ("movies.csv", "9,Two", "9,Two,", "movies.csv, line 4: expected the 3 columns .*, got 4"),
        ("movies.csv", "9,Two", "6,Two", "movies.csv, line 4: movie_id must be different in each row, got 6"),
        ("movies.csv", '"Harbour', '"Harbour\n', "movies.csv, line 2: a field in quotes must end on its line"),
        ("movies.csv", "9,Two", '9,"Two', "movies.csv, line 4: "),
        ("movies.csv", "9,Two", "9,T\0wo", "movies.csv, line 4: "),
        ("movies.csv", "9,Two", "9,T\rwo", "movies.csv, line 4: "),
    ],
)
def test_invalid_files_of_the_csv_format_are_refused(tmp_path, name, old, new, message):
    assert old in FILES_CSV[name]
    write_files(tmp_path, FILES_CSV | {name: FILES_CSV[name].replace(old, new, 1)}, "utf-8")
    with pytest.raises(ValueError, match=f"{re.escape(str(tmp_path))}/{message}"):
        formats.read(tmp_path, "directory")


def test_the_official_set_is_known_by_its_digests(real_movielens):
    assert real_movielens.source == "MovieLens 100K (directory)"
    assert real_movielens.ratings["rating"].mean() == pytest.approx(3.52986)
    assert real_movielens.ratings["rating"].var(ddof=0) == pytest.approx(1.26713, abs=5e-6)
    assert real_movielens.movies["year"].isna().sum() == 1
    assert not real_movielens.movies["title"].str.contains(r"\(\d{4}\)").any()
