"""Write the synthetic set as files."""

from __future__ import annotations

from pathlib import Path

from common.photos import write_alpha, write_image
from data.contact_sheet import contact_sheet
from data.pairs import Pair
from data.synthetic.dataset import SPLITS, draw_photo

SHEET_PAIRS = 12  # of each split


def write_folder(output: Path, *, count: int, size: int, seed: int) -> None:
    """Write `count` samples of each split in the DIS5K_Flat layout, and a contact sheet."""
    shown = []
    for split in SPLITS:
        for name in ("im", "gt"):
            (output / split / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            name = f"{split}_{index:06d}"
            pair = Pair(name, *(output / split / side / f"{name}.png" for side in ("im", "gt")))
            image, alpha = draw_photo(seed, split, index, size)
            write_image(pair.image, image)
            write_alpha(pair.alpha, alpha)
            shown += [pair] if index < SHEET_PAIRS else []
    write_image(output / "contact_sheet.png", contact_sheet(shown, set()))
