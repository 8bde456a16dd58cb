"""Boxes, frames and arrows of the architecture figure. Lengths are in units of the axes, which are inches."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

GREY, INK, PAPER = "#5c6670", "#1f2933", "#f3f5f7"
DASHED = (0, (4, 3))

Rectangle = tuple[float, float, float, float]  # left, bottom, width, height
Point = tuple[float, float]


def frame(axes: Axes, rectangle: Rectangle, face: str, edge: str, *, dashed: bool = False, **style: float) -> None:
    """A rectangle with round corners."""
    left, bottom, width, height = rectangle
    line = DASHED if dashed else "-"
    shape = "round,pad=0,rounding_size=0.09"
    axes.add_patch(
        FancyBboxPatch(
            (left, bottom), width, height, boxstyle=shape, facecolor=face, edgecolor=edge, linestyle=line, **style
        )
    )


def box(axes: Axes, rectangle: Rectangle, colour: str, text: str, fontsize: float = 9.5) -> None:
    """White text on a filled rectangle."""
    left, bottom, width, height = rectangle
    frame(axes, rectangle, colour, "none")
    note(axes, left + width / 2, bottom + height / 2, text, "white", fontsize)


def panel(axes: Axes, rectangle: Rectangle, colour: str, title: str, *, dashed: bool = False) -> None:
    """The frame of a part, with its title inside at the top."""
    left, bottom, _, height = rectangle
    frame(axes, rectangle, colour, "none", alpha=0.08)
    frame(axes, rectangle, "none", colour, dashed=dashed, linewidth=1.8)
    note(axes, left + 0.15, bottom + height - 0.24, title, colour, 11, ha="left", weight="bold")


def tensor(axes: Axes, left: float, middle: float, name: str, shape: str, *, dashed: bool = False) -> None:
    """An image or a matte: name and shape in a box of 1.3 x 1.1."""
    frame(axes, (left, middle - 0.55, 1.3, 1.1), PAPER, GREY, dashed=dashed, linewidth=1.4)
    note(axes, left + 0.65, middle + 0.12, name, INK, 11.5, weight="bold")
    note(axes, left + 0.65, middle - 0.36, shape, GREY, 8.8)


def note(axes: Axes, x: float, y: float, text: str, colour: str = GREY, fontsize: float = 9.5, **style: Any) -> None:
    """Text, centred unless `ha` says otherwise."""
    usual: dict[str, Any] = {"ha": "center", "va": "center", "linespacing": 1.35}
    axes.text(x, y, text, color=colour, fontsize=fontsize, **(usual | style))


def arrow(axes: Axes, *points: Point, colour: str = GREY, dashed: bool = False) -> None:
    """A line through the points, with its head at the last."""
    line = DASHED if dashed else "-"
    if len(points) > 2:
        axes.plot(*zip(*points[:-1], strict=True), color=colour, linewidth=1.6, linestyle=line)
    style = dict(arrowstyle="-|>", color=colour, linewidth=1.6, linestyle=line)
    axes.annotate(
        "", xy=points[-1], xytext=points[-2], arrowprops=style | dict(shrinkA=0, shrinkB=0, mutation_scale=12)
    )
