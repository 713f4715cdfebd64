"""The flame graph of the server has the functions that py-spy saw, at the width of their time."""

from benchmarks import serving_profile

STACKS = """\
thread (12): MainThread;<module> (recbandits/serving/server.py:1);Runner.run (asyncio/runners.py:86);f (a/b.py:1) 2
thread (12): MainThread;<module> (recbandits/serving/server.py:1);Runner.run (asyncio/runners.py:86);g (numpy/c.py:9) 5
thread (12): MainThread;<module> (recbandits/serving/server.py:1);Runner.run (asyncio/runners.py:86) 1
thread (15): log_0;record (recbandits/serving/outbox.py:3) 2
"""
RUN = "Runner.run (asyncio/runners.py:86)"
STACKS_BY_HAND = {
    ("MainThread", RUN, "f (a/b.py:1)"): 2,
    ("MainThread", RUN, "g (numpy/c.py:9)"): 5,
    ("MainThread", RUN): 1,
    ("log_0", "record (recbandits/serving/outbox.py:3)"): 2,
}


def test_stacks_begin_at_the_event_loop_or_the_thread():
    assert serving_profile.parse(STACKS) == STACKS_BY_HAND


def test_functions_are_below_their_callers_and_those_with_most_samples_first():
    assert list(serving_profile.lay_out(STACKS_BY_HAND)) == [
        (0, 0, 8, "MainThread"),
        (1, 0, 8, RUN),
        (2, 0, 5, "g (numpy/c.py:9)"),
        (2, 5, 2, "f (a/b.py:1)"),
        (0, 8, 2, "log_0"),
        (1, 8, 2, "record (recbandits/serving/outbox.py:3)"),
    ]


def test_the_package_of_a_function_is_the_first_folder_and_for_ours_the_layer():
    assert serving_profile.package_of("g (numpy/core/c.py:9)") == "numpy"
    assert serving_profile.package_of("record (recbandits/serving/outbox.py:3)") == "recbandits.serving"


def test_the_picture_has_a_bar_of_its_share_for_each_function():
    (axes,) = serving_profile.draw(STACKS_BY_HAND).axes
    assert [text.get_text().strip() for text in axes.texts] == ["MainThread", "Runner.run", "g", "f", "log_0", "record"]
    assert [round(bar.get_width(), 2) for bar in axes.patches[:6]] == [0.8, 0.8, 0.5, 0.2, 0.2, 0.2]
