"""Slate off-policy evaluation: speed, and accuracy of each estimator under each click model."""

import statistics
import time

import numpy as np
import pandas as pd

from benchmarks.peer_obp import open_bandit_pipeline_slates
from benchmarks.profiles import choose
from benchmarks.simulation import ratio
from benchmarks.slate_environment import CLICK_MODELS, enumerate_outcomes
from recbandits.evaluation.slates import SLATE_ESTIMATORS, slate_estimates
from recbandits.exploration import plackett_luce
from recbandits.records.slate_log import SlateLog

DATA = "synthetic logs"
RECORDS, ITEMS, SLOTS, ROUNDS = 20_000, 20, 5, choose(5, 2)
REPLICATIONS, LOG_SIZE = choose(500, 50), 1000


def measure(_data):
    """Measure speed, agreement with Open Bandit Pipeline, and accuracy; all on synthetic logs."""
    return {
        f"{RECORDS:,} slates of {SLOTS} from {ITEMS}: all estimators, beside Open Bandit Pipeline's": speed(),
        f"Bias / RMSE / share of 95 % intervals with the truth, in %: {REPLICATIONS} logs of {LOG_SIZE:,} slates": (
            as_text(accuracy())
        ),
    }


def speed(records=RECORDS, rounds=ROUNDS):
    """Seconds for all estimates, median of rounds that take turns, and by how much each differs from the peer's.

    Returns:
      DataFrame of text with one row.
    """
    arrays = draw_arrays(records)
    log = SlateLog(
        event_id=[f"{row}" for row in range(records)],
        user_id=np.arange(records),
        candidates=np.tile(np.arange(ITEMS), (records, 1)),
        **{name: arrays[name] for name in ("slate", "reward", "propensity", "position_propensity")},
    )
    target = {name: arrays[name] for name in arrays if name == "q" or name.startswith("target")}
    peer, measurements = open_bandit_pipeline_slates(arrays), []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        values = {name: estimate.value for name, estimate in slate_estimates(log, **target).items()}
        measurements.append((time.perf_counter() - start, peer()))
    own_times, answers = zip(*measurements[1:], strict=True)  # the first round warms up
    row = {"here": f"{statistics.median(own_times):.3f} s"}
    if not answers[0]:
        missing = {"Open Bandit Pipeline": "does not install here", "ratio": "", "values differ by": ""}
        return pd.DataFrame([row | missing])
    peer_times, peer_values = [seconds for seconds, _ in answers], answers[0][1]
    ratios = [theirs / ours for ours, theirs in zip(own_times, peer_times, strict=True)]
    difference = max(abs(values[name] - value) for name, value in peer_values.items())
    row |= {"Open Bandit Pipeline": f"{statistics.median(peer_times):.2f} s", "ratio": ratio(ratios)}
    return pd.DataFrame([row | {"values differ by": f"{difference:.0e} ({', '.join(peer_values)})"}])


def draw_arrays(records, seed=0):
    """A uniform log of slates and a Plackett-Luce target, with any rewards and any model."""
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=(records, ITEMS))
    slate = generator.permuted(np.tile(np.arange(ITEMS), (records, 1)), axis=1)[:, :SLOTS]
    conditional = [plackett_luce.conditional(scores, slate[:, :slot]) for slot in range(SLOTS)]
    return {
        "slate": slate,
        "reward": generator.integers(0, 2, (records, SLOTS)).astype(float),
        "propensity": np.tile(1 / np.arange(ITEMS, ITEMS - SLOTS, -1), (records, 1)),
        "position_propensity": np.full((records, SLOTS), 1 / ITEMS),
        "target_propensity": plackett_luce.propensities(scores, slate),
        "target_position": plackett_luce.position_propensities(scores, slate),
        "target_conditional": np.stack(conditional, axis=1),
        "q": generator.uniform(size=(records, SLOTS, ITEMS)),
    }


def accuracy(replications=REPLICATIONS, n=LOG_SIZE, seed=1):
    """Evaluate every estimator on logs of known truth, in the environment of `slate_environment`.

    There are `replications` logs of `n` slates. The model of cascade-DR is the true one, a fifth too low, with noise.

    Returns:
      DataFrame indexed by (click model, estimator) with columns bias and rmse, in shares of the truth, and coverage.
    """
    rows = {}
    for model in CLICK_MODELS:
        outcomes, generator = enumerate_outcomes(model), np.random.default_rng(seed)
        q = 0.8 * outcomes.q + 0.1 * outcomes.any_q()
        for name, estimate in slate_estimates(outcomes.log, **outcomes.arguments, q=q).items():
            samples = [outcomes.resample(estimate, n, generator) for _ in range(replications)]
            error = np.array([sample.value for sample in samples]) / outcomes.truth - 1
            bounds = np.array([sample.interval() for sample in samples])
            coverage = (bounds[:, 0] <= outcomes.truth) & (outcomes.truth <= bounds[:, 1])
            measures = {"bias": error.mean(), "rmse": np.sqrt((error**2).mean()), "coverage": coverage.mean()}
            rows[model, name] = measures
    return pd.DataFrame.from_dict(rows, orient="index")


def as_text(table):
    """A row per estimator, a column per click model."""
    cells = [f"{100 * row.bias:+.1f} / {100 * row.rmse:.1f} / {100 * row.coverage:.0f}" for row in table.itertuples()]
    wide = pd.Series(cells, table.index).unstack(level=0)[list(CLICK_MODELS)]
    return wide.loc[list(SLATE_ESTIMATORS)].rename_axis(index="estimator", columns=None).reset_index()
