"""One picture of many pairs: each photo, its alpha and its cut-out over green, with the name."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw

from data.pairs import Pair, read_pair

TILE, CAPTION, COLUMNS = 160, 18, 3
GREEN = np.array([0, 160, 60], np.float32)


def contact_sheet(pairs: Sequence[Pair], marked: set[Pair]) -> np.ndarray:
    """uint8 (H, W, 3) with three panels a pair: photo, alpha, cut out. Marked pairs get a red name.

    A pair that cannot be read is a grey tile with its name. Raises ValueError without pairs.
    """
    if not pairs:
        raise ValueError("a contact sheet needs at least one pair.")
    columns = min(COLUMNS, len(pairs))
    rows = -(-len(pairs) // columns)
    sheet = Image.new("RGB", (columns * (3 * TILE + 8), rows * (TILE + CAPTION + 4)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, pair in enumerate(pairs):
        left, top = number % columns * (3 * TILE + 8), number // columns * (TILE + CAPTION + 4)
        sheet.paste(Image.fromarray(_panels(pair)), (left, top + CAPTION))
        # Pillow's built-in font has Latin letters only; other names are shown by their code points.
        caption = pair.name if pair.name.isascii() else pair.name.encode("ascii", "backslashreplace").decode()
        draw.text((left + 3, top + 2), caption[-70:], fill="red" if pair in marked else "black")
    return np.asarray(sheet)


def _panels(pair: Pair) -> np.ndarray:
    """uint8 (TILE, 3 * TILE, 3): photo, alpha, photo over green."""
    try:
        photo, alpha = read_pair(pair.image, pair.alpha)
    except ValueError:
        return np.full((TILE, 3 * TILE, 3), 128, np.uint8)
    scale = TILE / max(alpha.shape)
    size = tuple(max(1, round(side * scale)) for side in alpha.shape[::-1])
    photo = cv2.resize(photo, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    alpha = cv2.resize(alpha, size, interpolation=cv2.INTER_AREA)[..., None]
    panels = np.full((TILE, 3 * TILE, 3), 255, np.uint8)
    for place, pixels in enumerate((photo, 255 * alpha.repeat(3, axis=2), alpha * photo + (1 - alpha) * GREEN)):
        panels[: size[1], place * TILE : place * TILE + size[0]] = np.rint(pixels)
    return panels
