"""What the web page does with a photo: matte it, and leave the files that the page shows and offers.

Nothing of a photo stays in memory between two requests: what a later request needs (another background) is read from
its folder again. The pictures to download are those that predict.py writes, from the same functions.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from common import photos
from common.photos import Photo, PhotoError
from inference.foreground import composite
from inference.rendering import SUBJECT, Predictor, Style, predict_matte, read_background, render

PREVIEW_SIDE = 1280  # pixels; a photo of any size is seen at once, and the downloads are native
CHECK = 16  # pixels of a preview; the side of a square of the checkerboard
CHECK_GREYS = (255, 222)


class Picture(NamedTuple):
    """A file at native size and the preview of it."""

    file: Path
    preview: Path


@dataclass(frozen=True)
class Cut:
    """What was made of one photo; all files but the source lie in `folder`."""

    source: Path
    folder: Path
    preview: Path
    matte: Path  # float32 (H, W), as the network gave it
    alpha: Picture
    cutout: Picture
    size: tuple[int, int]  # width, height
    seconds: float
    has_subject: bool
    notes: tuple[str, ...]


class Studio:
    """Cuts subjects out of photos and puts them on backgrounds; each photo has a folder of its own below `root`."""

    def __init__(self, predictor: Predictor, root: Path, max_pixels: int) -> None:
        self.predictor = predictor
        self.root = root
        self.max_pixels = max_pixels

    def cut(self, source: Path) -> Cut:
        """Matte a photo and write alpha, cut-out and previews. Raises PhotoError with the file's name, not its path."""
        start = time.perf_counter()
        photo = self._read(source)
        matte = predict_matte(self.predictor, photo.image)
        self.root.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self.root))
        try:
            cut = _write_cut(source, photo, matte, folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        height, width = matte.shape
        return Cut(
            source,
            folder,
            *cut,
            size=(width, height),
            seconds=time.perf_counter() - start,
            has_subject=bool(matte.max() >= SUBJECT),
            notes=photo.notes,
        )

    def compose(self, cut: Cut, background: str | Path) -> Picture:
        """Put a cut-out on "blur", a colour or a photo's path, at native size. Raises PhotoError."""
        if isinstance(background, Path):
            self._check_size(background)
        photo = self._read(cut.source)
        try:
            matte = np.load(cut.matte)
        except OSError as error:
            raise PhotoError(f"{cut.source.name} is no longer kept here: choose it again.") from error
        try:
            placed = render(photo, matte, Style("composite", background=read_background(str(background))))
        except PhotoError as error:
            raise _without_folder(error, Path(background)) from error
        file = cut.folder / f"{_stem(cut.source)}_composite.png"
        photos.write_image(file, placed, photo.icc_profile)
        # A name of its own each time: the browser would show the earlier one again.
        preview = Path(tempfile.mkdtemp(dir=cut.folder), "preview.webp")
        photos.write_image(preview, shrunk(placed), photo.icc_profile)
        return Picture(file, preview)

    def discard(self, cut: Cut | None) -> None:
        """Remove the files of a photo that nobody looks at any more."""
        if cut is not None:
            shutil.rmtree(cut.folder, ignore_errors=True)

    def warm_up(self) -> None:
        """Have everything loaded and compiled before the first visitor: foreground estimation compiles itself."""
        image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        matte = predict_matte(self.predictor, image)
        render(Photo(image, None, None, ()), matte, Style("cutout"))

    def _read(self, path: Path) -> Photo:
        self._check_size(path)
        try:
            return photos.read_photo(path, max_pixels=self.max_pixels)
        except PhotoError as error:
            raise _without_folder(error, path) from error

    def _check_size(self, path: Path) -> None:
        try:
            width, height = photos.photo_size(path)
        except PhotoError as error:
            raise _without_folder(error, path) from error
        if width * height > self.max_pixels:
            raise PhotoError(
                f"{path.name} has {width * height / 1e6:.1f} megapixels, more than the "
                f"{self.max_pixels / 1e6:g} that this page takes: scale it down."
            )


def _write_cut(source: Path, photo: Photo, matte: np.ndarray, folder: Path) -> tuple[Path, Path, Picture, Picture]:
    """Cut's preview, matte, alpha and cutout."""
    stem = _stem(source)
    alpha = Picture(folder / f"{stem}_alpha.png", folder / "preview_alpha.webp")
    cutout = Picture(folder / f"{stem}_cutout.png", folder / "preview_cutout.webp")
    np.save(folder / "matte.npy", matte)
    levels = render(photo, matte, Style("alpha"))
    photos.write_alpha(alpha.file, levels)
    photos.write_image(alpha.preview, np.rint(shrunk(levels) * 255).astype(np.uint8))
    rgba = render(photo, matte, Style("cutout"))
    photos.write_image(cutout.file, rgba, photo.icc_profile)
    photos.write_image(cutout.preview, on_checkerboard(shrunk(rgba)), photo.icc_profile)
    photos.write_image(folder / "preview.webp", shrunk(photos.to_uint8(photo.image)), photo.icc_profile)
    return folder / "preview.webp", folder / "matte.npy", alpha, cutout


def shrunk(picture: np.ndarray, side: int = PREVIEW_SIDE) -> np.ndarray:
    """A picture (H, W[, C]) with a long side of at most `side`, of the same type."""
    scale = side / max(picture.shape[:2])
    if scale >= 1:
        return picture
    size = tuple(max(1, round(length * scale)) for length in picture.shape[1::-1])
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def on_checkerboard(rgba: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 4) -> (H, W, 3): what is transparent shows squares."""
    rows, columns = (np.arange(length) // CHECK % 2 for length in rgba.shape[:2])
    greys = np.where(rows[:, None] == columns, *CHECK_GREYS).astype(np.uint8)  # (H, W)
    alpha = rgba[..., 3].astype(np.float32) / 255
    return composite(rgba[..., :3], alpha, cv2.cvtColor(greys, cv2.COLOR_GRAY2RGB))


def hex_color(text: str) -> str:
    """A colour as browsers write it, "#1052b2" or "rgba(16.4, 82, 178, 1)", as #rrggbb; other texts as they are."""
    match = re.match(r"rgba?\(([\d.]+)[, ]+([\d.]+)[, ]+([\d.]+)", text)
    if match is None:
        return text
    return "#" + "".join(f"{min(255, round(float(level))):02x}" for level in match.groups())


def _stem(source: Path) -> str:
    return source.stem[:100]  # room for what is added to it; file systems take 255 bytes at most


def _without_folder(error: PhotoError, path: Path) -> PhotoError:
    """The same sentence: on a page it is the name that says something, not where the upload was put."""
    return PhotoError(str(error).replace(str(path), path.name))
