"""The pictures show the numbers of the data, wherever those can be read off the axes."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recbandits.data.tables import MovieLens
from recbandits.plots import data as plots


def bar_heights(ax):
    return [bar.get_height() for bar in ax.patches]


@pytest.fixture
def half_stars(movielens):
    """Two users without columns, and their four ratings."""
    ratings = pd.DataFrame({"user_id": [1, 1, 2, 2], "movie_id": [1, 2, 1, 2], "rating": [0.5, 3.5, 3.5, 4]})
    ratings["time"] = pd.Timestamp("2026-01-01", tz="UTC")
    return MovieLens(ratings, movielens.users[[]], movielens.movies, "half stars")


def test_rating_shares_are_those_of_the_ratings(movielens):
    (ax,) = plots.rating_shares(movielens).axes
    np.testing.assert_allclose(bar_heights(ax), [0.0611, 0.1137, 0.27145, 0.34174, 0.21201], atol=1e-9)


def test_half_stars_have_bars_of_their_own(half_stars):
    (ax,) = plots.rating_shares(half_stars).axes
    assert [bar.get_x() + bar.get_width() / 2 for bar in ax.patches] == [0.5, 1, 2, 3, 3.5, 4, 5]
    np.testing.assert_allclose(bar_heights(ax), [0.25, 0, 0, 0, 0.5, 0.25, 0])


def test_a_set_without_demographics_says_so(half_stars):
    (ax,) = plots.demographics(half_stars).axes
    assert ax.texts[0].get_text() == "Age, gender and occupation are not in this set."


def test_the_long_tail_falls_from_the_most_popular_movie_to_single_ratings(movielens):
    left, right = plots.long_tail(movielens).axes
    ratings = left.lines[0].get_ydata()
    assert ratings.sum() == 100_000
    assert ratings[0] == movielens.ratings["movie_id"].value_counts().max()
    assert ratings[-1] == 1
    assert sum(bar_heights(right)) == 943


def test_genres_are_shown_by_number(movielens):
    left, right = plots.genres(movielens).axes
    numbers = [bar.get_width() for bar in left.patches]
    assert numbers == sorted(numbers)
    assert numbers[-1] == movielens.movies["Drama"].sum()
    drama = movielens.ratings[movielens.ratings["movie_id"].map(movielens.movies["Drama"])]
    assert right.lines[0].get_xdata()[-1] == pytest.approx(drama["rating"].mean())


def test_a_set_without_genres_says_so(movielens):
    """No movie has a genre: no means to draw, and the movies stay on the map."""
    movies = movielens.movies.copy()
    movies[movies.columns[2:]] = False
    without = MovieLens(movielens.ratings, movielens.users, movies, "no genres")
    (ax,) = plots.genres(without).axes
    assert ax.texts[0].get_text() == "Genres are not in this set."
    factors = pd.DataFrame(np.random.default_rng(0).normal(size=(len(movies), 2)), movies.index)
    left, right = plots.taste_map(factors, without, labels=3).axes
    assert len(left.texts) == 3
    assert right.get_title() == "No genre has 10 of these movies"
    assert len(right.lines) == 0


def test_demographics_count_every_user_once(movielens):
    left, right = plots.demographics(movielens).axes
    assert sum(bar_heights(left)) == 943
    assert sum(bar.get_width() for bar in right.patches) == 943


def test_activity_over_time_counts_every_rating_once(movielens):
    left, right = plots.activity_over_time(movielens).axes
    assert sum(bar_heights(left)) == 100_000
    shares = right.lines[0].get_ydata()
    assert (shares[0], shares[-1], len(shares)) == (0, 1, 943)


@pytest.mark.parametrize("years", [1, 20])
def test_activity_has_few_dates_over_any_number_of_years(half_stars, years):
    times = pd.date_range("2000-01-01", periods=4, freq=f"{years * 122}D", tz="UTC")
    data = MovieLens(half_stars.ratings.assign(time=times), half_stars.users, half_stars.movies, "other times")
    fig = plots.activity_over_time(data)
    fig.canvas.draw()
    axis = fig.axes[0].xaxis
    low, high = axis.get_view_interval()
    assert 2 <= sum(low <= tick <= high for tick in axis.get_majorticklocs()) <= 6


def test_sparsity_is_densest_where_busy_users_meet_popular_movies(movielens):
    fig = plots.sparsity(movielens)
    image = np.asarray(fig.axes[0].images[0].get_array())
    assert fig.axes[0].get_title() == "6.3% of the matrix is rated"
    assert image[:10, :10].mean() > 0.5
    assert image[-10:, -10:].mean() < 0.01


def test_errors_by_rank_are_averaged_over_seeds():
    errors = pd.DataFrame({"rank": [1, 1, 2, 2], "seed": [0, 1, 0, 1], "rmse": [0.9, 1.1, 0.8, 0.8]})
    (ax,) = plots.errors_by_rank(errors, {"biases alone": 1.2}).axes
    assert ax.lines[0].get_ydata().tolist() == [1.0, 0.8]
    assert ax.lines[1].get_ydata()[0] == 1.2


def test_calibration_of_the_truth_is_the_diagonal():
    """Ten ratings in two bins: means 1.5 and 4; a prediction one too low lies one to the left."""
    rating = np.array([1.0, 2, 1, 2, 1.5, 4, 4, 4, 4, 4])
    (ax,) = plots.calibration(rating, {"right": rating, "low": rating - 1}, bins=2).axes
    np.testing.assert_allclose(ax.lines[1].get_xydata(), [[1.5, 1.5], [4, 4]])
    np.testing.assert_allclose(ax.lines[2].get_xydata(), [[0.5, 1.5], [3, 4]])


def test_the_taste_map_shows_the_movies_rated_often_enough(movielens):
    counts = movielens.ratings["movie_id"].value_counts()
    factors = pd.DataFrame(np.random.default_rng(0).normal(size=(1682, 3)), movielens.movies.index)
    left, right = plots.taste_map(factors, movielens, ratings=200, labels=5).axes
    assert len(left.collections[0].get_offsets()) == (counts >= 200).sum()
    assert len(left.texts) == 5
    x, y = left.collections[0].get_offsets().T
    assert x.var() > y.var()  # the directions of the largest variance
    assert {text.get_text().strip() for text in right.texts} <= set(movielens.movies.columns)
    assert {text.get_color() for text in right.texts} == {"black"}


@pytest.mark.parametrize("path", sorted(Path(plots.__file__).parent.glob("*.py")), ids=lambda path: path.stem)
def test_a_legend_is_beside_the_axes(path):
    """In no picture can it cover data: it is placed by BESIDE, an anchor of its own, or outside all axes."""
    calls = re.findall(r"\.legend\((.*)\)", path.read_text())
    assert all(re.search(r"\*\*BESIDE|bbox_to_anchor|loc=\"outside", call) for call in calls), calls
