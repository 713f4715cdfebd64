"""Milliseconds to an answer in one process: what PolicySaver writes, and a directory that recommends by raw columns.

LinUCB learns in a simulation. TF-Agents' own LinearUCBAgent gets the same statistics and is saved by PolicySaver, as
its tutorials do; the others are in the directory that `serving.policy.export` writes. TF-Agents' policies and the plain
signature get observations ready made; `recommend` and `decide` get raw columns and text ids, encode them, explore, and
return the propensity of the drawn movie. Every round calls all of them in turn; a ratio is formed within a round.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

from recbandits.tf import tf

import numpy as np
import pandas as pd
from tf_agents.policies import policy_saver
from tf_agents.trajectories import time_step as ts

from benchmarks.profiles import choose
from benchmarks.simulation import linear_ucb, ratio
from recbandits.agents.factory import make_agent
from recbandits.agents.parameters import EpsilonGreedy, LinUCB
from recbandits.environments.factorization import als
from recbandits.environments.movielens import MovieLensEnvironment
from recbandits.serving.policy import Exploration, export, load
from recbandits.serving.saved_model import write
from recbandits.training.online import simulate

CASES = [  # agent, arms, users per request
    (LinUCB(), 20, 1),
    (LinUCB(), 100, 128),
    (EpsilonGreedy(), 20, 1),
]
ROUNDS, STARTS = choose(5, 2), choose(3, 1)
CALLS, PATIENCE = choose(1000, 200), 2.0  # at most so many calls, or seconds, of each contender in a round
EXPLORATION = Exploration("epsilon_greedy", 0.1)
OWN_POLICY = "raw columns, explored"

PROCESS = """
import json, sys, time
start = time.perf_counter()
{code}
first = time.perf_counter() - start
import psutil
print(json.dumps([first, psutil.Process().memory_info().rss / 2**20]))
"""
RECOMMEND = "from recbandits.serving.policy import load; load({directory!r}).recommend({context})"
ACTION = """
import os
os.environ["TF_USE_LEGACY_KERAS"] = "1"
import tensorflow as tf
from tf_agents.trajectories import time_step as ts
model = tf.saved_model.load({directory!r})
model.action(ts.restart(tf.constant({observation}), 1))
"""


def measure(data):
    """Measure all cases, and two processes that serve."""
    factorization = als(data.ratings)
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for number, case in enumerate(CASES):
            rows += tabulate_latencies(case, make_contenders(factorization, *case, Path(folder, str(number))))
        processes = pd.DataFrame(measure_processes(factorization, Path(folder, "0")))
    return {
        f"Milliseconds to an answer in one process, {ROUNDS} rounds": pd.DataFrame(rows),
        "A process that serves: seconds from its start to the first answer, and memory then": processes,
    }


def make_contenders(factorization, parameters, num_actions, batch_size, folder):
    """Train an agent in a simulation, write its policies into a folder, and make the functions that are measured.

    Returns:
      dict from name to a function without arguments that gives actions, int [batch_size]; the first is what others are
      compared with. Those of a linear agent choose among fixed arms, others among candidates with features.
    """
    linear = isinstance(parameters, LinUCB)
    environment = MovieLensEnvironment(factorization, num_actions, 128, per_arm=not linear)
    agent = make_agent(parameters, environment)
    simulate(environment, agent, steps=200, points=1)
    users = environment.user_ids[:batch_size]
    movies = np.tile(environment.movie_ids[:num_actions], (batch_size, 1))
    observation = tf.nest.map_structure(tf.constant, environment.features.observation(users, movies))
    observation = observation["global"] if linear else observation
    arms = environment.movie_ids if linear else None
    export(agent.policy, folder / "ours", environment.features, exploration=EXPLORATION, arms=arms)
    write(agent.policy, None, str(folder / "saved"))
    contenders = {"our action, PolicySaver": load_action(folder / "saved", observation, batch_size)}
    if linear:
        peer_policy = make_peer_policy(environment, agent.model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the warning that loading it needs TensorFlow Probability
            policy_saver.PolicySaver(peer_policy).save(str(folder / "theirs"))
        contenders = {
            "TF-Agents' LinUCB, PolicySaver": load_action(folder / "theirs", observation, batch_size)
        } | contenders
    contenders["plain signature"] = load_plain_signature(folder / "ours", observation)
    contexts = environment.features.contexts(users)
    contenders[OWN_POLICY] = make_recommender(load(folder / "ours"), contexts, None if linear else movies.astype(str))
    return contenders


def tabulate_latencies(case, contenders, rounds=ROUNDS, calls=CALLS, patience=PATIENCE):
    """Rows of the table: dicts from column to text, one for each contender."""
    parameters, num_actions, batch_size = case
    for ask in contenders.values():
        ask()
    round_latencies = [
        {name: measure_latencies(ask, calls, patience) for name, ask in contenders.items()} for _ in range(rounds)
    ]
    reference = next(iter(contenders))
    for name in contenders:
        milliseconds = np.concatenate([part[name] for part in round_latencies]) * 1000
        speedups = [statistics.median(part[reference]) / statistics.median(part[name]) for part in round_latencies]
        yield {
            "agent": type(parameters).__name__,
            "arms": num_actions,
            "users": batch_size,
            "answered by": name,
            "p50": f"{np.quantile(milliseconds, 0.5):.3f}",
            "p99": f"{np.quantile(milliseconds, 0.99):.3f}",
            "faster": "" if name == reference else ratio(np.array(speedups)),
        }


def measure_latencies(ask, calls, patience):
    """Seconds of each call, as many as fit."""
    latencies, end = [], time.perf_counter() + patience
    while len(latencies) < calls and time.perf_counter() < end:
        start = time.perf_counter()
        ask()
        latencies.append(time.perf_counter() - start)
    return latencies


def measure_processes(factorization, folder, starts=STARTS):
    """Rows for a process with the exported policy and for one with TF-Agents': medians of some starts."""
    features, user = factorization.features(), int(factorization.user_ids[0])
    observation = features.features.context(features.encode_users([user])).tolist()
    codes = {
        "recommend": RECOMMEND.format(directory=str(folder / "ours"), context=features.context_of(user)),
        "action, PolicySaver": ACTION.format(directory=str(folder / "theirs"), observation=observation),
    }
    for name, code in codes.items():
        program = [sys.executable, "-c", PROCESS.format(code=code)]
        measurements = [
            json.loads(subprocess.run(program, check=True, stdout=subprocess.PIPE).stdout) for _ in range(starts)
        ]
        seconds, megabytes = np.median(measurements, axis=0)
        yield {"answered by": name, "first answer": f"{seconds:.2f} s", "memory": f"{megabytes:.0f} MB"}


