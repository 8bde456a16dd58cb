"""Draw the pictures of mattes in README and docs, at twice the 830 pixels that a page has.

    python -m figures.samples starter --peer u2netp.onnx    photos, mattes and cut-outs by the starter, and U2-Net's
    python -m figures.samples kinds                         every --kind of predict.py
    python -m figures.samples demo                          the mattes in demo_results/, after make demo
    python -m figures.samples compare                       coarse and refined mattes, with enlarged crops

Each writes the picture of its name in figures/. u2netp.onnx is U2-Net small as the rembg project publishes it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from common import photos, plots
from common.command import command, new_parser
from common.errors import UserError
from common.files import atomic_write
from common.photos import Photo
from inference.loading import load
from inference.pseudo_labels import open_network, subject_map
from inference.rendering import Style, read_background, render
from inference.web_files import on_checkerboard
from matting import predict_alpha, predict_mattes
from models.checkpoint import MODEL_FILE, STARTER

FIGURES = Path(__file__).parent
PHOTOS = FIGURES.parent / "test_data"
RESULTS = FIGURES.parent / "demo_results" / "mattes"
NAMES = ("astronaut", "rocket", "cameraman", "coffee", "cat")  # the real ones, what works best first
WIDTH = 1660  # pixels
LABEL = 40  # height of a label's line


def starter(path: Path, peer: Path | None) -> None:
    """Each real photo, its matte and cut-out by the starter model and, with a file of it, the matte by U2-Net small."""
    shown, alphas = [read(name) for name in NAMES], starter_alphas(NAMES)
    rows = {
        "photo, unseen in training": [photo.image for photo in shown],
        "matte by the starter model": alphas,
        "cut-out": [render(*pair, Style("cutout")) for pair in zip(shown, alphas, strict=True)],
    }
    if peer is not None:
        session = open_network(peer)
        rows["for comparison: matte by U2-Net small (4.6 MB, Apache-2.0)"] = [
            subject_map(session, photo.image) for photo in shown
        ]
    sheet(path, rows)


def kinds(path: Path, peer: Path | None) -> None:
    """Two photos and what predict.py writes of them."""
    styles = {
        "alpha": Style("alpha"),
        "cutout": Style("cutout"),
        "foreground": Style("foreground"),
        "composite on #2a9d8f": Style("composite", background=read_background("#2a9d8f")),
        "composite on blur": Style("composite", background=read_background("blur")),
    }
    chosen = ("astronaut", "cameraman")  # a sheet does not know colour profiles, which the rocket has
    pairs = [(read(name), alpha) for name, alpha in zip(chosen, starter_alphas(chosen), strict=True)]
    columns = {label: [render(*pair, style) for pair in pairs] for label, style in styles.items()}
    rows = {"photo": [photo.image for photo, _ in pairs], **columns}
    blocks = list(rows.items())
    sheet(path, dict(blocks[:3]), dict(blocks[3:]))


def demo(path: Path, peer: Path | None) -> None:
    """Every photo of test_data above its matte by the demo's model."""
    files = photos.list_images(PHOTOS)
    missing = [file.stem for file in files if not (RESULTS / f"{file.stem}.png").exists()]
    if missing:
        raise UserError(f"{RESULTS} holds no {missing[0]}.png: run make demo first.")
    mattes = [photos.read_alpha(RESULTS / f"{file.stem}.png") for file in files]
    sheet(path, {"photo": [read(file.stem).image for file in files], "matte after the demo's training": mattes})


def compare(path: Path, peer: Path | None) -> None:
    """What the refiner adds: the mattes of hair, fur and a tripod, and of each the crop in which they differ most."""
    model, rows = load(STARTER / MODEL_FILE), []
    for name in ("astronaut", "cat", "cameraman"):
        image = read(name).image
        mattes = predict_mattes(model, image)
        labels = {"coarse (TwinSwin-Matte)": mattes.coarse_alpha, "refined (TSR-Matte)": mattes.alpha}
        rows.append({"name": name, "image": image, "mattes": {k: v[0].numpy() for k, v in labels.items()}})
    plots.comparison(path, rows)


def read(name: str) -> Photo:
    return photos.read_photo(PHOTOS / f"{name}.jpg")


def starter_alphas(names: Sequence[str]) -> list[np.ndarray]:
    model = load(STARTER / MODEL_FILE)
    return [predict_alpha(model, read(name).image)[0].numpy() for name in names]


def sheet(path: Path, *columns: Mapping[str, Sequence[np.ndarray]]) -> None:
    """Columns side by side; in each, rows of pictures of one height without gaps, below their label. Writes a JPEG."""
    width = WIDTH // len(columns)
    font, drawn = ImageFont.load_default(26), []
    for rows in columns:
        strips = []
        for label, pictures in rows.items():
            title = Image.new("RGB", (width, LABEL), "white")
            ImageDraw.Draw(title).text((4, 4), label, "black", font)
            strips += [np.asarray(title), row(pictures, width)]
        drawn.append(np.concatenate(strips))
    with atomic_write(path) as temporary:
        Image.fromarray(np.concatenate(drawn, axis=1)).save(temporary, "JPEG", quality=88)


def row(pictures: Sequence[np.ndarray], width: int) -> np.ndarray:
    """Pictures of one height that fill `width` together, uint8 (h, width, 3)."""
    shapes = [picture.shape[1] / picture.shape[0] for picture in pictures]
    height = round(width / sum(shapes))
    edges = np.rint(width * np.cumsum([0, *shapes]) / sum(shapes))
    scaled = [
        Image.fromarray(rgb(picture)).resize((int(length), height), Image.Resampling.LANCZOS)
        for picture, length in zip(pictures, np.diff(edges), strict=True)
    ]
    return np.concatenate([np.asarray(picture) for picture in scaled], axis=1)


def rgb(picture: np.ndarray) -> np.ndarray:
    """A matte float (H, W) in [0, 1] or a picture uint8 (H, W, 3 or 4), as uint8 (H, W, 3)."""
    if picture.ndim == 2:
        return np.repeat(np.rint(picture * 255).astype(np.uint8)[..., None], 3, axis=2)
    return on_checkerboard(picture) if picture.shape[2] == 4 else picture


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = new_parser(__doc__)
    pictures = {"starter": starter, "kinds": kinds, "demo": demo, "compare": compare}
    parser.add_argument("what", choices=pictures, help="name of the picture in figures/")
    parser.add_argument("--peer", type=Path, metavar="ONNX", help="U2-Net small, for a row of its mattes")
    options = parser.parse_args(argv)
    pictures[options.what](FIGURES / f"{options.what}.jpg", options.peer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
