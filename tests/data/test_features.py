"""Features belong to the user or movie with that id, are fitted on the training part, and stay the same on disk."""

import tempfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbandits.agents.factory import make_agent
from recbandits.data.examples import make_examples
from recbandits.data.features import GLOBAL, PER_ARM, FeatureBundle, FeatureTable
from recbandits.data.simulated_logs import log_decisions, uniform
from recbandits.data.splits import random_split
from recbandits.data.tables import GENRES
from recbandits.environments.factorization import als
from recbandits.training.offline import Specs, fit

TABLE = FeatureTable(pd.DataFrame({"age": [30.0, 50.0], "factor_0": [1.0, 3.0], "bias": [2.0, 4.0]}, [9, -5]), "user")


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, unique=True), st.data())
def test_each_id_has_its_row_and_an_unknown_id_has_none(ids, data):
    table = FeatureTable(
        pd.DataFrame({"value": np.arange(len(ids), dtype=float)}, pd.Index(ids, dtype="int64")), "movie"
    )
    wanted = data.draw(st.lists(st.sampled_from(ids) | st.integers(-(2**63), 2**63 - 1), min_size=1))
    expected = [ids.index(name) if name in ids else -1 for name in wanted]
    assert table.find_rows(np.array(wanted, "int64")).tolist() == expected


@given(st.lists(st.integers(-(2**63), 2**64 - 1), min_size=1, unique=True), st.data())
def test_ids_of_any_kind_of_whole_numbers_are_compared_exactly(ids, data):
    """NumPy compares int64 with uint64 as doubles, in which 2^53 and 2^53 + 1 are equal."""
    signed = min(ids) < 0
    ids = [number for number in ids if number < 2**63] if signed else ids
    table = FeatureTable(pd.DataFrame({"value": 0.0}, pd.Index(ids, dtype="int64" if signed else "uint64")), "movie")
    near = st.sampled_from(ids) | st.sampled_from(ids).map(lambda number: number ^ 1) | st.integers(-(2**63), 2**64 - 1)
    for wanted in data.draw(st.lists(near, min_size=1)):
        for dtype in ("int64", "uint64"):
            if np.iinfo(dtype).min <= wanted <= np.iinfo(dtype).max:
                expected = ids.index(wanted) if wanted in ids else -1
                assert table.find_rows(np.array([wanted], dtype)).tolist() == [expected]


def test_unsigned_ids_are_found_among_signed_ones_and_the_other_way_round():
    ids = [2**53, 2**53 + 1, 7]
    for of_table in ("int64", "uint64"):
        for wanted in ("int64", "uint64"):
            table = FeatureTable.from_ids(np.array(ids, of_table), "movie")
            assert table.find_rows(np.array([2**53 + 1, 2**53, 2**53 + 2, 7], wanted)).tolist() == [1, 0, -1, 2]


def test_rows_keep_the_shape_of_the_ids():
    assert TABLE.find_rows([[9, -5, 0], [-5, -5, 9]]).tolist() == [[0, 1, -1], [1, 1, 0]]
    assert TABLE.find_rows([]).shape == (0,)


def test_columns_are_factors_or_others():
    assert (TABLE.factor_columns.tolist(), TABLE.other_columns.tolist()) == ([1], [0, 2])


def test_required_rows_refuse_unknown_ids_by_name_with_advice():
    assert TABLE.require_rows([-5, 9], "").tolist() == [1, 0]
    with pytest.raises(KeyError, match="unknown user ids: 0, 7; take another"):
        TABLE.require_rows([7, 9, 0, 7], "take another")


@pytest.mark.parametrize("ids", [[1.5], ["9"], [True], [None], [2**64]])
def test_ids_are_whole_numbers(ids):
    with pytest.raises(ValueError, match="user ids must be whole numbers of 64 bits, got"):
        TABLE.find_rows(ids)


