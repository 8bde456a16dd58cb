"""Find what is wrong with a data set before training on it.

    python -m data.check Datasets/DIS5K_Flat
    python -m data.check ROOT --json report.json --contact-sheet sheet.png

ROOT holds train/im, train/gt, val/im, val/gt, or im and gt themselves. Exit codes: 0 nothing that
harms training (there may be warnings), 1 errors, each named, 2 nothing could start.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common.command import command, new_parser
from common.errors import UserError
from common.files import is_hidden, write_json
from common.photos import read_alpha, write_image
from common.processes import usable_cores
from data.alpha_faults import alpha_faults, judge_together
from data.contact_sheet import contact_sheet
from data.copies import find_copies
from data.faults import Inspection, check_sizes, inspect, pair_up
from data.kinds import ERROR, SEVERITY, Fault
from data.pairs import Pair, read_unknown, say_left_out

TRAINING_SPLITS = ("train", "val")  # what train.py reads
SHEET_PAIRS = 24
NAMES_SHOWN = 5
SAMPLED_TRUTHS = 20  # decoded by quick_check


@dataclass
class Report:
    """All findings. inspections: one a pair; faults: all, in the order they were found."""

    root: Path
    splits: list[str]
    inspections: list[Inspection]
    faults: list[Fault]

    @property
    def errors(self) -> list[Fault]:
        return [fault for fault in self.faults if SEVERITY[fault.kind] == ERROR]

    @property
    def warnings(self) -> list[Fault]:
        return [fault for fault in self.faults if SEVERITY[fault.kind] != ERROR]


def find_splits(root: str | Path) -> dict[str, Path]:
    """Folders with im or gt in them, by name: root itself, or those directly in it. Raises UserError without any."""
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root} is not a folder: give the one that holds train and val, or im and gt.")
    candidates = [root] if (root / "im").is_dir() or (root / "gt").is_dir() else sorted(root.iterdir())
    candidates = [path for path in candidates if path == root or not is_hidden(path.name)]
    splits = {path.name: path for path in candidates if (path / "im").is_dir() or (path / "gt").is_dir()}
    if not splits:
        raise UserError(f"{root} has neither im and gt nor a folder such as train with them in it.")
    # train first, so that of a photo in two splits the copy in the other split is named
    return dict(sorted(splits.items(), key=lambda split: (split[0] != "train", split[0])))


def check_dataset(root: str | Path, workers: int | None = None, progress: bool = False) -> Report:
    """Read every pair under root and report what is wrong. Raises UserError if there is no dataset."""
    splits = find_splits(root)
    faults, tasks = [], []
    for name, folder in splits.items():
        pairs, found = pair_up(folder, required=len(splits) == 1 or name in TRAINING_SPLITS)
        faults += found
        sides = [folder / side for side in ("im", "gt", "unknown")]
        faults += [Fault("files_left_out", str(side), said) for side in sides if (said := say_left_out(side))]
        tasks += [(pair, name) for pair in pairs]
    # Threads: decoding happens outside Python's lock.
    with ThreadPoolExecutor(workers or min(8, usable_cores())) as pool:
        results = pool.map(lambda task: inspect(*task), tasks)
        inspections = list(tqdm(results, total=len(tasks), unit="pair", disable=None if progress else True))
    for split in splits:
        here = [entry for entry in inspections if entry.split == split]
        faults += judge_together([fault for entry in here for fault in entry.faults], len(here))
    faults += find_copies(inspections)
    if not tasks and not faults:
        raise UserError(f"{root} holds no photos: put them into im and their alphas, by the same name, into gt.")
    return Report(Path(root), list(splits), inspections, faults)


def quick_check(root: str | Path) -> list[str]:
    """The cheap part, for the start of a training: names, sizes from the headers, the scale of some truths.

    Returns one sentence per kind of fault. An empty list says that every photo in train and val has its alpha, of the
    same size. Other splits, such as test, are not looked at.
    """
    try:
        splits = find_splits(root)
    except ValueError as error:
        return [str(error)]
    if set(splits) & set(TRAINING_SPLITS):
        splits = {name: splits[name] for name in TRAINING_SPLITS if name in splits}
    faults, checked = [], 0
    for folder in splits.values():
        pairs, found = pair_up(folder)
        faults += found + [fault for pair in pairs for fault in check_sizes(pair)]
        sample = _evenly(pairs, SAMPLED_TRUTHS // len(splits))
        found = judge_together([fault for pair in sample for fault in _alpha_faults(pair)], len(sample))
        faults += [fault for fault in found if fault.kind == "alpha_scale"]
        checked += len(pairs)
    if not checked and not faults:
        return [f"{root} holds no photos: put them into im and their alphas, by the same name, into gt."]
    sentences = []
    for kind, group in by_kind(faults):
        command = f"python -m data.check {shlex.quote(str(root))}"
        more = f" {len(group) - 1} more of this kind ({kind}): {command}" if len(group) > 1 else ""
        sentences.append(group[0].sentence + more)
    return sentences


def _alpha_faults(pair: Pair) -> list[Fault]:
    """alpha_faults of a pair, none where a file cannot be read: training names it and takes another sample."""
    try:
        alpha = read_alpha(pair.alpha)
        known = read_unknown(pair.unknown, alpha.shape) == 0 if pair.unknown else np.ones(alpha.shape, bool)
    except ValueError:
        return []
    return alpha_faults(alpha, pair.alpha, known) if known.any() else []


def by_kind(faults: list[Fault]) -> Iterator[tuple[str, list[Fault]]]:
    """The faults grouped by kind, errors first, in the order of SEVERITY."""
    for kind in sorted(SEVERITY, key=lambda kind: SEVERITY[kind] != ERROR):
        group = [fault for fault in faults if fault.kind == kind]
        if group:
            yield kind, group


def split_figures(report: Report, split: str) -> dict[str, object]:
    """Counts, sizes, soft and unknown pixels of one split, plain values for the table and for JSON."""
    here = [entry for entry in report.inspections if entry.split == split]
    megapixels = [entry.size[0] * entry.size[1] / 1e6 for entry in here if entry.size]
    sides = [max(entry.size) for entry in here if entry.size]
    soft = [entry.soft_share for entry in here if entry.soft_share is not None]
    unknown = [entry.unknown_share for entry in here if entry.unknown_share is not None]
    binary = sum(fault.kind == "alpha_binary" for entry in here for fault in entry.faults)
    return {
        "pairs": len(here),
        "long_side_min": min(sides, default=None),
        "long_side_median": float(np.median(sides)) if sides else None,
        "long_side_max": max(sides, default=None),
        "megapixels_mean": float(np.mean(megapixels)) if megapixels else None,
        "soft_share_median": float(np.median(soft)) if soft else None,
        "binary_alphas": binary,
        "unknown_masks": sum(entry.pair.unknown is not None for entry in here),
        "unknown_share_mean": float(np.mean(unknown)) if unknown else None,
    }


def format_report(report: Report) -> str:
    """The table for a person."""
    lines = []
    for split in report.splits:
        figures = split_figures(report, split)
        line = f"{split}: {figures['pairs']} pairs"
        if figures["long_side_min"] is not None:
            line += (
                f", long side {figures['long_side_min']} to {figures['long_side_max']} pixels (median "
                f"{figures['long_side_median']:.0f}), {figures['megapixels_mean']:.1f} megapixels on average"
            )
        if figures["soft_share_median"] is not None:
            line += (
                f"; soft pixels: median {figures['soft_share_median']:.2%} of an alpha, "
                f"{figures['binary_alphas']} of {figures['pairs']} alphas hold 0 and 1 only"
            )
        if figures["unknown_masks"] and figures["unknown_share_mean"] is not None:
            line += f"; {figures['unknown_masks']} masks of unknown pixels, {figures['unknown_share_mean']:.2%} of all"
        lines.append(line)
    if len(report.splits) == 1:
        lines.append("one split only: no leaks to look for; train.py needs both train and val")
    lines.append("")
    for kind, group in by_kind(report.faults):
        lines.append(f"{SEVERITY[kind]:<8}{kind:<21}{len(group):>6}")
        lines += [f"    {fault.sentence}" for fault in group[:NAMES_SHOWN]]
        if len(group) > NAMES_SHOWN:
            lines.append(f"    and {len(group) - NAMES_SHOWN} more; --json lists all")
    verdict = f"{len(report.errors)} errors, {len(report.warnings)} warnings"
    lines.append(verdict + ("." if report.errors else ": nothing that would harm training."))
    return "\n".join(lines)


def as_json(report: Report) -> dict[str, object]:
    """The report in plain values."""
    return {
        "root": str(report.root),
        "errors": len(report.errors),
        "warnings": len(report.warnings),
        "splits": {split: split_figures(report, split) for split in report.splits},
        "faults": [fault._asdict() | {"severity": SEVERITY[fault.kind]} for fault in report.faults],
    }


def draw_sheet(report: Report) -> np.ndarray:
    """Up to SHEET_PAIRS pairs: at most half of them with errors, the rest evenly from the whole set."""
    named = {fault.path for fault in report.errors}
    pairs = [entry.pair for entry in report.inspections]
    wrong = [pair for pair in pairs if {str(pair.image), str(pair.alpha)} & named]
    shown = _evenly(wrong, SHEET_PAIRS // 2)
    others = [pair for pair in pairs if pair not in shown]
    return contact_sheet(shown + _evenly(others, SHEET_PAIRS - len(shown)), set(wrong))


def _evenly(pairs: list[Pair], count: int) -> list[Pair]:
    """At most `count` of them, evenly spaced, the first and the last included."""
    return [pairs[round(at)] for at in np.linspace(0, len(pairs) - 1, min(count, len(pairs)))]


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    parser = new_parser(__doc__)
    parser.add_argument("root", type=Path, help="folder with train and val, or with im and gt")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything found as JSON")
    parser.add_argument("--contact-sheet", type=Path, metavar="PNG", help="also draw samples with their alphas")
    parser.add_argument("--workers", type=int, help="threads that read files (default: as many as cores, at most 8)")
    options = parser.parse_args(argv)
    report = check_dataset(options.root, options.workers, progress=True)
    if options.json:
        write_json(options.json, as_json(report))
    if options.contact_sheet and report.inspections:
        write_image(options.contact_sheet, draw_sheet(report))
    print(format_report(report))
    return 1 if report.errors else 0


if __name__ == "__main__":
    sys.exit(main())
