"""Loops per second of on-policy ranking, against TF-Agents' own loop, interleaved.

One loop is one batch of users served a slate, their clicks revealed and learnt from. TF-Agents runs as in its example
`train_eval_ranking`: the environment with explicit positional bias, RankingAgent, DynamicStepDriver and
BanditReplayBuffer, without checkpoints and summaries. The sizes, features, click model, networks and samplers are the
same on both sides. Every round runs the contenders one after the other; a ratio is formed within a round.
"""

import logging
import math
import statistics
import time

from recbandits.tf import tf

import numpy as np
import pandas as pd
from tf_agents.bandits.agents import ranking_agent
from tf_agents.bandits.environments import ranking_environment
from tf_agents.bandits.networks import global_and_arm_feature_network
from tf_agents.bandits.replay_buffers import bandit_replay_buffer
from tf_agents.drivers import dynamic_step_driver
from tf_agents.environments import tf_py_environment
from tf_agents.specs import tensor_spec

from benchmarks.bound import as_share, measure_gemm
from benchmarks.profiles import choose
from benchmarks.simulation import ratio, seconds
from recbandits.agents.ranking.parameters import Ranking
from recbandits.agents.ranking.policy import slotted
from recbandits.data.features import GLOBAL, PER_ARM
from recbandits.environments import SyntheticRankingEnvironment

DATA = "simulated users"
SIZES = [  # users in a batch, candidates, slots, policy, loops measured; the last row has the sizes of the example
    (32, 100, 5, "no_penalty", 3000),
    (32, 100, 5, "cosine_distance", 2000),
    (128, 1001, 5, "cosine_distance", 200),
][: choose(3, 2)]
CONTEXT = 20  # hence 40 features of an item, as in the example
LAYERS = (40, 10)  # of every tower; those of the example are (40, 10), (40, 10) and (20, 10)
ROUNDS = choose(3, 1)
LOOPS = 300  # whose time is reported
_TYPES = {
    "no_penalty": ranking_agent.RankingPolicyType.NO_PENALTY,
    "cosine_distance": ranking_agent.RankingPolicyType.COSINE_DISTANCE,
}


def measure(_data):
    """Measure all sizes and policies; users and items are drawn anew."""
    logging.getLogger().setLevel(logging.ERROR)  # TensorFlow Probability warns of a class of TF-Agents at every call
    return {"Batches per second of an online ranking agent": pd.DataFrame([row(*size) for size in SIZES])}


def row(batch_size, num_items, num_slots, policy, loops, rounds=ROUNDS):
    """Measure one size and policy."""
    environment = SyntheticRankingEnvironment(num_items, num_slots, CONTEXT, batch_size)
    parameters = Ranking(policy=policy, layers=LAYERS)
    run_peer, network = tf_agents(environment, parameters)
    run_peer(1)  # warms up, as the line below
    seconds(environment, parameters, 1)
    speeds, tracing, rates = [], [], []
    for _ in range(rounds):
        rates.append(measure_gemm())
        tracing.append(seconds(environment, parameters, 1))
        speeds.append([loops / (seconds(environment, parameters, loops + 1) - tracing[-1]), run_peer()])
    description = {"batch": batch_size, "items": f"{num_items:,}", "slots": num_slots}
    description["policy"] = policy.replace("_", " ")
    share = np.median(np.array(speeds)[:, 0] / rates) * count_operations(network, batch_size, num_items, num_slots)
    return description | as_text(tracing, *np.array(speeds).T) | {"share of the bound": as_share(share)}


def count_operations(network, batch_size, num_items, num_slots):
    """Count the fewest floating-point operations of a batch.

    Each weight of the towers of an item takes 2 operations to score it, and 2 for its gradient if it was shown. The
    tower of the context, which comes first and is used once for a user, is left out.
    """
    weights = [math.prod(variable.shape) for variable in network.trainable_variables if len(variable.shape) == 2]
    return batch_size * sum(weights[len(LAYERS) :]) * (2 * num_items + 2 * num_slots)


