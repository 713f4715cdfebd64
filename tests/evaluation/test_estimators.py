"""Off-policy estimators: by hand, by identities, by their bias on logs of known truth, and with invalid inputs."""

import numpy as np
import pytest

from benchmarks.synthetic_log import draw_logs, make_environment
from recbandits.evaluation import estimators

LOGGED = ("reward", "propensity", "target")
MODELLED = (*LOGGED, "q_action", "q_target")
ENVIRONMENT = make_environment()


def call(name, log, **options):
    """The estimator of this name on a log of `draw_logs` or one like it."""
    arguments = {"direct_method": ("q_target",)} | dict.fromkeys(["dr", "sndr", "switch_dr", "dr_os"], MODELLED)
    return getattr(estimators, name)(*(log[column] for column in arguments.get(name, LOGGED)), **options)


OPTIONS = {
    "replay": {"generator": np.random.default_rng(0)},
    "clipped_ips": {"clip": 3},
    "switch_dr": {"threshold": 3},
    "dr_os": {"shrinkage": 10},
}
ESTIMATORS = ["replay", "ips", "clipped_ips", "snips", "direct_method", "dr", "sndr", "switch_dr", "dr_os"]
every = pytest.mark.parametrize("name", ESTIMATORS)


@pytest.fixture(scope="module")
def log():
    """2,000 decisions with skewed rewards."""
    return {name: column[0] for name, column in draw_logs(ENVIRONMENT, "log-normal", 2000).items()}


@pytest.fixture
def small():
    """Three decisions: weights 0.8 / 0.4 = 2, 0.5 / 0.5 = 1 and 0.1 / 0.2 = 0.5; the model misses by 1, -2 and 4."""
    columns = {
        "reward": [3.0, 1.0, 6.0],
        "propensity": [0.4, 0.5, 0.2],
        "target": [0.8, 0.5, 0.1],
        "q_action": [2.0, 3.0, 2.0],
        "q_target": [2.5, 3.0, 3.5],
    }
    return {name: np.array(values) for name, values in columns.items()}


@pytest.mark.parametrize(
    ("name", "options", "value"),
    [
        pytest.param("ips", {}, 10 / 3, id="ips: (6 + 1 + 3) / 3"),
        pytest.param("clipped_ips", {"clip": 1.5}, 8.5 / 3, id="clipped_ips: (4.5 + 1 + 3) / 3"),
        pytest.param("snips", {}, 10 / 3.5, id="snips: (6 + 1 + 3) / (2 + 1 + 0.5)"),
        pytest.param("direct_method", {}, 3.0, id="direct_method: (2.5 + 3 + 3.5) / 3"),
        pytest.param("dr", {}, 3 + 2 / 3, id="dr: 3 + (2 - 2 + 2) / 3"),
        pytest.param("sndr", {}, 3 + 2 / 3.5, id="sndr: 3 + (2 - 2 + 2) / 3.5"),
        pytest.param("switch_dr", {"threshold": 1.0}, 3.0, id="switch_dr: 3 + (0 - 2 + 2) / 3"),
        pytest.param("dr_os", {"shrinkage": 4.0}, 3 + (1 - 1.6 + 2 / 1.0625) / 3, id="dr_os: 2 / 2, 1 / 1.25, ..."),
    ],
)
def test_an_example_by_hand(small, name, options, value):
    assert call(name, small, **options).value == pytest.approx(value, rel=1e-12)


def test_a_record_of_pass_prob_a_half_counts_twice(small):
    """IPS: (2 * 6 + 1 + 3) / (2 + 1 + 1); SNIPS: (2 * 6 + 1 + 3) / (4 + 1 + 0.5); DM: (5 + 3 + 3.5) / 4."""
    pass_prob = np.array([0.5, 1.0, 1.0])
    assert call("ips", small, pass_prob=pass_prob).value == pytest.approx(4.0)
    assert call("snips", small, pass_prob=pass_prob).value == pytest.approx(16 / 5.5)
    assert call("direct_method", small, pass_prob=pass_prob).value == pytest.approx(11.5 / 4)
    assert call("sndr", small, pass_prob=pass_prob).value == pytest.approx(11.5 / 4 + (2 * 2 - 2 + 2) / 5.5)


