"""Intervals and differences of estimates: by hand, against each other, and by their coverage of a known truth."""

import numpy as np
import pytest
from scipy import stats

from benchmarks.off_policy import LOG_SIZE, REPLICATIONS, accuracy, as_text, covers, judge
from benchmarks.synthetic_log import REWARDS, draw_logs, make_environment
from recbandits.evaluation.estimate import Estimate, difference
from recbandits.evaluation.estimators import ips, replay, snips, switch_dr
from tools.lock import ROOT

ENVIRONMENT = make_environment()
METHODS = ["normal", "bootstrap", "bernstein"]
FEWER = {"bootstrap": {"resamples": 300}}


@pytest.fixture(scope="module")
def table():
    """Bias and coverage of every estimator, as the benchmark prints them."""
    assert (REPLICATIONS, LOG_SIZE) == (500, 2000)
    return accuracy()


def estimates(n, rewards="0 or 1", seed=0, **changes):
    log = {name: column[0] for name, column in draw_logs(ENVIRONMENT, rewards, n, seed=seed).items()}
    return judge(log | changes, seed)


def estimate_mean(values):
    """Estimate the mean of observed rewards: IPS of the logging policy."""
    values = np.asarray(values, float)
    return ips(values, np.ones(len(values)), np.ones(len(values)))


@pytest.mark.parametrize("rewards", REWARDS)
def test_intervals_cover_the_truth_in_92_to_98_percent_of_500_logs_and_bernsteins_in_99(table, rewards):
    rows = table.loc[rewards].loc[["IPS", "SNIPS", "DR", "SNDR"]]
    assert rows["coverage"].between(0.92, 0.98).all(), rows
    assert (rows["bernstein"] >= 0.99).all(), rows


@pytest.mark.parametrize("rewards", REWARDS)
def test_the_other_estimators_have_a_bias_for_their_smaller_error(table, rewards):
    """IPS, SNIPS, DR and SNDR have no bias beyond sampling noise; the intervals of the others do not include theirs."""
    rows = table.loc[rewards]
    biased = abs(rows["bias"]) > 5 * rows["standard_error"]
    assert biased[biased].index.tolist() == ["clipped IPS (3)", "DM", "Switch-DR (3)", "DRos (10)"]
    assert (abs(rows.loc[~biased, "bias"]) < 3 * rows.loc[~biased, "standard_error"]).all()
    assert rows.loc["DM", "coverage"] == 0


def test_a_model_that_explains_the_reward_makes_the_error_smaller(table):
    rmse = table.loc["0 or 1", "rmse"]
    assert max(rmse["DR"], rmse["SNDR"], rmse["SNIPS"]) < 0.8 * rmse["IPS"]
    assert rmse["replay"] > 1.2 * rmse["IPS"]


def test_the_learning_page_shows_this_table(table):
    """Cell by cell, up to differences in rounding between versions of NumPy."""
    printed = (
        (ROOT / "learning" / "off-policy-evaluation.md").read_text(encoding="utf-8").split("\n| estimator | 0 or 1 ")[1]
    )
    cells = [line.strip("| ").split(" | ") for line in printed.split("\n\n")[0].splitlines()[2:]]
    expected = as_text(table)
    assert [row[0] for row in cells] == expected["estimator"].tolist()
    printed_values, values = (
        np.array([[[float(number.strip(" %")) for number in cell.split(",")] for cell in row[1:]] for row in rows])
        for rows in (cells, expected.to_numpy())
    )
    np.testing.assert_allclose(printed_values, values, atol=0.0015, rtol=0.005)


def test_without_skewness_the_normal_interval_is_students():
    values = np.array([1.0, 2.0, 4.0, 5.0])
    expected = stats.t.interval(0.9, 3, loc=3.0, scale=stats.sem(values))
    np.testing.assert_allclose(estimate_mean(values).interval(level=0.9), expected)


