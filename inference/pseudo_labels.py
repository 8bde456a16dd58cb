"""Pseudo-labels: masks by another network for unlabelled photos, to train on together with hand-made masks.

    python -m inference.pseudo_labels u2netp.onnx downloads/photos Datasets/unlabelled
    python -m inference.pseudo_labels u2net.onnx u2netp.onnx downloads/photos Datasets/unlabelled    where both agree
    python -m inference.pseudo_labels downloads/photos Datasets/unlabelled    all unknown: for train.py --guide alone
    python -m inference.pseudo_labels u2netp.onnx Datasets/mine/val/im runs/u2net --maps    to score the network itself

MODEL is an ONNX file that takes a photo as U2-Net does: squashed to a square of fixed size, divided by its brightest
value, normalised like ImageNet; its first output is a map of the subject (github.com/xuebinqin/U-2-Net, data_loader.py
and u2net_test.py). ROOT gets train/im with links to the photos, train/gt, and train/unknown, white where a network
is unsure or two differ; no loss counts these pixels. A photo is left out where nothing is found, or too much is unsure.
There is no val: a network's masks are no truth to judge another by. With --maps ROOT gets the networks' mean maps as
they are, one PNG per photo, for evaluate.py --predictions. ROOT is written completely or not at all.
Exit codes: 0 done, 1 photos that cannot be read were left out (each is named), 2 nothing could start.
"""

from __future__ import annotations

from inference.options import pseudo_label_options

if __name__ == "__main__":
    pseudo_label_options(__doc__)  # --help and wrong flags are answered before the imports that take seconds

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from common.command import command
from common.errors import UserError
from common.files import atomic_folder
from common.photos import PhotoError, read_photo, to_uint8, write_alpha
from data.pairs import files_by_name
from data.prepare import link
from inference.loading import onnx_module
from models.encoder import IMAGENET_MEAN, IMAGENET_STD

UNSURE = (0.2, 0.8)  # between these the network does not know; most of an edge is there too, so it is left to learn
SMALLEST_SUBJECT = 0.01  # share of the photo
MOST_UNSURE = 0.5  # unsure pixels per pixel of the subject


def open_network(path: Path) -> Any:
    """An onnxruntime session of the file. Raises UserError, in one sentence, if it is not such a network."""
    module = onnx_module(path)
    try:
        session = module.open_session(str(path))
    except Exception as error:  # onnxruntime raises a different class for each way a graph can be wrong
        raise UserError(f"{path} is not an ONNX file that onnxruntime can run: {str(error).splitlines()[0]}") from error
    shapes = [value.shape for value in session.get_inputs()]
    if len(shapes) != 1 or len(shapes[0]) != 4 or not all(isinstance(side, int) for side in shapes[0][1:]):
        raise UserError(f"{path} takes inputs of {shapes}: it must take one photo of fixed size, as U2-Net does.")
    return session


def subject_map(session: Any, photo: np.ndarray) -> np.ndarray:
    """The network's map of the subject, stretched to 0..1. photo: uint8 (H, W, 3). Returns float32 (H, W)."""
    mean, std = np.array(IMAGENET_MEAN, np.float32), np.array(IMAGENET_STD, np.float32)
    asked = session.get_inputs()[0]
    _, _, height, width = asked.shape
    x = np.asarray(Image.fromarray(photo).resize((width, height), Image.Resampling.BILINEAR), np.float32)
    x = (x / max(x.max(), 1.0) - mean) / std
    found = session.run([session.get_outputs()[0].name], {asked.name: x.transpose(2, 0, 1)[None]})[0][0, 0]
    levels = (found - found.min()) / max(found.max() - found.min(), 1e-6)
    picture = Image.fromarray((levels * 255 + 0.5).astype(np.uint8))
    resized = picture.resize((photo.shape[1], photo.shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(resized, np.float32) / 255


def judge(found: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Mask and unknown pixels, float32 (H, W) of 0 and 1, of maps (networks, H, W); None where the photo is better left
    out. Without a network all is unknown."""
    if not len(found):
        return np.zeros(found.shape[1:], np.float32), np.ones(found.shape[1:], np.float32)
    lowest, highest = found.min(0), found.max(0)
    unsure = (highest > UNSURE[0]) & (lowest < UNSURE[1])
    subject = lowest >= UNSURE[1]
    if subject.mean() < SMALLEST_SUBJECT or unsure.sum() > MOST_UNSURE * subject.sum():
        return None
    return (found.mean(0) >= 0.5).astype(np.float32), unsure.astype(np.float32)


def label(sessions: Sequence[Any], photos: Mapping[str, Path], root: Path, maps: bool) -> tuple[int, list[str]]:
    """Write the set, or the mean maps alone, to `root`, which must not exist; photos: by name.

    Returns how many photos are in it, and a sentence for each that cannot be read. Raises UserError.
    """
    faults: list[str] = []
    labelled = 0
    with atomic_folder(root) as folder:
        for name, photo in tqdm(photos.items(), unit="photo", disable=None):
            try:
                pixels = to_uint8(read_photo(photo).image)
            except PhotoError as error:
                faults.append(str(error))
                continue
            found = np.array([subject_map(session, pixels) for session in sessions], np.float32)
            found = found.reshape(-1, *pixels.shape[:2])  # (networks, H, W), also without any
            if maps:
                planes = {folder: found.mean(0)}
            elif judged := judge(found):
                planes = dict(zip((folder / "train" / "gt", folder / "train" / "unknown"), judged, strict=True))
                link(photo, folder / "train" / "im" / f"{name}{photo.suffix}")
            else:
                continue
            for place, plane in planes.items():
                path = place / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_alpha(path, plane)
            labelled += 1
        if not labelled:
            raise UserError(f"No photo of {len(photos)} has a sure subject: nothing was written.")
    return labelled, faults


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit code."""
    options = pseudo_label_options(__doc__, argv)
    sessions = [open_network(model) for model in options.models]
    written, faults = label(sessions, photos := files_by_name(options.source), options.root, options.maps)
    for fault in faults:
        print(fault, file=sys.stderr)
    left = len(photos) - written - len(faults)
    print(f"{options.root}: {written} photos, {left} left out because too much is unsure.")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
