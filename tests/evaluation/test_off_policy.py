"""Evaluation of a target policy by a whole log: the table by hand, its options, and the inputs that are refused."""

import numpy as np
import pytest

from recbandits.evaluation import off_policy
from recbandits.records.log import Log


@pytest.fixture
def decisions():
    """Three decisions among two or three candidates, logged with 0.5, 0.25 and 0.2."""
    return Log(
        event_id=["a", "b", "c"],
        time=np.array(["2026-01-01", "2026-01-02", "2026-01-03"], "datetime64[us]"),
        user_id=np.array([1, 2, 1]),
        candidates=np.array([[7, 8, 0], [7, 8, 9], [9, 8, 7]]),
        mask=np.array([[True, True, False], [True] * 3, [True] * 3]),
        action=np.array([1, 0, 2]),
        propensity=np.array([0.5, 0.25, 0.2]),
        reward=np.array([4.0, 2.0, 5.0]),
        pass_prob=np.array([1.0, 1.0, 0.5]),
    )


TARGET = np.array([[0.4, 0.6, 0.0], [0.5, 0.5, 0.0], [0.2, 0.5, 0.3]])
Q = np.array([[3.0, 4.0, np.nan], [2.0, 3.0, 9.0], [1.0, 2.0, 3.0]])


def test_the_table_has_every_estimator(decisions):
    """Weights 1.2, 2 and 1.5, the last counts twice: IPS (4.8 + 4 + 15) / 4, SNIPS 23.8 / 6.2.

    The model expects 3.6, 2.5 and 2.1; its errors are 0, 0 and 2: DM (3.6 + 2.5 + 4.2) / 4, DR 2.575 + 2 * 3 / 4.
    """
    table = off_policy.evaluate(decisions, TARGET, Q)
    assert tuple(table.index) == off_policy.ESTIMATORS
    expected = {"IPS": 5.95, "SNIPS": 23.8 / 6.2, "DM": 2.575, "DR": 4.075, "SNDR": 2.575 + 6 / 6.2}
    assert table["value"][list(expected)].to_dict() == pytest.approx(expected)
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()
    assert table.loc["IPS", "largest_weight"] == pytest.approx(3)
    assert table.loc["IPS", "effective_sample_size"] == pytest.approx(6.2**2 / (1.44 + 4 + 9))
    assert table.loc["IPS", "mean_weight"] == pytest.approx(6.2 / 4)
    assert "unsupported_mass" not in table


def test_without_a_model_the_table_has_only_the_estimators_that_need_none(decisions):
    assert list(off_policy.evaluate(decisions, TARGET).index) == ["replay", "IPS", "clipped IPS", "SNIPS"]
    assert list(off_policy.evaluate(decisions, TARGET, Q, names=["DR"]).index) == ["DR"]


def test_options_reach_the_estimators_and_the_intervals(decisions):
    table = off_policy.evaluate(decisions, TARGET, clip=1.0)
    assert table.loc["clipped IPS", "value"] == pytest.approx((4 + 2 + 10) / 4)
    ips = off_policy.estimates(decisions, TARGET)["IPS"]
    table = off_policy.tabulate({"IPS": ips}, "bernstein", 0.5)
    np.testing.assert_allclose(table.loc["IPS", ["low", "high"]].astype(float), ips.interval("bernstein", 0.5))


def test_unsupported_mass_is_exact_where_the_logging_probabilities_are_known(decisions):
    """The logging policy never takes arm 8 in the second and third decision, the target does: (0.5 + 2 * 0.5) / 4."""
    logging = np.array([[0.5, 0.5, 0.0], [0.25, 0.0, 0.75], [0.8, 0.0, 0.2]])
    table = off_policy.evaluate(decisions, TARGET, Q, logging)
    assert table["unsupported_mass"].tolist() == pytest.approx([0.375] * 9)
    logging[2] = [0.7, 0.0, 0.3]
    with pytest.raises(ValueError, match=r"^row 2: logging_probabilities of the logged .* propensities, got 0.3$"):
        off_policy.evaluate(decisions, TARGET, Q, logging)


@pytest.mark.parametrize(
    ("row", "values", "sentence"),
    [
        (1, [0.5, 0.5, 0.5], r"got \[0.5 0.5 0.5\]"),
        (1, [1.5, -0.5, 0.0], r"got \[ 1.5 -0.5  0. \]"),
        (0, [0.5, 0.3, 0.2], r"got \[0.5 0.3 0.2\]"),
    ],
)
def test_rows_that_are_not_distributions_over_the_candidates_are_refused(decisions, row, values, sentence):
    wrong = TARGET.copy()
    wrong[row] = values
    rule = f"probabilities must be 0 or more and sum to 1, and be 0 in padding, {sentence}"
    with pytest.raises(ValueError, match=f"^row {row}: {rule}"):
        off_policy.evaluate(decisions, wrong)
    with pytest.raises(ValueError, match=f"^row {row}: logging_{rule}"):
        off_policy.evaluate(decisions, TARGET, logging_probabilities=wrong)


def test_a_log_without_overlap_is_refused(decisions):
    target_policy = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    with pytest.raises(ValueError, match="target is 0 in all 3 records"):
        off_policy.evaluate(decisions, target_policy)


def test_arrays_of_another_shape_and_unknown_names_are_refused(decisions):
    with pytest.raises(ValueError, match=r"shape of probabilities must be \[3, 3\], got \[3, 2\]"):
        off_policy.evaluate(decisions, TARGET[:, :2])
    with pytest.raises(ValueError, match=r"shape of q must be \[3, 3\], got \[2, 3\]"):
        off_policy.evaluate(decisions, TARGET, Q[:2])
    with pytest.raises(ValueError, match=r"names must be among .*DRos, got 'DDR'"):
        off_policy.evaluate(decisions, TARGET, Q, names=["DDR"])
    with pytest.raises(ValueError, match=r"names must be among replay, .*SNIPS \(without q\), got 'DR'"):
        off_policy.evaluate(decisions, TARGET, names=["DR"])


def test_a_prediction_that_is_not_finite_is_refused(decisions):
    """Even where the target has probability 0, 0 times NaN would be NaN."""
    wrong = Q.copy()
    wrong[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"^row 1, column 2: q must be finite for every candidate, got nan"):
        off_policy.evaluate(decisions, TARGET, wrong)


def test_an_empty_log_gives_a_table_without_numbers(decisions):
    empty_log = decisions.take(slice(0, 0))
    table = off_policy.evaluate(empty_log, TARGET[:0], Q[:0])
    assert tuple(table.index) == off_policy.ESTIMATORS
    assert table.isna().all(axis=None)
