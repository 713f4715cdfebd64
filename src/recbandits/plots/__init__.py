"""Pictures: matplotlib figures with labelled axes, units and intervals. Needs the extra `plots`.

Every function returns the figure, closed, so that a notebook shows it once; `title` is the title of the picture.

- `data`: MovieLens in eight pictures (`rating_shares`, `long_tail`, `genres`, ...), `taste_map`.
- `simulation`: `curves` and `totals` of regret, `disagreement` of users, `exposure` of items.
- `evaluation`: `forest` of estimates, `concentration` of weights, `by_click_model`, ranking `metrics`, `trade_off` of
  relevance and diversity, `against_truth` and `by_slot` for position bias.
- `training`: `step_times`, `time_per_example`, `elapsed`, `operations`, `bands` and `ridges` of histograms, `slotting`.
- `platforms`: `resource_names`, package `sizes`, `rebuilds`, `footprints`, `trials` of a study.
- `loop`: rewards, gate, guardrail, propensities, drift and canary, as `plots.loop.rewards`.
"""

from recbandits import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "data": "rating_shares long_tail genres demographics activity_over_time sparsity errors_by_rank calibration "
        "taste_map",
        "simulation": "curves totals disagreement exposure",
        "evaluation": "forest concentration by_click_model metrics trade_off against_truth by_slot",
        "training": "step_times time_per_example elapsed operations read_histograms bands ridges slotting",
        "platforms": "resource_names sizes rebuilds footprints trials",
    },
)
