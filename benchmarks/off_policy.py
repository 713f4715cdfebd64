"""Off-policy evaluation: how fast it is, and how right every estimator and its interval are on logs of known truth."""

import os
import statistics
import time
from contextlib import contextmanager

import numpy as np
import pandas as pd

from benchmarks.peer_obp import open_bandit_pipeline
from benchmarks.synthetic_log import REWARDS, draw_logs, make_world
from recbandits.evaluation import estimators, off_policy
from recbandits.records.bandit_log import BanditLog

DECISIONS, CANDIDATES, ROUNDS = 1_000_000, 20, 5
NAMES = ("IPS", "SNIPS", "DR")
REPLICATIONS, LOG_SIZE = 500, 2000
CLIP, THRESHOLD, SHRINKAGE = 3.0, 3.0, 10.0


def measure(_data):
    """Measure speed and accuracy; both are on synthetic logs.

    Returns:
      dict from title to DataFrame of text.
    """
    return {
        f"{DECISIONS:,} decisions among {CANDIDATES} candidates on one core: IPS, SNIPS and DR": speed(),
        f"Bias, RMSE, share of 95 % intervals with the truth: {REPLICATIONS} logs of {LOG_SIZE:,}": as_text(accuracy()),
    }


def speed(decisions=DECISIONS, rounds=ROUNDS):
    """Seconds for validation and estimates from arrays [decisions, candidates], beside Open Bandit Pipeline's.

    Returns:
      DataFrame of text, a row for the values alone and one with intervals.
    """
    with one_core():
        arrays = draw_arrays(decisions)
        peer = open_bandit_pipeline(arrays)
        log, (probabilities, q) = as_log(arrays), (arrays["probabilities"], arrays["q"])
        measured = []
        for _ in range(rounds + 1):
            start = time.perf_counter()
            values = [estimate.value for estimate in off_policy.estimates(log, probabilities, q, names=NAMES).values()]
            estimated = time.perf_counter()
            off_policy.evaluate(log, probabilities, q, names=NAMES)
            measured.append((estimated - start, time.perf_counter() - estimated, peer()))
    here = [statistics.median(column) for column in list(zip(*measured[1:], strict=True))[:2]]  # one round warms up
    table = pd.DataFrame({"": ["values", "values and intervals"], "here": [f"{seconds:.2f} s" for seconds in here]})
    answers = [answer for _, _, answer in measured[1:] if answer]
    if not answers:
        return table.assign(**{"Open Bandit Pipeline": "does not install here", "ratio": "", "values differ by": ""})
    there = [statistics.median(answer[column] for answer in answers) for column in (0, 1)]
    return table.assign(
        **{
            "Open Bandit Pipeline": [f"{seconds:.2f} s" for seconds in there],
            "ratio": [f"{theirs / ours:.1f}x" for ours, theirs in zip(here, there, strict=True)],
            "values differ by": f"{np.abs(np.subtract(values, answers[0][2])).max():.0e}",
        }
    )


def accuracy(replications=REPLICATIONS, n=LOG_SIZE, seed=1):
    """Judge every estimator by logs of known truth.

    Args:
      replications: number of logs.
      n: decisions in each.
      seed: of the logs.

    Returns:
      DataFrame indexed by (rewards, estimator) with columns bias, rmse, standard_error (of the bias), coverage (of
      normal intervals) and bernstein (coverage of empirical Bernstein intervals), as `coverage` computes it.
    """
    world, rows = make_world(), {}
    for rewards in REWARDS:
        logs = draw_logs(world, rewards, n, replications, seed)
        judged = [judge({name: column[i] for name, column in logs.items()}, i) for i in range(replications)]
        for name in judged[0]:
            found = [estimates[name] for estimates in judged]
            error = np.array([estimate.value for estimate in found]) - world.truth
            rows[rewards, name] = {
                "bias": error.mean(),
                "rmse": np.sqrt((error**2).mean()),
                "standard_error": error.std(ddof=1) / np.sqrt(replications),
                "coverage": coverage([estimate.interval() for estimate in found], world.truth),
                "bernstein": coverage([estimate.interval("bernstein") for estimate in found], world.truth),
            }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["rewards", "estimator"])


def judge(log, seed):
    """Estimates by every estimator of one log of `draw_logs`."""
    logged = (log["reward"], log["propensity"], log["target"])
    modelled = (*logged, log["q_action"], log["q_target"])
    return {
        "replay": estimators.replay(*logged, generator=np.random.default_rng(seed)),
        "IPS": estimators.ips(*logged),
        f"clipped IPS ({CLIP:g})": estimators.clipped_ips(*logged, CLIP),
        "SNIPS": estimators.snips(*logged),
        "DM": estimators.direct_method(log["q_target"]),
        "DR": estimators.dr(*modelled),
        "SNDR": estimators.sndr(*modelled),
        f"Switch-DR ({THRESHOLD:g})": estimators.switch_dr(*modelled, THRESHOLD),
        f"DRos ({SHRINKAGE:g})": estimators.dr_os(*modelled, SHRINKAGE),
    }


def as_text(table):
    """A row per estimator, a column per kind of reward: bias, RMSE, coverage."""
    cells = [f"{row.bias:+.3f}, {row.rmse:.3f}, {row.coverage:.1%}".replace("%", " %") for row in table.itertuples()]
    wide = pd.Series(cells, table.index).unstack("rewards")
    return wide.loc[table.index.unique("estimator"), list(REWARDS)].reset_index().rename_axis(columns=None)


def coverage(bounds, truth):
    """Share of the given intervals that contain the truth; NaN where fewer than half of the logs have one."""
    low, high = np.array(bounds).T
    given = ~np.isnan(low)
    return np.mean((low <= truth) & (truth <= high), where=given) if given.mean() >= 0.5 else np.nan


def covers(interval, truth):
    return interval[0] <= truth <= interval[1]


def draw_arrays(decisions, candidates=CANDIDATES, seed=0):
    """Log of random policies as arrays [decisions] and [decisions, candidates], rewards from 0 to 1."""
    generator = np.random.default_rng(seed)
    logging_policy = 0.1 / candidates + 0.9 * generator.dirichlet(np.ones(candidates), decisions)
    action = (logging_policy.cumsum(axis=1) <= generator.random((decisions, 1))).sum(axis=1).clip(max=candidates - 1)
    return {
        "reward": generator.random(decisions),
        "action": action,
        "propensity": logging_policy[np.arange(decisions), action],
        "probabilities": generator.dirichlet(np.ones(candidates), decisions),
        "q": generator.random((decisions, candidates)),
    }


def as_log(arrays):
    """The same as a `BanditLog`."""
    n, k = arrays["q"].shape
    return BanditLog(
        event_id=np.arange(n).astype(str),
        time=np.full(n, np.datetime64("2026-01-01", "us")),
        user_id=np.arange(n),
        candidates=np.tile(np.arange(1, k + 1), (n, 1)),
        mask=np.ones((n, k), bool),
        pass_prob=np.ones(n),
        **{name: arrays[name] for name in ("action", "propensity", "reward")},
    )


@contextmanager
def one_core():
    """Let this process, and those it starts, run on one core; where the system cannot say so, on all."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
