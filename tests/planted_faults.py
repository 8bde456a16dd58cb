"""The faults that the tests of data.check plant in a data set: each kind in a pair of its own."""

from __future__ import annotations

import shutil
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


# Each plants its fault at the pair of a number, in train, and returns the file that must be named.


def plant_photo_without_alpha(root: Path, number: int) -> Path:
    alpha(root, number).unlink()
    return photo(root, number)


def plant_alpha_without_photo(root: Path, number: int) -> Path:
    photo(root, number).unlink()
    return alpha(root, number)


def plant_files_left_out(root: Path, number: int) -> Path:
    for name in ("a.jxl", "sub/b.JXL", "notes.txt", "Thumbs.db"):
        path = root / "train" / "im" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    return root / "train" / "im"


def plant_name_twice(root: Path, number: int) -> Path:
    first, second = photo(root, number), photo(root, number).with_suffix(".jpg")
    write_image(second, np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8))
    return min(first, second)


def plant_sizes_differ(root: Path, number: int) -> Path:
    write_alpha(alpha(root, number), truth(root, number)[:, :-1])
    return photo(root, number)


def plant_photo_truncated(root: Path, number: int) -> Path:
    target = photo(root, number)
    pixels = read_pair(target, alpha(root, number))[0]
    target.unlink()
    target = target.with_suffix(".jpg")
    write_image(target, pixels)
    target.write_bytes(target.read_bytes()[:-600])  # the header is whole, the scan is not
    return target


def plant_alpha_unreadable(root: Path, number: int) -> Path:
    alpha(root, number).write_bytes(b"<html>404: no such file</html>")
    return alpha(root, number)


def plant_alpha_empty(root: Path, number: int) -> Path:
    write_alpha(alpha(root, number), np.zeros((128, 128), np.float32))
    return alpha(root, number)


def plant_alpha_full(root: Path, number: int) -> Path:
    write_alpha(alpha(root, number), np.ones((128, 128), np.float32))
    return alpha(root, number)


def plant_alpha_inverted(root: Path, number: int) -> Path:
    disc = cv2.GaussianBlur(cv2.circle(np.zeros((128, 128), np.float32), (64, 60), 40, 1.0, -1), (0, 0), 1)
    write_alpha(alpha(root, number), 1 - disc)
    return alpha(root, number)


def plant_alpha_scale(root: Path, number: int) -> Path:
    matte = truth(root, number)
    cv2.imwrite(str(alpha(root, number)), (matte > 0.5).astype(np.uint8))  # 0 and 1, the factor 255 forgotten
    return alpha(root, number)


def plant_alpha_perhaps_scale(root: Path, number: int) -> Path:
    write_alpha(alpha(root, number), truth(root, number) * np.float32(100 / 255))  # percent
    return alpha(root, number)


def plant_alpha_faint(root: Path, number: int) -> Path:
    write_alpha(alpha(root, number), truth(root, number) * np.float32(0.6))  # smoke
    return alpha(root, number)


def plant_alpha_noisy(root: Path, number: int) -> Path:
    write_alpha(alpha(root, number), np.clip(truth(root, number), 1 / 255, 254 / 255))  # as video leaves it
    return alpha(root, number)


def plant_alpha_levels(root: Path, number: int) -> Path:
    matte = truth(root, number)
    trimap = np.where(matte > 0.98, 255, np.where(matte < 0.02, 0, 128)).astype(np.uint8)
    trimap[:4, :4] = 255  # a glass has no sure pixel
    cv2.imwrite(str(alpha(root, number)), trimap)
    return alpha(root, number)


def plant_alpha_perhaps_inverted(root: Path, number: int) -> Path:
    write_alpha(alpha(root, number), 1 - portrait())
    return alpha(root, number)


def portrait() -> np.ndarray:
    """Head and shoulders that reach the lower border, float32 (128, 128)."""
    matte = cv2.circle(np.zeros((128, 128), np.float32), (64, 45), 25, 1.0, -1)
    return cv2.GaussianBlur(cv2.rectangle(matte, (10, 75), (118, 128), 1.0, -1), (0, 0), 1)


def plant_turned_alone(root: Path, number: int) -> Path:
    pixels = read_pair(photo(root, number), alpha(root, number))[0]
    photo(root, number).unlink()
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down, and the alpha is not
    Image.fromarray(pixels).save(photo(root, number).with_suffix(".jpg"), exif=exif, quality=95)
    return photo(root, number).with_suffix(".jpg")