def test_a_description_starts_from_the_mean_without_factors_or_from_a_row():
    np.testing.assert_array_equal(TABLE.describe({"bias": 7}), [40, 0, 7])
    np.testing.assert_array_equal(TABLE.describe({"bias": 7}, row=1), [50, 3, 7])
    assert TABLE.values.tolist() == [[30, 1, 2], [50, 3, 4]]


@pytest.mark.parametrize(
    ("values", "ids", "message"),
    [
        ({"age": [1.0, np.nan]}, [3, 9], r"row 1 \(9\): 'age' of a user must be a finite number, got nan"),
        ({"age": [1.0, np.inf]}, [3, 9], r"row 1 \(9\): 'age' of a user must be a finite number, got inf"),
        ({"age": [1.0, 1e39]}, [3, 9], r"row 1 \(9\): 'age' of a user must be a finite number, got 1e\+39"),
        ({"age": pd.array([1, None], "Int64")}, [3, 9], r"row 1 \(9\): 'age' of a user must be .*, got <NA>"),
        ({"age": [1.0, "old"]}, [3, 9], r"row 1 \(9\): 'age' of a user must be a finite number, got old"),
        ({"age": [1.0, 2j]}, [3, 9], r"row 0 \(3\): 'age' of a user must be a finite number, got \(1\+0j\)"),
        (
            {"day": pd.to_datetime(["2026-01-01"] * 2)},
            [3, 9],
            r"row 0 \(3\): 'day' of a user must be .*, got 2026-01-01",
        ),
        ({"age": [1.0, 2.0]}, [3, 3], r"row 1 \(3\): the id of a user must be different in each row, got 3"),
        ({"age": [1.0, 2.0]}, ["a", "b"], r"user ids must be whole numbers of 64 bits, as an index, got \['a', 'b'\]"),
        ({"age": [1.0, 2.0]}, [3.0, 9.0], r"user ids must be whole numbers of 64 bits, as an index, got \[3.0, 9.0\]"),
        ({"age": [1.0, 2.0]}, [True, False], "user ids must be whole numbers of 64 bits, as an index, got"),
        ({"age": [1.0, 2.0]}, [(3, 1), (9, 1)], "user ids must be whole numbers of 64 bits, as an index, got"),
        ({"age": []}, pd.Index([], dtype=int), "user ids must be at least one, got 0"),
        ({0: [1.0, 2.0]}, [3, 9], r"columns of users must be different names that are text, got \[0\]"),
        ({"a\0": [1.0, 2.0]}, [3, 9], "columns of users must be different names that are text, got"),
    ],
)
def test_tables_that_cannot_be_saved_or_looked_up_are_refused_by_column_row_and_value(values, ids, message):
    with pytest.raises(ValueError, match=message):
        FeatureBundle(pd.DataFrame(values, ids), TABLE.frame)


def test_a_column_twice_is_refused():
    with pytest.raises(ValueError, match=r"columns of movies must be different names that are text, got \['a', 'a'\]"):
        FeatureTable(pd.DataFrame([[1.0, 2.0]], [3], ["a", "a"]), "movie")


NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=4).filter(lambda name: not name.endswith("\0"))
FLOATS = st.floats(-(2.0**99), 2.0**99)
COLUMNS = st.sampled_from(
    [
        ("float32", st.floats(-(2.0**99), 2.0**99, width=32)),
        ("float64", FLOATS),
        ("int64", st.integers(-(2**63), 2**63 - 1)),
        ("uint8", st.integers(0, 255)),
        ("bool", st.booleans()),
        ("boolean", st.booleans()),
        ("Float64", FLOATS),
        ("object", st.booleans() | FLOATS | st.integers(-9, 9)),
    ]
)
IDS = st.sampled_from([("int64", -(2**63), 2**63 - 1), ("uint64", 0, 2**64 - 1), ("int16", -(2**15), 2**15 - 1)])


