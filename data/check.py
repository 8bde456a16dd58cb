"""Find what is wrong with a data set before training on it.

    python -m data.check Datasets/DIS5K_Flat
    python -m data.check ROOT --json report.json --contact-sheet sheet.png

ROOT holds train/im, train/gt, val/im, val/gt, or im and gt themselves. Exit codes: 0 nothing that
harms training (there may be warnings), 1 errors, each named, 2 nothing could start.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from common.command import command, new_parser
from common.errors import UserError
from common.files import write_json
from common.photos import photo_size, read_photo, to_uint8, write_image
from common.processes import usable_cores
from data.alpha_faults import inverted_set, judge_together, look_at_truth
from data.contact_sheet import contact_sheet
from data.copies import Inspection, find_copies, look_of
from data.faults import ERROR, FAULTS, Fault, by_kind, check_sizes, pair_up
from data.pairs import Pair, say_left_out
from data.quick_check import TRAINING_SPLITS, evenly, find_splits

SHEET_PAIRS = 24
NAMES_SHOWN = 5
EXIF_ORIENTATION = 0x0112


@dataclass
class Report:
    """All findings. inspections: one a pair; faults: all, in the order they were found."""

    root: Path
    splits: list[str]
    inspections: list[Inspection]
    faults: list[Fault]

    @property
    def errors(self) -> list[Fault]:
        return [fault for fault in self.faults if fault.severity == ERROR]

    @property
    def warnings(self) -> list[Fault]:
        return [fault for fault in self.faults if fault.severity != ERROR]


def check_dataset(root: str | Path, workers: int | None = None, progress: bool = False) -> Report:
    """Read every pair under root and report what is wrong. Raises UserError if there is no dataset."""
    splits = find_splits(root)
    faults, tasks = [], []
    for name, folder in splits.items():
        pairs, found = pair_up(folder, required=len(splits) == 1 or name in TRAINING_SPLITS)
        faults += found
        sides = [folder / side for side in ("im", "gt", "unknown")]
        faults += [Fault.of("files_left_out", side, said=said) for side in sides if (said := say_left_out(side))]
        tasks += [(pair, name) for pair in pairs]
    # Threads: decoding happens outside Python's lock.
    with ThreadPoolExecutor(workers or min(8, usable_cores())) as pool:
        results = pool.map(lambda task: inspect(*task), tasks)
        inspections = list(tqdm(results, total=len(tasks), unit="pair", disable=None if progress else True))
    for split in splits:
        here = [entry for entry in inspections if entry.split == split]
        faults += judge_together([fault for entry in here for fault in entry.faults], len(here))
        means = [entry.truth.border_and_centre for entry in here if entry.truth and entry.truth.border_and_centre]
        faults += inverted_set(means, splits[split] / "gt")
    faults += find_copies(inspections)
    if not tasks and not faults:
        raise UserError(f"{root} holds no photos: put them into im and their alphas, by the same name, into gt.")
    return Report(Path(root), list(splits), inspections, faults)


def inspect(pair: Pair, split: str) -> Inspection:
    """Decode a pair and look at it. What cannot be read becomes a fault, never an exception."""
    found = Inspection(pair, split, faults=check_sizes(pair))
    of_headers = {fault.path for fault in found.faults}
    known_kinds = {fault.kind for fault in found.faults}
    for kind, path, look in (("photo", pair.image, _look_at_photo), ("alpha", pair.alpha, _look_at_alpha)):
        if f"{kind}_unreadable" not in known_kinds:
            try:
                found.faults += [fault for fault in look(found) if fault.path not in of_headers]
            except ValueError as error:
                found.faults.append(Fault.of(f"{kind}_unreadable", path, error=error))
    return found if found.faults else replace(found, faults=turned_alone(pair))


def _look_at_photo(found: Inspection) -> list[Fault]:
    """Size, look and transparency. Raises ValueError."""
    path = found.pair.image
    found.size = photo_size(path)
    # An eighth of the width and height is plenty for the hash, and the decoder still reads the file to its end.
    photo = read_photo(path, shrink_to=256)
    found.look = look_of(to_uint8(photo.image), hashlib.sha256(path.read_bytes()).digest())
    is_cut_out = photo.alpha is not None and photo.alpha.min() < 0.5
    return [Fault.of("photo_cut_out", path)] if is_cut_out else []


def _look_at_alpha(found: Inspection) -> list[Fault]:
    """Values of the alpha where it is known. Raises ValueError."""
    found.truth = look_at_truth(found.pair)
    return found.truth.faults


def turned_alone(pair: Pair) -> list[Fault]:
    """Where EXIF turns or mirrors one side of a pair and the sizes cannot tell whether that is right."""
    turns = [_orientation(path) for path in (pair.image, pair.alpha)]
    width, height = photo_size(pair.image)
    sizes_tell = max(turns) >= 5 and width != height
    if turns[0] == turns[1] or sizes_tell:
        return []
    turned, other = (pair.image, pair.alpha) if turns[0] != 1 else (pair.alpha, pair.image)
    return [Fault.of("turned_alone", turned, turn=max(turns), other=other.name)]


def _orientation(path: Path) -> int:
    """EXIF orientation of a file that has been read before; 1 where the EXIF block is broken."""
    with Image.open(path) as picture:
        if picture.format == "PNG" and "exif" not in picture.info:
            return 1  # getexif would decode the pixels to look for a block after them, which few programs write
        try:
            return picture.getexif().get(EXIF_ORIENTATION, 1)
        except (SyntaxError, ValueError, struct.error):
            return 1


def split_figures(report: Report, split: str) -> dict[str, Any]:
    """Counts, sizes, soft and unknown pixels of one split, plain values for the table and for JSON."""
    here = [entry for entry in report.inspections if entry.split == split]
    sizes = [entry.size for entry in here if entry.size]
    truths = [entry.truth for entry in here if entry.truth]
    long_sides = [max(size) for size in sizes]
    return {
        "pairs": len(here),
        "long_side_min": min(long_sides, default=None),
        "long_side_median": _over(np.median, long_sides),
        "long_side_max": max(long_sides, default=None),
        "megapixels_mean": _over(np.mean, [width * height / 1e6 for width, height in sizes]),
        "soft_share_median": _over(np.median, [truth.soft_share for truth in truths if truth.soft_share is not None]),
        "binary_alphas": sum(fault.kind == "alpha_binary" for entry in here for fault in entry.faults),
        "unknown_masks": sum(entry.pair.unknown is not None for entry in here),
        "unknown_share_mean": _over(np.mean, [truth.unknown_share for truth in truths]),
    }


def _over(summary: Callable[[Any], Any], values: list) -> float | None:
    return float(summary(values)) if values else None


def format_report(report: Report) -> str:
    """The table for a person."""
    lines = []
    for split in report.splits:
        line = "{pairs} pairs"
        figures = split_figures(report, split)
        if figures["long_side_min"] is not None:
            line += (
                ", long side {long_side_min} to {long_side_max} pixels (median {long_side_median:.0f}), "
                "{megapixels_mean:.1f} megapixels on average"
            )
        if figures["soft_share_median"] is not None:
            line += (
                "; soft pixels: median {soft_share_median:.2%} of an alpha, {binary_alphas} of {pairs} alphas hold 0 "
                "and 1 only"
            )
        if figures["unknown_masks"] and figures["unknown_share_mean"] is not None:
            line += "; {unknown_masks} masks of unknown pixels, {unknown_share_mean:.2%} of all"
        lines.append(f"{split}: {line.format(**figures)}")
    if len(report.splits) == 1:
        lines.append("one split only: no leaks to look for; train.py needs both train and val")
    lines.append("")
    for kind, group in by_kind(report.faults):
        lines.append(f"{FAULTS[kind][0]:<8}{kind:<21}{len(group):>6}")
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
        "faults": [fault._asdict() | {"severity": fault.severity} for fault in report.faults],
    }


def draw_sheet(report: Report) -> np.ndarray:
    """Up to SHEET_PAIRS pairs: at most half of them with errors, the rest evenly from the whole set."""
    named = {fault.path for fault in report.errors}
    pairs = [entry.pair for entry in report.inspections]
    wrong = [pair for pair in pairs if {str(pair.image), str(pair.alpha)} & named]
    shown = evenly(wrong, SHEET_PAIRS // 2)
    others = [pair for pair in pairs if pair not in shown]
    return contact_sheet(shown + evenly(others, SHEET_PAIRS - len(shown)), set(wrong))


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