def plant_photo_cut_out(root: Path, number: int) -> Path:
    pixels, matte = read_pair(photo(root, number), alpha(root, number))
    write_image(photo(root, number), np.dstack([pixels, np.rint(matte * 255).astype(np.uint8)]))
    return photo(root, number)


def write_unknown(root: Path, number: int, mask: np.ndarray) -> Path:
    path = root / "train" / "unknown" / alpha(root, number).name
    path.parent.mkdir(exist_ok=True)
    write_alpha(path, mask.astype(np.float32))
    return path


def plant_unknown_without_photo(root: Path, number: int) -> Path:
    return write_unknown(root, number + 2 * COPY, np.eye(128))


def plant_unknown_sizes_differ(root: Path, number: int) -> Path:
    return write_unknown(root, number, np.eye(127))


def plant_unknown_unreadable(root: Path, number: int) -> Path:
    path = write_unknown(root, number, np.eye(128))
    path.write_bytes(b"no mask")
    return path


def plant_unknown_full(root: Path, number: int) -> Path:
    return write_unknown(root, number, np.ones((128, 128)))


def plant_alpha_binary(root: Path, number: int) -> Path:
    write_alpha(alpha(root, number), (truth(root, number) > 0.5).astype(np.float32))
    return alpha(root, number)


def plant_duplicate(root: Path, number: int) -> Path:
    for place in (photo, alpha):
        shutil.copy(place(root, number), place(root, number + COPY))
    return photo(root, number + COPY)


def plant_leak_exact(root: Path, number: int) -> Path:
    for place in (photo, alpha):
        shutil.copy(place(root, number), place(root, number + COPY, "val"))
    return photo(root, number + COPY, "val")


def plant_leak_similar(root: Path, number: int) -> Path:
    pixels, matte = read_pair(photo(root, number), alpha(root, number))
    write_alpha(alpha(root, number + COPY, "val"), cv2.resize(matte, (112, 112), interpolation=cv2.INTER_AREA))
    target = photo(root, number + COPY, "val").with_suffix(".jpg")  # another size, another format
    write_image(target, cv2.resize(pixels, (112, 112), interpolation=cv2.INTER_AREA))
    return target


PLANTED = {
    "photo_without_alpha": (plant_photo_without_alpha, "photo_without_alpha"),
    "alpha_without_photo": (plant_alpha_without_photo, "alpha_without_photo"),
    "files_left_out": (plant_files_left_out, "files_left_out"),
    "name_twice": (plant_name_twice, "name_twice"),
    "sizes_differ": (plant_sizes_differ, "sizes_differ"),
    "photo_truncated": (plant_photo_truncated, "photo_unreadable"),
    "alpha_unreadable": (plant_alpha_unreadable, "alpha_unreadable"),
    "alpha_empty": (plant_alpha_empty, "alpha_empty"),
    "alpha_full": (plant_alpha_full, "alpha_full"),
    "alpha_inverted": (plant_alpha_inverted, "alpha_inverted"),
    "alpha_scale": (plant_alpha_scale, "alpha_scale"),
    "alpha_perhaps_scale": (plant_alpha_perhaps_scale, "alpha_perhaps_scale"),
    "alpha_faint": (plant_alpha_faint, "alpha_faint"),
    "alpha_noisy": (plant_alpha_noisy, "alpha_noisy"),
    "alpha_levels": (plant_alpha_levels, "alpha_levels"),
    "alpha_perhaps_inverted": (plant_alpha_perhaps_inverted, "alpha_perhaps_inverted"),
    "turned_alone": (plant_turned_alone, "turned_alone"),
    "photo_cut_out": (plant_photo_cut_out, "photo_cut_out"),
    "unknown_without_photo": (plant_unknown_without_photo, "unknown_without_photo"),
    "unknown_sizes_differ": (plant_unknown_sizes_differ, "sizes_differ"),
    "unknown_unreadable": (plant_unknown_unreadable, "unknown_unreadable"),
    "unknown_full": (plant_unknown_full, "unknown_full"),
    "alpha_binary": (plant_alpha_binary, "alpha_binary"),
    "duplicate": (plant_duplicate, "duplicate"),
    "leak_exact": (plant_leak_exact, "leak_exact"),
    "leak_similar": (plant_leak_similar, "leak_similar"),
}
