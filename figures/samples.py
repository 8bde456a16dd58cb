"""Draw the README's pictures of mattes.

python -m figures.samples kinds      figures/kinds.png: every --kind of predict.py, from photos with exact mattes
python -m figures.samples mattes     figures/demo_mattes.png: the photos of test_data/ and their mattes in test_results/
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common import photos, plots
from common.processes import print_any_name
from inference.rendering import Style, read_background, render
from inference.web_files import on_checkerboard

FIGURES = Path(__file__).parent
ROOT = FIGURES.parent
PHOTOS = ROOT / "test_data"
EXACT = ROOT / "tests" / "data"  # mattes of the drawn photos
RESULTS = ROOT / "test_results"


def kinds(path: Path) -> None:
    """A row for each photo that has an exact matte: the photo, its alpha and what is rendered from both."""
    styles = {
        "alpha": Style("alpha"),
        "cutout": Style("cutout"),
        "foreground": Style("foreground"),
        "composite, #2a9d8f": Style("composite", background=read_background("#2a9d8f")),
        "composite, blur": Style("composite", background=read_background("blur")),
    }
    lines = []
    for file in sorted(EXACT.glob("*.png")):
        photo, alpha = photos.read_photo(PHOTOS / f"{file.stem}.jpg"), photos.read_alpha(file)
        lines.append([photo.image, *(rgb(render(photo, alpha, style)) for style in styles.values())])
    plots.pictures(path, ["photo", *styles], lines)


def mattes(path: Path) -> None:
    """Every photo of test_data above its matte."""
    files = photos.list_images(PHOTOS)
    missing = [file.stem for file in files if not (RESULTS / f"{file.stem}.png").exists()]
    if missing:
        sys.exit(f"{RESULTS} holds no {missing[0]}.png: run python predict.py first.")
    above = [photos.to_uint8(photos.read_photo(file).image) for file in files]
    below = [rgb(photos.read_alpha(RESULTS / f"{file.stem}.png")) for file in files]
    plots.pictures(path, [file.stem for file in files], [above, below])


def rgb(picture: np.ndarray) -> np.ndarray:
    """A matte float (H, W) in [0, 1] or a picture uint8 (H, W, 3 or 4), as uint8 (H, W, 3)."""
    if picture.ndim == 2:
        return np.repeat(np.rint(picture * 255).astype(np.uint8)[..., None], 3, axis=2)
    return on_checkerboard(picture) if picture.shape[2] == 4 else picture


def main(argv: Sequence[str] | None = None) -> int:
    print_any_name()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("kinds", "mattes"))
    options = parser.parse_args(argv)
    if options.what == "kinds":
        kinds(FIGURES / "kinds.png")
    else:
        mattes(FIGURES / "demo_mattes.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
