"""Evaluation: the value of a policy from logged decisions, metrics of slates, and regret, all with intervals.

- `off_policy`: `evaluate`, `estimates` and `tabulate` for logs of decisions, by the functions of `estimators`; each
  returns an `Estimate`, and `difference` compares two of them.
- `slates`: `slate_estimates` for logs of slates.
- `reward_model`: `cross_fit` and `cross_fit_slates` predict rewards for the doubly robust estimators.
- `ranking_metrics`: NDCG, ERR, MAP, MRR, hit rate and the diversity of lists.
- `intervals`: `mean_interval` with Student's t, `tabulate_means` and `tabulate_differences` for several policies.
- `sequential`: confidence sequences, intervals that hold at all looks together.
- `regret`: totals, summaries, differences and curves of simulated runs.
"""

from recbandits.evaluation import estimators, off_policy, ranking_metrics, regret, sequential, slates
from recbandits.evaluation.estimate import Estimate, difference
from recbandits.evaluation.intervals import Interval, mean_interval, tabulate_differences, tabulate_means
from recbandits.evaluation.off_policy import estimates, evaluate, tabulate
from recbandits.evaluation.reward_model import cross_fit, cross_fit_slates
from recbandits.evaluation.slates import slate_estimates

__all__ = [
    "Estimate",
    "Interval",
    "cross_fit",
    "cross_fit_slates",
    "difference",
    "estimates",
    "estimators",
    "evaluate",
    "mean_interval",
    "off_policy",
    "ranking_metrics",
    "regret",
    "sequential",
    "slate_estimates",
    "slates",
    "tabulate",
    "tabulate_differences",
    "tabulate_means",
]
