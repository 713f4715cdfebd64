"""Slate estimators: unbiased where their assumption holds, with the expected bias where it fails, and identities.

Expectations are sums over all outcomes for four items, three slots and two users, not means of draws.
"""

import numpy as np
import pytest

from benchmarks import slate_environment
from recbandits.environments import clicks
from recbandits.evaluation import estimators
from recbandits.evaluation.estimate import difference
from recbandits.evaluation.estimators import direct_method
from recbandits.evaluation.slates import SLATE_ESTIMATORS, reward_interaction_ips, slate_estimates, slate_ips
from recbandits.records.slate_log import SlateLog

HOLDS = {
    "IPS": ["cascade", "dependent_click", "position_based", "choice"],
    "IIPS": ["position_based"],
    "RIPS": ["cascade", "dependent_click", "position_based"],
    "cascade-DR": ["cascade", "dependent_click", "position_based"],
}
FAILS = [
    ("IIPS", "cascade"),
    ("IIPS", "dependent_click"),
    ("IIPS", "choice"),
    ("RIPS", "choice"),
    ("cascade-DR", "choice"),
]


@pytest.fixture(scope="module")
def outcomes():
    return {model: slate_environment.enumerate_outcomes(model) for model in slate_environment.CLICK_MODELS}


def expectation(outcomes, name, q=None):
    """Expected value of a plain estimator, from what it makes of every outcome."""
    estimate = slate_estimates(outcomes.log, **outcomes.arguments, q=q, names=[name])[name]
    return outcomes.logging_policy @ (estimate.influence + estimate.value)


# the environment


@pytest.mark.parametrize("model", slate_environment.CLICK_MODELS)
def test_the_enumerated_clicks_are_those_of_the_click_models(outcomes, model):
    """Probabilities sum to 1, and the clicks of every slate have the marginal probabilities of the click model."""
    known = outcomes[model]
    assert known.logging_policy.sum() == pytest.approx(1.0)
    assert known.target.sum() == pytest.approx(1.0)
    for user in range(slate_environment.USERS):
        for slate in slate_environment.SLATES:
            rows = (known.log.user_id == user) & (known.log.slate == slate).all(axis=1)
            rates = known.logging_policy[rows] @ known.log.reward[rows] / known.logging_policy[rows].sum()
            attraction = slate_environment.ATTRACTION[user, slate][None]
            np.testing.assert_allclose(rates, clicks.CLICK_MODELS[model]().probabilities(attraction)[0], rtol=1e-6)


# unbiasedness and bias


@pytest.mark.parametrize(("name", "model"), [(name, model) for name, models in HOLDS.items() for model in models])
def test_an_estimator_is_unbiased_where_its_assumption_holds(outcomes, name, model):
    q = outcomes[model].any_q()
    assert expectation(outcomes[model], name, q) == pytest.approx(outcomes[model].truth, rel=1e-10)


@pytest.mark.parametrize(("name", "model"), FAILS)
def test_an_estimator_is_biased_where_its_assumption_fails(outcomes, name, model):
    """The bias is the difference between the expected rewards of a slot with and without the assumption.

    RIPS takes E[r_k | items down to k] from the log, where the logging policy fills the slots below; IIPS
    takes E[r_k | item in k], where it fills all others.
    """
    known = outcomes[model]
    biased, columns = 0.0, [known.log.user_id[:, None], known.log.slate]
    for slot in range(slate_environment.SLOTS):
        conditions = columns[1][:, : slot + 1] if name != "IIPS" else columns[1][:, [slot]]
        _, group = np.unique(np.hstack([columns[0], conditions]), axis=0, return_inverse=True)
        group = group.ravel()
        logged = np.bincount(group, known.logging_policy * known.log.reward[:, slot]) / np.bincount(
            group, known.logging_policy
        )
        biased += known.target @ logged[group]
    assert expectation(known, name, known.any_q()) == pytest.approx(biased, rel=1e-10)
    assert abs(biased / known.truth - 1) > 0.02


