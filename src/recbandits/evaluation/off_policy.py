"""Evaluate a target policy by a log of decisions: all estimators, their intervals and diagnostics in one table.

In all functions, `log` has n decisions with up to k candidates, and `probabilities` of the target policy are float
[n, k]; rows sum to 1, 0 in padding.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from recbandits.checks import require, require_distributions, require_rows, require_shape
from recbandits.evaluation import estimators
from recbandits.evaluation.estimate import Estimate

if TYPE_CHECKING:
    from recbandits.records.log import Log

WITHOUT_MODEL = ("replay", "IPS", "clipped IPS", "SNIPS")
WITH_MODEL = ("DM", "DR", "SNDR", "Switch-DR", "DRos")
ESTIMATORS = WITHOUT_MODEL + WITH_MODEL


def evaluate(
    log: "Log",
    probabilities: np.ndarray,
    q: np.ndarray | None = None,
    logging_probabilities: np.ndarray | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Tabulate the estimates of a target policy's value, as `tabulate` does; all NaN for an empty log.

    `q` and options are those of `estimates`. Probabilities of the logging policy, where they are known for all
    candidates, add the column `unsupported_mass`. ValueErrors are those of these functions.
    """
    table = tabulate(estimates(log, probabilities, q, **options))
    if logging_probabilities is not None:
        table["unsupported_mass"] = unsupported_mass(log, probabilities, logging_probabilities)
    return table


def estimates(
    log: "Log",
    probabilities: np.ndarray,
    q: np.ndarray | None = None,
    *,
    names: Sequence[str] | None = None,
    clip: float = 10.0,
    threshold: float = 10.0,
    shrinkage: float | None = None,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Estimate the value of a target policy by several estimators; `difference` compares two policies by one of them.

    `names` are some of `ESTIMATORS`, by default all that can be computed. Some need `q`, predicted rewards float [n, k]
    (see `reward_model.cross_fit`) that are ignored in padding. `clip` is of clipped IPS, `threshold` of Switch-DR,
    `shrinkage` of DRos (None fits it to the weights), and `seed` of replay. ValueError if an estimator is unknown or
    needs q, probabilities are not distributions over the candidates, q is not finite, or an estimator refuses a column.
    """
    possible = ESTIMATORS if q is not None else WITHOUT_MODEL
    expected = f"among {', '.join(possible)}{'' if q is not None else ' (without q)'}"
    names = possible if names is None else names
    for name in names:
        require(name in possible, "names", expected, name)
    probabilities = _check_distributions("probabilities", probabilities, log)
    chosen = probabilities[np.arange(len(log)), log.action]
    logged: dict[str, Any] = {"reward": log.reward, "propensity": log.propensity, "target": chosen}
    q_action, q_target = (None, None) if q is None else _predict(log, probabilities, q)
    modelled = logged | {"q_action": q_action, "q_target": q_target}
    calls: dict[str, Callable[..., Estimate]] = {
        "replay": partial(estimators.replay, **logged, generator=np.random.default_rng(seed)),
        "IPS": partial(estimators.ips, **logged),
        "clipped IPS": partial(estimators.clipped_ips, **logged, clip=clip),
        "SNIPS": partial(estimators.snips, **logged),
        "DM": partial(estimators.direct_method, q_target),
        "DR": partial(estimators.dr, **modelled),
        "SNDR": partial(estimators.sndr, **modelled),
        "Switch-DR": partial(estimators.switch_dr, **modelled, threshold=threshold),
        "DRos": partial(estimators.dr_os, **modelled, shrinkage=shrinkage),
    }
    return {name: calls[name](pass_prob=log.pass_prob) for name in names}


def tabulate(
    estimates: Mapping[str, Estimate], method: str = "normal", level: float = 0.95, groups: Any = None
) -> pd.DataFrame:
    """Tabulate estimates with the intervals of `Estimate.interval` and their diagnostics.

    The columns are value, low, high, effective_sample_size, rewarded_decisions, largest_weight and mean_weight.
    """
    diagnostics = ("effective_sample_size", "rewarded_decisions", "largest_weight", "mean_weight")
    rows = {}
    for name, estimate in estimates.items():
        low, high = estimate.interval(method, level, groups)
        rows[name] = {"value": estimate.value, "low": low, "high": high}
        rows[name] |= {diagnostic: getattr(estimate, diagnostic) for diagnostic in diagnostics}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("estimator")


def unsupported_mass(log: "Log", probabilities: np.ndarray, logging_probabilities: np.ndarray) -> float:
    """Compute the share, in [0, 1], of the target policy's decisions that the logging policy never takes.

    `logging_probabilities` are those of the logging policy, like `probabilities`. NaN for an empty log; ValueError if
    either is not a distribution over the candidates, or the log has other propensities.
    """
    probabilities = _check_distributions("probabilities", probabilities, log)
    logging_probabilities = _check_distributions("logging_probabilities", logging_probabilities, log)
    chosen = logging_probabilities[np.arange(len(log)), log.action]
    agrees = np.abs(chosen - log.propensity) <= estimators.ROUNDING
    require_rows(agrees, "logging_probabilities of the logged actions", "their propensities", chosen)
    unsupported = (probabilities * (logging_probabilities == 0)).sum(axis=1)
    return estimators.direct_method(unsupported, pass_prob=log.pass_prob).value


def _check_distributions(name: str, values: np.ndarray, log: "Log") -> np.ndarray:
    """Return probabilities [n, k], float32 or float64 as given, if every row is a distribution over its candidates."""
    values = require_shape(values, name, *log.mask.shape)
    require_distributions(values, name, log.mask)
    return values


def _predict(log: "Log", probabilities: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the prediction for the logged action and its expectation under the target policy, both [n]."""
    q = require_shape(q, "q", *log.mask.shape)
    known = q if log.mask.all() else np.where(log.mask, q, 0)
    require_rows(np.isfinite(known), "q", "finite for every candidate", q)
    return q[np.arange(len(log)), log.action], np.einsum("nk,nk->n", probabilities, known)
