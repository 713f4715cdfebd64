"""Metrics of lists against scikit-learn, against examples by hand, and against what every metric promises."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, label_ranking_average_precision_score, ndcg_score

from recbandits.environments.clicks import Cascade, PositionBased
from recbandits.evaluation import ranking
from recbandits.evaluation.regret import mean_interval

GENERATOR = np.random.default_rng(7)
SCORES = GENERATOR.normal(size=(60, 12))
RATINGS = GENERATOR.integers(1, 6, size=(60, 12)).astype(float)
BY_HAND = np.array([[3.0, 5.0, 1.0, 4.0]])  # relevance of four candidates
GRADED = ("ndcg", "err", "average_precision", "reciprocal_rank", "hit_rate")
every = pytest.mark.parametrize("metric", GRADED)


def of(metric, slate, relevance, **options):
    return getattr(ranking, metric)(slate, relevance, **options)


# ranks


def test_the_best_scores_come_first_and_a_short_list_ends_with_minus_one():
    """The second list has two candidates, one unavailable by its mask and one by its score."""
    scores = np.array([[0.1, 0.9, 0.5, 0.7], [3.0, 9.0, -np.inf, 2.0]])
    mask = np.array([[True] * 4, [True, False, True, True]])
    assert ranking.rank(scores, 3, mask).tolist() == [[1, 3, 2], [0, 3, -1]]
    assert ranking.rank(scores, 6, mask).tolist() == [[1, 3, 2, 0, -1, -1], [0, 3, -1, -1, -1, -1]]


def test_ties_are_broken_at_random_by_the_seed():
    """Three of four are tied below the best: each comes second in a third of 3,000 lists, within 4 standard errors."""
    scores = np.tile([1.0, 2.0, 1.0, 1.0], (3000, 1))
    columns = ranking.rank(scores, 2, seed=3)
    assert (columns[:, 0] == 1).all()
    shares = np.bincount(columns[:, 1], minlength=4) / 3000
    np.testing.assert_allclose(shares, [1 / 3, 0, 1 / 3, 1 / 3], atol=4 * np.sqrt(2 / 9 / 3000))
    np.testing.assert_array_equal(columns, ranking.rank(scores, 2, seed=3))
    assert (columns != ranking.rank(scores, 2, seed=4)).any()


def test_without_ties_the_seed_does_not_matter():
    np.testing.assert_array_equal(ranking.rank(SCORES, 12), np.argsort(-SCORES, axis=1))
    np.testing.assert_array_equal(ranking.rank(SCORES, 5, seed=1), ranking.rank(SCORES, 12, seed=2)[:, :5])


# each metric against scikit-learn


@pytest.mark.parametrize("k", [1, 5, 12, 20])
def test_ndcg_is_that_of_scikit_learn(k):
    """Its gain is linear; the exponential one is its gain of the relevance 2^r - 1."""
    columns = ranking.rank(SCORES, k)
    for gain, relevance in (("linear", RATINGS), ("exponential", 2**RATINGS - 1)):
        expected = [ndcg_score(r[None], s[None], k=k) for r, s in zip(relevance, SCORES, strict=True)]
        np.testing.assert_allclose(ranking.ndcg(columns, RATINGS, gain=gain), expected, rtol=1e-12)


def test_ndcg_over_all_orders_of_ties_is_the_average_that_scikit_learn_takes():
    """Scores 2, 1, 1, 1, 0 and k = 3: 4,000 seeds against its closed form, within 4 standard errors."""
    scores, relevance = np.array([[2.0, 1.0, 1.0, 1.0, 0.0]]), np.array([[1.0, 5.0, 2.0, 3.0, 4.0]])
    many = np.repeat(scores, 4000, axis=0)
    found = ranking.ndcg(ranking.rank(many, 3), np.repeat(relevance, 4000, axis=0), gain="linear")
    error = found.std() / np.sqrt(len(found))
    assert error > 0
    assert found.mean() == pytest.approx(ndcg_score(relevance, scores, k=3), abs=4 * error)


def test_average_precision_of_the_whole_list_is_that_of_scikit_learn():
    expected = [average_precision_score(r >= 4, s) for r, s in zip(RATINGS, SCORES, strict=True)]
    np.testing.assert_allclose(ranking.average_precision(ranking.rank(SCORES, 12), RATINGS), expected, rtol=1e-12)


def test_the_reciprocal_rank_of_a_single_relevant_item_is_its_label_ranking_average_precision():
    relevance = np.eye(12)[GENERATOR.integers(12, size=60)] * 5
    found = ranking.reciprocal_rank(ranking.rank(SCORES, 12), relevance)
    assert found.mean() == pytest.approx(label_ranking_average_precision_score(relevance > 0, SCORES), rel=1e-12)


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
    assert of(metric, np.array([[2, 1, 3]]), BY_HAND, **options)[0] == pytest.approx(value, rel=1e-12)


def test_average_precision_at_k_counts_no_more_relevant_items_than_fit():
    """Ten relevant, k = 2, one of the two shown is: (1 / 1) / min(2, 10)."""
    relevance = np.array([[5.0] * 10 + [1.0]])
    assert ranking.average_precision(np.array([[3, 10]]), relevance)[0] == 0.5


@pytest.mark.parametrize(
    ("clicks", "value"),
    [
        pytest.param(Cascade(), 1 - 0.5 * 0.75, id="1 - (1 - 0.5) (1 - 0.25)"),
        pytest.param(PositionBased(eta=1.0), 0.5 + 0.25 / 2, id="0.5 / 1 + 0.25 / 2"),
    ],
)
def test_expected_clicks_are_those_of_the_click_model_on_what_is_shown(clicks, value):
    """The third slot of the second list is empty and is clicked by nobody."""
    attraction = np.array([[0.25, 0.0, 0.5], [0.25, np.nan, 0.5]])
    slate = np.array([[2, 0, 1], [2, 0, -1]])
    np.testing.assert_allclose(ranking.expected_clicks(slate, attraction, clicks), [value, value], rtol=1e-6)


# what all of them promise


@every
def test_the_best_order_has_the_highest_value_of_all(metric):
    best = of(metric, ranking.rank(RATINGS, 5), RATINGS)
    for seed in range(5):
        other = of(metric, ranking.rank(np.random.default_rng(seed).normal(size=RATINGS.shape), 5), RATINGS)
        assert (best >= other - 1e-12).all()
    assert metric == "err" or (best == pytest.approx(1.0))


@every
def test_the_order_of_the_candidates_does_not_matter(metric):
    order = GENERATOR.permutation(12)
    found = of(metric, ranking.rank(SCORES[:, order], 5), RATINGS[:, order])
    np.testing.assert_allclose(found, of(metric, ranking.rank(SCORES, 5), RATINGS), rtol=1e-12)


@every
def test_padding_and_slots_behind_the_end_change_nothing(metric):
    """Five candidates and k = 7 against the same five padded to twelve."""
    mask = np.arange(12) < 5
    short = of(metric, ranking.rank(SCORES[:, :5], 7), RATINGS[:, :5])
    padded = ranking.rank(SCORES, 7, np.broadcast_to(mask, SCORES.shape))
    np.testing.assert_array_equal(of(metric, padded, np.where(mask, RATINGS, np.nan)), short)
    exact = of(metric, ranking.rank(SCORES[:, :5], 5), RATINGS[:, :5])
    np.testing.assert_allclose(short, exact, rtol=1e-12)


@pytest.mark.parametrize("metric", ["average_precision", "reciprocal_rank", "hit_rate"])
def test_without_a_relevant_candidate_there_is_no_value_and_without_a_hit_it_is_0(metric):
    relevance = np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 5.0]])
    np.testing.assert_array_equal(of(metric, np.array([[0, 1], [0, 1]]), relevance), [np.nan, 0.0])


def test_ndcg_has_no_value_where_nothing_has_any_relevance():
    relevance = np.array([[0.0, 0.0], [np.nan, np.nan], [0.0, 1.0]])
    found = ranking.ndcg(np.array([[0, 1], [-1, -1], [0, -1]]), relevance)
    np.testing.assert_array_equal(found, [np.nan, np.nan, 0.0])


# tables


def test_all_metrics_of_a_list_stand_in_one_row():
    slate, vectors = ranking.rank(SCORES, 5), GENERATOR.normal(size=(60, 12, 3))
    table = ranking.measure(slate, RATINGS, attraction=RATINGS / 10, clicks=Cascade(), vectors=vectors)
    assert list(table) == ["ndcg", "err", "map", "mrr", "hit_rate", "clicks", "diversity"]
    np.testing.assert_array_equal(table["map"], ranking.average_precision(slate, RATINGS))
    np.testing.assert_array_equal(table["clicks"], ranking.expected_clicks(slate, RATINGS / 10, Cascade()))
    rows = np.arange(60)[:, None]
    np.testing.assert_array_equal(table["diversity"], ranking.intra_list_diversity(vectors[rows, slate]))


def lists():
    """Two policies on the same four users; the second misses a value of the first metric."""
    first = pd.DataFrame({"ndcg": [0.2, 0.4, 0.6, 0.9], "map": [0.1, 0.1, 0.2, 0.2]})
    second = pd.DataFrame({"ndcg": [0.1, 0.2, np.nan, 0.6], "map": [0.1, 0.3, 0.2, 0.2]})
    return {"a": first, "b": second}


def test_a_report_has_the_mean_of_each_metric_over_the_lists_that_have_one():
    table = ranking.report(lists(), confidence=0.9)
    expected = mean_interval([0.1, 0.2, 0.6], 0.9)
    np.testing.assert_allclose(table.loc["b", ["ndcg", "ndcg_low", "ndcg_high"]].astype(float), expected)
    assert table.loc["a", "ndcg"] == pytest.approx(0.525)
    assert list(table.index) == ["a", "b"]


def test_differences_are_taken_list_by_list():
    """Over the three users whom both have: 0.1, 0.2 and 0.3."""
    table = ranking.differences(lists(), "b")
    assert list(table.index) == ["a"]
    np.testing.assert_allclose(table[["ndcg", "ndcg_low", "ndcg_high"]].iloc[0], mean_interval([0.1, 0.2, 0.3]))


def test_paired_intervals_are_narrower_where_users_differ_more_than_policies():
    uniforms = GENERATOR.normal(size=200)
    first, second = pd.DataFrame({"ndcg": uniforms + 0.1}), pd.DataFrame({"ndcg": uniforms})
    tables = {"a": first + GENERATOR.normal(0, 0.01, (200, 1)), "b": second}
    paired, alone = ranking.differences(tables, "b").iloc[0], ranking.report(tables)
    assert paired["ndcg_low"] > 0
    assert alone.loc["a", "ndcg_low"] < alone.loc["b", "ndcg_high"]


def test_lists_of_one_user_count_as_one():
    """User 5 has 0.2 and 0.4, user 3 has 0.9: the mean over users is 0.6."""
    table = ranking.by_user(pd.DataFrame({"ndcg": [0.2, 0.9, 0.4]}), [5, 3, 5])
    assert table["ndcg"].to_dict() == pytest.approx({3: 0.9, 5: 0.3})
    assert ranking.report({"a": table}).loc["a", "ndcg"] == pytest.approx(0.6)


def test_intervals_over_seeds_are_those_of_the_means_of_runs():
    runs = {seed: pd.DataFrame({"ndcg": [seed, seed, seed + 0.3]}) for seed in (0, 1, 5)}
    table = ranking.report({"a": ranking.by_seed(runs)})
    np.testing.assert_allclose(table[["ndcg", "ndcg_low", "ndcg_high"]].iloc[0], mean_interval([0.1, 1.1, 5.1]))


def test_a_metric_that_no_list_has_is_missing_from_the_report_as_nan():
    table = ranking.report({"a": pd.DataFrame({"mrr": [np.nan, np.nan]})})
    assert table.iloc[0].isna().all()


# what is refused


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: ranking.rank(np.zeros(3), 2), r"scores must have the shape \[n, items\], got \[3\]"),
        (lambda: ranking.rank(np.zeros((1, 3)), 0), "k must be at least 1, got 0"),
        (lambda: ranking.rank(np.zeros((1, 3)), 1, np.ones(3, bool)), r"mask must have the shape of scores, \[1, 3\]"),
        (lambda: ranking.rank(np.array([[0.0], [np.nan]]), 1), "scores must be numbers, got NaN in list 1"),
        (lambda: ranking.ndcg([[0]], BY_HAND, gain="log"), "gain must be exponential or linear, got 'log'"),
        (lambda: ranking.ndcg([[0]], -BY_HAND), "relevance must be at least 0, got -3"),
        (lambda: ranking.err([[0]], BY_HAND, highest=4.0), r"relevance must be in \[0, 4\], got 5"),
        (lambda: ranking.err([[4]], BY_HAND), "slate must hold columns below 4, or -1, got 4 to 4"),
        (lambda: ranking.hit_rate([[-2]], BY_HAND), "slate must hold columns below 4, or -1, got -2 to -2"),
        (lambda: ranking.ndcg([[0], [1]], BY_HAND), r"slate and relevance must be \[n, k\] and \[n, items\]"),
        (lambda: ranking.ndcg([[0]], [[np.nan, 1.0]]), "slate must not show padding"),
        (lambda: ranking.ndcg([[1, 3, 1]], BY_HAND), r"slate must hold different columns, list 0 is \[1, 3, 1\]"),
        (lambda: ranking.measure([[0]], BY_HAND, clicks=Cascade()), "attraction and clicks must come together"),
        (lambda: ranking.measure([[0]], BY_HAND, attraction=BY_HAND / 5), "attraction and clicks must come together"),
        (lambda: ranking.differences(lists(), "c"), "baseline must be one of a, b, got 'c'"),
        (
            lambda: ranking.differences({"a": lists()["a"], "b": lists()["b"].iloc[:3]}, "b"),
            "'a' and 'b' must be measured on the same lists to be compared",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
