"""Pictures for people: training curves, previews, comparisons. Arrays in, a PNG out.

Every function writes a complete file or none, and raises UserError if it cannot be written.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from common.files import atomic_write

CELL = 320  # pixels of a picture's long side in a grid
CROP_SHARE = 5  # an enlarged crop shows 1 / CROP_SHARE of the long side


class Line(NamedTuple):
    """A line of a diagram: its label, and its points (x, y)."""

    label: str
    points: Sequence[tuple[float, float]]
    thin: bool = False


class Panel(NamedTuple):
    """A diagram of several lines."""

    title: str
    lines: Sequence[Line]
    is_log: bool = False


def curves(path: Path, panels: Sequence[Panel], xlabel: str) -> None:
    """Diagrams two in a row, each with its legend beside it; lines without points are left out."""
    figure = Figure(figsize=(13, 4 * math.ceil(len(panels) / 2)), layout="constrained")
    axes = figure.subplots(math.ceil(len(panels) / 2), 2, squeeze=False)
    for axis, panel in zip(axes.flat, panels, strict=False):
        drawn = [line for line in panel.lines if line.points]
        for line, colour in zip(drawn, itertools.cycle(matplotlib.color_sequences["tab10"]), strict=False):
            width = 1 if line.thin else 2
            axis.plot(*zip(*line.points, strict=True), ".-", label=line.label, color=colour, linewidth=width)
        axis.set(title=panel.title, xlabel=xlabel)
        axis.set_yscale("log" if panel.is_log and drawn else "linear")
        axis.grid(alpha=0.3)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if not panel.is_log:
            axis.set_ylim(0, None)
        if drawn:
            axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    _save(figure, path)


def preview(path: Path, rows: Sequence[Mapping]) -> None:
    """Fixed samples as rows: photo, true alpha, then each matte. rows: dicts as comparison takes."""
    if rows:
        pictures(path, _header(rows), [_pictures(row) for row in rows])


def comparison(path: Path, rows: Sequence[Mapping], pair: tuple[str, str] | None = None) -> None:
    """Mattes of several models side by side; below each photo the crop where the first two differ most, enlarged.

    pair: the two that are compared instead, with a picture of how they differ: red where the first has more, blue where
    the second has.

    rows: dicts of name, image uint8 (H, W, 3), mattes {label: (H, W)} and, where it is known, truth (H, W), alphas in
    [0, 1].
    """
    lines = []
    for row in rows:
        first, second = (row["mattes"][label] for label in pair or list(row["mattes"])[:2])
        shown = [*_pictures(row), *([_heat(first - second)] if pair else [])]
        top, left, side = _largest_difference(first, second)
        crops = [picture[top : top + side, left : left + side].copy() for picture in shown]
        cv2.rectangle(shown[0], (left, top), (left + side, top + side), (255, 60, 60), max(1, side // 60))
        lines += [shown, crops]
    if lines:
        pictures(path, [*_header(rows), *([f"{pair[0]} less {pair[1]}"] if pair else [])], lines)


def _heat(difference: np.ndarray) -> np.ndarray:
    """A difference of alphas (H, W) as RGB uint8: 0 white, 0.5 and more full red, -0.5 and less full blue."""
    strength = np.rint(255 * np.minimum(1, 2 * np.abs(difference))).astype(np.uint8)
    rest = 255 - strength
    high = np.full_like(rest, 255)
    return np.where(difference[..., None] > 0, np.dstack([high, rest, rest]), np.dstack([rest, rest, high]))


def pictures(path: Path, header: Sequence[str], lines: Sequence[Sequence[np.ndarray]]) -> None:
    """RGB uint8 pictures (H, W, 3) in rows under a line of labels, as many in a row as there are labels.

    A PNG, or a JPEG where `path` ends in .jpg, which takes a fifth for photos.
    """
    kind = ".jpg" if path.suffix == ".jpg" else ".png"
    encoded = cv2.imencode(kind, _grid(header, lines)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
    with atomic_write(path) as temporary:
        temporary.write_bytes(encoded.tobytes())


def _header(rows: Sequence[Mapping]) -> list[str]:
    return ["photo", *(["true alpha"] if "truth" in rows[0] else []), *rows[0]["mattes"]]


def _pictures(row: Mapping) -> list[np.ndarray]:
    """RGB uint8 pictures of one row, of the photo's size."""
    alphas = [*([row["truth"]] if "truth" in row else []), *row["mattes"].values()]
    return [
        row["image"].copy(),
        *(np.repeat((alpha * 255 + 0.5).astype(np.uint8)[..., None], 3, axis=2) for alpha in alphas),
    ]


def _largest_difference(first: np.ndarray, second: np.ndarray) -> tuple[int, int, int]:
    """Corner (top, left) and side of the square in which two mattes differ most in sum."""
    height, width = first.shape
    side = max(1, min(max(height, width) // CROP_SHARE, height, width))
    sums = cv2.boxFilter(np.abs(first - second).astype(np.float32), -1, (side, side), anchor=(0, 0), normalize=False)
    sums = sums[: height - side + 1, : width - side + 1]
    top, left = np.unravel_index(int(sums.argmax()), sums.shape)
    return int(top), int(left), side


def _grid(header: Sequence[str], lines: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Pictures in rows under a line of labels, each scaled to CELL on its long side, on white."""
    gap, title = 6, 28
    strips = [np.full((title, len(header) * (CELL + gap) + gap, 3), 255, np.uint8)]
    for column, text in enumerate(header):
        corner = (gap + column * (CELL + gap), 19)
        cv2.putText(strips[0], text, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    for line in lines:
        scaled = [_fit(picture) for picture in line]
        strip = np.full((max(p.shape[0] for p in scaled) + gap, strips[0].shape[1], 3), 255, np.uint8)
        for column, picture in enumerate(scaled):
            left = gap + column * (CELL + gap)
            strip[: picture.shape[0], left : left + picture.shape[1]] = picture
        strips.append(strip)
    return np.concatenate(strips)


def _fit(picture: np.ndarray) -> np.ndarray:
    scale = CELL / max(picture.shape[:2])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    # nearest where it enlarges, so that one compares pixels, not an interpolation of them
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)


def _save(figure: Figure, path: Path) -> None:
    """Figure, not pyplot: no global state, no display, nothing left open after a thousand epochs."""
    FigureCanvasAgg(figure)
    with atomic_write(path) as temporary, matplotlib.rc_context({"font.size": 9}):
        figure.savefig(temporary, format="png", dpi=100)
