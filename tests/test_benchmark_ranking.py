"""The contenders of the ranking benchmark do the same work, and a row says what was measured."""

from types import SimpleNamespace

import numpy as np

from benchmarks import ranking
from recbandits.agents.factory import make_agent
from recbandits.agents.ranking.parameters import Ranking
from recbandits.environments import SyntheticRankingEnvironment


def test_a_row_has_both_speeds_their_ratio_by_round_and_the_time_of_300_loops():
    """Medians 600/s and 4/s; rounds of 150x, 100x and 225x; 0.4 s + 300 / 600 and 300 / 4."""
    assert ranking.as_text([0.4, 0.3, 0.5], np.array([600.0, 500.0, 900.0]), np.array([4.0, 5.0, 4.0])) == {
        "here": "600/s",
        "TF-Agents": "4/s",
        "ratio": "150x (100 to 225)",
        "300 batches here": "0.9 s",
        "300 batches of TF-Agents": "75 s",
    }


def test_a_weight_of_an_item_has_two_operations_for_each_item_and_two_for_each_slot():
    """The towers of the context come first; the others have 10 + 2 weights: 4 users, 12 weights, 16 + 4 operations."""
    shapes = [(2, 3), (3,), (3, 1), (1,), (5, 2), (2,), (2, 1), (1,)]
    network = SimpleNamespace(trainable_variables=[np.zeros(shape) for shape in shapes])
    assert len(ranking.LAYERS) == 2
    assert ranking.count_operations(network, batch_size=4, num_items=8, num_slots=2) == 4 * 12 * (16 + 4)


def test_their_network_has_the_shapes_of_ours():
    environment, parameters = SyntheticRankingEnvironment(8, 2, batch_size=4), Ranking(layers=(6, 3))
    run, peer_network = ranking.tf_agents(environment, parameters)
    initial_values = [variable.numpy() for variable in peer_network.trainable_variables]
    assert run(1) > 0
    own_variables = make_agent(parameters, environment).model.network.trainable_variables
    assert [variable.shape for variable in peer_network.trainable_variables] == [
        variable.shape for variable in own_variables
    ]
    assert any(
        (initial != variable.numpy()).any()
        for initial, variable in zip(initial_values, peer_network.trainable_variables, strict=True)
    )
    assert all(np.isfinite(variable).all() for variable in peer_network.trainable_variables)
