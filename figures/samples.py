"""Draw the README's pictures of mattes.

    python -m figures.samples kinds         every --kind of predict.py, from photos with exact mattes
    python -m figures.samples demo_mattes   the photos of test_data/ and their mattes in test_results/demo/
    python -m figures.samples starter       the real ones, with mattes and cut-outs by the starter model
    python -m figures.samples compare       its coarse and its refined mattes of them, with enlarged crops

Each writes the picture of its name in figures/.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from common import photos, plots
from common.command import command, new_parser
from common.errors import UserError
from inference.loading import load
from inference.rendering import Style, read_background, render
from inference.web_files import on_checkerboard
from matting import predict_mattes
from models.checkpoint import MODEL_FILE, STARTER

FIGURES = Path(__file__).parent
ROOT = FIGURES.parent
PHOTOS = ROOT / "test_data"
EXACT = ROOT / "tests" / "data"  # mattes of the drawn photos
RESULTS = ROOT / "test_results" / "demo"
DRAWN = "synthetic"  # how the names of the drawn photos begin


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
        raise UserError(f"{RESULTS} holds no {missing[0]}.png: run make demo first.")
    above = [photos.to_uint8(photos.read_photo(file).image) for file in files]
    below = [rgb(photos.read_alpha(RESULTS / f"{file.stem}.png")) for file in files]
    plots.pictures(path, [file.stem for file in files], [above, below])


def starter(path: Path) -> None:
    """Each real photo of test_data above its matte and its cut-out."""
    model, files = load(STARTER / MODEL_FILE), real_photos()
    shown = [photos.read_photo(file) for file in files]
    alphas = [predict_mattes(model, photos.to_uint8(photo.image)).alpha[0].numpy() for photo in shown]
    cutouts = [rgb(render(photo, alpha, Style("cutout"))) for photo, alpha in zip(shown, alphas, strict=True)]
    images = [photos.to_uint8(photo.image) for photo in shown]
    plots.pictures(path, [file.stem for file in files], [images, [rgb(alpha) for alpha in alphas], cutouts])


def compare(path: Path) -> None:
    """What the refiner adds: the mattes of hair, fur and a tripod, and of each the crop in which they differ most."""
    model, rows = load(STARTER / MODEL_FILE), []
    for file in real_photos()[:3]:
        image = photos.to_uint8(photos.read_photo(file).image)
        mattes = predict_mattes(model, image)
        labels = {"TwinSwin-Matte": mattes.coarse_alpha, "TSR-Matte": mattes.alpha}
        rows.append({"name": file.stem, "image": image, "mattes": {k: v[0].numpy() for k, v in labels.items()}})
    plots.comparison(path, rows)


def real_photos() -> list[Path]:
    return [file for file in photos.list_images(PHOTOS) if not file.stem.startswith(DRAWN)]


def rgb(picture: np.ndarray) -> np.ndarray:
    """A matte float (H, W) in [0, 1] or a picture uint8 (H, W, 3 or 4), as uint8 (H, W, 3)."""
    if picture.ndim == 2:
        return np.repeat(np.rint(picture * 255).astype(np.uint8)[..., None], 3, axis=2)
    return on_checkerboard(picture) if picture.shape[2] == 4 else picture


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = new_parser(__doc__)
    pictures = {"kinds": kinds, "demo_mattes": mattes, "starter": starter, "compare": compare}
    parser.add_argument("what", choices=pictures, help="name of the picture in figures/")
    what = parser.parse_args(argv).what
    pictures[what](FIGURES / f"{what}.jpg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
