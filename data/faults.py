"""What can be wrong with a folder of photos and alphas, and the tests that need only names and headers.

pairs, faults = pair_up(Path("Datasets/DIS5K_Flat/train"))
faults += check_sizes(pairs[0])
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from common.photos import photo_size
from data.pairs import Pair, match_split, sizes_differ

ERROR, WARNING = "error", "warning"

# An error harms training or makes the validation wrong. A warning is for a person to judge: some large sets have 0/1
# truths (DIS5K, DAVIS) and are worth training on, and a duplicate only counts twice.
SEVERITY = {
    "folder_missing": ERROR,
    "split_incomplete": WARNING,
    "files_left_out": WARNING,
    "photo_without_alpha": ERROR,
    "alpha_without_photo": ERROR,
    "unknown_without_photo": ERROR,
    "name_twice": ERROR,
    "sizes_differ": ERROR,
    "turned_alone": WARNING,
    "photo_unreadable": ERROR,
    "photo_cut_out": ERROR,
    "alpha_unreadable": ERROR,
    "alpha_empty": ERROR,
    "alpha_full": ERROR,
    "alpha_inverted": ERROR,
    "alpha_perhaps_inverted": WARNING,
    "alpha_scale": ERROR,
    "alpha_perhaps_scale": WARNING,
    "alpha_faint": WARNING,
    "alpha_levels": WARNING,
    "alpha_binary": WARNING,
    "alpha_noisy": WARNING,
    "unknown_unreadable": ERROR,
    "unknown_full": ERROR,
    "duplicate": WARNING,
    "leak_exact": ERROR,
    "leak_similar": ERROR,
}


class Fault(NamedTuple):
    """One finding. kind: of SEVERITY; sentence: one, which names the file."""

    kind: str
    path: str
    sentence: str


def by_kind(faults: list[Fault]) -> Iterator[tuple[str, list[Fault]]]:
    """The faults grouped by kind, errors first, in the order of SEVERITY."""
    for kind in sorted(SEVERITY, key=lambda kind: SEVERITY[kind] != ERROR):
        group = [fault for fault in faults if fault.kind == kind]
        if group:
            yield kind, group


def pair_up(folder: Path, required: bool = True) -> tuple[list[Pair], list[Fault]]:
    """The pairs of folder/im and folder/gt, and what is wrong with the names; required: training needs this split."""
    sides = (folder / "im", folder / "gt")
    kind = "folder_missing" if required else "split_incomplete"
    missing = [
        Fault(kind, str(side), f"{side} does not exist: photos go to im, alphas to gt.")
        for side in sides
        if not side.is_dir()
    ]
    if missing:
        return [], missing
    pairs, faults = [], []
    for name, (photos, alphas, masks) in match_split(folder).items():
        for paths in (photos, alphas, masks):
            if len(paths) > 1:
                others = ", ".join(path.name for path in paths)
                sentence = f"{paths[0].parent} holds {others}, all named {name}: only one of them can have the pair."
                faults.append(Fault("name_twice", str(paths[0]), sentence))
        if photos and alphas:
            pairs.append(Pair(name, photos[0], alphas[0], masks[0] if masks else None))
        elif photos:
            sentence = f"{photos[0]} has no alpha of its name in {sides[1]}."
            faults.append(Fault("photo_without_alpha", str(photos[0]), sentence))
        elif alphas:
            sentence = f"{alphas[0]} has no photo of its name in {sides[0]}."
            faults.append(Fault("alpha_without_photo", str(alphas[0]), sentence))
        if masks and not photos:
            sentence = f"{masks[0]} has no photo of its name in {sides[0]}."
            faults.append(Fault("unknown_without_photo", str(masks[0]), sentence))
    return pairs, faults


def check_sizes(pair: Pair, quick: bool = False) -> list[Fault]:
    """Faults that show in the headers of a pair's files, without decoding; quick: see photo_size."""
    sizes: dict[str, tuple[int, int]] = {}
    faults = []
    for kind, path in (("photo", pair.image), ("alpha", pair.alpha), ("unknown", pair.unknown)):
        try:
            if path:
                sizes[kind] = photo_size(path, quick)
        except ValueError as error:
            faults.append(Fault(f"{kind}_unreadable", str(path), str(error)))
    if quick and len(set(sizes.values())) > 1:
        return check_sizes(pair)  # an orientation behind the pixels would explain it
    for kind, path in (("photo", pair.image), ("unknown", pair.unknown)):
        if path and kind in sizes and "alpha" in sizes and sizes[kind] != sizes["alpha"]:
            sentence = sizes_differ(path, sizes[kind][::-1], pair.alpha, sizes["alpha"][::-1])
            faults.append(Fault("sizes_differ", str(path), sentence))
    return faults
