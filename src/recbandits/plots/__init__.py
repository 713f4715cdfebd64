"""Pictures: matplotlib figures with labelled axes, units and intervals. Needs the extra `plots`.

Every function returns the figure, closed, so that a notebook shows it once; `title` is the title of the picture. The
pictures of the loop are functions of the module `plots.loop`.
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
