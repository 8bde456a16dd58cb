"""The README's pictures of mattes.

python -m figures.samples kinds      figures/kinds.png: what predict.py --kind makes of a photo and its exact matte
python -m figures.samples mattes     figures/demo_mattes.png: test_data/ beside what lies in test_results/
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common import photos, plots
from common.photos import to_uint8
from inference.rendering import Style, read_background, render
from inference.web_files import on_checkerboard

FIGURES = Path(__file__).parent
PHOTOS = FIGURES.parent / "test_data"
MATTES = FIGURES.parent / "test_results"
EXACT = FIGURES.parent / "tests" / "data"


def kinds(path: Path) -> None:
    """One row a photo that has an exact matte: the photo and each kind of output."""
    header = ("photo", "alpha", "cutout", "foreground", "composite, #2a9d8f", "composite, blur")
    lines = []
    for truth in sorted(EXACT.glob("synthetic_*.png")):
        photo, matte = photos.read_photo(PHOTOS / f"{truth.stem}.jpg"), photos.read_alpha(truth)
        styles = (
            Style("alpha"),
            Style("cutout"),
            Style("foreground"),
            *(Style("composite", background=read_background(text)) for text in ("#2a9d8f", "blur")),
        )
        lines.append([photo.image, *(rgb(render(photo, matte, style)) for style in styles)])
    plots.pictures(path, header, lines)


def mattes(path: Path) -> None:
    """Every photo of test_data above its matte."""
    done = [(file, MATTES / f"{file.stem}.png") for file in photos.list_images(PHOTOS)]
    missing = [str(matte) for _, matte in done if not matte.exists()]
    if missing:
        sys.exit(f"{missing[0]} is not there: run predict.py first.")
    lines = [
        [to_uint8(photos.read_photo(file).image) for file, _ in done],
        [rgb(photos.read_alpha(matte)) for _, matte in done],
    ]
    plots.pictures(path, [file.stem for file, _ in done], lines)


def rgb(picture: np.ndarray) -> np.ndarray:
    """A matte float (H, W), a cut-out uint8 (H, W, 4) or a picture, as RGB uint8 (H, W, 3)."""
    if picture.ndim == 2:
        return np.repeat(np.rint(picture * 255).astype(np.uint8)[..., None], 3, axis=2)
    return on_checkerboard(picture) if picture.shape[2] == 4 else to_uint8(picture)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("kinds", "mattes"))
    if parser.parse_args(argv).what == "kinds":
        kinds(FIGURES / "kinds.png")
    else:
        mattes(FIGURES / "demo_mattes.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
