"""Pictures: matplotlib figures with labelled axes, units and intervals. Needs the extra `plots`.

Every function returns the figure, closed, so that a notebook shows it once; `title` is the title of the picture.

- `rating_shares`, `long_tail`, `genres`, `demographics`, `activity_over_time`, `sparsity`: tables of ratings.
- `errors_by_rank`, `calibration`, `taste_map`: factorisations and predicted ratings.
- `curves`, `totals`: measures of simulated runs; `disagreement`, `exposure`: rewards by user, decisions by movie.
- `forest`, `against_truth`: estimates with their intervals, and beside the truth.
- `metrics`, `trade_off`, `by_click_model`, `by_slot`: rankings and slates.
- `step_times`, `time_per_example`, `elapsed`, `operations`: the time that training takes.
- `read_histograms`, `bands`, `ridges`, `slotting`: distributions of weights and gradients, the input of ranking agents.
- `resource_names`, `sizes`, `rebuilds`, `footprints`, `trials`: resources, images and studies of platforms.
- `plots.loop`: a module of pictures of the loop.
"""

from recbandits import lazy_exports

__getattr__, __all__ = lazy_exports(
    __name__,
    {
        "data": "rating_shares long_tail genres demographics activity_over_time sparsity errors_by_rank calibration "
        "taste_map",
        "simulation": "curves totals disagreement exposure",
        "evaluation": "forest by_click_model metrics trade_off against_truth by_slot",
        "training": "step_times time_per_example elapsed operations read_histograms bands ridges slotting",
        "platforms": "resource_names sizes rebuilds footprints trials",
    },
)
