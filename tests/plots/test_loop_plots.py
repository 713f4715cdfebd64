"""Pictures of the loop show the numbers that they are given, with their intervals and references."""

import numpy as np
import pandas as pd
import pytest

from recbandits.plots import loop as plots


def values(drift=0.0):
    rows = [(n, who, 4 + n / 10 * (who == "learning"), n * drift) for n in range(3) for who in ("learning", "frozen")]
    rows += [(n, who, level, n * drift) for n in range(3) for who, level in (("oracle", 4.6), ("uniform", 3.8))]
    table = pd.DataFrame(rows, columns=["round", "learner", "value", "drift"])
    return table.assign(low=table["value"] - 0.1, high=table["value"] + 0.1)


def drawn(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def test_rewards_are_a_line_and_a_band_for_each_learner_and_lines_for_references():
    (axes,) = plots.rewards(values()).axes
    lines = drawn(axes)
    np.testing.assert_allclose(lines["learning"].get_ydata(), [4.0, 4.1, 4.2])
    np.testing.assert_allclose(lines["oracle"].get_ydata(), 4.6)
    assert lines["oracle"].get_linestyle() == "--"
    assert len(axes.collections) == 2
    assert len(plots.rewards(values(drift=0.5)).axes) == 2  # a strip below


def test_the_gate_shows_margin_intervals_and_the_first_policy_as_a_mark():
    rows = [("deployed", None, None, None), ("refused", -0.3, -0.5, 0.1), ("deployed", 0.2, 0.1, 0.3)]
    (axes,) = plots.gate(pd.DataFrame(rows, columns=["kind", "difference", "low", "high"]), 0.1).axes
    bars = {container.get_label(): container for container in axes.containers}
    (refused,) = bars["refused"].lines[2][0].get_segments()
    np.testing.assert_allclose(refused, [[1, -0.5], [1, 0.1]])
    np.testing.assert_allclose(bars["deployed"].lines[0].get_xydata(), [[2, 0.2]])
    marks = [line.get_xydata().tolist() for line in axes.get_lines() if line.get_marker() == "D"]
    assert [[0, 0]] in marks
    assert drawn(axes)["margin, -0.1"].get_ydata()[0] == -0.1
    markers = {kind: bar.lines[0].get_marker() for kind, bar in bars.items()}
    assert markers == {"deployed": "o", "held": "s", "refused": "X"}
    assert "with 95 % intervals" in axes.get_ylabel()
    (axes,) = plots.gate(pd.DataFrame(rows, columns=["kind", "difference", "low", "high"]), 0.1, level=0.8).axes
    assert "with 80 % intervals" in axes.get_ylabel()


def test_the_guardrail_shows_each_look_and_when_it_decided():
    looks = pd.DataFrame({"decisions": [100, 200], "value": [0.0, -0.2], "low": [-0.5, -0.4], "high": [0.5, -0.05]})
    (axes,) = plots.guardrail(looks, {200: "rolled back"}, margin=0.3).axes
    lines = drawn(axes)
    np.testing.assert_allclose(lines["newest minus other"].get_xydata(), [[100, 0.0], [200, -0.2]])
    assert list(lines["rolled back"].get_xdata()) == [200, 200]
    assert lines["margin, -0.3"].get_ydata()[0] == -0.3


def test_propensities_with_an_alarm_are_of_another_colour():
    columns = ["decisions", "ratio", "low", "high", "smallest", "alarm"]
    rows = [(100, 1.0, 0.9, 1.1, 0.1, ""), (50, 2.0, 1.8, 2.2, 0.01, "wrong")]
    left, right = plots.propensities(pd.DataFrame(rows, ["a" * 16, "b" * 16], columns)).axes
    points = [line for line in left.get_lines() if line.get_marker() == "o"]
    assert points[0].get_color() != points[1].get_color()
    np.testing.assert_allclose(right.get_lines()[0].get_xdata(), [0.1, 0.01])


@pytest.mark.parametrize(
    ("row", "end"),
    [
        ((100, 5.0, 4.0, np.inf, 0.1, "wrong"), 5.5),
        ((100, 0.5, 0.4, 0.6, 0.1, "wrong"), 1.1),
        ((100, 1.2, 0.1, np.inf, 0.1, ""), 3.3),
        ((0, np.nan, np.nan, np.nan, np.nan, ""), 1.1),
    ],
)
def test_every_ratio_and_its_expectation_are_inside_the_axis(row, end):
    """The axis ends 10 % beyond the ratio, the expectation 1 and the interval, of which it shows no more than 3."""
    columns = ["decisions", "ratio", "low", "high", "smallest", "alarm"]
    left, _ = plots.propensities(pd.DataFrame([row], ["a" * 16], columns)).axes
    assert left.get_xlim() == pytest.approx((0, end))


@pytest.mark.parametrize("error", [1.5, np.nan])
def test_drift_marks_the_periods_with_an_alarm(error):
    names = ["reward", "low", "high", "error", "error_low", "error_high"]
    names += ["psi_reward", "psi_reward_limit", "psi_context", "psi_context_limit", "alarm"]
    row = [4.0, 3.9, 4.1, error, error, error, 0.0, 0.01, 0.0, 0.02]
    left, *_ = plots.drift(pd.DataFrame([[*row, ""], [3.5, *row[1:], "shifted"]], columns=names)).axes
    (crosses,) = (line for line in left.get_lines() if line.get_marker() == "x")
    np.testing.assert_allclose(crosses.get_xydata(), [[1, 3.5]])


def visits(rows):
    return pd.DataFrame(rows, columns=["share", "user_id", "canary", "reward"])


def test_users_are_sorted_by_when_they_joined_and_rewards_averaged_by_version():
    """User 2 joins at 10 %, user 3 at 50 %, user 1 never; 4.5 of user 1 and 3 of user 3 are 3.75, each user once."""
    fig = plots.canary(
        visits(
            [
                *[(10, 1, False, 4.0), (10, 1, False, 5.0), (10, 2, True, 2.0), (10, 3, False, 3.0)],
                *[(50, 1, False, 4.0), (50, 2, True, 1.0), (50, 3, True, 3.0)],
            ]
        )
    )
    left, right = fig.axes
    np.testing.assert_array_equal(left.collections[0].get_array(), [[1, 0, 0], [1, 1, 0]])
    assert [label.get_text() for label in left.get_yticklabels()] == ["10 %", "50 %"]
    old, new = (container.lines[0].get_ydata().astype(float) for container in right.containers)
    np.testing.assert_allclose(old, [3.75, 4.0])
    np.testing.assert_allclose(new, [2.0, 2.0])
    before = plots.canary(visits([(0, 1, False, 4.0), (0, 2, False, 5.0)]))
    assert len(before.axes[1].containers) == 1  # there is only the current version


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([(10, 1, True, 1.0), (10, 1, False, 1.0)], "user 1 must get one version, got both at 10 %"),
        ([(10, 1, True, 1.0), (20, 2, True, 1.0)], "the same users must visit at every share"),
    ],
)
def test_a_split_that_is_none_is_refused(rows, sentence):
    with pytest.raises(ValueError, match=sentence):
        plots.canary(visits(rows))
