"""Rows by id, in any order."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recbandits.data.lookup import Table

TABLE = Table(pd.DataFrame({"age": [30.0, 50.0], "factor_0": [1.0, 3.0], "bias": [2.0, 4.0]}, [9, -5]), "user")


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, unique=True), st.data())
def test_each_id_has_its_row_and_others_have_none(ids, data):
    table = Table(pd.DataFrame({"value": np.arange(len(ids), dtype=float)}, pd.Index(ids, dtype="int64")), "movie")
    asked = data.draw(st.lists(st.sampled_from(ids) | st.integers(-(2**63), 2**63 - 1), min_size=1))
    expected = [ids.index(name) if name in ids else -1 for name in asked]
    assert table.rows(np.array(asked, "int64")).tolist() == expected


def test_rows_keep_the_shape_of_the_ids():
    assert TABLE.rows([[9, -5, 0], [-5, -5, 9]]).tolist() == [[0, 1, -1], [1, 1, 0]]
    assert TABLE.rows([]).shape == (0,)


def test_factors_are_told_from_other_columns():
    assert (TABLE.factors.tolist(), TABLE.others.tolist()) == ([1], [0, 2])


def test_unknown_ids_are_refused_by_name_with_advice():
    assert TABLE.known([-5, 9], "").tolist() == [1, 0]
    with pytest.raises(KeyError, match="unknown user ids: 0, 7; ask another"):
        TABLE.known([7, 9, 0, 7], "ask another")


@pytest.mark.parametrize("ids", [[1.5], ["9"], [True], [None], [2**64]])
def test_ids_are_whole_numbers(ids):
    with pytest.raises(ValueError, match="user ids must be whole numbers of 64 bits, got"):
        TABLE.rows(ids)


def test_a_description_starts_from_the_mean_without_factors_or_from_a_row():
    np.testing.assert_array_equal(TABLE.described({"bias": 7}), [40, 0, 7])
    np.testing.assert_array_equal(TABLE.described({"bias": 7}, row=1), [50, 3, 7])
    assert TABLE.values.tolist() == [[30, 1, 2], [50, 3, 4]]
