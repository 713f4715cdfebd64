"""Foreign data becomes what every part of the package reads."""

import numpy as np
import pandas as pd
import pytest
from src.training.own_data import as_movielens, stars

from recbandits.data import formats

TITLES = {1: "Tea", 2: "Coffee", 3: "Mate"}


def events(**columns):
    """Three people, five opinions; person 7 has thought twice about coffee."""
    table = {
        "user_id": [7, 7, 8, 7, 9],
        "movie_id": [1, 2, 2, 2, 3],
        "rating": [5, 1, 4, 3, 2],
        "time": pd.to_datetime([50, 20, 30, 40, 10], unit="s", utc=True),
    }
    return pd.DataFrame(table | columns)


def test_stars_are_fifths_of_the_ranks():
    """Ten different values: two of them a star; equal ones share theirs."""
    assert stars(pd.Series([10, 9, 8, 7, 6, 5, 4, 3, 2, 1.0])).tolist() == [5, 5, 4, 4, 3, 3, 2, 2, 1, 1]
    assert stars(pd.Series([3.0] * 4)).nunique() == 1
    skewed = stars(pd.Series(np.random.default_rng(0).exponential(size=1000)))
    assert skewed.value_counts().tolist() == [200] * 5


def test_the_last_word_of_a_user_counts():
    ratings = as_movielens(events(), TITLES, "a shop").ratings
    assert ratings.set_index(["user_id", "movie_id"])["rating"].to_dict() == {
        (9, 3): 2.0,
        (8, 2): 4.0,
        (7, 2): 3.0,
        (7, 1): 5.0,
    }


def test_it_is_read_back_as_it_was_written(tmp_path):
    data = as_movielens(events(), TITLES, "a shop")
    formats.write(data, tmp_path)
    back = formats.read(tmp_path, "directory")
    assert not back.is_real
    pd.testing.assert_frame_equal(back.ratings, data.ratings, check_dtype=False)
    pd.testing.assert_frame_equal(back.users, data.users, check_dtype=False)
    assert back.movies["title"].to_dict() == TITLES


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (
            events().drop(columns="time"),
            "events must have the columns .*, time is missing",
        ),
        (events(rating=[5, 1, 4, 3, 0]), r"rating must be one of \(1, 2, 3, 4, 5\), got 0"),
        (events(movie_id=[1, 2, 2, 2, 4]), "titles must name every movie_id, 4 is missing"),
    ],
)
def test_what_cannot_be_read_is_refused(table, sentence):
    with pytest.raises(ValueError, match=sentence):
        as_movielens(table, TITLES, "a shop")
