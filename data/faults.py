"""What can be wrong with a folder of photos and alphas: one table, and the tests that need only names and headers.

pairs, faults = pair_up(Path("Datasets/DIS5K_Flat/train"))
faults += check_sizes(pairs[0])
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from common.photos import photo_size
from data.pairs import Pair, match_split, sizes_differ

ERROR, WARNING = "error", "warning"
UNREADABLE = (ERROR, "{error}")
NO_PARTNER = "{path} has no {partner} of its name in {folder}."
NO_FOLDER, SCALE = (
    "{path} does not exist: photos go to im, alphas to gt.",
    "{path} reaches only {top} of {full}: {cure}.",
)
LEAK = "{path} is {alike} {first}: a photo of {split} must not be in {other}, or the scores come out too good."

# Kind: severity, and the sentence, with what Fault.of is given. An error harms training or makes the validation wrong.
# A warning is for a person to judge: some large sets have 0/1 truths (DIS5K, DAVIS) and are worth training on, and a
# duplicate only counts twice.
FAULTS = {
    "folder_missing": (ERROR, NO_FOLDER),
    "split_incomplete": (WARNING, NO_FOLDER),
    "files_left_out": (WARNING, "{said}"),
    "photo_without_alpha": (ERROR, NO_PARTNER),
    "alpha_without_photo": (ERROR, NO_PARTNER),
    "unknown_without_photo": (ERROR, NO_PARTNER),
    "name_twice": (ERROR, "{folder} holds {names}, all named {name}: only one of them can have the pair."),
    "sizes_differ": (ERROR, "{said}"),
    "turned_alone": (
        WARNING,
        "{path} is turned by its EXIF orientation {turn} and {other} is not: see with --contact-sheet whether they "
        "fit, and save both upright, without EXIF.",
    ),
    "photo_unreadable": UNREADABLE,
    "photo_cut_out": (
        ERROR,
        "{path} is a cut-out, not a photo: put it into a folder for --foregrounds, or give its original.",
    ),
    "alpha_unreadable": UNREADABLE,
    "alpha_empty": (ERROR, "{path} is {nearly}0 everywhere: it shows no subject."),
    "alpha_full": (ERROR, "{path} is {nearly}1 everywhere: it cuts nothing out."),
    "alpha_inverted": (ERROR, "{path} looks inverted: {why}; the subject must be white."),
    "alpha_perhaps_inverted": (
        WARNING,
        "{path} may be inverted: it is opaque along the upper border and clear in the middle; the subject must be "
        "white, look at it with --contact-sheet.",
    ),
    "alpha_scale": (ERROR, SCALE),
    "alpha_perhaps_scale": (WARNING, SCALE),
    "alpha_faint": (WARNING, SCALE),
    "alpha_levels": (
        WARNING,
        "{path} holds only the values {others} and {last} of 255: it looks like a trimap or a label image; mark the "
        "pixels between in a mask in unknown/, or write 0 and 255.",
    ),
    "alpha_binary": (WARNING, "{path} holds 0 and 1 only, no soft pixel: hair and glass cannot be learned from it."),
    "alpha_noisy": (
        WARNING,
        "{path} is only nearly 0 or 1 in {share:.0%} of its pixels, as JPEG and video leave an alpha: up to {levels} "
        "levels of 255 count as sure; a PNG made from the original would be better.",
    ),
    "unknown_unreadable": UNREADABLE,
    "unknown_full": (ERROR, "{path} marks every pixel as unknown (white): nothing of {alpha} counts."),
    "duplicate": (WARNING, "{path} is {alike} {first}: one of them is enough."),
    "leak_exact": (ERROR, LEAK),
    "leak_similar": (ERROR, LEAK),
}


class Fault(NamedTuple):
    """One finding. kind: of FAULTS; sentence: one, which names the file."""

    kind: str
    path: str
    sentence: str

    @classmethod
    def of(cls, kind: str, path: str | Path, **facts: Any) -> Fault:
        return cls(kind, str(path), FAULTS[kind][1].format(path=path, **facts))

    @property
    def severity(self) -> str:
        return FAULTS[self.kind][0]


def by_kind(faults: list[Fault]) -> Iterator[tuple[str, list[Fault]]]:
    """The faults grouped by kind, errors first, in the order of FAULTS."""
    for kind in sorted(FAULTS, key=lambda kind: FAULTS[kind][0] != ERROR):
        if group := [fault for fault in faults if fault.kind == kind]:
            yield kind, group


def pair_up(folder: Path, required: bool = True) -> tuple[list[Pair], list[Fault]]:
    """The pairs of folder/im and folder/gt, and what is wrong with the names; required: training needs this split."""
    im, gt = folder / "im", folder / "gt"
    if missing := [side for side in (im, gt) if not side.is_dir()]:
        return [], [Fault.of("folder_missing" if required else "split_incomplete", side) for side in missing]
    pairs, faults = [], []
    for name, (photos, alphas, masks) in match_split(folder).items():
        for paths in (photos, alphas, masks):
            if len(paths) > 1:
                names = ", ".join(path.name for path in paths)
                faults.append(Fault.of("name_twice", paths[0], folder=paths[0].parent, names=names, name=name))
        if photos and alphas:
            pairs.append(Pair(name, photos[0], alphas[0], masks[0] if masks else None))
        elif photos:
            faults.append(Fault.of("photo_without_alpha", photos[0], partner="alpha", folder=gt))
        elif alphas:
            faults.append(Fault.of("alpha_without_photo", alphas[0], partner="photo", folder=im))
        if masks and not photos:
            faults.append(Fault.of("unknown_without_photo", masks[0], partner="photo", folder=im))
    return pairs, faults


def check_sizes(pair: Pair, quick: bool = False) -> list[Fault]:
    """Faults that show in the headers of a pair's files, without decoding; quick: see photo_size."""
    files = {"photo": pair.image, "alpha": pair.alpha} | ({"unknown": pair.unknown} if pair.unknown else {})
    sizes: dict[str, tuple[int, int]] = {}
    faults = []
    for kind, path in files.items():
        try:
            sizes[kind] = photo_size(path, quick)
        except ValueError as error:
            faults.append(Fault.of(f"{kind}_unreadable", path, error=error))
    if quick and len(set(sizes.values())) > 1:
        return check_sizes(pair)  # an orientation behind the pixels would explain it
    for kind, size in sizes.items():
        if size != sizes.get("alpha", size):
            said = sizes_differ(files[kind], size[::-1], pair.alpha, sizes["alpha"][::-1])
            faults.append(Fault.of("sizes_differ", files[kind], said=said))
    return faults
