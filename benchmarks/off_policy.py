"""Off-policy evaluation: speed, and accuracy of every estimator and its interval on logs of known truth."""

import os
import statistics
import time
from contextlib import contextmanager

import numpy as np
import pandas as pd

from benchmarks.bound import as_share
from benchmarks.peer_obp import open_bandit_pipeline
from benchmarks.profiles import choose
from benchmarks.synthetic_log import REWARDS, draw_logs, make_environment
from recbandits.evaluation import estimators, off_policy
from recbandits.records.log import Log

DECISIONS, CANDIDATES, ROUNDS = choose(1_000_000, 200_000), 20, choose(5, 2)
DATA = "synthetic logs"
NAMES = ("IPS", "SNIPS", "DR")
REPLICATIONS, LOG_SIZE = choose(500, 50), 2000
CLIP, THRESHOLD, SHRINKAGE = 3.0, 3.0, 10.0


def measure(_data):
    """Measure speed and accuracy; both are on synthetic logs."""
    return {
        f"{DECISIONS:,} decisions among {CANDIDATES} candidates on one core: IPS, SNIPS and DR": speed(),
        f"Bias, RMSE, share of 95 % intervals with the truth: {REPLICATIONS} logs of {LOG_SIZE:,}": as_text(accuracy()),
    }


def speed(decisions=DECISIONS, rounds=ROUNDS):
    """Seconds for estimates from a `Log` and arrays [decisions, candidates], beside Open Bandit Pipeline's.

    The bound is the time in which NumPy adds up each array, so that all of them are read once.

    Returns:
      DataFrame of text, a row for the values alone and one with intervals.
    """
    with one_core():
        arrays = draw_arrays(decisions)
        peer = open_bandit_pipeline(arrays)
        log, (probabilities, q) = as_log(arrays), (arrays["probabilities"], arrays["q"])
        measurements = []
        for _ in range(rounds + 1):
            bound_start = time.perf_counter()
            for array in arrays.values():
                array.sum()
            start = time.perf_counter()
            values = [estimate.value for estimate in off_policy.estimates(log, probabilities, q, names=NAMES).values()]
            values_end = time.perf_counter()
            off_policy.evaluate(log, probabilities, q, names=NAMES)
            measurements.append((values_end - start, time.perf_counter() - values_end, start - bound_start, peer()))
    # the first round warms up
    *own_times, bound = (statistics.median(column) for column in list(zip(*measurements[1:], strict=True))[:3])
    table = pd.DataFrame(
        {
            "": ["values", "values and intervals"],
            "here": [f"{seconds:.2f} s" for seconds in own_times],
            "share of the bound": [as_share(bound / seconds) for seconds in own_times],
        }
    )
    peer_answers = [answer for *_, answer in measurements[1:] if answer]
    if not peer_answers:
        return table.assign(**{"Open Bandit Pipeline": "does not install here", "ratio": "", "values differ by": ""})
    peer_times = [statistics.median(answer[column] for answer in peer_answers) for column in (0, 1)]
    return table.assign(
        **{
            "Open Bandit Pipeline": [f"{seconds:.2f} s" for seconds in peer_times],
            "ratio": [
                f"{peer_time / own_time:.1f}x" for own_time, peer_time in zip(own_times, peer_times, strict=True)
            ],
            "values differ by": f"{np.abs(np.subtract(values, peer_answers[0][2])).max():.0e}",
        }
    )


def accuracy(replications=REPLICATIONS, n=LOG_SIZE, seed=1):
    """Evaluate every estimator on `replications` logs of `n` decisions, whose truth is known.

    Returns:
      DataFrame indexed by (rewards, estimator) with columns bias, rmse, standard_error (of the bias), coverage (of
      normal intervals) and bernstein (coverage of empirical Bernstein intervals), as `coverage` computes it.
    """
    environment, rows = make_environment(), {}
    for rewards in REWARDS:
        logs = draw_logs(environment, rewards, n, replications, seed)
        evaluations = [judge({name: column[i] for name, column in logs.items()}, i) for i in range(replications)]
        for name in evaluations[0]:
            estimates = [evaluation[name] for evaluation in evaluations]
            error = np.array([estimate.value for estimate in estimates]) - environment.truth
            rows[rewards, name] = {
                "bias": error.mean(),
                "rmse": np.sqrt((error**2).mean()),
                "standard_error": error.std(ddof=1) / np.sqrt(replications),
                "coverage": coverage([estimate.interval() for estimate in estimates], environment.truth),
                "bernstein": coverage([estimate.interval("bernstein") for estimate in estimates], environment.truth),
            }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["rewards", "estimator"])


def judge(log, seed):
    """Estimates by every estimator of one log of `draw_logs`."""
    log_columns = (log["reward"], log["propensity"], log["target"])
    model_columns = (*log_columns, log["q_action"], log["q_target"])
    return {
        "replay": estimators.replay(*log_columns, generator=np.random.default_rng(seed)),
        "IPS": estimators.ips(*log_columns),
        f"clipped IPS ({CLIP:g})": estimators.clipped_ips(*log_columns, CLIP),
        "SNIPS": estimators.snips(*log_columns),
        "DM": estimators.direct_method(log["q_target"]),
        "DR": estimators.dr(*model_columns),
        "SNDR": estimators.sndr(*model_columns),
        f"Switch-DR ({THRESHOLD:g})": estimators.switch_dr(*model_columns, THRESHOLD),
        f"DRos ({SHRINKAGE:g})": estimators.dr_os(*model_columns, SHRINKAGE),
    }


def as_text(table):
    """A row per estimator, a column per kind of reward: bias, RMSE, coverage."""
    cells = [f"{row.bias:+.3f}, {row.rmse:.3f}, {row.coverage:.1%}".replace("%", " %") for row in table.itertuples()]
    wide = pd.Series(cells, table.index).unstack("rewards")
    return wide.loc[table.index.unique("estimator"), list(REWARDS)].reset_index().rename_axis(columns=None)


def coverage(bounds, truth):
    """Share of the intervals that contain the truth; NaN where fewer than half of the logs have one."""
    low, high = np.array(bounds).T
    has_interval = ~np.isnan(low)
    return np.mean((low <= truth) & (truth <= high), where=has_interval) if has_interval.mean() >= 0.5 else np.nan


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
    """The same as a `Log`."""
    n, k = arrays["q"].shape
    return Log(
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
