"""The tables and the figure of the ablation. Rows are those of training_log.csv of every run, with variant and seed."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from common.files import atomic_write

EDGE = {"edge SAD": "edge_sad", "edge MSE": "edge_mse", "edge Grad": "edge_grad"}
IMAGE = {"SAD": "image_sad", "MSE": "image_mse"}
BY_SET = {"SAD": "image_sad", "MAD": "image_mad", "Grad": "image_grad", "edge SAD": "edge_sad", "edge MAD": "edge_mad"}
BY_SET |= {"edge Grad": "edge_grad"}
COLUMNS = {**IMAGE, **EDGE, "sure SAD": "sure_sad"}  # heading: column; sure is all that is outside the edge band


def spread(values: pd.Series, digits: str = ".4g") -> str:
    """Mean, and standard deviation where there are several values; empty where there are none."""
    values = values.dropna()
    deviation = f" ± {values.std():.2g}" if len(values) > 1 else ""
    return f"{values.mean():{digits}}{deviation}" if len(values) else ""


def over_seeds(runs: pd.DataFrame, digits: str = ".4g") -> pd.DataFrame:
    """Columns of figures, indexed by variant and seed -> the same columns as text, one row per variant."""
    return runs.groupby("variant", sort=False).agg(lambda values: spread(values, digits))


def markdown(caption: str, table: pd.DataFrame) -> str:
    """A caption and a table, whose index is the variant."""
    head = ["variant", *table.columns]
    lines = [head, *([name, *cells] for name, *cells in table.itertuples())]
    rows = [f"| {' | '.join(map(str, line))} |" for line in lines]
    return "\n".join([caption, "", rows[0], "|---" * len(head) + "|", *rows[1:]])


def final_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The row of the last epoch that all runs have reached, by variant and seed."""
    epoch = rows.groupby(["variant", "seed"])["epoch"].max().min()
    return rows[rows["epoch"] == epoch].set_index(["variant", "seed"])


def final_table(rows: pd.DataFrame) -> str:
    """Every figure of the matte that a variant ships."""
    final = final_rows(rows)
    runs = final.groupby("variant", sort=False)
    seconds = rows[rows["epoch"] > 0].groupby("variant")["seconds"].mean()
    table = pd.DataFrame({"seeds": runs.size(), "M parameters": runs["parameters"].first().map("{:.1f}".format)})
    table["s per epoch"] = seconds.map("{:.0f}".format)
    table = table.join(over_seeds(pd.DataFrame({name: final[f"val_refined_{key}"] for name, key in COLUMNS.items()})))
    epoch, step = final[["epoch", "step"]].iloc[0]
    caption = f"After epoch {epoch} ({step} steps); mean ± standard deviation over seeds. SAD and Grad in thousands."
    return markdown(caption, table)


def set_tables(rows: pd.DataFrame) -> list[str]:
    """The figures on each validation set, where a run has several."""
    final = final_rows(rows)
    sets = [match[1] for name in rows if (match := re.fullmatch("val_(.+)_refined_image_sad", name))]
    return [
        markdown(
            f"On {name} alone.",
            over_seeds(pd.DataFrame({title: final[f"val_{name}_refined_{key}"] for title, key in BY_SET.items()})),
        )
        for name in sets
    ]


def edge_table(rows: pd.DataFrame, baseline: str) -> str:
    """How much better the refined matte is at the edge than its own coarse matte, and than the baseline's."""
    final = final_rows(rows)
    variant, seed = (final.index.get_level_values(level) for level in ("variant", "seed"))
    same_seed = final[variant == baseline].droplevel("variant").reindex(seed).set_axis(final.index)
    same_seed[variant == baseline] = math.nan  # itself
    cuts = {}
    for other, matte, source in (("own coarse", "coarse", final), (baseline, "refined", same_seed)):
        for name, key in EDGE.items():
            cuts[f"{name}, {other}"] = 100 * (1 - final[f"val_refined_{key}"] / source[f"val_{matte}_{key}"])
    return markdown("Cut in percent (less is worse, negative is a loss).", over_seeds(pd.DataFrame(cuts), ".1f"))