def test_a_long_tail_moves_one_bound_outwards_and_leaves_the_other():
    """Hall's transformation of both bounds is -+t: x = t + g t^2 / 3 + g^2 t^3 / 27 + g / 6."""
    values = np.random.default_rng(0).lognormal(size=200)
    t = stats.t.ppf(0.975, 199)
    low, high = estimate_mean(values).interval()
    assert low == pytest.approx(values.mean() - t * stats.sem(values))
    studentised = (values.mean() - high) / stats.sem(values)
    g = np.mean((values - values.mean()) ** 3) / values.std(ddof=1) ** 3 / np.sqrt(200)
    transformed = studentised + g * studentised**2 / 3 + g**2 * studentised**3 / 27 + g / 6
    assert transformed == pytest.approx(-t)
    assert studentised < -t
    mirrored = estimate_mean(-values).interval()
    np.testing.assert_allclose(mirrored, (-high, -low))


def test_the_error_of_a_ratio_is_linearised():
    """SNIPS of rewards 1 and 0 with weights 1 and 3: value 1 / 4, influences (1 * 3/4, 3 * -1/4) / 2."""
    estimate = snips([1.0, 0.0], [0.5, 0.25], [0.5, 0.75])
    assert estimate.value == 0.25
    np.testing.assert_allclose(estimate.influence, [0.375, -0.375])


@pytest.mark.parametrize("method", METHODS)
def test_an_estimate_that_rests_on_one_record_has_no_interval(method):
    """The target agrees with one of four decisions: a self-normalised estimate is that reward, without a spread."""
    agrees = [1.0, 2.0, 3.0, 4.0], [0.5] * 4, [0.0, 0.0, 1.0, 0.0]
    for estimate in (snips(*agrees), replay(*agrees, generator=np.random.default_rng(0))):
        assert estimate.value == 3.0
        assert np.isnan(estimate.interval(method)).all()
        assert np.isnan(difference(estimate, ips(*agrees)).interval(method)).all()
    assert np.isnan(ips(*agrees).interval(method)).all()
    assert np.isfinite(ips(*agrees[:2], [0.0, 0.5, 0.5, 0.0]).interval(method)).all()


def test_records_without_weight_do_not_change_a_self_normalised_interval():
    """Ten records that the target takes, and 90 that it never takes: Student's interval of the ten."""
    reward = np.arange(10.0)
    log = np.append(reward, np.full(90, 99.0)), np.full(100, 0.5), np.repeat([1.0, 0.0], [10, 90])
    expected = stats.t.interval(0.95, 9, loc=4.5, scale=stats.sem(reward))
    np.testing.assert_allclose(snips(*log).interval(), expected)
    np.testing.assert_allclose(replay(*log, generator=np.random.default_rng(0)).interval(), expected)


def test_intervals_cover_where_the_target_agrees_with_few_records():
    """A deterministic target on a uniform log of twenty arms: it agrees in 7 of 140; normal rewards around 0."""
    generator, coverage = np.random.default_rng(0), []
    while len(coverage) < 2000:
        agrees = (generator.integers(20, size=140) == 0).astype(float)
        if agrees.sum() > 1:
            coverage.append(covers(snips(generator.normal(size=140), np.full(140, 0.05), agrees).interval(), 0))
    assert 0.935 <= np.mean(coverage) <= 0.975


@pytest.mark.parametrize("name", ["replay", "IPS", "DM", "SNDR"])
def test_the_bootstrap_agrees_with_the_linearised_error_on_a_well_behaved_log(name):
    """With 2,000 resamples the quantiles themselves have an error of about 4 % of the half width."""
    estimate = estimates(4000)[name]
    normal, bootstrap = estimate.interval(), estimate.interval("bootstrap", resamples=2000)
    np.testing.assert_allclose(bootstrap, normal, atol=0.12 * (normal[1] - normal[0]) / 2)