@every
def test_a_doubled_record_equals_one_of_pass_prob_a_half(log, name):
    """Replay would need the same draws for both copies, so its target here is the logging policy: it accepts all."""
    if name == "replay":
        log = log | {"target": log["propensity"]}
    pass_prob = np.where(np.arange(2000) % 3 == 0, 0.5, 1.0)
    doubled_log = {column: np.repeat(values, (1 / pass_prob).astype(int)) for column, values in log.items()}
    options = OPTIONS.get(name, {})
    estimate = call(name, log, pass_prob=pass_prob, **options)
    assert estimate.value == pytest.approx(call(name, doubled_log, **options).value, rel=1e-12)
    assert estimate.value != pytest.approx(call(name, log, **options).value, rel=1e-4)


def test_replay_of_a_uniform_log_accepts_exactly_the_decisions_in_which_both_agree():
    """Three arms, logged 1/3 each; the target always takes arm 1: rewards 5, 1 and 3 are accepted, mean 3."""
    action, reward = np.array([1, 0, 1, 2, 1, 0]), np.array([5.0, 9.0, 1.0, 9.0, 3.0, 9.0])
    for seed in range(20):
        estimate = estimators.replay(
            reward, np.full(6, 1 / 3), (action == 1) * 1.0, generator=np.random.default_rng(seed)
        )
        assert estimate.value == 3.0
        assert estimate.effective_sample_size == 3


def test_replay_accepts_records_with_probability_weight_over_bound():
    """Weights 2 and 0.5, bound 4: accepted with probability 1/2 and 1/8, 62,500 of 200,000."""
    target, propensity = np.tile([0.8, 0.1], 100_000), np.tile([0.4, 0.2], 100_000)
    generator = np.random.default_rng(0)
    estimate = estimators.replay(np.tile([1.0, 0.0], 100_000), propensity, target, generator=generator, bound=4.0)
    assert estimate.effective_sample_size == pytest.approx(62_500, abs=4 * np.sqrt(200_000 * 0.22))
    assert estimate.value == pytest.approx(0.8, abs=0.01)


def test_replay_that_accepts_nothing_gives_no_estimate():
    estimate = estimators.replay([1.0], [0.5], [0.5], generator=np.random.default_rng(0), bound=1e12)
    assert np.isnan([estimate.value, *estimate.interval()]).all()


@pytest.mark.parametrize(
    ("name", "options", "limit", "limit_options"),
    [
        ("clipped_ips", {"clip": np.inf}, "ips", {}),
        ("switch_dr", {"threshold": np.inf}, "dr", {}),
        ("switch_dr", {"threshold": 1e-12}, "direct_method", {}),
        ("dr_os", {"shrinkage": np.inf}, "dr", {}),
        ("dr_os", {"shrinkage": 1e-18}, "direct_method", {}),
    ],
)
def test_an_estimator_becomes_another_at_the_limit_of_its_parameter(log, name, options, limit, limit_options):
    pass_prob = np.where(log["reward"] > 0.3, 0.8, 0.4)
    changed = call(name, log, pass_prob=pass_prob, **options)
    expected = call(limit, log, pass_prob=pass_prob, **limit_options)
    np.testing.assert_allclose(changed.value, expected.value, rtol=1e-12)
    np.testing.assert_allclose(changed.interval(), expected.interval(), rtol=1e-12)


@pytest.mark.parametrize(("name", "without"), [("dr", "ips"), ("sndr", "snips")])
def test_doubly_robust_with_predictions_of_zero_is_importance_sampling(log, name, without):
    zero = log | {"q_action": np.zeros(2000), "q_target": np.zeros(2000)}
    assert call(name, zero).value == pytest.approx(call(without, log).value, rel=1e-12)
    np.testing.assert_allclose(call(name, zero).interval(), call(without, log).interval(), rtol=1e-12)


@pytest.mark.parametrize("name", ["replay", "ips", "clipped_ips", "snips"])
def test_the_logging_policy_on_its_own_log_has_the_mean_reward(log, name):
    estimate = call(name, log | {"target": log["propensity"]}, **OPTIONS.get(name, {}))
    assert estimate.value == pytest.approx(log["reward"].mean(), abs=1e-12)
    assert estimate.effective_sample_size == pytest.approx(2000)
    assert estimate.largest_weight == 1
    assert estimate.mean_weight == pytest.approx(1, abs=1e-12)


