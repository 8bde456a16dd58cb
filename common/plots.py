"""Pictures for people: training curves, previews, comparisons. Arrays in, a PNG out.

Every function writes a complete file or none, and raises UserError if it cannot be written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from common.files import atomic_write

CELL = 320  # pixels of a picture's long side in a grid
CROP_SHARE = 5  # an enlarged crop shows 1 / CROP_SHARE of the long side


def curves(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """training_log.csv as four panels: loss terms, SAD, MSE, Grad (validation, coarse and refined, image and edge)."""
    figure = Figure(figsize=(12, 8), layout="constrained")
    axes = figure.subplots(2, 2)
    trained = [_by_stage(row) for row in rows if "loss" in row]
    terms = dict.fromkeys(name for row in trained for name in row if _is_term(name))
    for name, colour in zip(terms, matplotlib.color_sequences["tab20"], strict=False):
        _draw(axes[0, 0], trained, name, label=name, color=colour, linewidth=2 if name == "loss" else 1)
    axes[0, 0].set(title="training loss and its terms (unweighted)", yscale="log" if terms else "linear")
    if terms:
        axes[0, 0].set_ylim(top=30 * axes[0, 0].get_ylim()[1])  # room for the legend
    units = {"sad": "SAD (thousands of pixels)", "mse": "MSE", "grad": "Grad (thousands)"}
    for axis, (metric, title) in zip(axes.flat[1:], units.items(), strict=True):
        for which, colour in (("coarse", "tab:gray"), ("refined", "tab:blue")):
            for region, style in (("image", "-"), ("edge", "--")):
                name = f"val_{which}_{region}_{metric}"
                _draw(axis, rows, name, label=f"{which}, {region}", color=colour, linestyle=style)
        axis.set(title=f"validation {title}", ylim=(0, None))
    _finish(figure, path, "epoch")


def runs(path: Path, logs: Mapping[str, Sequence[Mapping[str, float]]]) -> None:
    """The training_log.csv of several runs, by label, over their steps: loss, MAD, and SAD and Grad of the edge band.

    Of the matte that a run ships: the refined one, or the coarse one without a refiner.
    """
    figure = Figure(figsize=(12, 8), layout="constrained")
    axes = figure.subplots(2, 2)
    titles = {"image_mad": "MAD", "edge_sad": "edge SAD (thousands of pixels)", "edge_grad": "edge Grad (thousands)"}
    axes[0, 0].set(title="training loss, without the teacher's stage")
    for axis, title in zip(axes.flat[1:], titles.values(), strict=True):
        axis.set(title=f"validation {title}")
    for label, rows in logs.items():
        _draw(axes[0, 0], [_by_stage(row) for row in rows], "loss", over="step", label=label)
        matte = shipped_matte(rows)
        for axis, name in zip(axes.flat[1:], titles, strict=True):
            _draw(axis, rows, f"val_{matte}_{name}", over="step", label=f"{label}, {matte}")
    _finish(figure, path, "steps")


def shipped_matte(rows: Sequence[Mapping[str, float]]) -> str:
    """Which matte the run of this log ships: refined, or coarse without a refiner."""
    return "refined" if any("val_refined_image_mad" in row for row in rows) else "coarse"


def _draw(axis: Axes, rows: Sequence[Mapping[str, float]], name: str, over: str = "epoch", **style: Any) -> None:
    """A column of a log as a line through the rows that have it, such as the validated epochs."""
    if rows := [row for row in rows if name in row]:
        axis.plot([row[over] for row in rows], [row[name] for row in rows], marker=".", **style)


def _finish(figure: Figure, path: Path, xlabel: str) -> None:
    for axis in figure.axes:
        axis.set_xlabel(xlabel)
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize=8, ncols=1 + (len(axis.lines) > 10))
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    _save(figure, path)


def _by_stage(row: Mapping[str, float]) -> dict[str, float]:
    """The row with its loss named by the stage: the two stages sum different terms, and one line through both would
    seem to rise."""
    is_teacher = any(name.startswith("teacher_") for name in row)
    return {"teacher_loss" if is_teacher and name == "loss" else name: value for name, value in row.items()}


def _is_term(name: str) -> bool:
    return name in ("loss", "alignment", "guide") or name.startswith(
        ("coarse_", "refined_", "lower_octaves_", "teacher_")
    )


def preview(path: Path, rows: Sequence[Mapping]) -> None:
    """Fixed samples as rows: photo, true alpha, then each matte. rows: dicts as comparison takes."""
    if rows:
        pictures(path, _header(rows), [_pictures(row) for row in rows])


def comparison(path: Path, rows: Sequence[Mapping], pair: tuple[str, str]) -> None:
    """Mattes of several models side by side, and how the two of `pair` differ: red where the first has more, blue where
    the second has. Below each photo the crop where they differ most, enlarged.

    rows: dicts of name, image uint8 (H, W, 3), mattes {label: (H, W)} and, where it is known, truth (H, W), alphas in
    [0, 1].
    """
    lines = []
    for row in rows:
        first, second = (row["mattes"][label] for label in pair)
        shown = [*_pictures(row), _heat(first - second)]
        top, left, side = _largest_difference(first, second)
        crops = [picture[top : top + side, left : left + side].copy() for picture in shown]
        for picture in (shown[0], shown[-1]):
            cv2.rectangle(picture, (left, top), (left + side, top + side), (255, 60, 60), max(1, side // 60))
        lines += [shown, crops]
    if lines:
        pictures(path, [*_header(rows), f"{pair[0]} less {pair[1]}"], lines)


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
