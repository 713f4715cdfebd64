"""Features of requests and items from raw columns."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbandits.data import GLOBAL, PER_ARM, Encoder, Features
from recbandits.records import Log

ITEMS = pd.DataFrame(
    {"genre": ["news", "kids", "news"], "taste_0": [1.0, 0.0, 2.0], "taste_1": [0.5, 1.0, -1.0]}, index=["a", "b", "c"]
)
FRAME = pd.DataFrame(
    {
        "shown": ["a", "c"],
        "click": [1, 0],
        "p": [0.5, 0.5],
        "at": ["2026-01-01", "2026-01-02"],
        "plan": ["free", "premium"],
        "taste_0": [3.0, -1.0],
        "taste_1": [2.0, 4.0],
        "lists": [["a", "b"], ["c", "b"]],
    }
)
PRICE = np.array([[9.0, 8.0], [7.0, 6.0]])
COLUMNS = {"item": "shown", "reward": "click", "propensity": "p", "time": "at", "candidates": "lists"}


def make_log(items=ITEMS.index, **numbers):
    context = ["plan", "taste_0", "taste_1"]
    return Log.from_frame(FRAME, items, context=context, candidate_features=numbers, **COLUMNS)


def observe(features, log):
    """Features of all candidates in one part."""
    return tuple(map(np.concatenate, zip(*features.observe(log, log.mask), strict=True)))


def test_an_observation_has_scalars_numbers_of_candidates_products_and_dot_products():
    """Of the first decision: plan free; item b is kids with taste (0, 1) and price 8; (3, 2) x (0, 1) is 2."""
    log = make_log(price=PRICE)
    features = Features.fit(ITEMS, log, [("plan", "genre"), ("taste", "taste")], vectors=["taste"])
    context, arm = observe(features, log)
    np.testing.assert_array_equal(context, [[1, 1, 0], [1, 1, 0], [1, 0, 1], [1, 0, 1]])
    expected = [
        # kids, news, price, free x kids, free x news, premium x kids, premium x news, dot product
        [0, 1, 9, 0, 1, 0, 0, 4],
        [1, 0, 8, 1, 0, 0, 0, 2],
        [0, 1, 7, 0, 0, 0, 1, -6],
        [1, 0, 6, 0, 0, 1, 0, 4],
    ]
    np.testing.assert_array_equal(arm, expected)
    assert features.spec(7) == {"global": (3,), "per_arm": (7, 8)}


def test_a_log_without_decisions_has_features_of_the_same_widths():
    log = make_log(price=PRICE)
    features = Features.fit(ITEMS, log, [("plan", "genre"), ("taste", "taste")], vectors=["taste"])
    context, arm = observe(features, log.take([]))
    assert (context.shape, arm.shape) == ((0, 3), (0, 8))


def test_vectors_are_features_unless_a_dot_product_stands_for_them():
    """Of the first decision: item b has taste (0, 1), and the context taste (3, 2); their products are 0 and 2."""
    log = make_log()
    plain = Features.fit(ITEMS, log, vectors=["taste"])
    context, arm = observe(plain, log)
    np.testing.assert_array_equal(context[0], [1, 1, 0, 3, 2])
    np.testing.assert_array_equal(arm[1], [1, 0, 0, 1])
    assert not plain.depends_on_both
    products = replace(plain, products=(("taste", "taste"),))
    context, arm = observe(products, log)
    np.testing.assert_array_equal(context[0], [1, 1, 0, 3, 2])
    np.testing.assert_array_equal(arm[1], [1, 0, 0, 1, 0, 2])
    assert products.depends_on_both
    with pytest.raises(ValueError, match=r"columns 'plan' and 'genre' in products must be vectors, got \[None, None\]"):
        replace(plain, products=(("plan", "genre"),))


def test_a_context_begins_with_a_constant_and_is_one_if_it_has_no_columns():
    log = make_log()
    features = Features.fit(ITEMS, log, vectors=["taste"])
    np.testing.assert_array_equal(observe(features, log)[0][0], [1, 1, 0, 3, 2])
    np.testing.assert_array_equal(observe(replace(features, intercept=False), log)[0][0], [1, 0, 3, 2])
    empty = replace(log, context=log.context[[]])
    for intercept in (False, True):
        nothing = replace(Features.fit(ITEMS, empty, vectors=["taste"]), intercept=intercept)
        assert observe(nothing, empty)[0].tolist() == [[1.0]] * 4
        assert nothing.spec(2) == {"global": (1,), "per_arm": (2, 4)}


def test_a_number_among_the_vectors_stays_as_it_is():
    features = Features.fit(ITEMS, make_log(), vectors=["taste_0", "taste_1"])
    np.testing.assert_array_equal(observe(features, make_log())[0][2], [1, 0, 1, -1, 4])


def test_products_of_columns_are_left_out_but_not_dot_products():
    crosses = [("plan", "genre"), ("taste", "taste")]
    features = Features.fit(ITEMS, make_log(), crosses, vectors=["taste"]).without_crosses()
    assert features.crosses == (("taste", "taste"),)
    assert features.depends_on_both


def test_items_are_found_by_their_ids_in_any_order_of_the_log():
    log, other = make_log(), make_log(ITEMS.index[::-1])
    features = Features.fit(ITEMS, log, [("plan", "genre")], vectors=["taste"])
    np.testing.assert_array_equal(observe(features, log)[1], observe(features, other)[1])


def test_large_logs_are_observed_in_parts_of_bounded_size(monkeypatch):
    log = make_log(price=PRICE)
    features = Features.fit(ITEMS, log, [("plan", "genre")], vectors=["taste"])
    whole = observe(features, log)
    monkeypatch.setattr("recbandits.data.features._PART_BYTES", 120)
    parts = list(features.observe(log, log.mask))
    assert len(parts) == 4
    assert max(context.nbytes + arm.nbytes for context, arm in parts) <= 120
    np.testing.assert_array_equal(np.concatenate([arm for _, arm in parts]), whole[1])


def test_unknown_items_and_missing_numbers_are_refused():
    log = make_log(price=PRICE)
    features = Features.fit(ITEMS.loc[["b", "a"]], log, vectors=["taste"])
    with pytest.raises(KeyError, match="unknown item ids: c"):
        observe(features, log)
    with pytest.raises(ValueError, match=r"candidate features must be those .* fitted with, price, got \[\]"):
        observe(features, make_log())


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"crosses": ["plan", "genre"]},
            r"crosses must be pairs \(column of the context, column of the items\), got 'plan",
        ),
        (
            {"crosses": [("plan",)]},
            r"crosses must be pairs \(column of the context, column of the items\), got \('plan",
        ),
        ({"crosses": [("plan", "colour")]}, "column of the items in crosses must be among genre, taste_0, taste_1"),
        ({"crosses": [("device", "genre")]}, "column of the context in crosses must be among plan, taste_0, taste_1"),
        ({"vectors": ["mood"]}, "vectors and categories must be columns of the context or of the items, got 'mood'"),
        ({"categories": ["hour"]}, "vectors and categories must be columns of the context or of the items, got 'hour'"),
    ],
)
def test_names_of_other_columns_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Features.fit(ITEMS, make_log(), **options)


def test_vectors_of_different_sizes_have_no_dot_product():
    with pytest.raises(ValueError, match=r"vectors 'taste' and 'taste' must be of the same size, got \[2, 1\]"):
        Features.fit(ITEMS.drop(columns="taste_1"), make_log(), [("taste", "taste")], vectors=["taste"])


def test_an_item_that_occurs_twice_is_refused():
    with pytest.raises(ValueError, match="items must be different from all others, got 'a'"):
        Features.fit(pd.concat([ITEMS, ITEMS[:1]]), make_log(), vectors=["taste"])


TEXT = st.text(min_size=1, max_size=8)
CELLS = {
    "number": st.none() | st.floats(-1e6, 1e6) | st.integers(-(10**6), 10**6),
    "flag": st.booleans() | st.integers(0, 1),
    "text": TEXT | st.none(),
}


@st.composite
def items(draw):
    ids = draw(st.lists(TEXT, min_size=1, max_size=5, unique=True))
    kinds = draw(st.dictionaries(TEXT, st.sampled_from(sorted(CELLS)), max_size=4))
    columns = {name: [draw(CELLS[kind]) for _ in ids] for name, kind in kinds.items()}
    present = {name: values for name, values in columns.items() if any(value is not None for value in values)}
    return pd.DataFrame(present, index=pd.Index(ids, dtype=object))


@settings(max_examples=60, deadline=None)
@given(items())
def test_everything_that_can_be_fitted_is_loaded_as_it_was_saved(tmp_path_factory, table):
    encoder = Encoder.fit(table)
    features = Features(
        pd.Index(table.index, name="item_id"),
        encoder.encode(table),
        encoder,
        Encoder({}),
        intercept=len(table) % 2 == 0,
    )
    folder = tmp_path_factory.mktemp("features")
    features.save(folder)
    first = (folder / "features.npz").read_bytes()
    loaded = Features.load(folder)
    assert loaded.item_ids.tolist() == table.index.tolist()
    assert loaded.intercept == features.intercept
    np.testing.assert_array_equal(loaded.items, features.items)
    np.testing.assert_array_equal(loaded.item_encoder.encode(table), features.items)
    loaded.save(folder)
    assert (folder / "features.npz").read_bytes() == first


def test_the_names_of_the_parts_are_those_of_tf_agents():
    from tf_agents.bandits.specs import utils

    assert (GLOBAL, PER_ARM) == (utils.GLOBAL_FEATURE_KEY, utils.PER_ARM_FEATURE_KEY)
