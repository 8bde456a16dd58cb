"""Does each part of the method do what is claimed of it? Train the variants alike and compare.

    python -m experiments.ablation --output runs/ablation --hours 2 -- --dataset runs/composites --image-size 96
    python -m experiments.ablation --output runs/ablation --report            only draw and print what has been run
    python -m experiments.ablation --output runs/ablation --photos P ...      measure the models on the photos P too
    python -m experiments.ablation --output runs/start --name start --variants TSR-Matte ... -- ...

Each variant is train.py with a flag or two; what stands behind -- goes to every one of them, so data, steps and seeds
are equal. Runs that are finished are not run again, and an interrupted one goes on. Seeds go round: all variants with
the first seed, then all with the second, so that a budget that ends early still compares like with like.
Writes figures/NAME.csv (every epoch of every run), figures/NAME.png and figures/NAME.md, the tables that it prints.
experiments/composites.py makes a set of exact alphas over real backgrounds for it.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd
import safetensors
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from common.files import atomic_write
from models.checkpoint import MODEL_FILE

ROOT = Path(__file__).resolve().parent.parent
FIGURES = ROOT / "figures"
PHOTOS_FILE = "photos.csv"  # in a run's folder: its model on --photos, a line a photo
TSR, TWIN, NO_TEACHER, NEITHER = "TSR-Matte", "TwinSwin-Matte", "without teacher", "neither"
VARIANTS = {
    TSR: (),
    NO_TEACHER: ("--no-use-teacher",),
    TWIN: ("--no-use-refiner",),
    NEITHER: ("--no-use-refiner", "--no-use-teacher"),
    "without colours": ("--no-use-colours",),
    "without attention": ("--no-use-attention",),
    "without gradient loss": ("--weight-gradient", "0"),
    "without edge loss": ("--weight-edge", "0"),
    "without smart initialization": ("--no-smart-init",),
    "teacher, no alignment": ("--weight-alignment", "0"),
    "Small, neither": ("--model-idx", "1", "--no-use-refiner", "--no-use-teacher"),
}
SAD = "val_refined_image_sad"
SURE = "sure_sad"  # of the pixels outside the edge band
COLUMNS = {
    "SAD": "image_sad",
    "MSE": "image_mse",
    "edge SAD": "edge_sad",
    "edge MSE": "edge_mse",
    "edge Grad": "edge_grad",
    "sure SAD": SURE,
}


def run_all(output: Path, variants: Sequence[str], seeds: int, hours: float, common: Sequence[str]) -> None:
    """Run what is missing, until the budget is spent."""
    deadline = time.monotonic() + 3600 * hours
    for seed in range(seeds):
        for name in variants:
            left = deadline - time.monotonic()
            folder = output / folder_name(name, seed)
            if left <= 0:
                print("The budget is spent; the same command goes on.")
                return
            started = sorted(folder.glob("*/config.json"))
            command = [
                sys.executable,
                str(ROOT / "train.py"),
                "--output",
                str(folder),
                *common,
                *VARIANTS[name],
                "--seed",
                str(seed),
                "--max-hours",
                f"{left / 3600:.4f}",
            ]
            if started:
                command += ["--resume", str(started[-1].parent)]
            print(f"{name}, seed {seed}", flush=True)
            subprocess.run(command, check=True, cwd=ROOT)


def measure_photos(output: Path, photos: Path, variants: Sequence[str]) -> None:
    """Score each run's best model on photos that none of them was validated with, where that is not done yet."""
    for name in variants:
        for model in sorted(output.glob(f"{folder_name(name, '*')}/*/{MODEL_FILE}")):
            if not model.with_name(PHOTOS_FILE).exists():
                print(f"{name}, {model.parent.parent.name}: {photos}", flush=True)
                subprocess.run(
                    [
                        sys.executable,
                        str(ROOT / "evaluate.py"),
                        "--dataset",
                        str(photos),
                        "--checkpoint",
                        str(model),
                        "--csv",
                        str(model.with_name(PHOTOS_FILE)),
                    ],
                    check=True,
                    cwd=ROOT,
                )


def photos_table(output: Path) -> str:
    """Markdown: mean and standard deviation over seeds of what measure_photos found. Empty where it found nothing."""
    columns = {name: column for name, column in COLUMNS.items() if column != SURE}
    lines = []
    for name in VARIANTS:
        runs = [pd.read_csv(path) for path in sorted(output.glob(f"{folder_name(name, '*')}/*/{PHOTOS_FILE}"))]
        if runs:
            means = pd.DataFrame([edges_only(run)[list(columns.values())].mean() for run in runs])
            cells = [name, str(len(runs)), *(spread(means[column]) for column in columns.values())]
            lines.append(f"| {' | '.join(cells)} |")
    head = [
        "The best model of each run on photographs, at their own size.",
        "",
        f"| variant | seeds | {' | '.join(columns)} |",
        "|---" * (len(columns) + 2) + "|",
    ]
    return "\n".join(head + lines) if lines else ""


