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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from common.command import command, new_parser
from common.errors import UserError
from common.files import write_json
from common.photos import photo_size, read_alpha, read_photo, to_uint8, write_image
from common.processes import usable_cores
from common.truth import is_soft
from data.alpha_faults import alpha_faults, border_and_centre, inverted_set, judge_together
from data.contact_sheet import contact_sheet
from data.copies import Inspection, find_copies, look_of
from data.faults import ERROR, SEVERITY, Fault, by_kind, check_sizes, pair_up
from data.pairs import Pair, read_unknown, say_left_out
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
        return [fault for fault in self.faults if SEVERITY[fault.kind] == ERROR]

    @property
    def warnings(self) -> list[Fault]:
        return [fault for fault in self.faults if SEVERITY[fault.kind] != ERROR]


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
        faults += inverted_set(
            [entry.border_and_centre for entry in here if entry.border_and_centre], splits[split] / "gt"
        )
    faults += find_copies(inspections)
    if not tasks and not faults:
        raise UserError(f"{root} holds no photos: put them into im and their alphas, by the same name, into gt.")
    return Report(Path(root), list(splits), inspections, faults)


def inspect(pair: Pair, split: str) -> Inspection:
    """Decode a pair and look at it. What cannot be read becomes a fault, never an exception."""
    found = Inspection(pair, split, faults=check_sizes(pair))
    known_kinds = {fault.kind for fault in found.faults}
    for kind, path, look in (("photo", pair.image, _look_at_photo), ("alpha", pair.alpha, _look_at_truth)):
        if f"{kind}_unreadable" not in known_kinds:
            try:
                look(found)
            except ValueError as error:
                found.faults.append(Fault(f"{kind}_unreadable", str(path), str(error)))
    if not found.faults and (sentence := turned_alone(pair)):
        found.faults.append(Fault("turned_alone", str(pair.image), sentence))
    return found


def _look_at_photo(found: Inspection) -> None:
    """Size, look and transparency. Raises ValueError."""
    path = found.pair.image
    found.size = photo_size(path)
    # An eighth of the width and height is plenty for the hash, and the decoder still reads the file to its end.
    photo = read_photo(path, shrink_to=256)
    found.look = look_of(to_uint8(photo.image), hashlib.sha256(path.read_bytes()).digest())
    if photo.alpha is not None and photo.alpha.min() < 0.5:
        sentence = f"{path} is a cut-out, not a photo: put it into a folder for --foregrounds, or give its original."
        found.faults.append(Fault("photo_cut_out", str(path), sentence))


def _look_at_truth(found: Inspection) -> None:
    """Values of the alpha where it is known, and how much is not. Raises ValueError if the alpha cannot be read."""
    pair = found.pair
    alpha = read_alpha(pair.alpha)
    known = np.ones(alpha.shape, bool)
    if pair.unknown and not any(fault.path == str(pair.unknown) for fault in found.faults):
        try:
            known = read_unknown(pair.unknown, alpha.shape) == 0
        except ValueError as error:
            found.faults.append(Fault("unknown_unreadable", str(pair.unknown), str(error)))
    found.unknown_share = float(1 - known.mean())
    if not known.any():
        sentence = f"{pair.unknown} marks every pixel as unknown (white): nothing of {pair.alpha.name} counts."
        found.faults.append(Fault("unknown_full", str(pair.unknown), sentence))
        return
    found.soft_share = float(np.mean(is_soft(alpha[known])))
    found.border_and_centre = border_and_centre(np.where(known, alpha, 0))
    found.faults += alpha_faults(alpha, pair.alpha, known)


def turned_alone(pair: Pair) -> str | None:
    """A sentence where EXIF turns or mirrors one side of a pair and the sizes cannot tell whether that is right."""
    turns = [_orientation(path) for path in (pair.image, pair.alpha)]
    width, height = photo_size(pair.image)
    sizes_tell = max(turns) >= 5 and width != height
    if turns[0] == turns[1] or sizes_tell:
        return None
    turned, other = (pair.image, pair.alpha) if turns[0] != 1 else (pair.alpha, pair.image)
    return (
        f"{turned} is turned by its EXIF orientation {max(turns)} and {other.name} is not: see with --contact-sheet "
        "whether they fit, and save both upright, without EXIF."
    )


def _orientation(path: Path) -> int:
    """EXIF orientation of a file that has been read before; 1 where the EXIF block is broken."""
    with Image.open(path) as picture:
        if picture.format == "PNG" and "exif" not in picture.info:
            return 1  # getexif would decode the pixels to look for a block after them, which few programs write
        try:
            return picture.getexif().get(EXIF_ORIENTATION, 1)
        except (SyntaxError, ValueError, struct.error):
            return 1


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