@every
def test_a_constant_reward_is_the_estimate(log, name):
    """Exactly where self-normalised or with a right model; no interval, as no other reward says how much they vary."""
    constant = log | dict.fromkeys(["reward", "q_action", "q_target"], np.full(2000, 3.7))
    if name == "sndr":
        constant |= {"q_action": np.full(2000, 1.1), "q_target": np.full(2000, 1.1)}  # wrong by a constant
    estimate = call(name, constant, **OPTIONS.get(name, {}))
    if name in ("ips", "clipped_ips"):
        clipped = np.minimum(log["target"] / log["propensity"], OPTIONS.get(name, {"clip": np.inf})["clip"])
        assert estimate.value == pytest.approx(3.7 * clipped.mean())
    else:
        assert estimate.value == pytest.approx(3.7, rel=1e-14)
    assert np.isnan(estimate.interval()).all()


def test_self_normalised_estimates_stay_between_the_smallest_and_the_largest_reward():
    """Ten records and weights up to 10,000, where IPS is above the range."""
    for seed in range(20):
        generator = np.random.default_rng(seed)
        reward, propensity = generator.normal(5, 1, 10), generator.uniform(1e-4, 1e-2, 10)
        estimate = estimators.snips(reward, propensity, generator.random(10))
        assert reward.min() <= estimate.value <= reward.max()
        assert estimators.ips(reward, propensity, np.ones(10)).value > reward.max()


@pytest.mark.parametrize("name", ["snips", "sndr"])
def test_self_normalised_estimates_move_with_a_constant(log, name):
    shifted_estimate = call(name, log | {"reward": log["reward"] + 10})
    assert shifted_estimate.value == pytest.approx(call(name, log).value + 10, rel=1e-12)


def errors_of(estimator, logs, truth):
    """Mean error over the logs and its standard error."""
    values = [estimator({name: column[i] for name, column in logs.items()}).value for i in range(len(logs["reward"]))]
    return np.mean(values) - truth, np.std(values, ddof=1) / np.sqrt(len(values))


def test_dr_is_unbiased_with_wrong_propensities_if_the_model_is_right():
    """Propensities a third too small: IPS is half too large, DR is not."""
    logs = draw_logs(ENVIRONMENT, "0 or 1", 500, replications=400, seed=2)
    logs["propensity"] = logs["propensity"] / 1.5
    logs["q_action"] = ENVIRONMENT.expected[logs["kind"], logs["action"]]
    logs["q_target"] = (ENVIRONMENT.target * ENVIRONMENT.expected).sum(axis=1)[logs["kind"]]
    for name in ("dr", "sndr"):
        error, spread = errors_of(lambda log, name=name: call(name, log), logs, ENVIRONMENT.truth)
        assert abs(error) < 3 * spread
    error, spread = errors_of(lambda log: call("ips", log), logs, ENVIRONMENT.truth)
    assert error == pytest.approx(0.5 * ENVIRONMENT.truth, abs=3 * spread)


@pytest.mark.parametrize("name", ["ips", "sndr", "direct_method"])
def test_subsampling_adds_no_bias_with_pass_prob_and_a_bias_without(name):
    """Records of the three best kinds survive with probability 0.2: without pass_prob, they are underrepresented."""
    logs = draw_logs(ENVIRONMENT, "0 or 1", 1000, replications=400, seed=3)
    if name == "direct_method":
        logs["q_target"] = (ENVIRONMENT.target * ENVIRONMENT.expected).sum(axis=1)[logs["kind"]]
    by_kind = (ENVIRONMENT.target * ENVIRONMENT.expected).sum(axis=1)
    pass_prob = np.where(by_kind > np.median(by_kind), 0.2, 1.0)
    logs["pass_prob"] = pass_prob[logs["kind"]]
    survived = np.random.default_rng(0).random((400, 1000)) < logs["pass_prob"]
    of_survivors = np.average(by_kind, weights=pass_prob)

    def values(corrected):
        for i, rows in enumerate(survived):
            log = {column: array[i, rows] for column, array in logs.items()}
            yield call(name, log, pass_prob=log["pass_prob"] if corrected else None).value

    corrected, uncorrected = (np.array(list(values(choice))) for choice in (True, False))
    spread = corrected.std(ddof=1) / 20
    assert corrected.mean() == pytest.approx(ENVIRONMENT.truth, abs=3 * spread + 1e-3)
    assert uncorrected.mean() == pytest.approx(of_survivors, abs=3 * spread + 1e-3)
    assert of_survivors < ENVIRONMENT.truth - 6 * spread


def test_diagnostics_by_hand(small):
    """Weights 2, 1, 0.5: 3.5^2 / 5.25 = 2.333 of 3 records; their mean is 3.5 / 3."""
    estimate = call("ips", small)
    assert estimate.n == 3
    assert estimate.effective_sample_size == pytest.approx(12.25 / 5.25)
    assert estimate.largest_weight == 2
    assert estimate.mean_weight == pytest.approx(3.5 / 3)
    assert call("dr_os", small, shrinkage=4.0).largest_weight == 1