def start_table(rows: pd.DataFrame) -> str:
    """Whether a new refiner starts cold. Empty where no run has a row 0, since none started from a checkpoint."""
    before, after = (rows[rows["epoch"] == epoch].set_index(["variant", "seed"]) for epoch in (0, 1))
    if before.empty:
        return ""
    table: dict[str, pd.Series] = {}
    for name, key in {"SAD": "val_refined_image_sad", "edge Grad": "val_refined_edge_grad"}.items():
        table |= {f"{name} before": before[key], f"{name} after": after[key]}
    runs = pd.DataFrame(table | {"mean loss between": after["loss"]})
    caption = f"The start: refined SAD and edge Grad before the first step and after {after['step'].iloc[0]} steps."
    return markdown(caption, over_seeds(runs))


def overfit_table(rows: pd.DataFrame) -> str:
    """The best epoch, and what a run that overfits loses again after it."""
    table = []
    for name, key in IMAGE.items():
        curves = rows.groupby(["variant", "seed"], sort=False)[f"val_refined_{key}"]
        best = curves.min().to_frame(f"best {name}")
        rise = (100 * (curves.last() / curves.min() - 1)).to_frame(f"{name}, end above best")
        table += [over_seeds(best), over_seeds(rise, ".1f")]
    return markdown(
        "The best epoch of each run, and how far in percent its last one is above it.", pd.concat(table, axis=1)
    )


def steps_to_baseline(rows: pd.DataFrame, variant: str, baseline: str) -> str:
    """How soon a variant reaches the baseline's best SAD of the same seed, as a share of the baseline's steps to it.

    Linear between two epochs. Empty where the two have no seed in common.
    """
    curves = rows.dropna(subset="val_refined_image_sad").groupby(
        ["variant", "seed"]
    )  # the teacher's epochs have no SAD
    runs = {key: run.set_index("step")["val_refined_image_sad"] for key, run in curves}
    pairs = [
        (run, runs[variant, seed]) for (name, seed), run in runs.items() if name == baseline and (variant, seed) in runs
    ]
    shares = pd.Series([first_reach(own, base.min()) / base.idxmin() for base, own in pairs], dtype=float)
    missed = int(shares.isna().sum())
    if missed == len(shares):
        return f"{variant} reaches the best SAD of '{baseline}' in none of {missed} seeds." if missed else ""
    return (
        f"{variant} reaches the best SAD of '{baseline}' after {spread(shares, '.2f')} of the latter's steps in "
        f"{len(shares) - missed} seeds, and not at all in {missed}."
    )


def first_reach(curve: pd.Series, goal: float) -> float:
    """The step at which a curve over steps first comes down to the goal; NaN where it does not."""
    reached = np.flatnonzero(curve <= goal)
    if not len(reached):
        return math.nan
    around = curve.iloc[[reached[0], max(0, reached[0] - 1)]]
    return float(np.interp(goal, around, around.index))


def photos_table(scores: pd.DataFrame) -> str:
    """The scores of each run's model on each photo, as evaluate.py writes them with --csv."""
    scores = scores.copy()
    for key in EDGE.values():  # a photo without an edge has no figures there, as in evaluate.py
        scores[key] = scores[key].where(scores["edge_share"] > 0)
    names = IMAGE | EDGE
    means = scores.groupby(["variant", "seed"], sort=False)[list(names.values())].mean()
    table = over_seeds(means.set_axis(list(names), axis=1))
    table.insert(0, "seeds", means.groupby("variant", sort=False).size())
    return markdown("The best model of each run on photographs, at their own size.", table)


def draw(rows: pd.DataFrame, path: Path) -> None:
    """Validation figures of each variant against steps: mean over seeds, and their range."""
    figure = Figure(figsize=(13, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 3)
    for axis, title in zip(axes, ("SAD", "edge SAD", "edge Grad"), strict=True):
        for name, part in rows.groupby("variant", sort=False):
            curve = part.groupby("step")[f"val_refined_{COLUMNS[title]}"].agg(["mean", "min", "max"])
            axis.plot(curve.index, curve["mean"], marker=".", label=name)
            axis.fill_between(curve.index, curve["min"], curve["max"], alpha=0.12)
        axis.set(title=f"validation {title}, thousands", xlabel="steps")
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