@st.composite
def tables(draw):
    """Draw a table with ids and columns of any types that are numbers or bools, or without columns."""
    dtype, low, high = draw(IDS)
    ids = draw(st.lists(st.integers(low, high), min_size=1, max_size=4, unique=True))
    frame = pd.DataFrame(index=pd.Index(ids, dtype=dtype))
    for name in draw(st.lists(NAMES | st.just("factor_0"), unique=True, max_size=4)):
        kind, values = draw(COLUMNS)
        frame[name] = pd.Series([draw(values) for _ in ids], frame.index, kind)
    return frame


@given(tables(), tables(), st.sampled_from(["match", "product"]))
def test_any_bundle_that_can_be_made_is_saved_loaded_and_looked_up_the_same(users, movies, view):
    bundle = FeatureBundle(users, movies, view)
    with tempfile.TemporaryDirectory() as directory:
        bundle.save(directory)
        loaded = FeatureBundle.load(directory)
    assert (loaded.view, loaded.spec(1)) == (view, bundle.spec(1))
    assert loaded.users.columns.tolist() == users.columns.tolist()
    user_ids, candidates = users.index.to_numpy(), np.tile(movies.index.to_numpy(), (len(users), 1))
    expected, observation = (part.observation(user_ids, candidates) for part in (bundle, loaded))
    for name in (GLOBAL, PER_ARM):
        np.testing.assert_array_equal(observation[name], expected[name])
    np.testing.assert_array_equal(loaded.user_features(user_ids), users.to_numpy(np.float32).reshape(users.shape))


@pytest.fixture(scope="module")
def small():
    """Three users and three movies whose ids are neither dense nor in the order of the ratings."""
    ratings = pd.DataFrame({"user_id": [30, 10, 30, 30], "movie_id": [7, 7, 5, 9]})
    users = pd.DataFrame(
        {"age": [17, 25, 80], "gender": ["F", "M", "M"], "occupation": ["artist", "writer", "artist"], "zip": "0"},
        index=pd.Index([10, 20, 30], name="user_id"),
    )
    movies = pd.DataFrame(
        {
            "title": ["A", "B", "C"],
            "year": pd.array([1990, pd.NA, 1994], dtype="Int64"),
            **dict.fromkeys(GENRES, False),
        },
        index=pd.Index([5, 7, 9], name="movie_id"),
    )
    movies.loc[7, ["Drama", "War"]] = True
    factors = pd.DataFrame({"factor_0": [0.3, 0.1]}, index=pd.Index([30, 10], name="user_id"))
    return ratings, users, movies, factors


@pytest.fixture(scope="module")
def fitted(movielens):
    train = movielens.ratings.iloc[random_split(movielens.ratings).train]
    model = als(train, rank=4)
    return FeatureBundle.fit(train, movielens.users, movielens.movies, model.user_frame(), model.movie_frame())


def test_particular_users_have_their_own_features(small):
    """Log counts log 2, log 1, log 4 have mean log 2 and standard deviation log 2 * sqrt(2 / 3)."""
    ratings, users, movies, factors = small
    bundle = FeatureBundle.fit(ratings, users, movies, user_factors=factors)
    table = pd.DataFrame(bundle.user_features([30, 10, 20, 30]), columns=bundle.users.columns)
    assert table["age 0+"].tolist() == [0, 1, 0, 0]
    assert table["age 25+"].tolist() == [0, 0, 1, 0]
    assert table["age 56+"].tolist() == [1, 0, 0, 1]
    assert table["female"].tolist() == [0, 1, 0, 0]
    assert table["artist"].tolist() == [1, 1, 0, 1]
    assert table["writer"].tolist() == [0, 0, 1, 0]
    np.testing.assert_allclose(table["activity"], np.array([1, 0, -1, 1]) * np.sqrt(1.5), rtol=1e-6)
    np.testing.assert_allclose(table["factor_0"], [0.3, 0.1, 0, 0.3], rtol=1e-6)