@every
def test_an_empty_log_gives_no_estimate_rather_than_zero(name):
    estimate = call(name, {column: np.zeros(0) for column in MODELLED}, **OPTIONS.get(name, {}))
    numbers = [estimate.value, estimate.effective_sample_size, estimate.largest_weight, estimate.mean_weight]
    for method in ("normal", "bootstrap", "bernstein"):
        numbers += estimate.interval(method)
    assert np.isnan(numbers).all()


@every
def test_one_record_has_a_value_and_no_interval(small, name):
    single = {column: values[:1] for column, values in small.items()}
    estimate = call(name, single, **OPTIONS.get(name, {}))
    assert np.isfinite(estimate.value)
    assert np.isnan(estimate.interval()).all()


@pytest.mark.parametrize("name", [name for name in ESTIMATORS if name != "direct_method"])
@pytest.mark.parametrize("value", [0.0, 1.001, np.nan])
def test_an_invalid_propensity_is_refused(small, name, value):
    small["propensity"][1] = value
    with pytest.raises(ValueError, match=rf"row 1: propensity must be in \(0, 1\], got {value}"):
        call(name, small, **OPTIONS.get(name, {}))


@pytest.mark.parametrize(
    ("column", "value", "sentence"),
    [
        ("propensity", None, "propensity must be given, as there is no estimate without it, got None"),
        ("target", [0.5, 1.2, 0.5], r"row 1: target must be in \[0, 1\], got 1.2"),
        ("target", [0.0, 0.0, 0.0], "target is 0 in all 3 records: the target policy takes no action of this log"),
        ("reward", [1.0, np.nan, 1.0], "row 1: reward must be finite, got nan"),
        ("reward", [1.0, 1.0], r"shape of reward must be \[3\], got \[2\]"),
        ("q_action", [1.0, np.inf, 1.0], "row 1: q_action must be finite, got inf"),
        ("q_target", [np.nan, 1.0, 1.0], "row 0: q_target must be finite, got nan"),
    ],
)
def test_an_invalid_column_is_refused(small, column, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        call("dr", small | {column: value})


def test_an_invalid_pass_prob_is_refused(small):
    with pytest.raises(ValueError, match=r"row 2: pass_prob must be in \(0, 1\], got 1.5"):
        call("direct_method", small, pass_prob=[1.0, 1.0, 1.5])


@pytest.mark.parametrize(
    ("name", "option"), [("clipped_ips", "clip"), ("switch_dr", "threshold"), ("dr_os", "shrinkage")]
)
@pytest.mark.parametrize("value", [0, float("nan")])
def test_a_parameter_that_is_not_positive_is_refused(small, name, option, value):
    with pytest.raises(ValueError, match=f"{option} must be positive, got {value}"):
        call(name, small, **{option: value})


def test_a_bound_below_the_largest_weight_is_refused(small):
    with pytest.raises(ValueError, match=r"bound must be at least the largest weight, 2, got 1.5"):
        call("replay", small, generator=np.random.default_rng(0), bound=1.5)


def test_the_mean_weight_is_below_1_by_the_probability_of_actions_that_were_never_logged():
    """Two arms of four are never logged: a uniform target has half of its mass there."""
    action = np.random.default_rng(0).integers(2, size=10_000)
    estimate = estimators.ips(action * 1.0, np.full(10_000, 0.5), np.full(10_000, 0.25))
    assert estimate.mean_weight == pytest.approx(0.5)


def test_fitted_shrinkage_leaves_half_of_each_weight_where_all_records_have_the_same_pass_prob():
    """Of weights 1 and 0.1 whose records count 1 and 100, the larger keeps less than half."""
    zeros = np.zeros(40)
    for seed in range(50):
        target = np.random.default_rng(seed).uniform(size=40) ** 4
        for pass_prob in (None, np.full(40, 0.5)):
            estimate = estimators.dr_os(zeros, zeros + 0.3, target, zeros, zeros, pass_prob=pass_prob)
            count = 1 if pass_prob is None else 2
            assert (estimate.weights[0] >= (0.5 - 1e-9) * count * target / 0.3).all()
    unequal = estimators.dr_os(zeros[:2], [1.0, 1.0], [1.0, 0.1], zeros[:2], zeros[:2], pass_prob=[1.0, 0.01])
    assert unequal.weights[0][0] < 0.5
