"""Interactions per second and regret of on-policy LinUCB, against other projects, interleaved.

One interaction is one user served, one reward revealed and learnt from, with regret recorded. All contenders meet the
same users in the same order, and learn from a batch after it was served. TF-Agents runs as in its tutorials:
DynamicStepDriver, BanditReplayBuffer, LinearUCBAgent and the three metrics. Every round runs the contenders one after
the other; a ratio is formed within a round. The first round warms up, and gives the regret.
"""

import itertools
import statistics
import time

from recbandits.tf import tf

import numpy as np
import pandas as pd
from tf_agents.bandits.agents import lin_ucb_agent
from tf_agents.bandits.environments import bandit_py_environment
from tf_agents.bandits.metrics import tf_metrics as bandit_metrics
from tf_agents.bandits.replay_buffers import bandit_replay_buffer
from tf_agents.drivers import dynamic_step_driver
from tf_agents.environments import tf_py_environment
from tf_agents.metrics import tf_metrics
from tf_agents.specs import array_spec
from tf_agents.utils import common

from benchmarks.bound import as_share, count_linear_operations, measure_gemm
from benchmarks.peer_online import start_peers
from benchmarks.profiles import choose
from recbandits.agents.parameters import LinUCB
from recbandits.environments.factorization import svd
from recbandits.environments.movielens import MovieLensEnvironment
from recbandits.training.online import simulate

RANK = 20
PARAMETERS = LinUCB()
SIZES = [(8, 20), (128, 20), (128, 100)]
ROUNDS, SECONDS = choose(5, 2), choose(2.0, 0.5)  # of each contender in a round, except ours
STEPS = {8: choose(5000, 1000), 128: choose(1500, 300)}  # in a round
REGRET_STEPS = {8: choose(256, 32), 128: choose(80, 8)}
OWN, NOT_INSTALLED = "RecBandits", "does not install here"


def measure(data):
    """Measure all sizes, and tracing with every movie an arm."""
    rows = [row for size in SIZES for row in compare(data.ratings, *size)]
    movies = data.ratings["movie_id"].max()
    environment = MovieLensEnvironment(svd(data.ratings, RANK), movies, 128)
    traced = f"{seconds(environment, PARAMETERS, 1):.1f} s"
    tracing = pd.DataFrame([{"batch": 128, "arms": f"{movies:,}", "traced, first step done": traced}])
    title = "Interactions per second of on-policy LinUCB, and its mean regret at the start [rating points]"
    return {title: pd.DataFrame(rows), "A simulation with every movie an arm": tracing}


def compare(ratings, batch_size, num_actions):
    """Measure one size; return the rows of its contenders, ours first."""
    environment = MovieLensEnvironment(svd(ratings, RANK, num_movies=num_actions), num_actions, batch_size)
    observations, rewards = stream(environment, STEPS[batch_size])
    steps = REGRET_STEPS[batch_size]
    contenders = {
        OWN: own_loop(environment, STEPS[batch_size]),
        "TF-Agents": tf_agents(observations, rewards, steps),
        **start_peers(observations, rewards, PARAMETERS, steps, SECONDS),
    }
    regret = {name: answer[1] for name in list(contenders)[1:] if (answer := contenders[name]())}
    regret[OWN] = simulate(environment, PARAMETERS, steps, points=1)["regret"].item()
    rates, rounds = [], []
    for _ in range(ROUNDS):
        rates.append(measure_gemm())
        rounds.append(
            {OWN: contenders[OWN]()} | {name: (contenders[name]() or [np.nan])[0] for name in regret if name != OWN}
        )
    speeds = pd.DataFrame(rounds)
    bound = statistics.median(rates) / count_linear_operations(num_actions, RANK)
    for name in contenders:
        row = {"batch": batch_size, "arms": num_actions, "project": name}
        if name not in regret:
            yield row | {"interactions": NOT_INSTALLED, "ratio": "", "share of the bound": "", "regret": ""}
            continue
        speed = speeds[name].median()
        yield row | {
            "interactions": f"{speed:,.0f}/s",
            "ratio": "" if name == OWN else ratio(speeds[OWN] / speeds[name]),
            "share of the bound": as_share(speed / bound),
            "regret": f"{regret[name]:.3f} after {steps * batch_size:,}",
        }


