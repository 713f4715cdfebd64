"""Pictures of images show the numbers they are given."""

import pandas as pd
import pytest

from recbandits.plots.images import footprints, rebuilds, sizes


def test_the_largest_part_is_on_top_with_its_share():
    (axes,) = sizes(pd.Series({"tensorflow": 1500.0, "pyarrow": 150.0}), total=3000.0).axes
    assert [bar.get_width() for bar in axes.patches] == [1500.0, 150.0]
    assert axes.patches[0].get_y() > axes.patches[1].get_y()
    assert [text.get_text() for text in axes.texts] == ["1,500 MB, 50%", "150 MB, 5%"]


def test_a_step_that_is_repeated_says_so():
    table = pd.DataFrame({"the lock": [True, True], "the code": [False, True]}, index=["RUN pip", "COPY src"])
    (axes,) = rebuilds(table).axes
    assert [text.get_text() for text in axes.texts] == ["again", "kept", "again", "again"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["RUN pip", "COPY src"]
    assert axes.get_ylim() == pytest.approx((2, 0)), "the first step is on top"


def test_programs_are_compared_panel_by_panel():
    first, second = footprints(pd.DataFrame({"seconds": [3.0, 0.5], "MB": [800, 120]}, index=["train", "serve"])).axes
    assert [bar.get_width() for bar in first.patches] == [3.0, 0.5]
    assert [text.get_text() for text in second.texts] == ["800", "120"]
    assert [label.get_text() for label in first.get_yticklabels()] == ["train", "serve"]
    assert (first.get_xlabel(), second.get_xlabel()) == ("seconds", "MB")
