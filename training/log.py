"""training_log.csv: its columns, how it is written, and the curves that are drawn from it.

stage: start (--init-from, before the first step), teacher or student. loss and losses.COLUMNS: means over the epoch.
val_coarse_..., val_refined_...: figures of the validation. docs/training.md explains each column.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.files import atomic_write
from losses import COLUMNS, column
from metrics import DRAWN
from training.schedule import STUDENT, TEACHER

LOG_FILE = "training_log.csv"
MATTES = ("coarse", "refined")
DECIDES = "image_mad"  # the best epoch has the lowest, of the matte that the run ships
Row = Mapping[str, Any]


def write_log(folder: Path, rows: Sequence[Row]) -> None:
    """The whole file, from the rows that the training state holds: no duplicate and no gap after a kill."""
    # names are taken from the last row first: the row before the first step has no losses yet
    names = list(dict.fromkeys(name for row in reversed(rows) for name in row))
    with (
        atomic_write(folder / LOG_FILE) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({name: f"{v:.6g}" if isinstance(v, float) else v for name, v in row.items()})


def validation_column(matte: str, figure: str) -> str:
    return f"val_{matte}_{figure}"


def is_validated(row: Row) -> bool:
    return validation_column("coarse", DECIDES) in row


def shipped_matte(rows: Sequence[Row]) -> str:
    """Which matte the run of this log ships: refined, or coarse without a refiner."""
    return "refined" if any(validation_column("refined", DECIDES) in row for row in rows) else "coarse"


def draw_curves(path: Path, rows: Sequence[Row]) -> None:
    """The losses of each stage and the terms of the shipped matte; then the figures of both mattes."""
    from common.plots import Line, Panel, curves

    matte = shipped_matte(rows)
    names = [name for name in COLUMNS if name.startswith(matte) or name == column("", "alignment")]
    losses = [Line("loss", _points(rows, "loss", STUDENT)), Line("teacher's loss", _points(rows, "loss", TEACHER))]
    losses += [Line(name, _points(rows, name), thin=True) for name in names]
    panels = [Panel("training loss, and its terms without their weights", losses, is_log=True)]
    for figure, title in DRAWN.items():
        columns = {matte: validation_column(matte, figure) for matte in MATTES}
        panels.append(Panel(f"validation {title}", [Line(m, _points(rows, name)) for m, name in columns.items()]))
    curves(path, panels, "epoch")


def draw_runs(path: Path, logs: Mapping[str, Sequence[Row]]) -> None:
    """Several runs over their steps, by label: the student's loss, and figures of the matte that each ships."""
    from common.plots import Line, Panel, curves

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
