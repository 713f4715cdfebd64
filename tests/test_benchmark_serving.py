"""The contenders of the serving benchmark answer the same question, and a row says what was measured."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from benchmarks import serving
from recbandits.agents.parameters import EpsilonGreedy, LinUCB
from recbandits.environments.factorization import als


@pytest.fixture(scope="module")
def factorization():
    rng = np.random.default_rng(0)
    user, movie = np.nonzero(rng.random((40, 12)) < 0.8)
    rating = np.clip(np.round(3.5 + rng.normal(size=len(user))), 1, 5)
    return als(pd.DataFrame({"user_id": user + 1, "movie_id": movie + 1, "rating": rating}), rank=3)


@pytest.mark.parametrize("parameters", [LinUCB(), EpsilonGreedy()], ids=["linear", "network"])
def test_all_contenders_choose_alike_and_a_process_without_tensorflow_is_smaller(
    parameters, factorization, tmp_path, monkeypatch
):
    """Without exploration; TF-Agents' policy gets an exact solver, but adds widths: one user in ten may differ."""
    monkeypatch.setattr(serving, "EXPLORATION", None)
    monkeypatch.setattr("tf_agents.bandits.policies.linalg.conjugate_gradient", tf.linalg.solve)
    contenders = serving.make_contenders(factorization, parameters, 5, 40, tmp_path)
    answers = {name: ask() for name, ask in contenders.items()}
    expected = answers.pop("our action, PolicySaver")
    assert len(answers) == (3 if isinstance(parameters, LinUCB) else 2)
    assert len(set(expected.tolist())) > 1
    for name, answer in answers.items():
        assert (answer == expected).mean() >= (0.9 if name.startswith("TF-Agents") else 1.0), name
    if isinstance(parameters, LinUCB):
        own_row, peer_row = serving.measure_processes(factorization, tmp_path, starts=1)
        assert int(own_row["memory"].removesuffix(" MB")) < int(peer_row["memory"].removesuffix(" MB"))


def test_a_row_says_how_long_it_takes_and_how_much_faster_that_is():
    fast, slow = lambda: None, lambda: sum(range(20_000))
    rows = serving.tabulate_latencies((LinUCB(), 20, 1), {"slow": slow, "fast": fast}, rounds=2, calls=20)
    slow_row, fast_row = list(rows)
    assert (slow_row["agent"], slow_row["arms"], slow_row["answered by"], slow_row["faster"]) == (
        "LinUCB",
        20,
        "slow",
        "",
    )
    assert float(slow_row["p50"]) <= float(slow_row["p99"])
    assert float(fast_row["faster"].split("x (")[0].replace(",", "")) > 10
