"""Rows of figures, one a matte, into what a person or a program reads: tables, CSV, JSON.

A row is what scoring.score_matte returns, plus "name" (of the photo) and "matte" (which matte of it).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.photos import atomic_write
from evaluation.dis_metrics import DIS_NOTE, DIS_UNITS, F_CURVE, dis_means
from metrics import COMPOSITE_COLOURS, EDGE_RULE, UNITS

_HIGHER_IS_BETTER = ("dis_max_f", "dis_weighted_f", "dis_s", "dis_e")
_REGIONS = ("image", "edge", "dis")
_ALL_UNITS = {name: unit for name, unit in UNITS.items() if name != "composite"} | DIS_UNITS
_ALL_UNITS |= {f"composite_{colour}": f"{UNITS['composite']}, on {colour}" for colour in COMPOSITE_COLOURS}


class Summary(NamedTuple):
    """One figure over a set of mattes."""

    mean: float
    median: float
    worst: list[tuple[str, float]]  # (name of the photo, value), up to three


def summarize(rows: Sequence[dict]) -> dict[str, Summary]:
    """Summaries by figure ("image_sad", ...). Photos without an edge band are left out of edge figures."""
    summaries = {}
    for figure in figure_names(rows):
        counted = [row for row in rows if row["edge_share"] > 0 or not figure.startswith("edge_")]
        if counted:
            values = [row[figure] for row in counted]
            sign = -1 if figure in _HIGHER_IS_BETTER else 1
            worst = sorted(counted, key=lambda row: (-sign * row[figure], row["name"]))[:3]
            summaries[figure] = Summary(
                float(np.mean(values)), float(np.median(values)), [(row["name"], row[figure]) for row in worst]
            )
    for figure, mean in (dis_means(rows) if "dis_max_f" in summaries else {}).items():
        summaries[figure] = summaries[figure]._replace(mean=mean)
    return summaries


def table(summaries: dict[str, Summary]) -> str:
    """One line a figure: region, metric, mean, median, worst three photos."""
    lines = [f"{'region':7}{'metric':18}{'mean':>11}{'median':>11}   worst three"]
    for figure, summary in summaries.items():
        worst = ", ".join(f"{name} {_number(value)}" for name, value in summary.worst)
        lines.append(f"{_heading(figure)}{_number(summary.mean):>11}{_number(summary.median):>11}   {worst}")
    return "\n".join(lines)


def side_by_side(columns: dict[str, dict[str, Summary]]) -> str:
    """One line a figure, mean and median of each matte beside those of the others; columns by label."""
    width = max(22, *(len(label) + 2 for label in columns))
    lines = [" " * 25 + "".join(f"{label:>{width}}" for label in columns)]
    lines.append(f"{'region':7}{'metric':18}" + f"{'mean':>{width - 11}}{'median':>11}" * len(columns))
    for figure in next(iter(columns.values())):
        cells = [column[figure] for column in columns.values()]
        lines.append(
            _heading(figure)
            + "".join(f"{_number(cell.mean):>{width - 11}}{_number(cell.median):>11}" for cell in cells)
        )
    return "\n".join(lines)


def notes(rows: Sequence[dict]) -> list[str]:
    """What must be said beside the figures: size, regions, units, kind of truths."""
    if not rows:
        return ["nothing could be scored"]
    photos = {row["name"]: row for row in rows}.values()
    soft = sum(row["soft_share"] > 0 for row in photos)
    bare = sum(row["edge_share"] == 0 for row in photos)
    lines = [
        f"{len(photos)} photos at the size of their true alphas; truths: {soft} soft, {len(photos) - soft} binary",
        f"image: all pixels. {EDGE_RULE}; "
        f"{np.mean([row['edge_share'] for row in photos]):.1%} of the pixels on average",
    ]
    if bare:
        lines.append(f"{bare} photos have no edge band and are left out of the edge figures")
    names = [figure if figure in DIS_UNITS else figure.split("_", 1)[1] for figure in figure_names(rows)]
    lines += [f"{name}: {_ALL_UNITS[name]}" for name in dict.fromkeys(names)]
    if "dis_mae" in names:
        lines.append(DIS_NOTE + (f"; so the {soft} soft truths were, for these figures alone" if soft else ""))
    return lines


def write_csv(path: Path, rows: Sequence[dict]) -> None:
    """One line a matte. Raises PhotoError where it cannot be written."""
    names = [name for name in rows[0] if name != F_CURVE]
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def write_json(path: Path, rows: Sequence[dict], failures: Iterable[tuple[str, str]]) -> None:
    """Summaries by matte, with units, edge rule and failures. Raises PhotoError where it cannot be written."""
    report: dict[str, Any] = {
        "notes": notes(rows),
        "edge_rule": EDGE_RULE,
        "units": _ALL_UNITS,
        "photos": len({row["name"] for row in rows}),
        "soft_truths": len({row["name"] for row in rows if row["soft_share"] > 0}),
        "failed": [{"name": name, "reason": reason} for name, reason in failures],
        "mattes": {
            label: {
                figure: {**summary._asdict(), "worst": [{"name": n, "value": v} for n, v in summary.worst]}
                for figure, summary in summarize(part).items()
            }
            for label, part in by_matte(rows).items()
        },
    }
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def by_matte(rows: Sequence[dict]) -> dict[str, list[dict]]:
    """The rows of each matte, in the order of their first appearance."""
    parts: dict[str, list[dict]] = {}
    for row in rows:
        parts.setdefault(row["matte"], []).append(row)
    return parts


def figure_names(rows: Sequence[dict]) -> list[str]:
    """Names of the figures in these rows ("image_sad", ...), image before edge before dis."""
    names = [name for name in rows[0] if name.startswith(_REGIONS) and name not in ("edge_share", F_CURVE)]
    return sorted(names, key=lambda name: _REGIONS.index(name.split("_")[0]))


def _heading(figure: str) -> str:
    region, metric = figure.split("_", 1)
    return f"{region:7}{metric:18}"


def _number(value: float) -> str:
    return f"{value:.5g}"
