"""Interactions per second of on-policy LinUCB, against TF-Agents' own loop and contextualbandits, interleaved.

One interaction is one user served, one reward revealed and learnt from, with regret, share of sub-optimal arms and mean
reward recorded. TF-Agents runs as in its tutorials: DynamicStepDriver, BanditReplayBuffer, LinearUCBAgent and the three
metrics. Every round runs the contenders one after the other; a ratio is formed within a round.
"""

import statistics
import tempfile
import time
from pathlib import Path

from recbandits.tf import tf

import numpy as np
import pandas as pd
from tf_agents.bandits.agents import lin_ucb_agent
from tf_agents.bandits.environments import movielens_py_environment
from tf_agents.bandits.metrics import tf_metrics as bandit_metrics
from tf_agents.bandits.replay_buffers import bandit_replay_buffer
from tf_agents.drivers import dynamic_step_driver
from tf_agents.environments import tf_py_environment
from tf_agents.metrics import tf_metrics

from benchmarks.peer_contextualbandits import contextualbandits
from recbandits.agents.parameters import LinUCB
from recbandits.environments.factorization import svd
from recbandits.environments.movielens import MovieLensEnvironment
from recbandits.training.online import simulate

RANK = 20
PARAMETERS = LinUCB()
SIZES = [(8, 20), (128, 20), (128, 100)]
ROUNDS = 5
STEPS = {8: 5000, 128: 1500}


def measure(data):
    """Measure all sizes.

    Args:
      data: MovieLens

    Returns:
      One table of text, a row per batch size and number of arms, and one for tracing with every movie an arm.
    """
    ratings, rows = data.ratings, []
    for batch_size, num_actions in SIZES:
        environment = MovieLensEnvironment(svd(ratings, RANK, num_movies=num_actions), num_actions, batch_size)
        contenders = [
            own_loop(environment, STEPS[batch_size]),
            tf_agents(ratings, batch_size, num_actions),
            contextualbandits(*stream(environment, STEPS[batch_size]), PARAMETERS),
        ]
        rounds = [[contender() for contender in contenders] for _ in range(ROUNDS + 1)]
        rounds = np.array(rounds, float)[1:]  # one warms up, None becomes NaN
        speed = [statistics.median(column) for column in rounds.T]
        rows.append(
            {
                "batch": batch_size,
                "arms": num_actions,
                "here": f"{speed[0]:,.0f}/s",
                "TF-Agents": f"{speed[1]:,.0f}/s",
                "ratio": ratio(rounds[:, 0] / rounds[:, 1]),
                "contextualbandits": "does not install here" if np.isnan(speed[2]) else f"{speed[2]:,.0f}/s",
                "ratio to contextualbandits": "" if np.isnan(speed[2]) else ratio(rounds[:, 0] / rounds[:, 2]),
            }
        )
    movies = ratings["movie_id"].max()
    environment = MovieLensEnvironment(svd(ratings, RANK), movies, 128)
    start = time.perf_counter()
    simulate(environment, PARAMETERS, steps=1, points=1)
    tracing = f"traced, first step done: {time.perf_counter() - start:.1f} s"
    rows.append({"batch": 128, "arms": movies, "here": tracing})
    return {"Interactions per second of on-policy LinUCB": pd.DataFrame(rows).fillna("")}


def ratio(values):
    """Median and range of ratios, as text."""
    return f"{statistics.median(values):,.0f}x ({min(values):,.0f} to {max(values):,.0f})"


def own_loop(environment, steps):
    """Interactions per second of `simulate`, as called by a user; tracing is in the difference of two lengths."""

    def seconds(length):
        start = time.perf_counter()
        simulate(environment, PARAMETERS, length, points=1)
        return time.perf_counter() - start

    def run():
        return steps * environment.batch_size / (seconds(steps + 1) - seconds(1))

    return run


def tf_agents(ratings, batch_size, num_actions):
    """Interactions per second of TF-Agents' own loop on its own MovieLens environment."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "u.data"
        table = ratings[["user_id", "movie_id", "rating"]].astype(int).assign(time=0)
        table.to_csv(path, sep="\t", header=False, index=False)
        source = movielens_py_environment.MovieLensPyEnvironment(
            str(path), RANK, batch_size, num_actions, csv_delimiter="\t"
        )
    environment = tf_py_environment.TFPyEnvironment(source)
    agent = lin_ucb_agent.LinearUCBAgent(
        environment.time_step_spec(),
        environment.action_spec(),
        alpha=PARAMETERS.alpha,
        tikhonov_weight=PARAMETERS.tikhonov,
        dtype=tf.float32,
    )
    buffer = bandit_replay_buffer.BanditReplayBuffer(agent.policy.trajectory_spec, batch_size, max_length=1)
    metrics = [
        bandit_metrics.RegretMetric(lambda _: source.compute_optimal_reward().astype(np.float32)),
        bandit_metrics.SuboptimalArmsMetric(lambda _: source.compute_optimal_action().astype(np.int32)),
        tf_metrics.AverageReturnMetric(batch_size=batch_size),
    ]
    driver = dynamic_step_driver.DynamicStepDriver(
        environment, agent.collect_policy, observers=[buffer.add_batch, *metrics], num_steps=batch_size
    )

    def loop(times):
        for _ in range(times):
            driver.run()
            experience, _ = next(iter(buffer.as_dataset(batch_size, num_steps=1, single_deterministic_pass=True)))
            agent.train(experience)
            buffer.clear()

    def run(at_least=1.5):
        start, steps = time.perf_counter(), 0
        while time.perf_counter() - start < at_least:
            loop(2)
            steps += 2
        return steps * batch_size / (time.perf_counter() - start)

    return run


def stream(environment, steps):
    """The same users as those of `simulate`: observations [steps, batch, rank] and rewards [steps, batch, arms]."""
    environment.restart(0)
    observations, rewards = [], []
    for _ in range(steps):
        batch = environment.batch()
        observations.append(batch.observation.numpy())
        rewards.append(batch.expected_reward.numpy())
        environment.advance()
    return np.stack(observations), np.stack(rewards)