def test_the_bootstrap_is_repeatable_and_resamples_chunks_independently():
    """5,000 records with the same values in each of five chunks."""
    estimate = estimate_mean(np.tile(np.random.default_rng(0).normal(size=1000), 5))
    first, again, other = (estimate.interval("bootstrap", seed=seed, resamples=500) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert np.ptp(first) == pytest.approx(np.ptp(estimate.interval()), rel=0.15)


def test_the_bernstein_interval_by_hand():
    """Values 0, 1, level 0.9: V = 0.5, log(4 / 0.1) = 3.689; sqrt(2 * 0.5 * 3.689 / 2) + 7 * 3.689 / 3 = 9.966."""
    log = np.log(40)
    low, high = estimate_mean([0.0, 1.0]).interval("bernstein", 0.9, span=1.0)
    half_width = np.sqrt(0.5 * log) + 7 * log / 3
    assert half_width == pytest.approx(9.966, abs=1e-3)
    assert (low, high) == pytest.approx((0.5 - half_width, 0.5 + half_width))


def test_the_bernstein_interval_of_groups_has_the_span_of_the_largest():
    """Rewards 0 and 1 of all decisions of a user alike: three decisions of each of two users are as one.

    Of users with one and three decisions, the sums over the mean size are 0 and 1.5: the span is 3 / 2, and around the
    mean 0.75 the errors are -0.375 and 0.375 with V = 0.28125.
    """
    once = estimate_mean([0.0, 1.0]).interval("bernstein", 0.9, span=1.0)
    thrice = estimate_mean(np.repeat([0.0, 1.0], 3)).interval("bernstein", 0.9, np.repeat([0, 1], 3), span=1.0)
    assert thrice == pytest.approx(once)
    low, high = estimate_mean([0.0, 1.0, 1.0, 1.0]).interval("bernstein", 0.9, [0, 1, 1, 1], span=1.0)
    half_width = np.sqrt(0.28125 * np.log(40)) + 7 * 1.5 * np.log(40) / 3
    assert (low, high) == pytest.approx((0.75 - half_width, 0.75 + half_width))


@pytest.mark.parametrize("span", [-50, 0, np.nan, np.inf])
def test_a_span_that_is_not_positive_is_refused(span):
    with pytest.raises(ValueError, match="span must be positive and finite, got"):
        estimate_mean([0.0, 1.0]).interval("bernstein", span=span)


def test_the_bernstein_interval_of_groups_of_unequal_size_covers_a_rare_reward():
    """A user with ten times the decisions of 49 others together, all of each alike and with probability 0.1 a click."""
    rng, user = np.random.default_rng(0), np.repeat(np.arange(50), [1] * 49 + [500])
    clicks = (rng.random((400, 50)) < 0.1).astype(float)[:, user]
    bounds = np.array([estimate_mean(row).interval("bernstein", groups=user, span=1.0) for row in clicks])
    assert np.mean((bounds[:, 0] <= 0.1) & (bounds[:, 1] >= 0.1)) >= 0.95


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["IPS", "SNDR"])
def test_sixteen_times_the_data_makes_an_interval_a_quarter_as_wide(method, name):
    """Bernstein gains more: its second term falls with n, not with its root."""
    widths = [np.ptp(estimates(n)[name].interval(method, **FEWER.get(method, {}))) for n in (1000, 16_000)]
    low, high = {"normal": (3.3, 4.7), "bootstrap": (2.8, 5.6), "bernstein": (4, 9)}[method]
    assert low < widths[0] / widths[1] < high


@pytest.mark.parametrize("method", METHODS)
def test_a_higher_level_is_wider(method):
    estimate = estimates(1000)["DR"]
    widths = [np.ptp(estimate.interval(method, level)) for level in (0.5, 0.8, 0.95, 0.99)]
    assert widths == sorted(widths)
    assert widths[-1] > 2 * widths[0]


def paired_estimates(n, replications, name):
    """Pairs of estimates of two similar policies on the same logs, and their true difference."""
    other = 0.8 * ENVIRONMENT.target + 0.2 * ENVIRONMENT.logging_policy
    logs = draw_logs(ENVIRONMENT, "0 or 1", n, replications)
    pairs = []
    for i in range(replications):
        log = {column: values[i] for column, values in logs.items()}
        changed = log | {
            "target": other[log["kind"], log["action"]],
            "q_target": (other * ENVIRONMENT.model).sum(axis=1)[log["kind"]],
        }
        pairs.append((judge(log, 0)[name], judge(changed, 0)[name]))
    return pairs, ((ENVIRONMENT.target - other) * ENVIRONMENT.expected).sum(axis=1).mean()


