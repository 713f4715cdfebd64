"""Click models: formulas against sums over all outcomes, draws against both, the best slate by brute force."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from recbandits.environments import CLICK_MODELS, Cascade, Choice, DependentClick, PositionBased, attraction
from tests.commands import run_python

MODELS = [Cascade(), PositionBased(), PositionBased(0.5), DependentClick(), DependentClick(0.25), Choice()]
each_model = pytest.mark.parametrize("model", MODELS, ids=repr)


def outcomes(model, a):
    """Return the probability of every outcome on one slate by definition: dict from clicks (tuple of 0, 1) to it."""
    slots, every = len(a), itertools.product((0, 1), repeat=len(a))
    if isinstance(model, Choice):
        odds = [p / (1 - p) for p in a]
        one = {tuple(int(j == k) for j in range(slots)): odds[k] / (1 + sum(odds)) for k in range(slots)}
        return one | {(0,) * slots: 1 / (1 + sum(odds))}
    if isinstance(model, PositionBased):
        p = [x / slot**model.eta for slot, x in enumerate(a, start=1)]
        return {
            clicks: np.prod([x if click else 1 - x for x, click in zip(p, clicks, strict=True)]) for clicks in every
        }
    probabilities = dict.fromkeys(every, 0.0)

    def walk(clicks, probability):
        rest = slots - len(clicks)
        if not rest:
            probabilities[clicks] += probability
            return
        p = a[len(clicks)]
        walk((*clicks, 0), probability * (1 - p))
        walk((*clicks, 1), probability * p * model.continuation)
        probabilities[(*clicks, 1) + (0,) * (rest - 1)] += probability * p * (1 - model.continuation)

    walk((), 1.0)
    return probabilities


@each_model
def test_probabilities_and_value_are_sums_over_all_outcomes(model):
    """P(click on k) is the sum over all outcomes with a click on k; the value is the mean number of clicks."""
    a = np.random.default_rng(0).random((20, 4)) * 0.95
    for row, probability, value in zip(a, model.probabilities(a), model.value(a), strict=True):
        expected = outcomes(model, row)
        assert sum(expected.values()) == pytest.approx(1.0)
        marginal = sum(np.array(outcome) * p for outcome, p in expected.items())
        np.testing.assert_allclose(probability, marginal, atol=1e-12)
        assert value == pytest.approx(marginal.sum(), abs=1e-12)


@each_model
def test_outcomes_of_draws_have_the_frequencies_of_the_model(model):
    """100,000 draws for one slate: the share of each of the 8 outcomes is within 4 standard errors."""
    a, n = np.array([0.6, 0.3, 0.8], np.float32), 100_000
    clicks = model.draw(np.tile(a, (n, 1)), tf.constant([3, 4], tf.int64)).numpy()
    assert clicks.dtype == np.float32
    assert set(np.unique(clicks)) == {0.0, 1.0}
    share = np.bincount((clicks @ [4, 2, 1]).astype(int), minlength=8) / n
    probabilities = outcomes(model, a.astype(float))
    p = np.array([probabilities.get(outcome, 0.0) for outcome in itertools.product((0, 1), repeat=3)])
    assert np.all(np.abs(share - p) <= 4 * np.sqrt(p * (1 - p) / n))


@each_model
def test_the_best_slate_is_the_most_attractive_items_in_descending_order(model):
    """All 60 slates of 3 from 5 items, for 50 users."""
    slates = np.array(list(itertools.permutations(range(5), 3)))
    for a in np.random.default_rng(1).random((50, 5)):
        values = model.value(a[slates])
        best = a[np.argsort(-a)[:3]]
        assert model.value(best[None])[0] >= values.max() - 1e-12


@pytest.mark.parametrize("model", [Cascade(), DependentClick(), Choice()], ids=repr)
def test_where_order_does_not_matter_values_are_equal_to_the_last_bit(model):
    """The 24 orders of 4 items have one value, to the last bit, in single precision."""
    a = np.random.default_rng(2).random(4).astype(np.float32)
    orders = a[np.array(list(itertools.permutations(range(4))))]
    assert len(set(model.value(orders))) == 1
    assert len(set(model.value(tf.constant(orders)).numpy())) == 1


def test_examination_by_hand():
    """Attractions 1/2, 1/4, 1/2: cascade 1, 1/2, 3/8; dependent click with 1/2: 1, 3/4, 3/4 * 7/8; 1/k: 1, 1/2, 1/3."""
    a = [[0.5, 0.25, 0.5]]
    np.testing.assert_allclose(Cascade().examination(a), [[1, 1 / 2, 3 / 8]])
    np.testing.assert_allclose(DependentClick(0.5).examination(a), [[1, 3 / 4, 21 / 32]])
    np.testing.assert_allclose(PositionBased(1.0).examination(a), [[1, 1 / 2, 1 / 3]])
    np.testing.assert_array_equal(Choice().examination(a), [[1, 1, 1]])
    np.testing.assert_allclose(Choice().probabilities(a), [[3 / 10, 1 / 10, 3 / 10]])  # odds 1, 1/3, 1


@each_model
def test_attractions_of_0_and_1_give_finite_numbers(model):
    a = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]], np.float32)
    clicks = model.draw(a, [0, 1]).numpy()
    assert np.isfinite(model.value(a)).all()
    assert not clicks[a == 0].any()
    if not isinstance(model, Choice):  # there one of two certain items is chosen
        assert clicks[1:, 0].all()


@each_model
def test_arrays_tensors_and_graphs_agree(model):
    a = np.random.default_rng(4).random((30, 5)).astype(np.float32)
    seed = tf.constant([5, 6], tf.int64)
    for function in (model.examination, model.probabilities, model.value):
        np.testing.assert_allclose(function(tf.constant(a)), function(a), rtol=1e-5)
        np.testing.assert_allclose(tf.function(function)(tf.constant(a)), function(a), rtol=1e-5)
    drawn = model.draw(a, seed)
    np.testing.assert_array_equal(tf.function(model.draw)(tf.constant(a), seed), drawn)
    np.testing.assert_array_equal(model.draw(a, seed), drawn)
    assert not np.array_equal(model.draw(a, seed + 1), drawn)


def test_stars_become_attraction_as_in_expected_reciprocal_rank():
    """Grades 0 to 4: (2^g - 1) / 16, scaled so that 5 stars give `top`: 0, 1, 3, 7, 15 fifteenths of it."""
    np.testing.assert_allclose(attraction([1, 2, 3, 4, 5]), 0.5 * np.array([0, 1, 3, 7, 15]) / 15)
    np.testing.assert_allclose(attraction(np.array([-3.0, 0.5, 5.5])), [0, 0, 0.5])
    stars = np.linspace(1, 5, 9, dtype=np.float32)
    np.testing.assert_allclose(attraction(tf.constant(stars)), attraction(stars), rtol=1e-5)
    assert attraction(tf.constant(stars)).dtype == tf.float32


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: DependentClick(1.2), r"continuation must be in \[0, 1\], got 1.2"),
        (lambda: PositionBased(float("inf")), "eta must be 0 or more and finite, got inf"),
        (lambda: Cascade().value(np.array([[0.5, 1.5]])), r"row 0, column 1: attraction must be in \[0, 1\], got 1.5"),
        (lambda: Cascade().value(tf.constant([[0.5, 1.5]])), r"row 0, .* 1: attraction must be in \[0, 1\], got 1.5"),
        (lambda: PositionBased().value([0.1, 0.2]), r"shape of attraction must be \[batch, slots\], got \[2\]"),
    ],
)
def test_values_outside_their_range_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_every_model_is_known_by_its_name():
    assert {type(model) for model in MODELS} == set(CLICK_MODELS.values())


def test_click_models_and_factorisations_need_no_tensorflow():
    code = (
        "import sys; sys.modules['tensorflow'] = None; from recbandits.environments import Cascade, als, svd\n"
        "import pandas as pd\n"
        "ratings = pd.DataFrame({'user_id': [1, 1, 2], 'movie_id': [5, 6, 5], 'rating': [4.0, 2.0, 5.0]})\n"
        "Cascade().value([[0.5]])\n"
        "assert als(ratings, rank=1).matrix().shape == svd(ratings, rank=1).matrix().shape == (2, 2)"
    )
    run_python(code)
