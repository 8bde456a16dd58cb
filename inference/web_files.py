"""The files that the web page shows and offers for one photo: previews, and the same pictures that predict.py writes.

Nothing of a photo stays in memory between two requests: another background is put behind what the disk still holds.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from common import photos
from common.errors import UserError
from common.photos import Photo, PhotoError
from inference.foreground import composite
from inference.rendering import Predictor, Style, notes_on, predict_matte, read_background, render, write_rendered

PREVIEW_SIDE = 1280  # pixels; quick to send for any photo, while the downloads keep the photo's size
GRACE = 10.0  # seconds that a photo's files stay after the next one was chosen: a page may still be loading them
SKETCHED = 600.0  # seconds that a sketch stays: longer than any photo takes
SQUARE = 16  # pixels of a preview; side of a square of the checkerboard
GREYS = (255, 222)


class Picture(NamedTuple):
    """A picture of the photo's size to download, and what the page shows of it."""

    file: Path
    preview: Path


class Cut(NamedTuple):
    """What was made of one photo. The files lie in `folder`, which belongs to this photo alone."""

    source: Path
    folder: Path
    preview: Path  # of the photo
    alpha: Picture
    cutout: Picture
    size: tuple[int, int]  # width, height
    seconds: float
    notes: list[str]  # what the visitor should know, without full stops

    @property
    def matte(self) -> Path:
        """What the network says, float32 (H, W), as .npy."""
        return self.folder / "matte.npy"


class Cutter:
    """Mattes photos of at most `max_pixels` and keeps their files in folders below `root`."""

    def __init__(self, predictor: Predictor, root: Path, max_pixels: int) -> None:
        self.predictor, self.root, self.max_pixels = predictor, root, max_pixels

    def sketch(self, source: Path) -> tuple[Path, Path] | None:
        """Previews of a large photo and of its cut-out, matted at their size (as predict.py --detail does): what the
        page shows while cut() works. They are removed as discard() does. None for a photo that is no larger."""
        with _names_only(source):
            photo = photos.read_photo(source, PREVIEW_SIDE, self.max_pixels)
        image, alpha = photos.to_uint8(photo.image), photo.alpha
        if max(image.shape) <= PREVIEW_SIDE:
            return None
        image, alpha = _preview_size(image), None if alpha is None else _preview_size(alpha)
        photo = replace(photo, image=image, alpha=alpha)
        cutout = render(photo, predict_matte(self.predictor, image), Style("cutout"))
        folder = self._new_folder()
        self._remove_later(folder, SKETCHED)
        return _save_preview(folder, image, photo.icc_profile), _save_preview(folder, cutout, photo.icc_profile)

    def cut(self, source: Path) -> Cut:
        """Matte a photo and write its files. Raises PhotoError, which names the file without its folder."""
        start = time.perf_counter()
        with _names_only(source):
            photo = photos.read_photo(source, max_pixels=self.max_pixels)
        matte = predict_matte(self.predictor, photo.image)
        folder = self._new_folder()
        try:
            alpha, cutout = (_save(folder, source, photo, matte, Style(kind)) for kind in ("alpha", "cutout"))
            preview = _save_preview(folder, photos.to_uint8(photo.image), photo.icc_profile)
            seconds = time.perf_counter() - start
            cut = Cut(source, folder, preview, alpha, cutout, matte.shape[::-1], seconds, notes_on(photo, matte))
            np.save(cut.matte, matte)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return cut

    def compose(self, cut: Cut, background: str | Path) -> Picture:
        """Put the subject on "blur", a colour or a photo's path, at the photo's size. Raises PhotoError as cut does."""
        with _names_only(cut.source, Path(background)):
            if not cut.matte.exists():
                raise PhotoError(f"{cut.source} is no longer kept here: choose it again.")
            style = Style("composite", background=read_background(str(background), self.max_pixels))
            photo = photos.read_photo(cut.source, max_pixels=self.max_pixels)
            return _save(cut.folder, cut.source, photo, np.load(cut.matte), style)

    def discard(self, cut: Cut | None) -> None:
        """Remove the files of a photo that nobody looks at any more, once a browser has got what it has asked for."""
        if cut is not None:
            self._remove_later(cut.folder, GRACE)

    def _new_folder(self) -> Path:
        self.root.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=self.root))

    def _remove_later(self, folder: Path, seconds: float) -> None:
        timer = threading.Timer(seconds, shutil.rmtree, (folder,), {"ignore_errors": True})
        timer.daemon = True
        timer.start()

    def warm_up(self) -> None:
        """Load and compile everything before the first visitor comes: numba compiles foreground estimation."""
        image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        render(Photo(image, None, None, ()), predict_matte(self.predictor, image), Style("cutout"))


def _save(folder: Path, source: Path, photo: Photo, matte: np.ndarray, style: Style) -> Picture:
    """Render a kind of output and write it with its preview."""
    rendered = render(photo, matte, style)
    file = folder / f"{source.stem[:100]}_{style.kind}.png"  # file systems take names of up to 255 bytes
    write_rendered(file, rendered, style, photo.icc_profile)
    return Picture(file, _save_preview(folder, rendered, photo.icc_profile))


def _save_preview(folder: Path, picture: np.ndarray, icc_profile: bytes | None) -> Path:
    """Write what rendering.render returned, small and opaque. The name is new: browsers keep what an old one showed."""
    picture = _preview_size(picture)
    if picture.ndim == 2:
        picture, icc_profile = np.rint(picture * 255).astype(np.uint8), None
    elif picture.shape[2] == 4:
        picture = on_checkerboard(picture)
    preview = Path(tempfile.mkdtemp(dir=folder), "preview.webp")
    photos.write_image(preview, picture, icc_profile)
    return preview


def _preview_size(picture: np.ndarray) -> np.ndarray:
    """(H, W) or (H, W, C), with a long side of at most PREVIEW_SIDE."""
    scale = PREVIEW_SIDE / max(picture.shape[:2])
    if scale >= 1:
        return picture
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def on_checkerboard(rgba: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 4) -> (H, W, 3): squares show through where it is transparent."""
    rows, columns = (np.arange(side) // SQUARE % 2 for side in rgba.shape[:2])
    greys = np.where(rows[:, None] == columns, *GREYS).astype(np.uint8)  # (H, W)
    return composite(rgba[..., :3], rgba[..., 3].astype(np.float32) / 255, cv2.cvtColor(greys, cv2.COLOR_GRAY2RGB))


def hex_colour(text: str) -> str:
    """A colour as browsers write it, "#1052b2" or "rgba(16.4, 82, 178, 1)", as #rrggbb; other texts are unchanged."""
    if not text.startswith("rgb"):
        return text
    return "#" + "".join(f"{min(255, round(float(level))):02x}" for level in re.findall(r"[\d.]+", text)[:3])


@contextlib.contextmanager
def _names_only(*paths: Path) -> Iterator[None]:
    """Shorten paths in a PhotoError to file names: a visitor knows the name, not where the upload was put."""
    try:
        yield
    except UserError as error:
        sentence = str(error)
        for path in paths:
            sentence = sentence.replace(str(path), path.name)
        raise UserError(sentence) from error