def edges_only(scores: pd.DataFrame) -> pd.DataFrame:
    """Scores of photos with the edge figures of those without an edge left out, as evaluate.py does."""
    edges = [name for name in scores.columns if name.startswith("edge_")]
    return scores.assign(**scores[edges].where(scores["edge_share"] > 0))


def folder_name(variant: str, seed: int | str) -> str:
    return f"{variant} seed {seed}".replace(" ", "_").replace(",", "")


def collect(output: Path) -> pd.DataFrame:
    """The rows of every run's training_log.csv, with its variant, seed and millions of parameters."""
    tables = []
    for name in VARIANTS:
        for log in sorted(output.glob(f"{folder_name(name, '*')}/*/training_log.csv")):
            rows = pd.read_csv(log).assign(
                variant=name,
                seed=int(log.parent.parent.name.rsplit("_", 1)[1]),
                parameters=parameters(log.parent / MODEL_FILE),
            )
            for matte in ("coarse", "refined"):
                rows[f"val_{matte}_{SURE}"] = rows[f"val_{matte}_image_sad"] - rows[f"val_{matte}_edge_sad"]
            tables.append(rows)
    if not tables:
        sys.exit(f"{output} holds no finished epochs: run without --report first.")
    return pd.concat(tables, ignore_index=True)


def parameters(checkpoint: Path) -> float:
    """Millions of numbers in a model file."""
    with safetensors.safe_open(checkpoint, framework="numpy") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys()) / 1e6  # noqa: SIM118


def final_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Each run's row of the last epoch that all runs have reached."""
    return rows[rows["epoch"] == rows.groupby(["variant", "seed"])["epoch"].max().min()]


def spread(values: Iterable[float], digits: str = ".4g") -> str:
    """Mean, and standard deviation where there are several."""
    values = pd.Series(list(values))
    return f"{values.mean():{digits}}" + (f" ± {values.std():.2g}" if len(values) > 1 else "")


