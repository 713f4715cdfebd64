"""The contenders of the ranking benchmark do the same work, and a row says what was measured."""

import numpy as np
import pytest

from benchmarks import ranking
from recbandits.agents.factory import make_agent
from recbandits.agents.ranking.parameters import Ranking
from recbandits.environments.synthetic_ranking import SyntheticRankingEnvironment


def test_a_row_has_both_speeds_and_their_ratio():
    row = ranking.row(4, 8, 2, "no_penalty", loops=2000, rounds=1)
    here, there = (float(row[name].removesuffix("/s").replace(",", "")) for name in ("here", "TF-Agents"))
    assert here > there > 0
    assert float(row["ratio"].split("x")[0].replace(",", "")) == pytest.approx(here / there, rel=0.1)
    assert float(row["300 loops here"].removesuffix(" s")) >= 300 / here - 0.1
    assert float(row["300 loops of TF-Agents"].removesuffix(" s")) == pytest.approx(300 / there, rel=0.1)


def test_their_network_has_the_shapes_of_ours():
    environment, parameters = SyntheticRankingEnvironment(8, 2, batch_size=4), Ranking(layers=(6, 3))
    run, theirs = ranking.tf_agents(environment, parameters)
    before = [variable.numpy() for variable in theirs.trainable_variables]
    assert run(1) > 0
    ours = make_agent(parameters, environment).model.network.trainable_variables
    assert [variable.shape for variable in theirs.trainable_variables] == [variable.shape for variable in ours]
    assert any((one != two.numpy()).any() for one, two in zip(before, theirs.trainable_variables, strict=True))
    assert all(np.isfinite(variable).all() for variable in theirs.trainable_variables)