def test_particular_movies_have_their_own_features(small):
    ratings, users, movies, _ = small
    bundle = FeatureBundle.fit(ratings, users, movies)
    table = pd.DataFrame(bundle.movie_features([9, 7, 5]), columns=bundle.movies.columns)
    assert table["Drama"].tolist() == table["War"].tolist() == [0, 1, 0]
    assert table["year"].tolist() == [1, 0, -1]
    np.testing.assert_allclose(table["popularity"], [-0.70710677, 1.4142135, -0.70710677], rtol=1e-5)


def test_users_of_whom_nothing_is_known_have_their_activity_and_factors(small):
    ratings, users, movies, factors = small
    bundle = FeatureBundle.fit(ratings, users[[]], movies, user_factors=factors)
    everything = FeatureBundle.fit(ratings, users, movies, user_factors=factors)
    pd.testing.assert_frame_equal(bundle.users, everything.users[["activity", "factor_0"]])


@pytest.mark.parametrize("columns", [[], ["factor_0"]])
def test_a_context_without_columns_is_a_constant_that_networks_can_read(columns):
    users = pd.DataFrame(1.0, [10, 30], columns)
    bundle = FeatureBundle(users, pd.DataFrame({"year": [0.0, 1.0], "factor_0": 1.0}, [5, 7]))
    assert bundle.observation([30, 10], [[5], [7]])[GLOBAL].tolist() == [[1.0], [1.0]]
    pairs = pd.MultiIndex.from_product([[10, 30], [5, 7]], names=["user_id", "movie_id"]).to_frame(index=False)
    ratings = pairs.assign(rating=[5.0, 1.0, 5.0, 1.0], time=pd.Timestamp("2026-01-01", tz="UTC"))
    agent = make_agent("epsilon_greedy", Specs(bundle.spec(2)))
    fit(agent, make_examples(log_decisions(ratings, uniform, candidates=2, decisions=20).log, bundle))


def test_further_genres_are_further_features(small):
    ratings, users, movies, _ = small
    bundle = FeatureBundle.fit(ratings, users, movies.assign(IMAX=[True, False, False]))
    assert bundle.movies["IMAX"].tolist() == [1, 0, 0]


def test_features_are_joined_by_id_in_any_order_of_the_tables(small):
    ratings, users, movies, factors = small
    bundle = FeatureBundle.fit(ratings, users, movies, user_factors=factors)
    reversed_tables = FeatureBundle.fit(ratings[::-1], users[::-1], movies[::-1], user_factors=factors[::-1])
    np.testing.assert_array_equal(bundle.user_features([10, 20, 30]), reversed_tables.user_features([10, 20, 30]))
    np.testing.assert_array_equal(bundle.movie_features([5, 7, 9]), reversed_tables.movie_features([5, 7, 9]))


def test_all_of_movielens_has_finite_float32_features(fitted, movielens):
    users, movies = fitted.user_features(movielens.users.index), fitted.movie_features(movielens.movies.index)
    assert users.dtype == movies.dtype == np.float32
    assert users.shape == (943, 7 + 1 + movielens.users["occupation"].nunique() + 1 + 5)
    assert movies.shape == (1682, 19 + 1 + 1 + 5)
    assert np.isfinite(users).all()
    assert np.isfinite(movies).all()
    ages = [column for column in fitted.users.columns if column.startswith("age ")]
    assert (fitted.users[ages].sum(axis=1) == 1).all()


def test_two_real_users_and_two_real_movies_line_up(real_movielens):
    """User 1 is male and 24, user 2 female and 53; movie 1 is an animation, movie 50 a war film."""
    bundle = FeatureBundle.fit(real_movielens.ratings, real_movielens.users, real_movielens.movies)
    users = pd.DataFrame(bundle.user_features([2, 1]), columns=bundle.users.columns)
    assert users[["age 50+", "female", "other", "technician"]].to_numpy().tolist() == [[1, 1, 1, 0], [0, 0, 0, 1]]
    movies = pd.DataFrame(bundle.movie_features([50, 1]), columns=bundle.movies.columns)
    assert movies[["War", "Animation"]].to_numpy().tolist() == [[1, 0], [0, 1]]
    assert movies["popularity"][0] == bundle.movies["popularity"].max()


