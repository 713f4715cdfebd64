"""The benchmark of slate off-policy evaluation, small, without its contender."""

import numpy as np

from benchmarks import slate_off_policy
from benchmarks.peer import Peer


def test_without_the_contender_its_columns_stay_empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    absent = [["--no-index", "there-is-no-such-package"]]
    monkeypatch.setattr(
        slate_off_policy, "open_bandit_pipeline_slates", lambda arrays: Peer("absent", absent, "", arrays)
    )
    (row,) = slate_off_policy.speed(records=200).to_dict("records")
    assert row["here"].endswith(" s")
    assert row["Open Bandit Pipeline"] == "does not install here"
    assert (row["ratio"], row["values differ by"]) == ("", "")


def test_the_arrays_of_the_benchmark_belong_together():
    """The target's probabilities of a slot's candidates sum to 1 and hold that of the logged item; so do marginals."""
    arrays = slate_off_policy.draw_arrays(50)
    np.testing.assert_allclose(arrays["target_conditional"].sum(axis=2), 1)
    of_logged = np.take_along_axis(arrays["target_conditional"], arrays["slate"][:, :, None], axis=2)[:, :, 0]
    np.testing.assert_allclose(of_logged, arrays["target_propensity"])
    np.testing.assert_allclose(arrays["target_position"][:, 0], arrays["target_propensity"][:, 0], rtol=1e-9)


def test_bias_is_a_share_of_the_truth_with_a_row_per_estimator_and_a_column_per_click_model():
    """Ten logs of 2,000 slates: IIPS is 9 % too high under a cascade and right under position-based clicks."""
    table = slate_off_policy.accuracy(replications=10, n=2000)
    assert abs(table.loc[("cascade", "IIPS"), "bias"] - 0.094) < 0.03
    assert abs(table.loc[("position_based", "IIPS"), "bias"]) < 0.03
    text = slate_off_policy.as_text(table)
    assert text.columns.tolist() == ["estimator", "cascade", "dependent_click", "position_based", "choice"]
    assert text["estimator"].tolist() == list(slate_off_policy.SLATE_ESTIMATORS)
