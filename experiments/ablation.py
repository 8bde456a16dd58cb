"""Does each part of the method do what is claimed of it? Train the variants alike and compare.

    python -m experiments.ablation --output runs/ablation --hours 2 -- --dataset synthetic --image-size 96 --epochs 6
    python -m experiments.ablation --output runs/ablation --report       only draw and print what has been run

Each variant is train.py with a flag or two; what stands behind -- goes to every one of them, so data, steps and seeds
are equal. Runs that are finished are not run again, and an interrupted one goes on. Seeds go round: all variants with
the first seed, then all with the second, so that a budget that ends early still compares like with like.
Writes figures/ablation.csv (every epoch of every run) and figures/ablation.png, and prints the README's table.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parent.parent
VARIANTS = {
    "TSR-Matte": (),
    "without teacher": ("--no-use-teacher",),
    "TwinSwin-Matte (no refiner)": ("--no-use-refiner",),
    "neither": ("--no-use-refiner", "--no-use-teacher"),
    "teacher never frozen": ("--teacher-share", "1.0"),
    "without gradient loss": ("--weight-gradient", "0"),
}
COLUMNS = {"SAD": "image_sad", "MSE": "image_mse", "edge SAD": "edge_sad", "edge Grad": "edge_grad"}


def run_all(output: Path, seeds: int, hours: float, common: Sequence[str]) -> None:
    """Run what is missing, until the budget is spent."""
    deadline = time.monotonic() + 3600 * hours
    for seed in range(seeds):
        for name, flags in VARIANTS.items():
            left = deadline - time.monotonic()
            folder = output / f"{name} seed {seed}".replace(" ", "_")
            if left <= 0:
                print("The budget is spent; the same command goes on.")
                return
            started = sorted(folder.glob("*/config.json"))
            command = [sys.executable, str(ROOT / "train.py"), "--output", str(folder), *common, *flags, "--seed",
                       str(seed), "--max-hours", f"{left / 3600:.4f}"]
            if started:
                command += ["--resume", str(started[-1].parent)]
            print(f"{name}, seed {seed}", flush=True)
            subprocess.run(command, check=True, cwd=ROOT)


def collect(output: Path) -> pd.DataFrame:
    """The rows of every run's training_log.csv, with its variant and seed."""
    tables = []
    for name in VARIANTS:
        for log in sorted(output.glob(f"{name.replace(' ', '_')}_seed_*/*/training_log.csv")):
            tables.append(pd.read_csv(log).assign(variant=name, seed=int(log.parent.parent.name.rsplit("_", 1)[1])))
    if not tables:
        sys.exit(f"{output} holds no finished epochs: run without --report first.")
    return pd.concat(tables, ignore_index=True)


def table(rows: pd.DataFrame) -> str:
    """Markdown: mean and spread over seeds after the last epoch that all runs have reached, coarse and refined."""
    last = rows.groupby(["variant", "seed"])["epoch"].max().min()
    final = rows[rows["epoch"] == last].groupby("variant")
    lines = [f"After epoch {last}, mean (standard deviation) over seeds; refined matte, and coarse in brackets.", "",
             f"| variant | seeds | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 2) + "|"]
    for name in VARIANTS:
        if name in final.groups:
            part = final.get_group(name)
            cells = []
            for column in COLUMNS.values():
                refined, coarse = part[f"val_refined_{column}"], part[f"val_coarse_{column}"]
                spread = f" ({refined.std():.2g})" if len(part) > 1 else ""
                cells.append(f"{refined.mean():.4g}{spread} [{coarse.mean():.4g}]")
            lines.append(f"| {name} | {len(part)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(rows: pd.DataFrame, path: Path) -> None:
    """Validation SAD of each variant against steps, mean over seeds and their range."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, (title, column) in zip(figure.subplots(1, 2), list(COLUMNS.items())[::2], strict=True):
        for name in VARIANTS:
            part = rows[rows["variant"] == name].groupby("step")[f"val_refined_{column}"]
            if len(part):
                mean = part.mean()
                axis.plot(mean.index, mean, marker=".", label=name)
                axis.fill_between(mean.index, part.min(), part.max(), alpha=0.15)
        axis.set(title=f"validation {title}, refined", xlabel="steps", ylim=(0, None))
        axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--hours", type=float, default=1.0, help="stop training after this time")
    parser.add_argument("--report", action="store_true", help="train nothing")
    argv = list(sys.argv[1:] if argv is None else argv)
    split = argv.index("--") if "--" in argv else len(argv)
    options = parser.parse_args(argv[:split])
    if not options.report:
        run_all(options.output, options.seeds, options.hours, argv[split + 1:])
    rows = collect(options.output)
    rows.to_csv(ROOT / "figures" / "ablation.csv", index=False, float_format="%.6g")
    draw(rows, ROOT / "figures" / "ablation.png")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