def as_text(tracing, own_speeds, peer_speeds):
    """Speeds as the table says them; our time for `LOOPS` includes making the agent and tracing.

    `tracing` has the seconds of the first loop of each round, the others loops per second, float [rounds].
    """
    return {
        "here": f"{statistics.median(own_speeds):,.0f}/s",
        "TF-Agents": f"{statistics.median(peer_speeds):,.2g}/s",
        "ratio": ratio(own_speeds / peer_speeds),
        f"{LOOPS} batches here": f"{statistics.median(tracing) + LOOPS / statistics.median(own_speeds):.1f} s",
        f"{LOOPS} batches of TF-Agents": f"{LOOPS / statistics.median(peer_speeds):,.0f} s",
    }


def tf_agents(environment, parameters):
    """TF-Agents' own loop with the shapes and click model of one of our environments.

    Returns:
      (function that gives loops per second, of a number of loops or of a second's worth, the network that learns)
    """
    observation, generator = environment.observation_spec(), np.random.default_rng(0)
    num_items, size = observation[PER_ARM].shape
    context = observation[GLOBAL].shape[0]
    weights = generator.normal(size=(context, size)) / np.sqrt(context * size)
    examination = 1.0 / np.arange(1, environment.num_slots + 1) ** environment.clicks.eta
    source = ranking_environment.ExplicitPositionalBiasRankingEnvironment(
        lambda: generator.normal(size=context).astype(np.float32),
        lambda: generator.normal(size=size).astype(np.float32),
        lambda user, item: 1 / (1 + np.exp(-user @ weights @ item)),
        num_items,
        examination,
        environment.batch_size,
    )
    tf_environment = tf_py_environment.TFPyEnvironment(source)
    layers = parameters.layers
    network = global_and_arm_feature_network.create_feed_forward_common_tower_network(
        tf_environment.observation_spec(), layers, layers, layers
    )
    agent = ranking_agent.RankingAgent(
        tf_environment.time_step_spec(),
        tf_environment.action_spec(),
        network,
        tf.keras.optimizers.legacy.Adam(parameters.learning_rate),
        policy_type=_TYPES[parameters.policy],
        feedback_model=ranking_agent.FeedbackModel.SCORE_VECTOR,
        logits_temperature=parameters.temperature,
        penalty_mixture_coefficient=parameters.penalty,
        enable_summaries=False,
    )
    buffer = bandit_replay_buffer.BanditReplayBuffer(
        _slots_only(agent.policy.trajectory_spec, agent), source.batch_size
    )

    def add_to_buffer(trajectory):
        slot_observation = slotted(trajectory.observation, trajectory.action)
        buffer.add_batch(trajectory._replace(observation=slot_observation, action=(), policy_info=()))

    driver = dynamic_step_driver.DynamicStepDriver(
        tf_environment, agent.collect_policy, [add_to_buffer], num_steps=source.batch_size
    )

    def run(loops=None, at_least=1.0):
        start, count = time.perf_counter(), 0
        while count < loops if loops else time.perf_counter() - start < at_least:
            driver.run()
            batches = buffer.as_dataset(source.batch_size, num_steps=1, single_deterministic_pass=True)
            agent.train(next(iter(batches))[0])
            buffer.clear()
            count += 1
        return count / (time.perf_counter() - start)

    return run, network


def _slots_only(spec, agent):
    """Spec of the trajectories in the buffer: features of the slots' items, in order, instead of all candidates'."""
    items = spec.observation[PER_ARM]
    slot_features = tensor_spec.TensorSpec([agent.action_spec.shape[0], items.shape[-1]], items.dtype)
    observation = {GLOBAL: spec.observation[GLOBAL], PER_ARM: slot_features}
    return spec._replace(observation=observation, action=(), policy_info=())
