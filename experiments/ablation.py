"""Does each part of the method do what is claimed? Train the variants under equal conditions and compare them.

    python -m experiments.ablation --output runs/ablation --hours 2 -- --dataset runs/composites --image-size 96
    python -m experiments.ablation --output runs/ablation --report            only draw and print finished epochs
    python -m experiments.ablation --output runs/start --name start --variants TSR-Matte ... -- ...

A variant is train.py with a flag or two. The flags after -- go to every variant, so data, steps and seeds are equal.
Finished runs are not repeated and interrupted ones are resumed. All variants run with the first seed, then all with the
second, so that a budget that ends early still compares like with like.
Writes experiments/results/NAME/: log.csv (every epoch of every run), curves.png and table.md (what it prints).
experiments/composites.py makes a data set for it: exact alphas over real backgrounds.
"""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import safetensors

from common.command import command, new_parser
from common.errors import UserError
from common.files import atomic_write, make_folder
from experiments import ablation_tables as tables
from models.checkpoint import MODEL_FILE
from training.log import LOG_FILE

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).with_name("results")
TSR, TWIN, NO_TEACHER, NEITHER = "TSR-Matte", "TwinSwin-Matte", "without teacher", "neither"
VARIANTS = {  # name: flags of train.py
    TSR: (),
    NO_TEACHER: ("--no-use-teacher",),
    TWIN: ("--no-use-refiner",),
    NEITHER: ("--no-use-refiner", "--no-use-teacher"),
    "one jump": ("--no-use-octaves",),
    "without colours": ("--no-use-colours",),
    "without attention": ("--no-use-attention",),
    "without gradient loss": ("--weight-gradient", "0"),
    "without Laplacian loss": ("--weight-laplacian", "0"),
    "without gradient and Laplacian loss": ("--weight-gradient", "0", "--weight-laplacian", "0"),
    "without edge loss": ("--weight-edge", "0"),
    "without smart initialization": ("--no-smart-init",),
    "teacher, no alignment": ("--weight-alignment", "0"),
    "Small, neither": ("--model-idx", "1", "--no-use-refiner", "--no-use-teacher"),
}


def folder_name(variant: str, seed: int | str) -> str:
    return f"{variant} seed {seed}".replace(" ", "_").replace(",", "")


def run_all(output: Path, variants: Sequence[str], seeds: int, hours: float, common: Sequence[str]) -> None:
    """Train what is missing, until the hours are over. A run that train.py cannot do raises CalledProcessError."""
    deadline = time.monotonic() + 3600 * hours
    for seed in range(seeds):
        for name in variants:
            left = (deadline - time.monotonic()) / 3600
            if left <= 0:
                print("The time is over; the same command resumes.")
                return
            folder = output / folder_name(name, seed)
            limits = f"--seed {seed} --max-hours {left:.4f}".split()
            flags = ["--output", str(folder), *common, *VARIANTS[name], *limits]
            if started := sorted(folder.glob("*/config.json")):
                flags += ["--resume", str(started[-1].parent)]
            print(f"{name}, seed {seed}", flush=True)
            subprocess.run([sys.executable, str(ROOT / "train.py"), *flags], check=True, cwd=ROOT)


def parameters(checkpoint: Path) -> float:
    """Millions of numbers in a model file."""
    with safetensors.safe_open(checkpoint, framework="numpy") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys()) / 1e6  # noqa: SIM118


def collect(output: Path) -> pd.DataFrame:
    """The rows of every run's log, with variant, seed and millions of parameters. Raises UserError where none are."""
    logs = []
    for name in VARIANTS:
        for path in sorted(output.glob(f"{folder_name(name, '*')}/*/{LOG_FILE}")):
            seed = int(path.parent.parent.name.rsplit("_", 1)[1])
            size = parameters(path.with_name(MODEL_FILE))
            logs.append(pd.read_csv(path).assign(variant=name, seed=seed, parameters=size))
    if not logs:
        raise UserError(f"{output} holds no finished epochs: run without --report first.")
    rows = pd.concat(logs, ignore_index=True)
    for coarse in [name for name in rows if name.startswith("val_") and "coarse_" in name]:
        refined = coarse.replace("coarse_", "refined_")  # of a run without a refiner: its coarse matte is its final one
        rows[refined] = rows[refined].fillna(rows[coarse]) if refined in rows else rows[coarse]
    for matte in ("coarse", "refined"):
        rows[f"val_{matte}_sure_sad"] = rows[f"val_{matte}_image_sad"] - rows[f"val_{matte}_edge_sad"]
    return rows


def report(rows: pd.DataFrame, folder: Path) -> None:
    """Write log.csv, curves.png and table.md, and print the tables."""
    make_folder(folder, "choose another --name")
    with atomic_write(folder / "log.csv") as temporary:
        rows.to_csv(temporary, index=False, float_format="%.6g")
    tables.draw(rows, folder / "curves.png")
    text = describe(rows)
    with atomic_write(folder / "table.md") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    print(text)


def describe(rows: pd.DataFrame) -> str:
    """All tables, in Markdown."""
    parts = (
        tables.final_table(rows),
        *tables.set_tables(rows),
        *tables.cut_tables(rows, (TWIN, TSR)),
        tables.start_table(rows),
        tables.overfit_table(rows),
        tables.steps_to_baseline(rows, TSR, NO_TEACHER),
        tables.steps_to_baseline(rows, TWIN, NEITHER),
    )
    return "\n\n".join(filter(None, parts))


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = new_parser(__doc__)
    flag = parser.add_argument
    flag("--output", type=Path, required=True, metavar="DIR", help="folder for the runs")
    which = f"variants to run, of: {', '.join(VARIANTS)} (default: all)"
    flag("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME", help=which)
    flag("--seeds", type=int, default=3)
    flag("--hours", type=float, default=1.0, help="stop training after this time")
    flag("--name", default="ablation", help="name of the folder in experiments/results/ (default: %(default)s)")
    flag("--report", action="store_true", help="train nothing")
    argv = list(sys.argv[1:] if argv is None else argv)
    split = argv.index("--") if "--" in argv else len(argv)
    options = parser.parse_args(argv[:split])
    if not options.report:
        run_all(options.output, options.variants, options.seeds, options.hours, argv[split + 1 :])
    report(collect(options.output), RESULTS / options.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
