"""The tables and the figure of the ablation. Rows are those of training_log.csv of every run, with variant and seed."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from common.files import atomic_write
from metrics import TITLES

COLUMNS = {title: figure for figure, title in TITLES.items()}  # heading: column


def spread(values: pd.Series, digits: str = ".4g") -> str:
    """Mean, and standard deviation where there are several values; empty where there are none."""
    values = values.dropna()
    deviation = f" ± {values.std():.2g}" if len(values) > 1 else ""
    return f"{values.mean():{digits}}{deviation}" if len(values) else ""


def over_seeds(runs: pd.DataFrame, digits: str = ".4g") -> pd.DataFrame:
    """Columns of figures, indexed by variant and seed -> the same columns as text, one row per variant."""
    return runs.groupby("variant", sort=False).agg(lambda values: spread(values, digits))


def markdown(caption: str, table: pd.DataFrame) -> str:
    """A caption and a table, the first column of which is its index."""
    head = [table.index.name, *table.columns]
    lines = [head, *([name, *cells] for name, *cells in table.itertuples())]
    rows = [f"| {' | '.join(map(str, line))} |" for line in lines]
    return "\n".join([caption, "", rows[0], "|---" * len(head) + "|", *rows[1:]])


def final_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """The row of the last epoch that all runs have reached, by variant and seed."""
    epoch = rows.groupby(["variant", "seed"])["epoch"].max().min()
    return rows[rows["epoch"] == epoch].set_index(["variant", "seed"])


def final_table(rows: pd.DataFrame) -> str:
    """The size and speed of each variant, and what its last mattes cost: the mean over the validation sets."""
    final = final_rows(rows)
    runs = final.groupby("variant", sort=False)
    seconds = rows[rows["epoch"] > 0].groupby("variant")["seconds"].mean()
    table = pd.DataFrame({"seeds": runs.size(), "M parameters": runs["parameters"].first().map("{:.1f}".format)})
    table["s per epoch"] = seconds.map("{:.0f}".format)
    figures = matte_figures(final, "refined").assign(**{"sure SAD": final["val_refined_sure_sad"]})
    table = table.join(over_seeds(figures))
    epoch, step = final[["epoch", "step"]].iloc[0]
    caption = (
        f"After epoch {epoch} ({step} steps); mean ± standard deviation over seeds. SAD and Grad in thousands. "
        "Sure is all that is outside the edge band."
    )
    return markdown(caption, table)


def matte_figures(final: pd.DataFrame, matte: str, validation_set: str = "") -> pd.DataFrame:
    """The columns of COLUMNS that the rows have, of the coarse or refined matte: on one set, or the mean over all."""
    prefix = f"val_{validation_set}_{matte}_" if validation_set else f"val_{matte}_"
    return pd.DataFrame({title: final[prefix + key] for title, key in COLUMNS.items() if prefix + key in final})


def set_names(rows: pd.DataFrame) -> list[str]:
    """The validation sets, where a run has several."""
    return [match[1] for name in rows if (match := re.fullmatch("val_(.+)_refined_image_sad", name))]


def set_tables(rows: pd.DataFrame) -> list[str]:
    """The figures on each validation set, where a run has several."""
    final = final_rows(rows)
    return [
        markdown(f"On {name} alone.", over_seeds(matte_figures(final, "refined", name))) for name in set_names(rows)
    ]


def cut_tables(rows: pd.DataFrame, references: Sequence[str]) -> list[str]:
    """By how many percent the refined matte cuts each error of the run's coarse matte, and of each reference variant's
    matte of the same seed. By set where there are several, else once. Without runs that have nothing beside them."""
    final = final_rows(rows)
    variants, seeds = (final.index.get_level_values(level) for level in ("variant", "seed"))
    tables = []
    for name in set_names(rows) or [""]:
        refined = matte_figures(final, "refined", name)
        others = {"the run's coarse matte": matte_figures(final, "coarse", name)}
        for reference in references:
            if reference in variants:
                others[reference] = refined.xs(reference, level="variant").reindex(seeds).set_axis(final.index)
                others[reference][variants == reference] = math.nan
        where = f" on {name}" if name else ""
        for other, figures in others.items():
            cuts = (100 * (1 - refined / figures)).dropna(how="all")
            cuts = cuts[(cuts != 0).any(axis=1)]  # a run without a refiner equals its coarse matte
            caption = f"Cut of the error{where} in percent of {other} (negative: a loss)."
            tables += [] if cuts.empty else [markdown(caption, over_seeds(cuts, ".1f"))]
    return tables


def start_table(rows: pd.DataFrame) -> str:
    """Whether a new refiner starts cold. Empty where no run has a row 0, since none started from a checkpoint.

    L1 is of the training batches: the refined matte's divided by the coarse matte's.
    """
    trained = rows[rows["epoch"] > 0]
    validated = trained[trained["val_refined_image_sad"].notna()]
    if not (rows["epoch"] == 0).any() or validated.empty:
        return ""
    after = validated.groupby(["variant", "seed"]).first()
    before = rows[rows["epoch"] == 0].set_index(["variant", "seed"]).reindex(after.index)
    table: dict[str, pd.Series] = {}
    for name, key in {"SAD": "val_refined_image_sad", "edge Grad": "val_refined_edge_grad"}.items():
        table |= {f"{name} before": before[key], f"{name} after": after[key]}
    if "refined_l1" in trained:
        multiple = (trained["refined_l1"] / trained["coarse_l1"]).set_axis(trained.set_index(["variant", "seed"]).index)
        first, later = (multiple[trained["epoch"].to_numpy() == 1], multiple[trained["epoch"].to_numpy() > 1])
        table |= {"L1 in epoch 1": first, "highest L1 later": later.groupby(["variant", "seed"]).max()}
    caption = (
        f"The start: refined SAD and edge Grad before the first step and after {after['step'].iloc[0]} steps, and the "
        f"refined L1 of the training batches over the coarse, epochs of {trained['step'].iloc[0]} steps."
    )
    return markdown(caption, over_seeds(pd.DataFrame(table).reindex(after.index)))


def overfit_table(rows: pd.DataFrame) -> str:
    """The best epoch, and what a run that overfits loses again after it."""
    table = []
    for name in ("SAD", "MSE"):
        key = COLUMNS[name]
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
    validated = rows.dropna(subset="val_refined_image_sad")  # not the teacher's epochs
    curves = validated.groupby(["variant", "seed"])
    runs = {key: run.set_index("step")["val_refined_image_sad"] for key, run in curves}
    seeds = [seed for name, seed in runs if name == baseline and (variant, seed) in runs]
    pairs = [(runs[baseline, seed], runs[variant, seed]) for seed in seeds]
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
