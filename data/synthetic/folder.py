"""Write the synthetic set as files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from common.photos import write_image
from data.synthetic.dataset import SPLITS, draw_photo


def write_folder(output: Path, *, count: int, size: int, seed: int) -> None:
    """Write `count` samples of each split in the DIS5K_Flat layout, and a contact sheet."""
    tiles: list[np.ndarray] = []
    tile = min(size, 384)
    for split in SPLITS:
        for name in ("im", "gt"):
            (output / split / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            image, alpha = draw_photo(seed, split, index, size)
            matte = np.rint(alpha * 255).astype(np.uint8)
            name = f"{split}_{index:06d}.png"
            write_image(output / split / "im" / name, image)
            write_image(output / split / "gt" / name, matte)
            if len(tiles) < 16:
                pair = np.hstack([image, cv2.cvtColor(matte, cv2.COLOR_GRAY2RGB)])
                tiles.append(cv2.resize(pair, (2 * tile, tile), interpolation=cv2.INTER_AREA))
    columns = min(4, len(tiles))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[k : k + columns]) for k in range(0, len(tiles), columns)]
    write_image(output / "contact_sheet.png", np.vstack(rows))
