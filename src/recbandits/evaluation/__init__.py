"""Evaluation: the value of a policy from logged decisions, metrics of slates, and regret, all with intervals.

- `off_policy`: `evaluate`, `estimates` and `tabulate` for logs of decisions, by the functions of `estimators`; each
  returns an `Estimate`, and `difference` compares two of them.
- `slates`: `slate_estimates` for logs of slates.
- `reward_model`: `cross_fit` and `cross_fit_slates` predict rewards for the doubly robust estimators.
- `ranking_metrics`: NDCG, ERR, MAP, MRR, hit rate and the diversity of lists.
- `intervals`: an `Interval` by `mean_interval`, `tabulate_means` and `tabulate_differences` for several policies.
- `sequential`: confidence sequences, intervals that hold at all looks together.
- `regret`: totals, summaries, differences and curves of simulated runs.
"""

from recbandits import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "estimate": "Estimate difference",
        "estimators": "estimators",
        "intervals": "Interval mean_interval tabulate_differences tabulate_means",
        "off_policy": "off_policy estimates evaluate tabulate",
        "ranking_metrics": "ranking_metrics",
        "regret": "regret",
        "reward_model": "cross_fit cross_fit_slates",
        "sequential": "sequential",
        "slates": "slates slate_estimates",
    },
)