def make_peer_policy(environment, model):
    """TF-Agents' LinUCB with the statistics of our model."""
    agent = linear_ucb(environment)
    for variables, values in ((agent.cov_matrix, model.covariance), (agent.data_vector, model.response)):
        for variable, value in zip(variables, tf.unstack(values), strict=True):
            variable.assign(tf.cast(value, tf.float32))
    return agent.policy


def load_action(folder, observation, batch_size):
    """The `action` of a SavedModel."""
    model, time_step = tf.saved_model.load(str(folder)), ts.restart(observation, batch_size)
    return lambda: model.action(time_step).action.numpy()


def load_plain_signature(folder, observation):
    """The plain signature, and the best of its scores."""
    model = tf.saved_model.load(str(folder))
    score, inputs = model.signatures["serving_default"], {"context": observation}
    if isinstance(observation, dict):
        inputs = {"context": observation["global"], "per_arm": observation["per_arm"]}
    return lambda: score(**inputs)["scores"].numpy().argmax(axis=1)


def make_recommender(policy, contexts, candidates):
    """`recommend` for one request, `decide` for more, with the propensity of the drawn item."""
    if len(contexts) > 1:
        return lambda: policy.decide(contexts, candidates).action
    context, candidates = contexts.to_dict("records")[0], policy.candidates if candidates is None else candidates[0]
    columns = {item: column for column, item in enumerate(candidates.tolist())}
    candidate_ids = None if candidates is policy.candidates else list(columns)
    return lambda: [columns[policy.recommend(context, candidate_ids).item_ids[0]]]
