"""Raw columns as numbers."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbandits.data import Encoder

FRAME = pd.DataFrame(
    {
        "minutes": [10.0, 20.0, np.nan, 30.0],
        "live": [True, False, True, False],
        "rare": [0, 0, 1, 0],
        "genre": ["news", "kids", None, "news"],
        "taste_0": [0.5, -1.0, 2.0, 0.0],
        "taste_1": [1.0, 1.0, 0.0, 3.0],
    }
)


def test_numbers_are_standardised_flags_and_vectors_stay_and_categories_are_one_hot():
    """The mean of the minutes is 20 and their deviation sqrt(200 / 3)."""
    encoder = Encoder.fit(FRAME, vectors=["taste"])
    assert encoder.names == ["minutes", "live", "rare", "genre=kids", "genre=news", "taste_0", "taste_1"]
    high = 10 / np.sqrt(200 / 3)
    expected = [
        [-high, 1, 0, 0, 1, 0.5, 1],
        [0, 0, 0, 1, 0, -1, 1],
        [0, 1, 1, 0, 0, 2, 0],
        [high, 0, 0, 0, 1, 0, 3],
    ]
    np.testing.assert_allclose(encoder.encode(FRAME), expected, rtol=1e-6)
    assert encoder.encode(FRAME).dtype == np.float32


def test_unknown_levels_missing_values_and_missing_columns_are_zero():
    encoder = Encoder.fit(FRAME[["minutes", "genre"]])
    np.testing.assert_array_equal(encoder.encode(pd.DataFrame({"genre": ["opera", None]})), np.zeros((2, 3)))
    np.testing.assert_array_equal(encoder.encode_row({"genre": "opera", "minutes": None}), np.zeros(3))
    np.testing.assert_array_equal(encoder.encode_row({"genre": pd.NA, "minutes": pd.NA}), np.zeros(3))


def test_only_the_most_frequent_levels_are_kept():
    frame = pd.DataFrame({"genre": ["a"] * 3 + ["b"] * 2 + ["c"]})
    assert Encoder.fit(frame, max_levels=2).names == ["genre=a", "genre=b"]


def test_numbers_can_be_categories_and_are_then_their_text():
    encoder = Encoder.fit(pd.DataFrame({"hour": [7, 21, 7]}), categories=["hour"])
    assert encoder.names == ["hour=21", "hour=7"]
    np.testing.assert_array_equal(encoder.encode(pd.DataFrame({"hour": [21.0, np.nan]})), [[1, 0], [0, 0]])
    np.testing.assert_array_equal(encoder.encode_row({"hour": 7}), [0, 1])


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
def test_objects_that_are_all_numbers_are_numbers(missing):
    """The mean of 10, 20.5 and 30 is 20.1667."""
    values = pd.Series([10, 20.5, missing, np.int64(30)], dtype=object)
    encoder = Encoder.fit(pd.DataFrame({"minutes": values}))
    assert encoder.columns == Encoder.fit(pd.DataFrame({"minutes": [10, 20.5, np.nan, 30]})).columns
    assert encoder.encode(pd.DataFrame({"minutes": values}))[2].tolist() == [0.0]
    mixed = pd.DataFrame({"minutes": pd.Series([True, 5, missing], dtype=object)})
    assert Encoder.fit(mixed).names == ["minutes=5", "minutes=True"]


def test_numbers_of_the_type_category_are_categories():
    frame = pd.DataFrame({"zone": pd.Categorical([1, 3, None]), "live": pd.Categorical([0, 1, 0])})
    encoder = Encoder.fit(frame)
    assert encoder.names == ["zone=1", "zone=3", "live=0", "live=1"]
    np.testing.assert_array_equal(encoder.encode(frame), [[1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 0]])


@pytest.mark.parametrize("kind", [pd.StringDtype("pyarrow", na_value=pd.NA), pd.ArrowDtype(pa.string()), "category"])
def test_texts_of_every_type_are_categories(kind):
    frame = pd.DataFrame({"genre": pd.Series(["news", None, "0", "news"]).astype(kind)})
    encoder = Encoder.fit(frame)
    assert encoder.names == ["genre=0", "genre=news"]
    np.testing.assert_array_equal(encoder.encode(frame), [[0, 1], [0, 0], [1, 0], [0, 1]])


def test_another_value_of_a_number_that_was_constant_is_one_unit_away_for_each_unit():
    """The mean of a thousand values 0.1 is not exactly 0.1, and their computed deviation 1e-17 instead of 0."""
    encoder = Encoder.fit(pd.DataFrame({"fee": np.full(1000, 0.1)}))
    np.testing.assert_allclose(encoder.encode(pd.DataFrame({"fee": [0.1, 1.1]})), [[0.0], [1.0]], atol=1e-6)
    small = Encoder.fit(pd.DataFrame({"fee": [1e-12, 3e-12]}))
    np.testing.assert_allclose(small.encode_row({"fee": 3e-12}), [1.0])


def test_a_constant_number_is_zero_and_an_empty_table_has_no_numbers():
    frame = pd.DataFrame({"minutes": [5.0, 5.0]})
    np.testing.assert_array_equal(Encoder.fit(frame).encode(frame), [[0.0], [0.0]])
    assert Encoder.fit(pd.DataFrame(index=range(3))).encode(pd.DataFrame(index=range(3))).shape == (3, 0)


@pytest.mark.parametrize(
    ("columns", "options", "sentence"),
    [
        ({0: [1, 2]}, {}, "the name of a column must be text that is not empty, got 0"),
        (pd.Index(["\ud800"], dtype=object), {}, "the name of a column must be text that is not empty, got "),
        ({"x": pd.Series(["a", "\ud800"], dtype=object)}, {}, "column 'x' must be text, got "),
        ({"x": [np.nan, None]}, {}, "column 'x' must be a column with at least one value, got 'none'"),
        ({"x": [1.0, np.inf]}, {}, "row 1: column 'x' must be a finite number, got inf"),
        ({"x": pd.to_datetime(["2026-01-01", "2026-01-02"])}, {}, "must be numbers, .*, or text, got 'datetime"),
        ({"x": [["a"], ["b"]]}, {}, r"row 0: column 'x' must be text or a whole number, got \['a'\]"),
        ({"x": ["a", 1.5]}, {}, "row 1: column 'x' must be text or a whole number, got 1.5"),
        ({"v_0": [1.0, 2.0], "v_2": [1.0, 2.0]}, {"vectors": ["v"]}, "vector 'v' must be columns v_0 and on"),
        ({"x": [1.0, 2.0]}, {"vectors": ["v"]}, "vector 'v' must be columns v_0 and on"),
        ({"v_0": ["a", "b"]}, {"vectors": ["v"]}, "row 0: column 'v_0' must be a finite number, got 'a'"),
        ({"x": ["a", "b"]}, {"max_levels": 0}, "max_levels must be a whole number of at least 1, got 0"),
        ({"x": ["a", "b"]}, {"max_levels": "x"}, "max_levels must be a whole number of at least 1, got 'x'"),
        ({"x": [1.0, 2.0]}, {"categories": ["y"]}, "categories must be among x, got 'y'"),
    ],
)
def test_what_cannot_be_encoded_is_refused_by_column_row_and_value(columns, options, sentence):
    frame = pd.DataFrame([[1.0]], columns=columns) if isinstance(columns, pd.Index) else pd.DataFrame(columns)
    with pytest.raises(ValueError, match=sentence):
        Encoder.fit(frame, **options).encode(frame)


def test_a_column_that_occurs_twice_is_refused():
    frame = pd.DataFrame([[1, 2]], columns=["x", "x"])
    with pytest.raises(ValueError, match="column 'x' must be there once, got 2"):
        Encoder.fit(frame)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"year": 1999}, "column must be one of minutes, live, rare, genre, taste_0, taste_1, got 'year'"),
        ({"minutes": "ten"}, "column 'minutes' must be a finite number, got 'ten'"),
        ({"minutes": np.inf}, "column 'minutes' must be a finite number, got inf"),
        ({"minutes": 1e39}, "column 'minutes' must be a finite number, got 1e\\+39"),
        ({"live": 0.5}, "column 'live' must be 0 or 1, got 0.5"),
        ({"genre": 2.5}, "column 'genre' must be text or a whole number, got 2.5"),
    ],
)
def test_requests_and_tables_refuse_the_same_values(row, sentence):
    encoder = Encoder.fit(FRAME)
    with pytest.raises(ValueError, match=sentence):
        encoder.encode_row(row)
    with pytest.raises(ValueError, match=sentence):
        encoder.encode(pd.DataFrame([row]))


VALUES = {
    "minutes": st.none() | st.floats(-1e6, 1e6),
    "live": st.none() | st.booleans(),
    "rare": st.none() | st.integers(0, 1),
    "genre": st.none() | st.sampled_from(["news", "kids", "opera", "煎茶"]),
    "taste_0": st.none() | st.floats(-10, 10),
    "taste_1": st.none() | st.floats(-10, 10),
}


@settings(max_examples=100, deadline=None)
@given(st.fixed_dictionaries({}, optional=VALUES))
def test_a_request_is_encoded_as_a_table_of_one_row_is(row):
    encoder = Encoder.fit(FRAME, vectors=["taste"])
    table = pd.DataFrame([row], dtype=object) if row else pd.DataFrame(index=[0])
    np.testing.assert_allclose(encoder.encode_row(row), encoder.encode(table)[0], rtol=1e-6)