def test_with_the_true_model_the_error_of_cascade_dr_is_that_of_the_clicks(outcomes):
    """Its expectation for a given user and slate does not depend on the slate, so the error is below that of RIPS."""
    known = outcomes["cascade"]
    estimates = slate_estimates(known.log, **known.arguments, q=known.q, names=["RIPS", "cascade-DR"])
    terms = {name: estimate.influence + estimate.value for name, estimate in estimates.items()}
    by_slate = (
        (known.logging_policy * terms["cascade-DR"])
        .reshape(slate_environment.USERS, len(slate_environment.SLATES), -1)
        .sum(axis=2)
    )
    probability = known.logging_policy.reshape(slate_environment.USERS, len(slate_environment.SLATES), -1).sum(axis=2)
    np.testing.assert_allclose((by_slate / probability).std(axis=1), 0, atol=1e-12)
    spread = {name: known.logging_policy @ (term - known.truth) ** 2 for name, term in terms.items()}
    assert spread["cascade-DR"] < 0.7 * spread["RIPS"]


def test_the_stronger_the_assumption_the_smaller_the_error(outcomes):
    """Under position-based clicks all three are unbiased: variances by enumeration."""
    known = outcomes["position_based"]
    spread = {}
    for name, estimate in slate_estimates(known.log, **known.arguments, names=["IPS", "RIPS", "IIPS"]).items():
        spread[name] = known.logging_policy @ (estimate.influence + estimate.value - known.truth) ** 2
    assert spread["IIPS"] < spread["RIPS"] < spread["IPS"]


@pytest.mark.parametrize(
    ("name", "model"),
    [("SNIPS", "choice"), ("SNIIPS", "position_based"), ("SNRIPS", "cascade"), ("cascade-SNDR", "cascade")],
)
def test_a_self_normalised_estimate_converges_to_the_truth(outcomes, name, model):
    """200,000 slates: within 4 standard errors of the truth."""
    known = outcomes[model]
    estimate = slate_estimates(known.log, **known.arguments, q=known.any_q(), names=[name])[name]
    drawn = known.resample(estimate, 200_000, np.random.default_rng(1))
    error = drawn.influence.std() / np.sqrt(drawn.n)
    assert drawn.value == pytest.approx(known.truth, abs=4 * error)
    assert error < 0.02 * known.truth


# identities


@pytest.fixture
def log():
    """500 slates of three from six, with rewards of any size."""
    generator = np.random.default_rng(3)
    n, items, slots = 500, 6, 3
    position = generator.uniform(0.1, 1, (n, slots))
    return SlateLog(
        event_id=[f"{row}" for row in range(n)],
        user_id=generator.integers(50, size=n),
        candidates=np.tile(np.arange(items), (n, 1)),
        slate=generator.permuted(np.tile(np.arange(items), (n, 1)), axis=1)[:, :slots],
        reward=generator.normal(1, 2, (n, slots)),
        propensity=generator.uniform(0.1, 1, (n, slots)),
        position_propensity=position,
    )


def target(log, seed=4):
    """Arguments for `slate_estimates` that agree with each other."""
    generator = np.random.default_rng(seed)
    conditional = generator.dirichlet(np.ones(log.candidates.shape[1]), log.slate.shape)
    return {
        "target_propensity": np.take_along_axis(conditional, log.slate[:, :, None], axis=2)[:, :, 0],
        "target_position": generator.uniform(0, 1, log.slate.shape),
        "q": generator.normal(size=conditional.shape),
        "target_conditional": conditional,
    }


