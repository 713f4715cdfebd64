"""Judge a policy by a log that another policy wrote: every estimator, its interval and its diagnostics in one table.

The estimators themselves, functions of arrays with one element per record, are in `estimators`; what they return, and
the difference of two, in `estimate`. All can be had from here.
"""

import numpy as np

from recbandits.evaluation.estimate import Estimate, difference, tabulate
from recbandits.evaluation.estimators import (
    ROUNDING,
    clipped_ips,
    direct,
    dr,
    dr_os,
    ips,
    replay,
    sndr,
    snips,
    switch_dr,
)

__all__ = [
    "ESTIMATORS",
    "Estimate",
    "clipped_ips",
    "difference",
    "direct",
    "dr",
    "dr_os",
    "estimates",
    "evaluate",
    "ips",
    "replay",
    "sndr",
    "snips",
    "switch_dr",
    "tabulate",
    "unsupported_mass",
]

WITHOUT_MODEL = ("replay", "IPS", "clipped IPS", "SNIPS")
WITH_MODEL = ("DM", "DR", "SNDR", "Switch-DR", "DRos")
ESTIMATORS = WITHOUT_MODEL + WITH_MODEL


def evaluate(log, probabilities, q=None, behaviour=None, *, method="normal", level=0.95, **options):
    """Tabulate what each estimator says of a policy.

    Args:
      log: `data.bandit_log.BanditLog` of n decisions with up to k candidates.
      probabilities: float [n, k] of the evaluated policy, rows sum to 1, 0 in padding.
      q: float [n, k] rewards that a model predicts (see `reward_model.cross_fit`); without it only the estimators that
        need none. Padding is ignored.
      behaviour: float [n, k] of the policy that wrote the log, if all its probabilities are known and not only those of
        what it did; the unsupported mass is then exact instead of estimated.
      method: of the intervals: "normal", "bootstrap" or "bernstein".
      level: coverage of the intervals in (0, 1).
      **options: of `estimates`.

    Returns:
      DataFrame indexed by estimator with columns value, low, high, effective_sample_size, largest_weight and
      unsupported_mass; all NaN for an empty log.

    Raises:
      ValueError: as `estimates` and `unsupported_mass`.
    """
    found = estimates(log, probabilities, q, **options)
    table = tabulate(found, method, level)
    if behaviour is not None:
        table["unsupported_mass"] = unsupported_mass(log, probabilities, behaviour)
    return table


def estimates(log, probabilities, q=None, *, names=None, clip=10.0, threshold=10.0, shrinkage=100.0, seed=0):
    """Estimate the value of a policy in several ways; `difference` compares two policies by one of them.

    Args:
      log: `data.bandit_log.BanditLog` of n decisions with up to k candidates.
      probabilities: float [n, k] of the evaluated policy, rows sum to 1, 0 in padding.
      q: float [n, k] rewards that a model predicts, or None.
      names: some of `ESTIMATORS`; by default all that can be computed.
      clip: of clipped IPS.
      threshold: of Switch-DR.
      shrinkage: of DRos; 100 lets no record count more than 5.
      seed: of replay.

    Returns:
      dict from name to `Estimate`.

    Raises:
      ValueError: an estimator that does not exist or needs q, probabilities that are no distribution over the
        candidates, a q that is not finite, or a column that the estimators refuse.
    """
    possible = ESTIMATORS if q is not None else WITHOUT_MODEL
    names = possible if names is None else names
    for name in names:
        if name not in possible:
            raise ValueError(
                f"names must be among {', '.join(possible)}{'' if q is not None else ' (without q)'}, got {name!r}"
            )
    probabilities = _distribution("probabilities", probabilities, log)
    rows, share = np.arange(len(log)), {"pass_prob": log.pass_prob}
    logged = (log.reward, log.propensity, probabilities[rows, log.action])
    model = () if q is None else _expectations(log, probabilities, q)
    calls = {
        "replay": lambda: replay(*logged, generator=np.random.default_rng(seed), **share),
        "IPS": lambda: ips(*logged, **share),
        "clipped IPS": lambda: clipped_ips(*logged, clip, **share),
        "SNIPS": lambda: snips(*logged, **share),
        "DM": lambda: direct(model[1], **share),
        "DR": lambda: dr(*logged, *model, **share),
        "SNDR": lambda: sndr(*logged, *model, **share),
        "Switch-DR": lambda: switch_dr(*logged, *model, threshold, **share),
        "DRos": lambda: dr_os(*logged, *model, shrinkage, **share),
    }
    return {name: calls[name]() for name in names}


def unsupported_mass(log, probabilities, behaviour):
    """Share of the evaluated policy's decisions that the behaviour policy never takes: the log cannot know of them.

    Args:
      log: BanditLog of n decisions.
      probabilities: float [n, k] of the evaluated policy.
      behaviour: float [n, k] of the policy that wrote the log.

    Returns:
      float in [0, 1], NaN for an empty log.

    Raises:
      ValueError: either is no distribution over the candidates, or behaviour is not what the log's propensities say.
    """
    probabilities = _distribution("probabilities", probabilities, log)
    behaviour = _distribution("behaviour", behaviour, log)
    chosen = behaviour[np.arange(len(log)), log.action]
    agrees = np.abs(chosen - log.propensity) <= ROUNDING
    if not agrees.all():
        row = agrees.argmin()
        raise ValueError(
            f"behaviour must give the logged action its propensity, record {row} has {chosen[row]:g} "
            f"where {log.propensity[row]:g} was logged"
        )
    return direct((probabilities * (behaviour == 0)).sum(axis=1), pass_prob=log.pass_prob).value


def _distribution(name, values, log):
    """Probabilities [n, k], float32 or float64 as given, or a sentence about the first row that is no distribution."""
    values = np.asarray(values)
    if values.shape != log.mask.shape:
        raise ValueError(
            f"{name} must have a row per record and a column per candidate, {log.mask.shape}, got {values.shape}"
        )
    total = values.sum(axis=1, dtype=float)
    good = np.abs(total - 1) <= ROUNDING
    if not good.all():
        row = good.argmin()
        raise ValueError(f"{name} must sum to 1 in every row, record {row} sums to {total[row]:g}")
    if values.min(initial=0) < 0:
        row, column = np.argwhere(values < 0)[0]
        raise ValueError(f"{name} must be at least 0, record {row} has {values[row, column]:g} in column {column}")
    if not log.mask.all() and values[~log.mask].any():
        row, column = np.argwhere((values > 0) & ~log.mask)[0]
        raise ValueError(f"{name} must be 0 in padding, record {row} has {values[row, column]:g} in column {column}")
    return values


def _expectations(log, probabilities, q):
    """(q of the logged action, its expectation under the evaluated policy), both [n]."""
    q = np.asarray(q)
    if q.shape != log.mask.shape:
        raise ValueError(f"q must have a row per record and a column per candidate, {log.mask.shape}, got {q.shape}")
    known = q if log.mask.all() else np.where(log.mask, q, 0)
    if not np.isfinite(known).all():
        row, column = np.argwhere(~np.isfinite(known))[0]
        raise ValueError(f"q must be finite for every candidate, record {row} has {q[row, column]} in column {column}")
    return q[np.arange(len(log)), log.action], np.einsum("nk,nk->n", probabilities, known)