def ratio(values):
    """Median and range of ratios, as text."""
    return f"{statistics.median(values):,.0f}x ({min(values):,.0f} to {max(values):,.0f})"


def own_loop(environment, steps):
    """Interactions per second of `simulate`, as called by a user; tracing is in the difference of two lengths."""

    def run():
        long, short = (seconds(environment, PARAMETERS, length) for length in (steps + 1, 1))
        return steps * environment.batch_size / (long - short)

    return run


def seconds(environment, parameters, steps):
    """Seconds that `simulate` takes, as called by a user."""
    start = time.perf_counter()
    simulate(environment, parameters, steps, points=1)
    return time.perf_counter() - start


def linear_ucb(environment):
    """TF-Agents' LinUCB with our parameters, for one of its environments."""
    specs = environment.time_step_spec(), environment.action_spec()
    options = {"alpha": PARAMETERS.alpha, "tikhonov_weight": PARAMETERS.tikhonov}
    return lin_ucb_agent.LinearUCBAgent(*specs, **options, dtype=tf.float32)


class StreamEnvironment(bandit_py_environment.BanditPyEnvironment):
    """Environment of TF-Agents that serves recorded batches, from the first one again after the last."""

    def __init__(self, observations, rewards):
        self._observations, self._rewards = observations, rewards
        self.restart()
        arms = rewards.shape[2]
        super().__init__(
            array_spec.ArraySpec(observations.shape[2:], np.float32, "observation"),
            array_spec.BoundedArraySpec((), np.int32, 0, arms - 1, "action"),
        )

    @property
    def batch_size(self):
        return self._rewards.shape[1]

    @property
    def batched(self):
        return True

    def restart(self):
        self._next = 0

    def _observe(self):
        self._next += 1
        return self._observations[(self._next - 1) % len(self._rewards)]

    def _apply_action(self, action):
        return self._rewards[(self._next - 1) % len(self._rewards)][np.arange(self.batch_size), action]


def tf_agents(observations, rewards, regret_steps):
    """Make the function that runs TF-Agents' own loop, driver and training as graphs.

    Its first call starts with the stream and takes so many steps, others continue for `SECONDS`. It returns
    interactions per second and mean regret.
    """
    source = StreamEnvironment(observations, rewards)
    batch_size, environment = source.batch_size, tf_py_environment.TFPyEnvironment(source)
    agent = linear_ucb(environment)
    expected = expected_rewards(observations, rewards)
    buffer = bandit_replay_buffer.BanditReplayBuffer(agent.policy.trajectory_spec, batch_size, max_length=1)
    metrics = [
        bandit_metrics.RegretMetric(lambda observation: tf.reduce_max(expected(observation), axis=1)),
        bandit_metrics.SuboptimalArmsMetric(lambda observation: tf.argmax(expected(observation), 1, tf.int32)),
        tf_metrics.AverageReturnMetric(batch_size=batch_size),
    ]
    driver = dynamic_step_driver.DynamicStepDriver(
        environment, agent.collect_policy, observers=[buffer.add_batch, *metrics], num_steps=batch_size
    )
    collect, train = common.function(driver.run), common.function(agent.train)
    source.restart()
    environment.reset()

    lengths = itertools.chain([regret_steps], itertools.repeat(None))

    def run():
        steps, count, regret, start = next(lengths), 0, 0.0, time.perf_counter()
        while count < steps if steps else time.perf_counter() - start < SECONDS:
            collect()
            experience, _ = next(iter(buffer.as_dataset(batch_size, num_steps=1, single_deterministic_pass=True)))
            train(experience)
            buffer.clear()
            regret += metrics[0].result().numpy()
            count += 1
        return count * batch_size / (time.perf_counter() - start), regret / count

    return run


def expected_rewards(observations, rewards):
    """Make the function from observations [n, rank] to rewards [n, arms], tensors: the linear one behind a stream.

    TF-Agents' metrics are graphs, so a baseline must be computed from the observations that they are given.
    """
    rank, arms = observations.shape[-1], rewards.shape[-1]
    weights = np.linalg.lstsq(observations.reshape(-1, rank), rewards.reshape(-1, arms))[0]
    return lambda observation: observation @ tf.constant(weights, tf.float32)


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