def test_a_slate_of_one_slot_is_a_decision(log):
    """All estimators become those of `estimators`, value, interval and diagnostics."""
    first = {name: getattr(log, name)[:, :1] for name in ("slate", "reward", "propensity")}
    one = SlateLog(log.event_id, log.user_id, log.candidates, **first, position_propensity=first["propensity"])
    arguments = target(one) | {"target_position": target(one)["target_propensity"]}
    estimates = slate_estimates(one, **arguments)
    rows = np.arange(len(one)), one.slate[:, 0]
    logged = one.reward[:, 0], one.propensity[:, 0], arguments["target_propensity"][:, 0]
    q, probability = arguments["q"][:, 0], arguments["target_conditional"][:, 0]
    ips, snips = estimators.ips(*logged), estimators.snips(*logged)
    dr = estimators.dr(*logged, q[rows], (q * probability).sum(axis=1))
    sndr = estimators.sndr(*logged, q[rows], (q * probability).sum(axis=1))
    pairs = {"IPS": ips, "IIPS": ips, "RIPS": ips, "SNIPS": snips, "SNIIPS": snips, "SNRIPS": snips}
    for name, expected in (pairs | {"cascade-DR": dr, "cascade-SNDR": sndr}).items():
        assert estimates[name].value == pytest.approx(expected.value, rel=1e-12), name
        assert estimates[name].interval() == pytest.approx(expected.interval(), rel=1e-9), name
        assert estimates[name].effective_sample_size == pytest.approx(expected.effective_sample_size), name
        assert estimates[name].mean_weight == pytest.approx(expected.mean_weight), name


def test_without_a_model_cascade_dr_is_rips(log):
    arguments = target(log)
    estimates = slate_estimates(log, **arguments | {"q": np.zeros_like(arguments["q"])})
    np.testing.assert_allclose(estimates["cascade-DR"].influence, estimates["RIPS"].influence)
    assert estimates["cascade-DR"].value == pytest.approx(estimates["RIPS"].value, rel=1e-12)
    assert estimates["cascade-SNDR"].value == pytest.approx(estimates["SNRIPS"].value, rel=1e-12)


def test_the_logging_policy_has_the_mean_of_the_log(log):
    estimates = slate_estimates(log, log.propensity, log.position_propensity)
    for name, estimate in estimates.items():
        assert estimate.value == pytest.approx(log.reward.sum(axis=1).mean(), rel=1e-12), name
        assert estimate.mean_weight == pytest.approx(1.0, abs=1e-12)
        assert estimate.effective_sample_size == pytest.approx(len(log))


def test_a_constant_reward_is_the_self_normalised_estimate(log):
    constant = SlateLog(
        **{
            name: getattr(log, name)
            for name in ("event_id", "user_id", "candidates", "slate", "propensity", "position_propensity")
        },
        reward=np.full(log.slate.shape, 2.5),
    )
    estimates = slate_estimates(constant, **target(log))
    for name in ("SNIPS", "SNIIPS", "SNRIPS"):
        assert estimates[name].value == pytest.approx(7.5, rel=1e-12), name


def test_slots_below_the_first_unlikely_item_do_not_count_for_rips():
    """Weights 2 and then 0: slot 1 counts twice, slot 2 and the slate as a whole do not count."""
    log = SlateLog(
        ["a", "b"], [1, 2], [[0, 1], [0, 1]], [[0, 1], [1, 0]], [[3.0, 5.0], [1.0, 7.0]], [[0.5, 1.0], [0.5, 1.0]]
    )
    estimates = slate_estimates(log, np.array([[1.0, 0.0], [0.0, 0.0]]))
    assert estimates["RIPS"].value == pytest.approx(2 * 3 / 2)
    assert estimates["IPS"].value == 0.0
    assert estimates["RIPS"].mean_weight == 0.0


# intervals


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("IPS", "choice"),
        ("IIPS", "position_based"),
        ("SNRIPS", "dependent_click"),
        ("cascade-SNDR", "cascade"),
    ],
)
def test_intervals_cover_the_truth_with_the_probability_of_their_level(outcomes, name, model):
    """4,000 logs of 500 slates: 95 % within 4 standard errors."""
    known, generator, covered = outcomes[model], np.random.default_rng(2), []
    estimate = slate_estimates(known.log, **known.arguments, q=known.any_q() / 4, names=[name])[name]
    for _ in range(4000):
        low, high = known.resample(estimate, 500, generator).interval()
        covered.append(low <= known.truth <= high)
    assert np.mean(covered) == pytest.approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / 4000))


