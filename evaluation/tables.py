"""Rows of figures, one per matte, into tables, CSV and JSON.

A row is what scoring.score_matte returns, plus "name" (of the photo) and "matte" (which matte of it).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from common import files
from evaluation.dis_metrics import DIS_NOTE, DIS_UNITS, F_CURVE, dis_means
from evaluation.scales import MATTE_FAULT, TRUTH_FAULT, scale_notes
from metrics import COMPOSITE_COLOURS, EDGE_RULE, UNITS

KINDS_FIGURES = ("image_sad", "image_mse", "image_mad", "image_grad", "edge_sad", "edge_mad")
_HIGHER_IS_BETTER = ("dis_max_f", "dis_weighted_f", "dis_s", "dis_e")
_ALL_UNITS = {name: unit for name, unit in UNITS.items() if name != "composite"} | DIS_UNITS
_ALL_UNITS |= {f"composite_{colour}": f"{UNITS['composite']}, on {colour}" for colour in COMPOSITE_COLOURS}


def by_matte(rows: Sequence[dict]) -> dict[str, list[dict]]:
    """The rows of each matte, in the order of their first appearance."""
    parts: dict[str, list[dict]] = {}
    for row in rows:
        parts.setdefault(row["matte"], []).append(row)
    return parts


def figure_names(rows: Sequence[dict]) -> list[str]:
    """Names of the figures in these rows ("image_sad", ...): image before edge before dis."""
    return [
        name
        for region in ("image_", "edge_", "dis_")
        for name in rows[0]
        if name.startswith(region) and name not in ("edge_share", F_CURVE)
    ]


def summarize(rows: Sequence[dict]) -> pd.DataFrame:
    """One line per figure ("image_sad", ...) of one matte: mean, median, worst.

    worst lists the (name, value) of up to three photos. Photos without an edge band are left out of edge figures,
    which are NaN where there is no other photo.
    """
    figures = pd.DataFrame(rows).set_index("name").sort_index()
    has_edge = figures["edge_share"] > 0
    summary = {}
    for name in figure_names(rows):
        values = figures.loc[has_edge, name] if name.startswith("edge_") else figures[name]
        worst = values.sort_values(ascending=name in _HIGHER_IS_BETTER, kind="stable")[:3]
        summary[name] = {"mean": values.mean(), "median": values.median(), "worst": list(worst.items())}
    for name, mean in (dis_means(rows) if F_CURVE in rows[0] else {}).items():
        summary[name]["mean"] = mean
    return pd.DataFrame.from_dict(summary, orient="index")


def table(summaries: Mapping[str, pd.DataFrame]) -> str:
    """The summary of one matte with its worst photos, or those of several side by side, by label."""
    if len(summaries) == 1:
        shown = next(iter(summaries.values())).copy()
        shown["worst"] = [", ".join(f"{name} {value:.5g}" for name, value in worst) for worst in shown["worst"]]
    else:
        shown = pd.concat({label: summary[["mean", "median"]] for label, summary in summaries.items()}, axis=1)
    shown.index = pd.MultiIndex.from_tuples([name.split("_", 1) for name in shown.index], names=["region", "metric"])
    return shown.to_string(sparsify=False, float_format="{:.5g}".format, na_rep="-")


def kinds_table(rows: Sequence[dict]) -> str:
    """The means of each kind of photo, which its name begins with: dog_01 and dog_02 are of the kind dog."""
    figures = pd.DataFrame(rows)
    figures["kind"] = figures["name"].map(lambda name: re.split("[_#-]", Path(name).name)[0])
    edges = [name for name in KINDS_FIGURES if name.startswith("edge_")]
    figures[edges] = figures[edges].where(figures["edge_share"] > 0)  # as in summarize
    groups = figures.groupby(["matte", "kind"], sort=False)
    shown = groups[list(KINDS_FIGURES)].mean()
    shown.insert(0, "photos", groups.size())
    return shown.to_string(sparsify=False, float_format="{:.4g}".format, na_rep="-")


def notes(rows: Sequence[dict]) -> list[str]:
    """What must be said with the figures: size, regions, units, kind of truths, pixels left out, doubts."""
    if not rows:
        return ["nothing could be scored"]
    photos = pd.DataFrame(rows).drop_duplicates("name")
    soft, bare, masked = (photos["soft_share"] > 0).sum(), (photos["edge_share"] == 0).sum(), photos["unknown_pixels"]
    lines = [
        f"{len(photos)} photos at the size of their true alphas; truths: {soft} soft, {len(photos) - soft} binary",
        f"image: all pixels. {EDGE_RULE}; {photos['edge_share'].mean():.1%} of the pixels on average",
    ]
    if masked.any():
        lines.append(
            f"{masked.sum()} pixels in {(masked > 0).sum()} photos are marked as unknown truth: no figure counts them"
        )
    if bare:
        lines.append(f"{bare} photos have no edge band and are left out of the edge figures")
    names = [figure if figure in DIS_UNITS else figure.split("_", 1)[1] for figure in figure_names(rows)]
    lines += [f"{name}: {_ALL_UNITS[name]}" for name in dict.fromkeys(names)]
    if "dis_mae" in names:
        binarised = f"; so the {soft} soft truths were, for these figures alone" if soft else ""
        unknown = "; an unknown pixel counts as right there" if masked.any() else ""
        lines.append(DIS_NOTE + binarised + unknown)
    return lines + scale_notes(rows, by_matte(rows))


def write_csv(path: Path, rows: Sequence[dict]) -> None:
    """One line per matte. Raises UserError if it cannot be written."""
    with files.atomic_write(path) as temporary:
        figures = pd.DataFrame(rows).drop(columns=[F_CURVE, TRUTH_FAULT, MATTE_FAULT], errors="ignore")
        figures.to_csv(temporary, index=False, errors="backslashreplace")  # names from old zips may be no text


def write_json(path: Path, rows: Sequence[dict], failures: Iterable[tuple[str, str]]) -> None:
    """Summaries by matte, with units, edge rule and failures. Raises UserError if it cannot be written."""
    photos = {row["name"]: row for row in rows}.values()
    report: dict[str, Any] = {
        "notes": notes(rows),
        "edge_rule": EDGE_RULE,
        "units": _ALL_UNITS,
        "photos": len(photos),
        "soft_truths": sum(row["soft_share"] > 0 for row in photos),
        "unknown_pixels": sum(row["unknown_pixels"] for row in photos),
        "failed": [{"name": name, "reason": reason} for name, reason in failures],
        "mattes": {label: _as_json(summarize(part)) for label, part in by_matte(rows).items()},
    }
    files.write_json(path, report)


def _as_json(summary: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """A summary by figure, without the figures that no photo has."""
    figures = summary.dropna(subset="mean").to_dict("index")
    return {
        str(name): figure | {"worst": [{"name": photo, "value": value} for photo, value in figure["worst"]]}
        for name, figure in figures.items()
    }