def table(rows: pd.DataFrame) -> str:
    """Markdown: mean and standard deviation over seeds of every figure, of the matte that a variant ships."""
    final = final_rows(rows)
    epoch, step = (int(final[name].iloc[0]) for name in ("epoch", "step"))
    lines = [
        f"After epoch {epoch} ({step} steps); mean ± standard deviation over seeds. SAD and Grad in thousands.",
        "",
        f"| variant | seeds | M parameters | s an epoch | {' | '.join(COLUMNS)} |",
        "|---" * (len(COLUMNS) + 4) + "|",
    ]
    for name, part in final.groupby("variant", sort=False):
        seconds = rows[(rows["variant"] == name) & (rows["epoch"] > 0)]["seconds"].mean()
        cells = [
            name,
            str(len(part)),
            f"{part['parameters'].iloc[0]:.1f}",
            f"{seconds:.0f}",
            *(spread(part[f"val_refined_{column}"]) for column in COLUMNS.values()),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def edge_table(rows: pd.DataFrame) -> str:
    """Markdown: by how many percent each variant's refined matte is better than its own coarse one at the edge, and
    than the TwinSwin-Matte of the same seed."""
    final = final_rows(rows)
    twin = final[final["variant"] == TWIN].set_index("seed")
    names = {"edge SAD": "edge_sad", "edge MSE": "edge_mse", "edge Grad": "edge_grad"}
    lines = [
        "Cut in percent (less is worse, negative is a loss).",
        "",
        f"| variant | {' | '.join(f'{name}, own coarse' for name in names)} | "
        f"{' | '.join(f'{name}, {TWIN}' for name in names)} |",
        "|---" * (2 * len(names) + 1) + "|",
    ]
    for name, part in final.groupby("variant", sort=False):
        part = part.set_index("seed")
        refined = [part[f"val_refined_{column}"] for column in names.values()]
        own = [
            spread(100 * (1 - matte / part[f"val_coarse_{column}"]), ".1f")
            for matte, column in zip(refined, names.values(), strict=True)
        ]
        versus = [
            ""
            if twin.empty or name == TWIN
            else spread((100 * (1 - matte / twin[f"val_refined_{column}"])).dropna(), ".1f")
            for matte, column in zip(refined, names.values(), strict=True)
        ]
        lines.append(f"| {name} | {' | '.join(own)} | {' | '.join(versus)} |")
    return "\n".join(lines)


def start_table(rows: pd.DataFrame) -> str:
    """Markdown: what each variant's matte is before the first step, where runs begin from a checkpoint, and after the
    first epoch, with that epoch's mean loss: whether a new refiner starts cold. Empty where no run has a row 0."""
    before, first = (rows[rows["epoch"] == epoch] for epoch in (0, 1))
    if before.empty:
        return ""
    steps = int(first["step"].iloc[0])
    lines = [
        f"The start: refined SAD and edge Grad before the first step and after {steps} steps.",
        "",
        "| variant | SAD before | SAD after | edge Grad before | edge Grad after | mean loss between |",
        "|---" * 6 + "|",
    ]
    for name, part in before.groupby("variant", sort=False):
        after = first[first["variant"] == name]
        cells = [
            spread(table[f"val_refined_{column}"]) for column in ("image_sad", "edge_grad") for table in (part, after)
        ]
        lines.append(f"| {' | '.join([name, *cells, spread(after['loss'])])} |")
    return "\n".join(lines)


def rise_table(rows: pd.DataFrame) -> str:
    """Markdown: each variant's best epoch of SAD and of MSE, and by how many percent its end is above that: what a
    run that learns its training set by heart loses again."""
    names = {"SAD": "image_sad", "MSE": "image_mse"}
    lines = [
        "The best epoch of each run, and how far in percent its last one is above it.",
        "",
        f"| variant | {' | '.join(f'best {name} | {name}, end above best' for name in names)} |",
        "|---" * 5 + "|",
    ]
    for name, part in rows.groupby("variant", sort=False):
        cells = [name]
        for column in names.values():
            curves = [run.sort_values("epoch")[f"val_refined_{column}"].dropna() for _, run in part.groupby("seed")]
            cells += [
                spread(curve.min() for curve in curves),
                spread((100 * (curve.iloc[-1] / curve.min() - 1) for curve in curves), ".1f"),
            ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def steps_to_baseline(rows: pd.DataFrame, variant: str = TSR, baseline: str = NO_TEACHER) -> str:
    """How soon a variant reaches the best SAD of the baseline of the same seed, as a share of the steps after which
    the baseline has it; between two epochs interpolated. A run that does not get there is counted as such."""
    shares, missed = [], 0
    for seed, base in rows[rows["variant"] == baseline].groupby("seed"):
        own = rows[(rows["variant"] == variant) & (rows["seed"] == seed)].sort_values("epoch")
        own = own.dropna(subset=SAD)  # the teacher's epochs have none
        if own.empty:
            continue
        best = base.loc[base[SAD].idxmin()]
        reached = first_reach(own["step"].tolist(), own[SAD].tolist(), best[SAD])
        if reached is None:
            missed += 1
        else:
            shares.append(reached / best["step"])
    if not shares and not missed:
        return ""
    if not shares:
        return f"{variant} reaches the best SAD of '{baseline}' in none of {missed} seeds."
    return (
        f"{variant} reaches the best SAD of '{baseline}' after {spread(shares, '.2f')} of the latter's steps in "
        f"{len(shares)} seeds, and not at all in {missed}."
    )


def first_reach(steps: Sequence[float], values: Sequence[float], goal: float) -> float | None:
    """Where a falling curve first comes down to the goal, linear between its points; None where it does not."""
    for place, value in enumerate(values):
        if value <= goal:
            if place == 0:
                return steps[0]
            share = (values[place - 1] - goal) / (values[place - 1] - value)
            return steps[place - 1] + share * (steps[place] - steps[place - 1])
    return None


def draw(rows: pd.DataFrame, path: Path) -> None:
    """Validation SAD of each variant against steps, mean over seeds and their range."""
    figure = Figure(figsize=(13, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 3)
    for axis, title in zip(axes, ("SAD", "edge SAD", "edge Grad"), strict=True):
        for name, part in rows.groupby("variant", sort=False):
            curve = part.groupby("step")[f"val_refined_{COLUMNS[title]}"]
            mean = curve.mean()
            axis.plot(mean.index, mean, marker=".", label=name)
            axis.fill_between(mean.index, curve.min(), curve.max(), alpha=0.12)
        axis.set(title=f"validation {title}, thousands", xlabel="steps")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder for the runs")
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=VARIANTS,
        default=list(VARIANTS),
        metavar="NAME",
        help=f"which ones to run, of: {', '.join(VARIANTS)} (default: all)",
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--hours", type=float, default=1.0, help="stop training after this time")
    parser.add_argument("--name", default="ablation", help="of the files in figures/ (default: %(default)s)")
    parser.add_argument(
        "--photos",
        type=Path,
        metavar="DIR",
        help="folder with im and gt (or val inside) on which the best model of each run of --variants is measured too",
    )
    parser.add_argument("--report", action="store_true", help="train nothing")
    argv = list(sys.argv[1:] if argv is None else argv)
    split = argv.index("--") if "--" in argv else len(argv)
    options = parser.parse_args(argv[:split])
    if not options.report:
        run_all(options.output, options.variants, options.seeds, options.hours, argv[split + 1 :])
    if options.photos:
        measure_photos(options.output, options.photos, options.variants)
    report(collect(options.output), FIGURES / options.name, photos_table(options.output))
    return 0


def report(rows: pd.DataFrame, path: Path, more: str = "") -> None:
    """Write path.csv, path.png and path.md (the tables, and `more` after them), and print the last."""
    rows.to_csv(path.with_suffix(".csv"), index=False, float_format="%.6g")
    draw(rows, path.with_suffix(".png"))
    tables = (
        table(rows),
        edge_table(rows),
        start_table(rows),
        rise_table(rows),
        steps_to_baseline(rows),
        steps_to_baseline(rows, TWIN, NEITHER),
        more,
    )
    text = "\n\n".join(filter(None, tables))
    path.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    sys.exit(main())
