"""Pictures of profiles show the numbers they are given."""

import numpy as np
import pandas as pd
import pytest

from recbandits.plots.profiling import elapsed, operations, step_times, time_per_example


def test_a_bar_of_a_step_is_made_of_its_parts():
    """Step 1: 3 ms of waiting, 1 of computing, 2 of the rest; the bars end at 3, 4 and 6."""
    slow = pd.DataFrame({"input": [3.0, 4.0], "compute": [1.0, 1.0], "other": [2.0, 1.0], "total": 6.0}, index=[1, 2])
    fig = step_times({"slow": slow, "fast": slow / 10})
    panels = fig.axes
    ends = [bars[0].get_y() + bars[0].get_height() for bars in panels[0].containers]
    assert ends == [3.0, 4.0, 6.0]
    assert panels[0].get_ylim() == panels[1].get_ylim()
    assert [panel.get_title().split("\n")[0] for panel in panels] == ["slow", "fast"]
    assert "median 0.6 ms" in panels[1].get_title()
    assert fig.legends[0].texts[0].get_text() == "waiting for input"


def test_what_an_example_costs_is_written_at_the_end_of_its_bar():
    table = pd.DataFrame({"waiting": [8.0, np.nan], "the rest": [2.0, 0.5]}, index=["before", "after"])
    (axes,) = time_per_example(table).axes
    assert [text.get_text() for text in axes.texts] == ["10.0", "0.5"]
    assert [text.xy for text in axes.texts] == [(10.0, 1), (0.5, 0)]
    assert dict(zip(axes.get_yticks(), (label.get_text() for label in axes.get_yticklabels()), strict=True)) == {
        1: "before",
        0: "after",
    }


def test_elapsed_time_adds_the_epochs_up():
    graph = pd.DataFrame({"epoch": [1, 2, 3], "seconds": [1.0, 0.5, 0.5]})
    (axes,) = elapsed({"graph": graph, "XLA": graph.assign(seconds=[3.0, 0.1, 0.1])}).axes
    first, second = axes.get_lines()
    assert first.get_ydata().tolist() == [0, 1.0, 1.5, 2.0]
    assert second.get_ydata() == pytest.approx([0, 3.0, 3.1, 3.2])
    assert axes.get_xlim()[0] == axes.get_ylim()[0] == 0


def test_the_longest_operations_have_bars_and_the_others_share_one():
    """Of 10 ms: 5, 3, and 2 of two others; 50 %, 30 %, 20 %."""
    table = pd.DataFrame({"count": [4, 2000, 1, 1], "ms": [5.0, 3.0, 1.5, 0.5]}, index=["MatMul", "Add", "Mul", "Sub"])
    (axes,) = operations(table, most=2).axes
    assert [bar.get_width() for bar in axes.containers[0]] == [5.0, 3.0, 2.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["MatMul", "Add", "2 others"]
    assert [text.get_text() for text in axes.texts] == ["50%, 4 calls", "30%, 2,000 calls", "20%"]
