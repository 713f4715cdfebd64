"""Monitors of a loop that runs by itself: propensities, drift, the join.

Each is a function of logged decisions, as `Warehouse.decisions` gives them. Each table has a column `alarm`: a
sentence, or the empty text.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from scipy import stats

from recbandits.evaluation.estimators import ROUNDING, direct_method
from recbandits.evaluation.intervals import mean_interval
from recbandits.evaluation.sequential import effective_groups
from recbandits.loop.gate import predicted_values, probabilities_of
from recbandits.loop.ingest import log_of
from recbandits.platforms.warehouse import Join, Warehouse
from recbandits.records.log_columns import number_users, read_contexts

_BINS = 10
_LOGGED = ("decisions", "reward", "psi_reward", "psi_context", "error", "missing", "lag")  # columns
_LEVEL = 0.999  # of the interval of 1 / (k p): a monitor looks often, and one false alarm in twenty is ignored
_QUANTILE = stats.norm.ppf((1 + _LEVEL) / 2)
_LARGE = 0.1  # population stability index above which a shift is commonly called moderate


def propensities(decisions: pa.Table, policies: dict | None = None) -> pd.DataFrame:
    """Check the logged propensities of each version of the policy.

    The mean of 1 / (k p), with k candidates and propensity p of the logged action, is 1 where every candidate has a
    positive probability and p is right: the expectation of 1 / p is the number of candidates. Above 1, propensities
    were logged too small. Below 1, they were logged too large, or rare actions, which carry much of the mean, have not
    been drawn yet. The policy tells the two apart: it knows the variance of 1 / (k p), which is (the mean of
    1 / (k p_a) over the candidates a) - 1 for each decision, where a log alone can only estimate it. So `policies`, a
    dict from version to `ServedPolicy`, compute propensities and variance anew, for decisions among known items. A
    decision that was kept with probability pass_prob counts 1 / pass_prob, as it may depend on the action.

    An interval that contains 1 says little where it is wide. So the table has the power: the relative error of all
    propensities that would be found with probability 0.8. There is none where an error by a half would not be found, or
    where the mean cannot vary, as with a uniform policy.

    Returns:
      DataFrame indexed by policy_version: decisions; ratio, the mean of 1 / (k p); low and high, its 99.9 % interval,
      exact with the policy and estimated without; smallest (propensity); differing (share of the decisions whose
      propensity is not what the policy gives, NaN without the policy); power, a sentence; alarm.
    """
    rows = {}
    for version in pc.unique(decisions["policy_version"]).to_pylist():
        log = log_of(decisions.filter(pc.equal(decisions["policy_version"], version)))
        ratio = direct_method(1 / log.mask.sum(axis=1) / log.propensity, pass_prob=log.pass_prob)
        row = {"decisions": len(log), "ratio": ratio.value}
        row["low"], row["high"], row["differing"] = _check_propensities(log, (policies or {}).get(version), ratio)
        row |= {"smallest": log.propensity.min(), "power": _power(row)}
        rows[version] = row | {"alarm": _propensity_alarm(version, row)}
    columns = ["decisions", "ratio", "low", "high", "differing", "smallest", "power", "alarm"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("policy_version")


def drift(decisions: pa.Table, edges: Sequence[datetime], policies: dict | None = None) -> pd.DataFrame:
    """Compare rewards, contexts and the errors of the served policy with those of the first period.

    The population stability index compares the shares of rewards, or of a column of the contexts, in bins: deciles of
    the first period where a column is of numbers and has more than ten, else its ten most frequent values there and all
    others; and one bin for missing values. It is sum((p - q) log(p / q)). Of samples of n and m without a change it is
    about (1 / n + 1 / m) times a chi-square variable with one degree of freedom less than bins (Yurdakul and Naranjo
    2020, "Statistical properties of the population stability index"); what exceeds its 95 % quantile is no chance. n
    and m are users of equally many decisions each (`sequential.effective_groups`), as if all decisions of a user were
    alike, and the intervals are of sums of users. A decision for a user without an id is a user of its own. The
    prequential error is that of predictions made before the reward was known: (reward - score)^2 of the logged action.

    Periods, such as rounds, are bounded by aware datetimes, `edges`; one without decisions is left out. The predictions
    are the scores of the policies, a dict from version to `ServedPolicy`, where these know the items.

    Returns:
      DataFrame, one row a period: start, end, decisions; reward with low and high (mean and 95 % interval); psi_reward
      and psi_context (of the column that moved most; NaN where contexts are empty), each with its limit,
      psi_reward_limit and psi_context_limit; error, error_low and error_high (mean and 95 % interval, NaN without a
      policy); alarm.
    """
    rows: list[dict] = []
    first, contexts = None, read_contexts(decisions["context"])
    users = number_users(decisions["user_id"].to_pandas())[0]
    for row, table, mask in _periods(decisions, edges):
        reward, errors = table["reward"].to_pandas().to_frame(), _errors(table, policies or {})
        values, user, known = (reward, contexts[mask]), users[mask], ~np.isnan(errors)
        first = first or (values, user)
        row |= _named(mean_interval(reward["reward"], groups=user), "reward", "low", "high")
        row |= _named(mean_interval(errors[known], groups=user[known]), "error", "error_low", "error_high")
        for name, reference, sample in zip(("psi_reward", "psi_context"), first[0], values, strict=True):
            row[name], row[f"{name}_limit"] = _shift(reference, sample, (first[1], user))
        rows.append(row | {"alarm": _drift_alarm(row, rows[0] if rows else row)})
    return pd.DataFrame(rows)


def joins(decisions: pa.Table, edges: Sequence[datetime]) -> pd.DataFrame:
    """Measure the delay of rewards, and compare the share of decisions that never get one with the first period.

    No share is wrong by itself: most decisions get no click. The window of the decisions has closed, and `edges` are as
    for `drift`.

    Returns:
      DataFrame, one row a period: start, end, decisions; missing (share without a reward) with low and high, its 95 %
      Wilson interval; lag (mean seconds until a reward) with lag_low and lag_high; slowest (its 95 % quantile); alarm.
    """
    rows: list[dict] = []
    for row, table, _ in _periods(decisions, edges):
        lags = pc.subtract(table["reward_time"], table["time"]).drop_null().cast("int64").to_numpy() / 1e6
        missing = table["reward_time"].null_count
        low, high = stats.binomtest(missing, len(table)).proportion_ci(method="wilson")
        row |= {"missing": missing / len(table), "low": float(low), "high": float(high)}
        row |= _named(mean_interval(lags), "lag", "lag_low", "lag_high")
        row["slowest"] = np.quantile(lags, 0.95) if len(lags) else np.nan
        first = rows[0] if rows else row
        alarm = f"{row['missing']:.1%} of the decisions have no reward, significantly more than {first['missing']:.1%}."
        rows.append(row | {"alarm": alarm if low > first["high"] else ""})
    return pd.DataFrame(rows)


def compare_windows(
    warehouse: Warehouse, start: datetime, end: datetime, rule: Join, policies: dict | None = None
) -> tuple[dict[str, float], list[str]]:
    """Apply all monitors to a closed window of time; drift is that from the window of the same length before it.

    It returns (dict from name to number, list of the alarms' sentences). The names are those of the columns, those of
    propensities with the version.
    """
    edges = [start - (end - start), start, end]
    decisions = warehouse.decisions(edges[0], end, rule)
    window = decisions.filter(_is_within(decisions, start, end))
    versions, periods = propensities(window, policies), [drift(decisions, edges, policies), joins(decisions, edges)]
    names = ("ratio", "differing")
    numbers = {f"{name}_{version}": row[name] for version, row in versions.iterrows() for name in names}
    for table in periods:
        last = table.iloc[-1] if len(table) else pd.Series(dtype=float)
        numbers |= {name: last[name] for name in _LOGGED if name in last}
    alarms = [alarm for table in (versions, *periods) for alarm in table.get("alarm", []) if alarm]
    return {name: float(number) for name, number in numbers.items() if np.isfinite(number)}, alarms


def _check_propensities(log, policy, ratio):
    """Compute the interval of the ratio, and the share of propensities that differ from the policy's, or NaN."""
    decisions = ratio.effective_sample_size  # all of them where all were kept
    log = log if policy is None else _scorable(log, policy)
    if policy is None or not len(log):
        return *ratio.interval(level=_LEVEL), np.nan
    probabilities = probabilities_of(policy, log)
    differing = np.abs(probabilities[np.arange(len(log)), log.action] - log.propensity) > ROUNDING
    inverse = np.divide(1, probabilities, out=np.zeros(log.mask.shape), where=log.mask & (probabilities > 0))
    variances = inverse.sum(axis=1) / log.mask.sum(axis=1) ** 2 - 1
    variance = np.average(variances, weights=log.pass_prob**-2.0)
    half = _QUANTILE * np.sqrt(max(0.0, variance) / decisions)
    return max(0.0, ratio.value - half), ratio.value + half, float(differing.mean())


def _scorable(log, policy):
    """Select the decisions that a policy can score again: among items that it knows, on contexts that it can read."""
    items = log.item_ids.isin(policy.candidates)
    scorable = log.take((items[log.candidates] | ~log.mask).all(axis=1))
    return scorable if predicted_values(policy, scorable) is not None else scorable.take(np.arange(0))


def _power(row):
    """Say which error the interval of the mean of 1 / (k p) would show with probability 0.8."""
    error = (row["high"] - row["ratio"]) * (1 + stats.norm.ppf(0.8) / _QUANTILE)
    if not 0 < error < 0.5:
        return "No power: not even propensities that are wrong by a half would be found."
    return f"Propensities that are wrong by {error:.0%} would be found with probability 0.8."


def _propensity_alarm(version, row):
    if row["differing"] > 0:
        return f"Version {version} logged {row['differing']:.1%} of its decisions with other propensities than its own."
    if row["low"] > 1 or (row["high"] < 1 and not np.isnan(row["differing"])):
        interval = f"{row['ratio']:.3f}, 99.9 % interval {row['low']:.3f} to {row['high']:.3f}"
        return f"The mean of 1 / (k p) of version {version} is not 1: {interval}."
    return ""


def _periods(decisions: pa.Table, edges: Sequence[datetime]) -> Iterator[tuple[dict, pa.Table, np.ndarray]]:
    """Yield the first columns, the decisions, and which they are, bool [n], of each period that has some."""
    for start, end in pairwise(edges):
        mask = _is_within(decisions, start, end)
        if len(table := decisions.filter(mask)):
            yield {"start": start, "end": end, "decisions": len(table)}, table, mask.to_numpy()


def _is_within(decisions, start, end):
    return pc.and_(pc.greater_equal(decisions["time"], start), pc.less(decisions["time"], end))


def _named(interval, *names):
    return dict(zip(names, interval, strict=True))


def _errors(table, policies):
    """Compute the squared errors [n] of the scores of the logged actions; NaN where no policy can score them."""
    errors, rows = np.full(len(table), np.nan), pd.Index(table["event_id"].to_pandas())
    for version, policy in policies.items():
        log = _scorable(log_of(table.filter(pc.equal(table["policy_version"], version))), policy)
        if len(log):
            scores = policy.scores(log.context, log.candidate_ids, log.mask, log.candidate_features)
            errors[rows.get_indexer(log.event_id)] = (log.reward - scores[np.arange(len(log)), log.action]) ** 2
    return errors


def _shift(reference, sample, users=None):
    """Return (largest population stability index of the columns, its 95 % quantile without a shift), or NaN.

    Labels `users`, a pair of [n] and [m], are of rows that are not independent.
    """
    columns = [name for name in reference if reference[name].notna().any() or sample[name].notna().any()]
    if not columns:
        return np.nan, np.nan
    index, freedom = np.array([_index(_counts(reference[name], sample[name])) for name in columns]).T
    quantile = stats.chi2.ppf(1 - 0.05 / len(columns), np.maximum(freedom, 1))
    worst = np.argmax(index / quantile)
    n, m = map(len, (reference, sample)) if users is None else map(effective_groups, users)
    return float(index[worst]), float(quantile[worst] * (1 / n + 1 / m))


def _counts(reference, sample):
    """Count both in the same bins, int [2, bins], of which none is empty in both: values, and missing ones."""
    frequent = reference.value_counts().index
    if len(frequent) > _BINS and pd.api.types.is_numeric_dtype(reference):
        edges = np.unique(np.quantile(reference.dropna(), np.linspace(0, 1, _BINS + 1)[1:-1]))
        codes = [np.searchsorted(edges, side) for side in (reference, sample)]
    else:  # all other values have the last bin
        codes = [frequent[:_BINS].get_indexer(side) % (_BINS + 1) for side in (reference, sample)]
    codes = [np.where(side.isna(), _BINS + 1, code) for side, code in zip((reference, sample), codes, strict=True)]
    counts = np.array([np.bincount(code, minlength=_BINS + 2) for code in codes])
    return counts[:, counts.any(axis=0)]


def _index(counts):
    """Return (index, degrees of freedom) of counts [2, bins]; half a count is added to each, so that none is empty."""
    p, q = (counts + 0.5) / (counts.sum(axis=1, keepdims=True) + 0.5 * counts.shape[1])
    return float(((q - p) * np.log(q / p)).sum()), counts.shape[1] - 1


def _drift_alarm(row, reference):
    """Describe falling rewards, a shift of the context and growing errors; learning may well raise rewards."""
    sentences = []
    if row["high"] < reference["low"]:
        sentences.append(f"Rewards have fallen: mean {row['reward']:.2f} instead of {reference['reward']:.2f}.")
    index, limit = row["psi_context"], row["psi_context_limit"]
    if index > max(limit, _LARGE):
        sentences.append(f"The context has shifted: stability index {index:.2f}, by chance below {limit:.2f}.")
    if row["error_low"] > reference["error_high"]:
        errors = f"squared error {row['error']:.2f} instead of {reference['error']:.2f}"
        sentences.append(f"The served policy errs more than at first: {errors}.")
    return " ".join(sentences)
