"""Boxes, frames and arrows of the architecture figure."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

GREY, INK, PAPER = "#5c6670", "#1f2933", "#f3f5f7"
DASHED = (0, (4, 3))


def box(axes: Axes, rectangle: tuple[float, float, float, float], color: str, text: str, fontsize: float = 9.5) -> None:
    """rectangle: left, bottom, width, height."""
    left, bottom, width, height = rectangle
    axes.add_patch(
        FancyBboxPatch(
            (left, bottom), width, height, boxstyle="round,pad=0,rounding_size=0.08", facecolor=color, edgecolor="none"
        )
    )
    axes.text(
        left + width / 2,
        bottom + height / 2,
        text,
        fontsize=fontsize,
        color="white",
        ha="center",
        va="center",
        linespacing=1.35,
    )


def panel(
    axes: Axes, rectangle: tuple[float, float, float, float], color: str, title: str, dashed: bool = False
) -> None:
    """The frame of a part, with its title inside at the top."""
    left, bottom, width, height = rectangle
    frame = dict(boxstyle="round,pad=0,rounding_size=0.15", linewidth=1.8, linestyle=DASHED if dashed else "-")
    axes.add_patch(FancyBboxPatch((left, bottom), width, height, facecolor="none", edgecolor=color, **frame))
    axes.add_patch(
        FancyBboxPatch(
            (left, bottom), width, height, facecolor=color, edgecolor="none", alpha=0.08, boxstyle=frame["boxstyle"]
        )
    )
    axes.text(left + 0.15, bottom + height - 0.24, title, fontsize=11, color=color, weight="bold", va="center")


def tensor(axes: Axes, left: float, middle: float, name: str, shape: str, dashed: bool = False) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (left, middle - 0.55),
            1.3,
            1.1,
            boxstyle="round,pad=0,rounding_size=0.08",
            facecolor=PAPER,
            edgecolor=GREY,
            linewidth=1.4,
            linestyle=DASHED if dashed else "-",
        )
    )
    axes.text(left + 0.65, middle + 0.12, name, fontsize=11.5, color=INK, weight="bold", ha="center", va="center")
    axes.text(left + 0.65, middle - 0.36, shape, fontsize=8.8, color=GREY, ha="center", va="center")


def arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    *,
    color: str = GREY,
    label: str = "",
    dashed: bool = False,
) -> None:
    style = dict(
        arrowstyle="-|>",
        color=color,
        linewidth=1.6,
        shrinkA=0,
        shrinkB=0,
        mutation_scale=12,
        linestyle=DASHED if dashed else "-",
    )
    axes.annotate("", xy=end, xytext=start, arrowprops=style)
    if label:
        axes.text(
            (start[0] + end[0]) / 2 - 0.07, start[1] + 0.12, label, fontsize=8.6, color=GREY, ha="center", va="bottom"
        )


def lateral(axes: Axes, start: tuple[float, float], end: tuple[float, float], low: float, color: str) -> None:
    """Down to `low`, across, and up."""
    axes.plot([start[0], start[0], end[0]], [start[1], low, low], color=color, linewidth=1.3)
    arrow(axes, (end[0], low), end, color=color)
