"""Ranking metrics against scikit-learn, by hand, and by the properties of every metric."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, label_ranking_average_precision_score, ndcg_score
from sklearn.metrics.pairwise import cosine_similarity

from recbandits.environments.clicks import Cascade, PositionBased
from recbandits.evaluation import ranking_metrics as metrics
from recbandits.evaluation.ranking_metrics import intra_list_diversity

GENERATOR = np.random.default_rng(7)
SCORES = GENERATOR.normal(size=(60, 12))
RATINGS = GENERATOR.integers(1, 6, size=(60, 12)).astype(float)
BY_HAND = np.array([[3.0, 5.0, 1.0, 4.0]])  # relevance of four candidates
GRADED = ("ndcg", "err", "average_precision", "reciprocal_rank", "hit_rate")
every = pytest.mark.parametrize("metric", GRADED)


def compute(metric, slate, relevance, **options):
    """Compute a metric of stars, of which 4 and 5 are relevant."""
    limits = {"ndcg": {}, "err": {"highest": 5.0}}.get(metric, {"threshold": 4.0})
    return getattr(metrics, metric)(slate, relevance, **limits | options)


# ranks


def test_the_best_scores_come_first_and_a_short_list_ends_with_minus_one():
    """The second list has two candidates, one unavailable by its mask and one by its score."""
    scores = np.array([[0.1, 0.9, 0.5, 0.7], [3.0, 9.0, -np.inf, 2.0]])
    mask = np.array([[True] * 4, [True, False, True, True]])
    assert metrics.rank(scores, 3, mask).tolist() == [[1, 3, 2], [0, 3, -1]]
    assert metrics.rank(scores, 6, mask).tolist() == [[1, 3, 2, 0, -1, -1], [0, 3, -1, -1, -1, -1]]


def test_ties_are_broken_at_random_by_the_seed():
    """Three of four are tied below the best: each comes second in a third of 3,000 lists, within 4 standard errors."""
    scores = np.tile([1.0, 2.0, 1.0, 1.0], (3000, 1))
    columns = metrics.rank(scores, 2, seed=3)
    assert (columns[:, 0] == 1).all()
    shares = np.bincount(columns[:, 1], minlength=4) / 3000
    np.testing.assert_allclose(shares, [1 / 3, 0, 1 / 3, 1 / 3], atol=4 * np.sqrt(2 / 9 / 3000))
    np.testing.assert_array_equal(columns, metrics.rank(scores, 2, seed=3))
    assert (columns != metrics.rank(scores, 2, seed=4)).any()


def test_without_ties_the_seed_does_not_matter():
    np.testing.assert_array_equal(metrics.rank(SCORES, 12), np.argsort(-SCORES, axis=1))
    np.testing.assert_array_equal(metrics.rank(SCORES, 5, seed=1), metrics.rank(SCORES, 12, seed=2)[:, :5])


# each metric against scikit-learn


@pytest.mark.parametrize("k", [1, 5, 12, 20])
def test_ndcg_is_that_of_scikit_learn(k):
    """Its gain is linear; the exponential one is its gain of the relevance 2^r - 1."""
    columns = metrics.rank(SCORES, k)
    for gain, relevance in (("linear", RATINGS), ("exponential", 2**RATINGS - 1)):
        expected = [ndcg_score(r[None], s[None], k=k) for r, s in zip(relevance, SCORES, strict=True)]
        np.testing.assert_allclose(metrics.ndcg(columns, RATINGS, gain=gain), expected, rtol=1e-12)


def test_ndcg_over_all_orders_of_ties_is_the_average_that_scikit_learn_takes():
    """Scores 2, 1, 1, 1, 0 and k = 3: 4,000 seeds against its closed form, within 4 standard errors."""
    scores, relevance = np.array([[2.0, 1.0, 1.0, 1.0, 0.0]]), np.array([[1.0, 5.0, 2.0, 3.0, 4.0]])
    many = np.repeat(scores, 4000, axis=0)
    values = metrics.ndcg(metrics.rank(many, 3), np.repeat(relevance, 4000, axis=0), gain="linear")
    error = values.std() / np.sqrt(len(values))
    assert error > 0
    assert values.mean() == pytest.approx(ndcg_score(relevance, scores, k=3), abs=4 * error)


def test_average_precision_of_the_whole_list_is_that_of_scikit_learn():
    expected = [average_precision_score(r >= 4, s) for r, s in zip(RATINGS, SCORES, strict=True)]
    np.testing.assert_allclose(metrics.average_precision(metrics.rank(SCORES, 12), RATINGS, 4.0), expected, rtol=1e-12)


def test_the_reciprocal_rank_of_a_single_relevant_item_is_its_label_ranking_average_precision():
    relevance = np.eye(12)[GENERATOR.integers(12, size=60)] * 5
    values = metrics.reciprocal_rank(metrics.rank(SCORES, 12), relevance, 4.0)
    assert values.mean() == pytest.approx(label_ranking_average_precision_score(relevance > 0, SCORES), rel=1e-12)


# each metric by hand: the slate shows relevance 1, then 5, then 4


@pytest.mark.parametrize(
    ("metric", "options", "value"),
    [
        pytest.param("ndcg", {"gain": "linear"}, (1 + 5 / np.log2(3) + 2) / (5 + 4 / np.log2(3) + 1.5), id="dcg/ideal"),
        pytest.param(
            "ndcg", {}, (1 + 31 / np.log2(3) + 7.5) / (31 + 15 / np.log2(3) + 3.5), id="gains 1 31 15 / 31 15 7"
        ),
        pytest.param("err", {}, 1 / 32 + 31 / 32 * (31 / 64 + 1 / 32 * 15 / 96), id="satisfied 1/32, 31/32, 15/32"),
        pytest.param("err", {"highest": 6.0}, 1 / 64 + 63 / 64 * (31 / 128 + 33 / 64 * 15 / 192), id="halved"),
        pytest.param("average_precision", {}, (1 / 2 + 2 / 3) / 2, id="two relevant, at 2 and 3"),
        pytest.param("average_precision", {"threshold": 3.0}, (1 / 2 + 2 / 3) / 3, id="three relevant, one not shown"),
        pytest.param("reciprocal_rank", {}, 1 / 2, id="first relevant at 2"),
        pytest.param("reciprocal_rank", {"threshold": 1.0}, 1.0, id="all are relevant"),
        pytest.param("hit_rate", {}, 1.0, id="a hit"),
    ],
)
def test_an_example_by_hand(metric, options, value):
    assert compute(metric, np.array([[2, 1, 3]]), BY_HAND, **options)[0] == pytest.approx(value, rel=1e-12)


def test_average_precision_at_k_counts_no_more_relevant_items_than_fit():
    """Ten relevant, k = 2, one of the two shown is: (1 / 1) / min(2, 10)."""
    relevance = np.array([[5.0] * 10 + [1.0]])
    assert metrics.average_precision(np.array([[3, 10]]), relevance, 4.0)[0] == 0.5


@pytest.mark.parametrize(
    ("clicks", "value"),
    [
        pytest.param(Cascade(), 1 - 0.5 * 0.75, id="1 - (1 - 0.5) (1 - 0.25)"),
        pytest.param(PositionBased(eta=1.0), 0.5 + 0.25 / 2, id="0.5 / 1 + 0.25 / 2"),
    ],
)
def test_expected_clicks_are_those_of_the_click_model_on_the_items_shown(clicks, value):
    """The third slot of the second list is empty and gets no click."""
    attraction = np.array([[0.25, 0.0, 0.5], [0.25, np.nan, 0.5]])
    slate = np.array([[2, 0, 1], [2, 0, -1]])
    np.testing.assert_allclose(metrics.expected_clicks(slate, attraction, clicks), [value, value], rtol=1e-6)


# properties of all metrics


@every
def test_the_best_order_has_the_highest_value_of_all(metric):
    best = compute(metric, metrics.rank(RATINGS, 5), RATINGS)
    for seed in range(5):
        other = compute(metric, metrics.rank(np.random.default_rng(seed).normal(size=RATINGS.shape), 5), RATINGS)
        assert (best >= other - 1e-12).all()
    assert metric == "err" or (best == pytest.approx(1.0))


@every
def test_the_order_of_the_candidates_does_not_matter(metric):
    order = GENERATOR.permutation(12)
    values = compute(metric, metrics.rank(SCORES[:, order], 5), RATINGS[:, order])
    np.testing.assert_allclose(values, compute(metric, metrics.rank(SCORES, 5), RATINGS), rtol=1e-12)


@every
def test_padding_and_slots_behind_the_end_change_nothing(metric):
    """Five candidates and k = 7 against the same five padded to twelve."""
    mask = np.arange(12) < 5
    short = compute(metric, metrics.rank(SCORES[:, :5], 7), RATINGS[:, :5])
    padded = metrics.rank(SCORES, 7, np.broadcast_to(mask, SCORES.shape))
    np.testing.assert_array_equal(compute(metric, padded, np.where(mask, RATINGS, np.nan)), short)
    exact = compute(metric, metrics.rank(SCORES[:, :5], 5), RATINGS[:, :5])
    np.testing.assert_allclose(short, exact, rtol=1e-12)


@pytest.mark.parametrize("metric", ["average_precision", "reciprocal_rank", "hit_rate"])
def test_without_a_relevant_candidate_there_is_no_value_and_without_a_hit_it_is_0(metric):
    relevance = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 5.0]])
    np.testing.assert_array_equal(compute(metric, np.array([[0, 1], [0, 1]]), relevance), [np.nan, 0.0])


def test_ndcg_has_no_value_where_no_candidate_is_relevant():
    relevance = np.array([[0.0, 0.0], [np.nan, np.nan], [0.0, 1.0]])
    values = metrics.ndcg(np.array([[0, 1], [-1, -1], [0, -1]]), relevance)
    np.testing.assert_array_equal(values, [np.nan, np.nan, 0.0])


# diversity


def test_the_cosine_of_every_pair_counts_once():
    vectors = np.random.default_rng(0).normal(size=(20, 5, 3))
    similar = [np.mean([cosine_similarity(v)[i, j] for i, j in combinations(range(5), 2)]) for v in vectors]
    np.testing.assert_allclose(intra_list_diversity(vectors), 1 - np.array(similar), rtol=1e-12)


@pytest.mark.parametrize(
    ("vectors", "value"),
    [
        pytest.param([[1, 0], [2, 0], [5, 0]], 0.0, id="all alike"),
        pytest.param([[1, 0], [0, 3]], 1.0, id="nothing in common"),
        pytest.param([[1, 0], [-1, 0]], 2.0, id="opposites"),
        pytest.param([[1, 0], [1, 0], [0, 0]], 2 / 3, id="the zero vector has cosine 0"),
        pytest.param([[1, 0], [1, 0], [np.nan, np.nan]], 0.0, id="a short list"),
        pytest.param([[1, 0], [np.nan, np.nan]], np.nan, id="one item makes no pair"),
    ],
)
def test_diversity_by_hand(vectors, value):
    np.testing.assert_allclose(intra_list_diversity([vectors]), [value], atol=1e-12)


# tables


def test_a_vector_that_is_not_known_is_refused_and_not_left_out():
    slate, vectors = metrics.rank(SCORES, 5), np.ones((60, 12, 3))
    vectors[3, slate[3, 1]] = np.nan
    with pytest.raises(ValueError, match=r"^row 3, column 1: vectors must be finite for every item in a slate"):
        metrics.measure(slate, RATINGS, 4.0, 5.0, vectors=vectors)


def test_a_mean_over_lists_leaves_out_only_what_is_undefined():
    """The first user has a list without a relevant candidate, the second one with an unknown number of clicks."""
    table = pd.DataFrame({"map": [0.5, np.nan, 0.2, 0.4], "clicks": [0.1, 0.3, np.nan, 0.5]})
    expected = pd.DataFrame({"map": [0.5, 0.3], "clicks": [0.2, np.nan]}, [7, 8])
    pd.testing.assert_frame_equal(metrics.by_user(table, [7, 7, 8, 8]), expected)
    assert metrics.by_seed({0: table[:2], 1: table[2:]}).to_numpy().tolist()[0] == [0.5, 0.2]
    assert metrics.by_seed({0: table[:2], 1: table[2:]})["clicks"].isna().tolist() == [False, True]


def test_all_metrics_of_a_list_are_in_one_row():
    slate, vectors = metrics.rank(SCORES, 5), GENERATOR.normal(size=(60, 12, 3))
    table = metrics.measure(slate, RATINGS, 4.0, 5.0, attraction=RATINGS / 10, clicks=Cascade(), vectors=vectors)
    assert list(table) == ["ndcg", "err", "map", "mrr", "hit_rate", "clicks", "diversity"]
    np.testing.assert_array_equal(table["map"], metrics.average_precision(slate, RATINGS, 4.0))
    np.testing.assert_array_equal(table["clicks"], metrics.expected_clicks(slate, RATINGS / 10, Cascade()))
    rows = np.arange(60)[:, None]
    np.testing.assert_array_equal(table["diversity"], intra_list_diversity(vectors[rows, slate]))


# invalid inputs


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: metrics.rank(np.zeros(3), 2), r"shape of scores must be \[n, items\], got \[3\]"),
        (lambda: metrics.rank(np.zeros((1, 3)), 0), "k must be a whole number of at least 1, got 0"),
        (lambda: metrics.rank(np.zeros((1, 3)), 1, np.ones(3, bool)), r"shape of mask must be \[1, 3\], got \[3\]"),
        (lambda: metrics.rank(np.array([[0.0], [np.nan]]), 1), r"row 1, column 0: scores must be numbers, got nan"),
        (lambda: metrics.ndcg([[0]], BY_HAND, gain="log"), "gain must be one of exponential, linear, got 'log'"),
        (lambda: metrics.ndcg([[0]], -BY_HAND), r"row 0, column 0: relevance must be at least 0, got -3\."),
        (lambda: metrics.err([[0]], BY_HAND, highest=4.0), r"row 0, column 1: relevance must be in \[0, 4\], got 5\."),
        (lambda: metrics.err([[4]], BY_HAND, 5.0), "row 0, column 0: slate must be of columns below 4, or -1, got 4"),
        (lambda: metrics.ndcg([[0], [1]], BY_HAND), r"shape of relevance must be \[2, items\], got \[1, 4\]"),
        (lambda: metrics.ndcg([[0]], [[np.nan, 1.0]]), "slate must be without padding, where relevance is NaN, got 0"),
        (lambda: metrics.ndcg([[1, 3, 1]], BY_HAND), r"row 0: slate must be of different columns, got \[1 3 1\]"),
        (
            lambda: metrics.measure([[0]], [[0.0, 1.0]], threshold=4.0, highest=1.0),
            "threshold must be at most the highest relevance, 1, got 4",
        ),
        (
            lambda: metrics.measure([[0]], BY_HAND, 4.0, 5.0, clicks=Cascade()),
            "attraction and clicks must be given together",
        ),
    ],
)
def test_invalid_inputs_are_refused(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
