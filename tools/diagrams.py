"""Diagrams of how parts belong together: boxes, arrows between them, frames around them."""

from typing import NamedTuple

from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle

from recbandits.plots.style import COLOURS, REFERENCE, figure

KINDS = {
    "step": ("#ebf4ff", COLOURS[0]),
    "store": ("#e6fffa", COLOURS[6]),
    "service": ("#fffaf0", COLOURS[1]),
}
_INCHES = 0.62  # per unit of a diagram
_MARGIN = 0.35  # around everything


class Box(NamedTuple):
    """A part.

    Attributes:
      x: of its middle.
      y: of its middle, upwards.
      text: lines; the first of several is set in bold type.
      kind: a key of `KINDS`, which decides on the colour.
      width: in the unit of x.
      height: in the unit of y.
    """

    x: float
    y: float
    text: str
    kind: str = "step"
    width: float = 2.4
    height: float = 1.0


class Arrow(NamedTuple):
    """An arrow from one box to another.

    Attributes:
      start: name of a box.
      end: name of another one.
      text: beside its middle, or empty.
      bend: 0 for a straight line; to the right of its direction if positive.
      dashed: for what is not always there.
    """

    start: str
    end: str
    text: str = ""
    bend: float = 0.0
    dashed: bool = False


class Frame(NamedTuple):
    """A rectangle behind some boxes, with a text in its lower left corner."""

    left: float
    bottom: float
    right: float
    top: float
    text: str


def draw(boxes, arrows=(), frames=(), title=None):
    """Draw a diagram.

    Args:
      boxes: mapping from name to `Box`.
      arrows: of `Arrow`.
      frames: of `Frame`.
      title: of the picture.

    Returns:
      The matplotlib figure.

    Raises:
      ValueError: an arrow from or to a box that is not there, boxes that overlap, or a text larger than its box.
    """
    _check(boxes, arrows)
    edges = [_edges(box) for box in boxes.values()] + [frame[:4] for frame in frames]
    left, bottom = (min(edge[side] for edge in edges) - _MARGIN for side in (0, 1))
    right, top = (max(edge[side] for edge in edges) + _MARGIN for side in (2, 3))
    with figure((right - left) * _INCHES, (top - bottom) * _INCHES) as (fig, axes):
        axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
        axes.set_title(title, loc="left", weight="bold", size=11)
        axes.set_axis_off()
        for frame in frames:
            _frame(axes, frame)
        drawn = {name: _box(axes, box) for name, box in boxes.items()}
        for arrow in arrows:
            _arrow(axes, arrow, boxes, {name: patch for name, (patch, _) in drawn.items()})
        _check_texts(fig, drawn)
    return fig


def _edges(box):
    """Left, bottom, right and top of a box."""
    return box.x - box.width / 2, box.y - box.height / 2, box.x + box.width / 2, box.y + box.height / 2


def _check(boxes, arrows):
    for arrow in arrows:
        for name in (arrow.start, arrow.end):
            if name not in boxes:
                raise ValueError(f"arrows must be between boxes, there is no box {name!r}")
    named = list(boxes.items())
    for number, (name, box) in enumerate(named):
        if box.kind not in KINDS:
            raise ValueError(f"kind of box {name!r} must be one of {', '.join(KINDS)}, got {box.kind!r}")
        for other, second in named[number + 1 :]:
            apart_x = abs(box.x - second.x) >= (box.width + second.width) / 2
            apart_y = abs(box.y - second.y) >= (box.height + second.height) / 2
            if not apart_x and not apart_y:
                raise ValueError(f"boxes must not overlap, {name!r} and {other!r} do")


def _frame(axes, frame):
    size = frame.right - frame.left, frame.top - frame.bottom
    axes.add_patch(Rectangle(frame[:2], *size, facecolor="#f7fafc", edgecolor="#cbd5e0", linewidth=1, zorder=0))
    style = {"size": 8.5, "color": REFERENCE, "weight": "bold", "va": "bottom"}
    axes.text(frame.left + 0.12, frame.bottom + 0.1, frame.text, **style, zorder=1)


def _box(axes, box):
    """Draw a box; gives its patch and its texts."""
    face, edge = KINDS[box.kind]
    left, bottom, _, _ = _edges(box)
    look = {"boxstyle": "round,pad=0,rounding_size=0.12", "facecolor": face, "edgecolor": edge, "linewidth": 1.2}
    patch = axes.add_patch(FancyBboxPatch((left, bottom), box.width, box.height, **look, zorder=2))
    lines = box.text.split("\n")
    texts = []
    for number, line in enumerate(lines):
        y = box.y + ((len(lines) - 1) / 2 - number) * 0.27
        style = {"weight": "bold", "size": 8.5} if number == 0 < len(lines) - 1 else {"size": 7.5}
        texts.append(axes.text(box.x, y, line, ha="center", va="center", **style, zorder=4))
    return patch, texts


def _arrow(axes, arrow, boxes, patches):
    start, end = boxes[arrow.start], boxes[arrow.end]
    line = FancyArrowPatch(
        (start.x, start.y),
        (end.x, end.y),
        patchA=patches[arrow.start],
        patchB=patches[arrow.end],
        shrinkA=2,
        shrinkB=2,
        connectionstyle=f"arc3,rad={arrow.bend}",
        arrowstyle="-|>",
        mutation_scale=10,
        color="#4a5568",
        linewidth=1.2,
        linestyle="--" if arrow.dashed else "-",
        zorder=1.5,
    )
    axes.add_patch(line)
    if arrow.text:
        across = arrow.bend / 2  # an arc is a Bézier curve: its middle is half as far out as its control point
        middle = (
            (start.x + end.x) / 2 + across * (end.y - start.y),
            (start.y + end.y) / 2 - across * (end.x - start.x),
        )
        back = {"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.9}
        axes.text(*middle, arrow.text, size=7.5, color="#4a5568", ha="center", va="center", bbox=back, zorder=3)


def _check_texts(fig, drawn):
    """Refuse a text that is larger than its box, as it is drawn."""
    fig.canvas.draw()
    for name, (patch, texts) in drawn.items():
        outer = patch.get_window_extent()
        for text in texts:
            inner = text.get_window_extent()
            if inner.x0 < outer.x0 or inner.x1 > outer.x1 or inner.y0 < outer.y0 or inner.y1 > outer.y1:
                raise ValueError(f"the text of box {name!r} must fit into it, {text.get_text()!r} does not")
