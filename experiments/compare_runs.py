"""Training runs side by side: their curves in one picture, their best epochs, and the settings that differ.

    python -m experiments.compare_runs checkpoints/A checkpoints/B
    python -m experiments.compare_runs A B C --figure abc.png     runs are also found by their names in checkpoints/

The best epoch is the one with the lowest validation MAD, as in train.py. Prints Markdown.
Exit codes: 0 done, 2 a run could not be read or the picture not be written.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from common.command import command, new_parser
from common.errors import UserError
from common.files import make_folder
from config import Config
from experiments.ablation_tables import COLUMNS, markdown
from metrics import DECIDES
from training.log import LOG_FILE, shipped_matte, validation_column
from training.pictures import draw_runs
from training.run_folder import read_settings

VALIDATION = {"dataset", "val_samples", "image_size", "model_idx", "seed"}  # what decides on which photos
Log = list[dict[str, float]]  # rows of training_log.csv, each without its empty cells


def find_folder(run: str) -> Path:
    """The folder of this path or, where there is none, of this name in checkpoints/; it need not hold last.pt."""
    return Path(run) if Path(run).is_dir() else Path(Config.output) / run


def read_log(folder: Path) -> Log:
    """Raises UserError, in one sentence."""
    path = folder / LOG_FILE
    try:
        rows = [row.dropna().to_dict() for _, row in pd.read_csv(path).iterrows()]
    except (OSError, ValueError) as error:  # pandas' errors of parsing are ValueErrors
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read ({reason}): name a run that has finished an epoch.") from error
    if not rows or not all({"epoch", "step"} <= row.keys() for row in rows):
        raise UserError(f"{path} has no epochs: name a run that has finished one.")
    return rows


def best_table(logs: Mapping[str, Log]) -> str:
    """The best epoch of each run, with the figures of the matte that the run ships."""
    table = {}
    for label, rows in logs.items():
        matte = shipped_matte(rows)
        scored = [row for row in rows if validation_column(matte, DECIDES) in row]
        if not scored:
            table[label] = ["", f"none of {rows[-1]['epoch']:.0f} validated", *[""] * (2 + len(COLUMNS))]
            continue
        best = min(scored, key=lambda row: row[validation_column(matte, DECIDES)])
        hours = sum(row.get("seconds", 0) for row in rows if row["epoch"] <= best["epoch"]) / 3600
        cells = [matte, f"{best['epoch']:.0f} of {rows[-1]['epoch']:.0f}", f"{best['step']:.0f}", f"{hours:.2f}"]
        figures = [best.get(f"val_{matte}_{column}") for column in COLUMNS.values()]
        table[label] = cells + ["" if figure is None else f"{figure:.4g}" for figure in figures]
    columns = ["matte", "best epoch", "steps", "hours", *COLUMNS]
    frame = pd.DataFrame.from_dict(table, orient="index", columns=columns).rename_axis("run")
    return markdown("Best epochs, by validation MAD. SAD and Grad in thousands; hours of training until then.", frame)


def settings_table(settings: Mapping[str, Mapping[str, Any]]) -> str:
    """The settings that are not the same in all runs, and what they mean for the comparison."""
    names = dict.fromkeys(name for values in settings.values() for name in values if name != "output")
    cells = {name: [_text(values.get(name)) for values in settings.values()] for name in names}
    differing = {name: texts for name, texts in cells.items() if len(set(texts)) > 1}
    if not differing:
        return "All settings are the same."
    frame = pd.DataFrame.from_dict(differing, orient="index", columns=list(settings)).rename_axis("setting")
    parts = [markdown("Settings that differ.", frame)]
    if decisive := sorted(VALIDATION & differing.keys()):
        parts.append(
            f"They may have been validated on different photos ({', '.join(decisive)}): then their figures cannot be "
            "compared. `python evaluate.py --compare` measures their models on the same photos."
        )
    return "\n\n".join(parts)


def _text(value: Any) -> str:
    """A setting for a table; one that an older version did not have is a dash."""
    return "-" if value is None else " ".join(map(str, value)) if isinstance(value, list) else str(value)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = new_parser(__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders, or their names in checkpoints/")
    figure = Path(Config.output) / "compare_runs.png"
    parser.add_argument("--figure", type=Path, metavar="PNG", default=figure, help="(default: %(default)s)")
    options = parser.parse_args(argv)
    folders = [find_folder(run) for run in options.runs]
    is_clear = len({folder.name for folder in folders}) == len(folders)
    labels = {folder.name if is_clear else str(folder): folder for folder in folders}
    logs = {label: read_log(folder) for label, folder in labels.items()}
    settings = {label: read_settings(folder)[0] for label, folder in labels.items()}
    make_folder(options.figure.parent, "choose another with --figure")
    draw_runs(options.figure, logs)
    print(best_table(logs), settings_table(settings), f"Curves: {options.figure}", sep="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
