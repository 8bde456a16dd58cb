"""The pictures of a run: curves of its log, and a preview of its mattes. Apart, since drawing needs matplotlib."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.plots import Line, Panel, curves
from losses import COLUMNS, column
from matting import predict_mattes
from metrics import DRAWN
from models import MattingNetwork
from training.log import Row, shipped_matte, validation_column
from training.schedule import STUDENT, TEACHER

PREVIEW_PHOTOS = 4


def preview_rows(network: MattingNetwork, validation: Iterable[Any]) -> list[dict[str, Any]]:
    """The first photos of the validation sets with their true, coarse and refined alphas, as plots.preview takes them.

    Raises ValueError for a photo that cannot be read.
    """
    rows = []
    photos = [(dataset, index) for index in range(PREVIEW_PHOTOS) for dataset in validation if index < len(dataset)]
    for dataset, index in photos[:PREVIEW_PHOTOS]:
        item = dataset[index]
        mattes = predict_mattes(network, item["image"])
        alphas = {"coarse": mattes.coarse_alpha, "refined": mattes.refined_alpha}
        rows.append(
            {
                "name": item["name"],
                "image": item["image"].permute(1, 2, 0).numpy(),
                "truth": item["alpha"][0].numpy(),
                "mattes": {name: alpha[0].float().cpu().numpy() for name, alpha in alphas.items() if alpha is not None},
            }
        )
    return rows


def draw_curves(path: Path, rows: Sequence[Row]) -> None:
    """The losses of each stage and the terms of the shipped matte; then the figures of both mattes."""
    matte = shipped_matte(rows)
    names = [name for name in COLUMNS if name.startswith(matte) or name == column("", "alignment")]
    losses = [Line("loss", _points(rows, "loss", STUDENT)), Line("teacher's loss", _points(rows, "loss", TEACHER))]
    losses += [Line(name, _points(rows, name), thin=True) for name in names]
    panels = [Panel("training loss, and its terms without their weights", losses, is_log=True)]
    for figure, title in DRAWN.items():
        columns = {matte: validation_column(matte, figure) for matte in ("coarse", "refined")}
        panels.append(Panel(f"validation {title}", [Line(m, _points(rows, name)) for m, name in columns.items()]))
    curves(path, panels, "epoch")


def draw_runs(path: Path, logs: Mapping[str, Sequence[Row]]) -> None:
    """Several runs over their steps, by label: the student's loss, and figures of the matte that each ships."""
    losses = [Line(label, _points(rows, "loss", STUDENT, over="step")) for label, rows in logs.items()]
    panels = [Panel("training loss, without the teacher's stage", losses)]
    for figure, title in DRAWN.items():
        lines = []
        for label, rows in logs.items():
            matte = shipped_matte(rows)
            name = validation_column(matte, figure)
            lines.append(Line(f"{label}, {matte}", _points(rows, name, over="step")))
        panels.append(Panel(f"validation {title}", lines))
    curves(path, panels, "steps")


def _points(rows: Sequence[Row], name: str, stage: str = "", over: str = "epoch") -> list[tuple[float, float]]:
    """Where the rows of a stage have this column, such as the validated epochs."""
    return [(row[over], row[name]) for row in rows if name in row and stage in ("", row.get("stage", STUDENT))]