def test_held_out_ratings_do_not_change_the_features(movielens):
    """Change every held-out rating, movie and user: the bundle fitted on the training part stays as it was."""
    train, test = random_split(movielens.ratings)
    changed = movielens.ratings.copy()
    changed.loc[test, ["user_id", "movie_id", "rating"]] = [1, 1, 1.0]
    bundles = []
    for ratings in (movielens.ratings, changed):
        part = ratings.iloc[train]
        model = als(part, rank=2, iterations=2)
        bundles.append(
            FeatureBundle.fit(part, movielens.users, movielens.movies, model.user_frame(), model.movie_frame())
        )
    pd.testing.assert_frame_equal(bundles[0].users, bundles[1].users, check_exact=True)
    pd.testing.assert_frame_equal(bundles[0].movies, bundles[1].movies, check_exact=True)
    all_ratings = FeatureBundle.fit(movielens.ratings, movielens.users, movielens.movies)
    assert not all_ratings.movies["popularity"].equals(bundles[0].movies["popularity"])


def test_a_saved_bundle_is_loaded_bit_by_bit(fitted, tmp_path):
    fitted.save(tmp_path / "bundle")
    again = FeatureBundle.load(tmp_path / "bundle")
    pd.testing.assert_frame_equal(again.users, fitted.users, check_exact=True)
    pd.testing.assert_frame_equal(again.movies, fitted.movies, check_exact=True)
    again.save(tmp_path / "again")
    assert (tmp_path / "again/features.npz").read_bytes() == (tmp_path / "bundle/features.npz").read_bytes()


def test_unknown_ids_are_refused_by_name(fitted):
    with pytest.raises(
        KeyError, match="unknown user ids: 0, 5000; pass unknown='mean' to take the mean of the 943 known"
    ):
        fitted.user_features([1, 5000, 0, 5000])
    with pytest.raises(KeyError, match="unknown movie ids: 1683"):
        fitted.movie_features([1683])


def test_unknown_ids_get_the_mean_on_request(fitted):
    features = fitted.user_features([5000, 1], unknown="mean")
    np.testing.assert_allclose(features[0], fitted.users.mean(axis=0), atol=1e-6)
    np.testing.assert_array_equal(features[1], fitted.users.loc[1])


def test_another_rule_for_unknown_ids_is_refused(fitted):
    with pytest.raises(ValueError, match="unknown must be 'error' or 'mean', got 'zero'"):
        fitted.user_features([1], unknown="zero")


def test_a_lookup_gives_a_copy(fitted):
    fitted.user_features([1])[:] = 99
    assert (fitted.user_features([1]) != 99).all()


def make_bundle(users, movies):
    """Make a bundle of two factors and a bias, which is not a factor."""
    return FeatureBundle(
        pd.DataFrame(users, pd.Index([10, 30], name="user_id"), ["bias", "factor_0", "factor_1"], "float32"),
        pd.DataFrame(movies, pd.Index([5, 7, 9], name="movie_id"), ["bias", "factor_0", "factor_1"], "float32"),
    )


def test_a_candidate_carries_the_dot_product_of_the_factors_and_not_the_factors():
    """User 30 has bias 0.2 and factors (3, 4), movie 9 has bias 3 and factors (-1, 2): they match by -3 + 8 = 5."""
    bundle = make_bundle([[0.1, 1, 2], [0.2, 3, 4]], [[1, 0, 1], [2, 1, 0], [3, -1, 2]])
    observation = bundle.observation([30, 10], [[9, 5], [7, 0]], mask=[[True, True], [True, False]])
    np.testing.assert_array_equal(observation[GLOBAL], np.array([[0.2], [0.1]], "float32"))
    np.testing.assert_array_equal(observation[PER_ARM], [[[3, 5], [1, 4]], [[2, 1], [0, 0]]])
    assert bundle.spec(2) == {GLOBAL: (1,), PER_ARM: (2, 2)}


