"""Rows of figures, one per matte, into tables, CSV and JSON.

A row is what scoring.score_all returns. A photo whose truth has no edge has no figures of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from common import files
from data.alpha_faults import DOUBTFUL, judge_together
from data.faults import by_kind
from evaluation.dis_metrics import DIS, DIS_NOTE, F_CURVE
from evaluation.scoring import MATTE_FAULTS, TRUTH_FAULTS, Row, by_matte, figure_names, metric_of, summarize
from metrics import EDGE_RULE, METRICS, TITLES

USELESS = ("alpha_empty", "alpha_full")  # some photos show no subject; if all of them do, something is wrong


def table(summaries: Mapping[str, pd.DataFrame]) -> str:
    """The summary of one matte with its worst photos, or those of several side by side, by label."""
    if len(summaries) == 1:
        shown = next(iter(summaries.values())).copy()
        shown["worst"] = [", ".join(f"{name} {value:.5g}" for name, value in worst) for worst in shown["worst"]]
    else:
        shown = pd.concat({label: summary[["mean", "median"]] for label, summary in summaries.items()}, axis=1)
    shown.index = pd.MultiIndex.from_tuples([name.split("_", 1) for name in shown.index], names=["region", "metric"])
    return shown.to_string(sparsify=False, float_format="{:.5g}".format, na_rep="-")


def kinds_table(rows: Sequence[Row]) -> str:
    """The means of each kind of photo, which its name begins with: dog_01 and dog_02 are of the kind dog."""
    figures = pd.DataFrame(rows)
    figures["kind"] = figures["name"].map(lambda name: re.split("[_#-]", Path(name).name)[0])
    groups = figures.groupby(["matte", "kind"], sort=False)
    shown = groups[[name for name in TITLES if name in figures]].mean()
    shown.insert(0, "photos", groups.size())
    return shown.to_string(sparsify=False, float_format="{:.4g}".format, na_rep="-")


def notes(rows: Sequence[Row]) -> list[str]:
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
        where = f"{masked.sum()} pixels in {(masked > 0).sum()} photos"
        lines.append(f"{where} are marked as unknown truth: no figure counts them")
    if bare:
        lines.append(f"{bare} photos have no edge band and are left out of the edge figures")
    names = dict.fromkeys(map(metric_of, figure_names(rows)))
    lines += [f"{name}: {METRICS[name].unit}" for name in names]
    if any(name.startswith(DIS) for name in names):
        binarised = f"; so the {soft} soft truths were, for these figures alone" if soft else ""
        unknown = "; an unknown pixel counts as right there" if masked.any() else ""
        lines.append(DIS_NOTE + binarised + unknown)
    return lines + [f"WARNING: {doubt}" for doubt in doubts(rows)]


def doubts(rows: Sequence[Row]) -> list[str]:
    """What may be wrong with the truths, a sentence for each kind, and with the scale of each method's mattes."""
    truths = {row["name"]: row.get(TRUTH_FAULTS, []) for row in rows}
    faults = judge_together([fault for found in truths.values() for fault in found], len(truths))
    scales = [fault.kind for fault in faults if fault.kind in DOUBTFUL]  # doubts about a scale are counted together
    faults = [fault._replace(kind=scales[0]) if fault.kind in DOUBTFUL else fault for fault in faults]
    sentences = []
    for kind, group in by_kind(faults):
        if kind not in USELESS or len(group) == len(truths):
            what = "may have a wrong scale" if kind in DOUBTFUL else "do not serve as truths"
            what = {"alpha_scale": "have a wrong scale", "alpha_noisy": "are noisy"}.get(kind, what)
            sentences.append(f"{len(group)} of {len(truths)} truths {what}. The first: {group[0].sentence}")
    for label, part in by_matte(rows).items():
        by_photo = [row.get(MATTE_FAULTS, []) for row in part]
        doubtful = [fault for found in by_photo for fault in found if fault.kind in DOUBTFUL]
        if doubtful and all(any(f.kind in (*DOUBTFUL, USELESS[0]) for f in found) for found in by_photo):
            sentences.append(f"all mattes of {label} may have a wrong scale. The first: {doubtful[0].sentence}")
    return sentences


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """One line per matte. Raises UserError if it cannot be written."""
    with files.atomic_write(path) as temporary:
        figures = pd.DataFrame(rows).drop(columns=[F_CURVE, TRUTH_FAULTS, MATTE_FAULTS, "photo"], errors="ignore")
        figures.to_csv(temporary, index=False, errors="backslashreplace")  # names from old zips may be no text


def write_json(path: Path, rows: Sequence[Row], failures: Iterable[tuple[str, str]]) -> None:
    """Summaries by matte, with units, edge rule and failures. Raises UserError if it cannot be written."""
    photos = {row["name"]: row for row in rows}.values()
    report: dict[str, Any] = {
        "notes": notes(rows),
        "edge_rule": EDGE_RULE,
        "units": {name: metric.unit for name, metric in METRICS.items()},
        "photos": len(photos),
        "soft_truths": sum(row["soft_share"] > 0 for row in photos),
        "unknown_pixels": sum(row["unknown_pixels"] for row in photos),
        "failed": [{"name": name, "reason": reason} for name, reason in failures],
        "mattes": {label: summarize(part).to_dict("index") for label, part in by_matte(rows).items()},
    }
    for figure in [figure for summary in report["mattes"].values() for figure in summary.values()]:
        figure["worst"] = [{"name": photo, "value": value} for photo, value in figure["worst"]]
    files.write_json(path, report)
