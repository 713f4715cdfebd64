"""An agent that returns to the start of a seed has the variables with which that seed makes it."""

import pytest
import tensorflow as tf

from recbandits.agents.factory import make_agent
from recbandits.agents.parameters import NAMES
from recbandits.agents.ranking.parameters import RANKING_NAMES
from recbandits.environments import StationaryLinearEnvironment, SyntheticRankingEnvironment
from recbandits.training.checkpoints import Restart
from tests.variables import assert_values, read_values

WITHOUT_FACTORIZATION = sorted({*RANKING_NAMES} - {"als_ranking"})  # the baseline has no variable but its seeds


@pytest.mark.parametrize("name", [*NAMES, *WITHOUT_FACTORIZATION])
def test_an_agent_returns_to_the_start_of_every_seed(name):
    if name in NAMES:
        environment = StationaryLinearEnvironment(num_actions=4, context_size=3, batch_size=8)
    else:
        environment = SyntheticRankingEnvironment(num_items=6, num_slots=3, context_size=2)
    agent = make_agent(name, environment, 1)
    restart = Restart(agent, environment)
    for seed in (2, 3):  # the first one makes an agent to read its values, the second one does not
        for variable in agent.variables:
            variable.assign(tf.ones_like(variable))
        restart(seed)
        assert_values(read_values(agent), read_values(make_agent(name, environment, seed)))