# inputs


def test_the_inputs_decide_which_estimators_are_computed(log):
    arguments = target(log)
    assert tuple(slate_estimates(log, **arguments)) == SLATE_ESTIMATORS
    assert list(slate_estimates(log, arguments["target_propensity"])) == ["IPS", "SNIPS", "RIPS", "SNRIPS"]
    assert list(slate_estimates(log, **arguments, names=["RIPS", "IIPS"])) == ["RIPS", "IIPS"]
    with pytest.raises(
        ValueError, match=r"names must be among IPS, SNIPS, RIPS, SNRIPS \(by the given inputs\), got 'IIPS'"
    ):
        slate_estimates(log, arguments["target_propensity"], names=["IIPS"])


def test_an_empty_log_gives_no_estimate(log):
    arguments = {name: values[:0] for name, values in target(log).items()}
    for estimate in slate_estimates(log.take([]), **arguments).values():
        assert np.isnan(estimate.value)
        assert np.isnan(estimate.interval()).all()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"target_propensity": np.ones((500, 2))}, r"shape of target_propensity must be \[500, 3\], got \[500, 2\]"),
        (
            {"target_propensity": np.full((500, 3), 1.5), "q": None},
            r"row 0, column 0: target must be in \[0, 1\], got 1.5",
        ),
        ({"target_propensity": np.zeros((500, 3)), "q": None}, "the target policy begins no slate of this log"),
        ({"q": np.zeros((500, 3))}, r"shape of q must be \[500, 3, 6\], got \[500, 3\]"),
        ({"q": np.full((500, 3, 6), np.inf)}, "row 0, column 0, column 0: q must be finite"),
        (
            {"target_conditional": np.ones((500, 3, 6))},
            "0, column 0: target_conditional must be 0 or more and sum to 1",
        ),
        (
            {"target_conditional": np.full((500, 3, 6), 1 / 6)},
            "row 0, column 0: target_conditional of the logged items must be their target_propensity, got 0.1666",
        ),
    ],
)
def test_invalid_inputs_are_refused(log, change, sentence):
    with pytest.raises(ValueError, match=sentence):
        slate_estimates(log, **target(log) | change)


def test_estimators_of_slates_and_of_slots_have_a_paired_difference():
    """IPS has one weight for a slate, RIPS one for each slot: the difference is a mean of the records' differences."""
    rng = np.random.default_rng(0)
    reward, ratio = rng.normal(1.0, 1.0, (60, 3)), rng.uniform(0.2, 2.0, (60, 3))
    columns = reward, np.full((60, 3), 0.5), ratio / 2
    by_slate, by_slot = slate_ips(*columns), reward_interaction_ips(*columns)
    terms = (ratio.prod(axis=1)[:, None] * reward - ratio.cumprod(axis=1) * reward).sum(axis=1)
    for first, second, sign in ((by_slate, by_slot, 1), (by_slot, by_slate, -1)):
        contrast = difference(first, second)
        assert contrast.value == pytest.approx(sign * terms.mean())
        assert contrast.interval() == pytest.approx(direct_method(sign * terms).interval())


def test_the_rewarded_slates_of_a_difference_of_different_estimators_are_those_with_a_click():
    """Of 200 slates 30 have a click, in the first of two slots: in the second, both estimators have the same weight."""
    reward = np.zeros((200, 2))
    reward[:30, 0] = 1.0
    ratio = np.tile([1.0, 0.5], (200, 1))
    columns = reward, np.full((200, 2), 0.5), ratio / 2
    assert difference(slate_ips(*columns), reward_interaction_ips(*columns)).rewarded_decisions == pytest.approx(30)
