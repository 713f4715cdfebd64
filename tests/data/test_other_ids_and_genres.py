"""Sets with other ids, or without genres, go through all that 00 to 03 call: renamed ids change nothing but ids."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from recbandits.agents.parameters import LinUCB
from recbandits.agents.ranking.parameters import Ranking
from recbandits.data import formats, synthetic
from recbandits.data.rating_features import RatingFeatures
from recbandits.data.splits import draw_lists
from recbandits.data.tables import GENRES
from recbandits.data.tfrecords import read_records, validate_records, write_records
from recbandits.environments.factorization import als, svd
from recbandits.serving.policy import export, load
from recbandits.training.experiments import run_experiment
from recbandits.training.job_paths import JobPaths
from recbandits.training.problems import Fit, Rank, Simulation

OFFSET = 1000
GENRE_NAMES = list(GENRES)


def change(data, offset=0, genres=True):
    """Return a set with its ids raised by an offset, with or without its genres."""
    ratings = data.ratings.assign(**{name: data.ratings[name] + offset for name in ("user_id", "movie_id")})
    users, movies = (table.set_index(table.index + offset) for table in (data.users, data.movies))
    if not genres:
        movies[GENRE_NAMES] = False
    return replace(data, ratings=ratings, users=users, movies=movies)


@pytest.fixture(scope="module")
def data():
    """All ratings of 80 synthetic users, with ids from 1."""
    whole = synthetic.generate()
    users = whole.users.iloc[:80]
    ratings = whole.ratings[whole.ratings["user_id"].isin(users.index)].reset_index(drop=True)
    return replace(whole, ratings=ratings, users=users)


@pytest.fixture(scope="module")
def renamed(data):
    """The same with ids from 1001."""
    return change(data, OFFSET)


def features(data):
    model = als(data.ratings, rank=3)
    return RatingFeatures.fit(data.ratings, data.users, data.movies, model.user_frame(), model.movie_frame())


@pytest.mark.parametrize("genres", [True, False])
def test_a_csv_set_is_read_back_with_its_ids_and_genres(data, tmp_path, genres):
    changed = change(data, OFFSET, genres)
    formats.write(changed, tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"ratings.csv", "movies.csv", "users.csv"}
    read = formats.read(tmp_path, "directory")
    for name in ("ratings", "users", "movies"):
        pd.testing.assert_frame_equal(getattr(read, name), getattr(changed, name))


def test_models_are_the_same(data, renamed):
    for fit in (als, svd):
        one, other = fit(data.ratings, rank=3), fit(renamed.ratings, rank=3)
        np.testing.assert_array_equal(one.movie_ids + OFFSET, other.movie_ids)
        np.testing.assert_array_equal(one.matrix(), other.matrix())


def test_without_genres_their_features_are_0_and_the_others_the_same(data):
    one, other = features(data), features(change(data, genres=False))
    columns = one.features.item_encoder.columns
    is_genre = np.repeat([name in GENRES for name in columns], [count_numbers(column) for column in columns.values()])
    items, without = one.features.items, other.features.items
    assert is_genre.sum() == len(GENRES)
    np.testing.assert_array_equal(without[:, ~is_genre], items[:, ~is_genre])
    assert not without[:, is_genre].any()


def count_numbers(column):
    """Return how many numbers a column of movies becomes: as many as a vector has, 1 of a number or a flag."""
    return column.get("size", 1)


def test_records_differ_by_the_offset_alone(data, renamed, tmp_path):
    rows = draw_lists(data.ratings, 3).test
    batches = []
    for name, each in (("data", data), ("renamed", renamed), ("bare", change(renamed, genres=False))):
        files = write_records(each, rows, tmp_path, name)
        assert validate_records(files, each, rows) == len(rows)
        batches.append(next(iter(read_records(files, 3))))
    for field, values in batches[0].items():
        offset = OFFSET * (field in ("user_id", "movie_id"))
        np.testing.assert_array_equal(values + offset if offset else values, batches[1][field])
    assert not batches[2]["genres"].numpy().any()


SMALL = {"decisions": 500, "judged": 500, "batch_size": 100}
PROBLEMS = {
    "simulate": Simulation(seeds=(0,), steps=20),
    "simulate, per arm": Simulation(seeds=(0,), steps=20, per_arm=True, rank=3),
    "fit": Fit(seeds=(0,), **SMALL),
    "rank": Rank(seeds=(0,), size=3, lists=1, epochs=1),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_jobs_have_the_same_results_and_recommend_the_renamed_movies(data, renamed, tmp_path, name):
    agent = Ranking(layers=(8,)) if name == "rank" else LinUCB()
    outcomes, answers = [], []
    for each, directory in ((data, tmp_path / "data"), (renamed, tmp_path / "renamed")):
        outcome = run_experiment(PROBLEMS[name], agent, each, JobPaths(None, None, None))
        options = {"titles": each.movies["title"], "arms": outcome.arms}
        policy = load(export(outcome.policy, directory, outcome.features, **options))
        answers.append(policy.recommend(outcome.features.context_of(each.users.index[0]), k=3, rng=0))
        outcomes.append(outcome)
    for metric, values in outcomes[0].by_seed.items():
        assert outcomes[1].by_seed[metric] == pytest.approx(values)
    assert [int(item) + OFFSET for item in answers[0].item_ids] == [int(item) for item in answers[1].item_ids]
    assert list(answers[0].titles) == list(answers[1].titles)
