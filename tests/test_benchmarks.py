"""The benchmarks measure what they say: the same users for everybody, ratios within a round, tables as printed."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.run import as_markdown
from benchmarks.simulation import ratio, stream
from recbandits.agents.parameters import BestFixedArm
from recbandits.environments import StationaryLinearEnvironment
from recbandits.training.online import simulate


def test_the_stream_of_the_peer_is_what_our_agent_meets():
    """The best fixed arm on the exported stream earns what `simulate` reports."""
    environment = StationaryLinearEnvironment(num_actions=4, batch_size=8)
    observations, rewards = stream(environment, steps=10)
    assert observations.shape == (10, 8, 5)
    arm = environment.theta(0).numpy()[:, 0].argmax()
    reported = simulate(environment, BestFixedArm(), steps=10, points=1)["reward"].item()
    assert rewards[:, :, arm].mean() == pytest.approx(reported, rel=1e-5)


def test_a_ratio_is_a_median_with_its_range():
    assert ratio(np.array([3.0, 1000.0, 2.0])) == "3x (2 to 1,000)"


def test_tables_are_markdown():
    table = pd.DataFrame({"batch": [8], "here": ["57/s"]})
    assert as_markdown(table) == "| batch | here |\n| --- | --- |\n| 8 | 57/s |"
