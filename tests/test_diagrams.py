"""Unreadable diagrams are refused, and those of the READMEs name what there is."""

import pytest

from tools.diagrams import Arrow, Box, Frame, draw
from tools.draw_diagrams import DIAGRAMS
from tools.lock import ROOT

TWO = {"a": Box(0, 0, "first\nof two"), "b": Box(4, 0, "second", "store")}


def texts(fig):
    return {text.get_text() for text in fig.axes[0].texts}


def test_boxes_arrows_and_frames_are_drawn_with_their_texts():
    fig = draw(TWO, [Arrow("a", "b", "then", bend=0.2)], [Frame(-2, -1, 6, 1, "all")], title="a way")
    assert texts(fig) == {"first", "of two", "second", "then", "all"}
    assert len(fig.axes[0].patches) == 4
    assert fig.axes[0].get_title(loc="left") == "a way"


def test_the_text_of_an_arc_is_on_it():
    """From (0, 0) to (4, 0) with bend 0.5: the control point is 2 to the right, below; the middle half of that."""
    fig = draw(TWO, [Arrow("a", "b", "then", bend=0.5)])
    (label,) = (text for text in fig.axes[0].texts if text.get_text() == "then")
    assert label.get_position() == (2.0, -1.0)


@pytest.mark.parametrize(
    ("boxes", "arrows", "sentence"),
    [
        (TWO, [Arrow("a", "c")], "arrows must be between boxes, there is no box 'c'"),
        (TWO | {"c": Box(5, 0.5, "third")}, [], "boxes must not overlap, 'b' and 'c' do"),
        ({"a": Box(0, 0, "a sentence that is much longer than its box")}, [], "the text of box 'a' must fit into it"),
        ({"a": Box(0, 0, "one\ntwo\nthree\nfour\nfive")}, [], "the text of box 'a' must fit into it"),
        (
            {"a": Box(0, 0, "one", "cloud")},
            [],
            "kind of box 'a' must be one of .*, got 'cloud'",
        ),
    ],
)
def test_an_unreadable_diagram_is_refused(boxes, arrows, sentence):
    with pytest.raises(ValueError, match=sentence):
        draw(boxes, arrows)


@pytest.mark.parametrize("name", DIAGRAMS)
def test_the_diagrams_of_the_readmes_can_be_drawn_and_are_there(name):
    assert texts(DIAGRAMS[name]())
    assert (ROOT / "docs" / f"{name}.png").is_file()


def test_every_component_of_the_loop_is_in_its_picture():
    """Components of the pipelines have a file each, functions a folder."""
    folder = ROOT / "src/recbandits/loop"
    components = {path.stem for path in folder.glob("templates/components/*.yaml")}
    components |= {path.parent.name for path in folder.glob("functions/*/main.py")}
    assert len(components) == 9
    assert components - texts(DIAGRAMS["04-02"]()) == set()
