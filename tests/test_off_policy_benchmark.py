"""The benchmark of off-policy evaluation, small, and the processes of its contenders."""

import os

import numpy as np
import pandas as pd
import pytest

from benchmarks import off_policy
from benchmarks.peer import Peer
from recbandits.evaluation.off_policy import evaluate

ABSENT = [["--no-index", "there-is-no-such-package"]]
ECHO = """
import json, sys
import numpy as np
total = float(np.load(sys.argv[1])["numbers"].sum())
for turn, _ in enumerate(sys.stdin):
    print(json.dumps([total, sys.argv[2], turn]), flush=True)
"""


def test_a_contender_answers_from_a_process_and_an_environment_of_its_own(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    program = ECHO.replace("import numpy as np\n", "").replace(
        'float(np.load(sys.argv[1])["numbers"].sum())', "sys.prefix"
    )
    peer = Peer("bare", [], program, {"numbers": np.arange(4)}, ["word"])
    assert [peer(), peer()] == [[str(tmp_path / "build/peers/bare"), "word", turn] for turn in (0, 1)]


def test_a_contender_that_does_not_install_gives_nothing_and_says_so(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    peer = Peer("absent", ABSENT, ECHO, {"numbers": np.arange(4)}, ["word"])
    assert peer() is None
    assert "absent does not install here: its columns stay empty" in capfd.readouterr().err


def test_speed_leaves_the_columns_of_an_absent_contender_empty(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(off_policy, "open_bandit_pipeline", lambda arrays: Peer("absent", ABSENT, ECHO, arrays))
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    table = off_policy.speed(decisions=2000, rounds=1)
    assert table[""].tolist() == ["values", "values and intervals"]
    assert table["here"].str.fullmatch(r"\d+\.\d\d s").all()
    assert (table["Open Bandit Pipeline"] == "does not install here").all()
    assert (table[["ratio", "values differ by"]] == "").all(axis=None)
    assert cores is None or os.sched_getaffinity(0) == cores


def test_the_log_of_the_benchmark_can_be_evaluated():
    """Rewards from 0 to 1 for any policy: its value is 0.5."""
    arrays = off_policy.draw_arrays(5000)
    table = evaluate(off_policy.as_log(arrays), arrays["probabilities"], arrays["q"], names=off_policy.NAMES)
    assert ((table["low"] < 0.5) & (table["high"] > 0.5)).all()


def test_the_table_of_accuracy_is_text_with_a_row_per_estimator():
    table = off_policy.as_text(off_policy.accuracy(replications=3, n=200))
    assert table.columns.tolist() == ["estimator", *off_policy.REWARDS]
    assert len(table) == 9
    for column in off_policy.REWARDS:
        assert table[column].str.fullmatch(r"[+-]\d\.\d{3}, \d\.\d{3}, (\d+\.\d|nan) %").all()


def test_bias_rmse_and_coverage_by_hand(monkeypatch):
    """Errors of 0.1 and -0.3: bias -0.1, RMSE sqrt(0.05); one interval in two contains the truth."""

    class KnownEstimate:
        def __init__(self, error, half):
            self.value = off_policy.make_environment().truth + error
            self.half = half

        def interval(self, method="normal"):
            return self.value - self.half, self.value + self.half

    monkeypatch.setattr(
        off_policy, "judge", lambda log, seed: {"any": [KnownEstimate(0.1, 0.2), KnownEstimate(-0.3, 0.2)][seed]}
    )
    row = off_policy.accuracy(replications=2, n=10).loc[("0 or 1", "any")]
    expected = {"bias": -0.1, "rmse": np.sqrt(0.05), "standard_error": 0.2, "coverage": 0.5, "bernstein": 0.5}
    assert row.to_dict() == pytest.approx(expected)
    assert isinstance(row, pd.Series)