def test_the_product_view_keeps_all_features():
    """Users show bias and both factors; movies theirs, and (3, 4) times (-1, 2) or (0, 1), number by number."""
    factors = make_bundle([[0.1, 1, 2], [0.2, 3, 4]], [[1, 0, 1], [2, 1, 0], [3, -1, 2]])
    bundle = FeatureBundle(factors.users, factors.movies, view="product")
    observation = bundle.observation([30], [[9, 5]])
    np.testing.assert_array_equal(observation[GLOBAL], np.array([[0.2, 3, 4]], "float32"))
    np.testing.assert_array_equal(observation[PER_ARM], [[[3, -1, 2, -3, 8], [1, 0, 1, 0, 4]]])
    assert bundle.spec(2) == {GLOBAL: (3,), PER_ARM: (2, 5)}


def test_a_saved_bundle_keeps_its_view(tmp_path):
    factors = make_bundle([[0.1, 1, 2], [0.2, 3, 4]], [[1, 0, 1], [2, 1, 0], [3, -1, 2]])
    FeatureBundle(factors.users, factors.movies, view="product").save(tmp_path)
    assert FeatureBundle.load(tmp_path).view == "product"


def test_other_views_and_factors_that_do_not_match_are_refused():
    bundle = make_bundle([[0.1, 1, 2], [0.2, 3, 4]], [[1, 0, 1], [2, 1, 0], [3, -1, 2]])
    with pytest.raises(ValueError, match="view must be one of match, product, got 'both'"):
        FeatureBundle(bundle.users, bundle.movies, view="both")
    with pytest.raises(ValueError, match=r"users and movies must be of the same factors, .*, got \[\['factor_0'\], "):
        FeatureBundle(bundle.users.drop(columns="factor_1"), bundle.movies)
    with pytest.raises(ValueError, match="users and movies must be of the same factors, in the same order, got"):
        FeatureBundle(bundle.users[["bias", "factor_1", "factor_0"]], bundle.movies)


def test_rotated_factors_give_the_same_observation():
    """Rotated by 90 degrees, (a, b) is (-b, a); a new fit rotates all factors alike."""
    rotated = make_bundle([[0.1, -2, 1], [0.2, -4, 3]], [[1, -1, 0], [2, 0, 1], [3, -2, -1]])
    bundle = make_bundle([[0.1, 1, 2], [0.2, 3, 4]], [[1, 0, 1], [2, 1, 0], [3, -1, 2]])
    for part in (GLOBAL, PER_ARM):
        np.testing.assert_array_equal(*(b.observation([30, 10], [[9, 5], [7, 9]])[part] for b in (rotated, bundle)))


def test_an_observation_without_factors_of_both_has_the_features_of_the_movie_alone(small):
    ratings, users, movies, factors = small
    bundle = FeatureBundle.fit(ratings, users, movies, user_factors=factors)
    observation = bundle.observation([30], [[9, 7]])
    np.testing.assert_array_equal(observation[PER_ARM][0], bundle.movie_features([9, 7]))
    assert bundle.spec(2) == {name: value.shape[1:] for name, value in observation.items()}


def test_observations_have_the_shapes_of_their_spec(fitted):
    observation = fitted.observation([1, 2, 3], [[1, 2], [3, 4], [5, 6]])
    assert fitted.spec(2) == {name: value.shape[1:] for name, value in observation.items()}
    assert observation[GLOBAL].dtype == observation[PER_ARM].dtype == np.float32


def test_an_unknown_candidate_is_refused_or_the_mean(fitted):
    with pytest.raises(KeyError, match="unknown movie ids: 0, 1683"):
        fitted.observation([1], [[1683, 0]])
    assert np.isfinite(fitted.observation([1], [[1683, 0]], unknown="mean")[PER_ARM]).all()


def test_the_names_of_the_parts_are_those_of_tf_agents():
    from tf_agents.bandits.specs import utils

    assert (GLOBAL, PER_ARM) == (utils.GLOBAL_FEATURE_KEY, utils.PER_ARM_FEATURE_KEY)