@pytest.mark.parametrize("name", ["IPS", "SNDR"])
def test_the_interval_of_a_difference_covers_and_is_narrower_than_those_of_the_values(name):
    pairs, truth = paired_estimates(1000, 300, name)
    covered, decided, disjoint = [], [], []
    for first, second in pairs:
        low, high = difference(first, second).interval()
        covered.append(low <= truth <= high)
        decided.append(low > 0)
        disjoint.append(first.interval()[0] > second.interval()[1])
        assert high - low < 0.6 * min(np.ptp(first.interval()), np.ptp(second.interval()))
    assert 0.92 <= np.mean(covered) <= 0.98
    assert np.mean(decided) > 0.5
    assert np.mean(disjoint) < 0.05


def test_a_difference_by_hand():
    """Weights 2 and 0.5 against 1 and 1: IPS (4 + 2) / 2 - (2 + 4) / 2 = 0; sizes 2.5^2 / 4.25 and 2."""
    first, second = ips([2.0, 4.0], [0.4, 0.4], [0.8, 0.2]), ips([2.0, 4.0], [0.4, 0.4], [0.4, 0.4])
    paired_difference = difference(first, second)
    assert paired_difference.value == pytest.approx(0)
    assert paired_difference.effective_sample_size == pytest.approx(6.25 / 4.25)
    assert paired_difference.largest_weight == pytest.approx(2)
    assert paired_difference.mean_weight == pytest.approx(1.25)
    assert difference(second, first).value == -paired_difference.value


def test_a_difference_has_the_worse_diagnostics_in_either_order():
    """The direct method has no weights; Switch-DR below all weights uses the model alone."""
    log = {"reward": [2.0, 4.0], "propensity": [0.4, 0.4], "target": [0.8, 0.2]}
    weighted, plain = ips(**log), estimate_mean([1.0, 2.0])
    model = switch_dr(**log, q_action=[1.0, 1.0], q_target=[1.0, 2.0], threshold=0.1)
    for pair in ((weighted, plain), (plain, weighted)):
        assert difference(*pair).mean_weight == pytest.approx(1.25)
    for pair in ((weighted, model), (model, weighted)):
        assert difference(*pair).effective_sample_size == pytest.approx(6.25 / 4.25)
        assert difference(*pair).largest_weight == pytest.approx(2)


@pytest.mark.parametrize("method", METHODS)
def test_a_policy_does_not_differ_from_itself(method):
    estimate = estimates(500)["SNDR"]
    low, high = difference(estimate, estimate).interval(method)
    assert low == pytest.approx(0, abs=1e-12)
    assert high == pytest.approx(0, abs=1e-12)


def test_estimates_of_different_logs_have_no_difference():
    with pytest.raises(ValueError, match=r"numbers of records must be the same in a difference, got \(2, 3\)"):
        difference(estimate_mean([1, 2]), estimate_mean([1, 2, 3]))


def test_a_difference_of_empty_logs_has_no_number():
    empty_estimate = Estimate(((np.zeros(0), np.zeros(0)),), (np.zeros(0),))
    gap = difference(empty_estimate, empty_estimate)
    assert np.isnan([gap.value, *gap.interval(), gap.effective_sample_size, gap.largest_weight]).all()


def test_an_unknown_method_and_an_invalid_level_are_refused():
    with pytest.raises(ValueError, match="method must be one of normal, bootstrap, bernstein, got 'naive'"):
        estimate_mean([1, 2]).interval("naive")
    for level in (0, 95, float("nan")):
        with pytest.raises(ValueError, match=rf"level must be in \(0, 1\), got {level}"):
            estimate_mean([1, 2]).interval(level=level)
