"""The faults that the tests of data.check plant in a data set: each kind in a pair of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from common.photos import write_alpha, write_image
from data.pairs import read_pair

COPY = 100  # added to a pair's number for a copy of it


def photo(root: Path, number: int, split: str = "train") -> Path:
    return root / split / "im" / f"{split}_{number:06d}.png"


def alpha(root: Path, number: int, split: str = "train") -> Path:
    return root / split / "gt" / f"{split}_{number:06d}.png"


def truth(root: Path, number: int) -> np.ndarray:
    return read_pair(photo(root, number), alpha(root, number))[1]


def portrait() -> np.ndarray:
    """Head and shoulders that reach the lower border, float32 (128, 128)."""
    matte = cv2.circle(np.zeros((128, 128), np.float32), (64, 45), 25, 1.0, -1)
    return cv2.GaussianBlur(cv2.rectangle(matte, (10, 75), (118, 128), 1.0, -1), (0, 0), 1)


def disc() -> np.ndarray:
    return cv2.GaussianBlur(cv2.circle(np.zeros((128, 128), np.float32), (64, 60), 40, 1.0, -1), (0, 0), 1)


def trimap(matte: np.ndarray) -> np.ndarray:
    levels = np.where(matte > 0.98, 1, np.where(matte < 0.02, 0, 128 / 255))
    levels[:4, :4] = 1  # a glass has no sure pixel
    return levels


# What becomes of the true alpha of the pair, float32 (H, W); the file of the alpha must be named.
CHANGED_ALPHAS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "alpha_empty": np.zeros_like,
    "alpha_full": np.ones_like,
    "alpha_inverted": lambda matte: 1 - disc(),
    "alpha_scale": lambda matte: (matte > 0.5) / 255,  # 0 and 1, the factor 255 forgotten
    "alpha_perhaps_scale": lambda matte: matte * 100 / 255,  # percent
    "alpha_faint": lambda matte: matte * 0.6,  # smoke
    "alpha_noisy": lambda matte: np.clip(matte, 1 / 255, 254 / 255),  # as video leaves it
    "alpha_levels": trimap,
    "alpha_perhaps_inverted": lambda matte: 1 - portrait(),
    "alpha_binary": lambda matte: matte > 0.5,
}


def plant(fault: str, root: Path, number: int) -> Path:
    """Plant a fault of PLANTED at the pair of a number, in train; the file that must be named."""
    if fault in CHANGED_ALPHAS:
        write_alpha(alpha(root, number), np.float32(CHANGED_ALPHAS[fault](truth(root, number))))
        return alpha(root, number)
    return OTHERS[fault](root, number)


def photo_without_alpha(root: Path, number: int) -> Path:
    alpha(root, number).unlink()
    return photo(root, number)


def alpha_without_photo(root: Path, number: int) -> Path:
    photo(root, number).unlink()
    return alpha(root, number)


def files_left_out(root: Path, number: int) -> Path:
    for name in ("a.jxl", "sub/b.JXL", "notes.txt", "Thumbs.db"):
        path = root / "train" / "im" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    return root / "train" / "im"


def name_twice(root: Path, number: int) -> Path:
    first, second = photo(root, number), photo(root, number).with_suffix(".jpg")
    write_image(second, np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8))
    return min(first, second)


def sizes_differ(root: Path, number: int) -> Path:
    write_alpha(alpha(root, number), truth(root, number)[:, :-1])
    return photo(root, number)


def as_jpeg(root: Path, number: int, **options: object) -> Path:
    pixels = read_pair(photo(root, number), alpha(root, number))[0]
    photo(root, number).unlink()
    Image.fromarray(pixels).save(target := photo(root, number).with_suffix(".jpg"), quality=95, **options)
    return target


def photo_truncated(root: Path, number: int) -> Path:
    target = as_jpeg(root, number)
    target.write_bytes(target.read_bytes()[:-600])  # the header is whole, the scan is not
    return target


def turned_alone(root: Path, number: int) -> Path:
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down, and the alpha is not
    return as_jpeg(root, number, exif=exif)


def alpha_unreadable(root: Path, number: int) -> Path:
    alpha(root, number).write_bytes(b"<html>404: no such file</html>")
    return alpha(root, number)


def photo_cut_out(root: Path, number: int) -> Path:
    pixels, matte = read_pair(photo(root, number), alpha(root, number))
    write_image(photo(root, number), np.dstack([pixels, np.rint(matte * 255).astype(np.uint8)]))
    return photo(root, number)


def write_unknown(root: Path, number: int, mask: np.ndarray) -> Path:
    path = root / "train" / "unknown" / alpha(root, number).name
    path.parent.mkdir(exist_ok=True)
    write_alpha(path, mask.astype(np.float32))
    return path


def unknown_unreadable(root: Path, number: int) -> Path:
    path = write_unknown(root, number, np.eye(128))
    path.write_bytes(b"no mask")
    return path


def copied(root: Path, number: int, split: str) -> Path:
    for place in (photo, alpha):
        shutil.copy(place(root, number), place(root, number + COPY, split))
    return photo(root, number + COPY, split)


def leak_similar(root: Path, number: int) -> Path:
    pixels, matte = read_pair(photo(root, number), alpha(root, number))
    write_alpha(alpha(root, number + COPY, "val"), cv2.resize(matte, (112, 112), interpolation=cv2.INTER_AREA))
    target = photo(root, number + COPY, "val").with_suffix(".jpg")  # another size, another format
    write_image(target, cv2.resize(pixels, (112, 112), interpolation=cv2.INTER_AREA))
    return target


OTHERS: dict[str, Callable[[Path, int], Path]] = {
    "photo_without_alpha": photo_without_alpha,
    "alpha_without_photo": alpha_without_photo,
    "files_left_out": files_left_out,
    "name_twice": name_twice,
    "sizes_differ": sizes_differ,
    "photo_truncated": photo_truncated,
    "alpha_unreadable": alpha_unreadable,
    "turned_alone": turned_alone,
    "photo_cut_out": photo_cut_out,
    "unknown_without_photo": lambda root, number: write_unknown(root, number + 2 * COPY, np.eye(128)),
    "unknown_sizes_differ": lambda root, number: write_unknown(root, number, np.eye(127)),
    "unknown_unreadable": unknown_unreadable,
    "unknown_full": lambda root, number: write_unknown(root, number, np.ones((128, 128))),
    "duplicate": lambda root, number: copied(root, number, "train"),
    "leak_exact": lambda root, number: copied(root, number, "val"),
    "leak_similar": leak_similar,
}
# fault: its kind
PLANTED = {name: name for name in (*OTHERS, *CHANGED_ALPHAS)}
PLANTED |= {"photo_truncated": "photo_unreadable", "unknown_sizes_differ": "sizes_differ"}
