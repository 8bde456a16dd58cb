"""What happens to one photo: read, matted, rendered, written; and what its row in the manifest says."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from common import photos
from common.photos import Photo
from inference.jobs import Job
from inference.network_clock import NetworkClock
from inference.rendering import Style, render
from matting import Mattes

Predictor = Callable[[torch.Tensor], Mattes]  # a photo, uint8 (3, H, W), any size

SUBJECT = 0.5  # alpha; a matte that nowhere reaches it shows no subject
REPORT_SIDE = 1024  # pixels; the share of unsure interior is measured on a matte no larger


@dataclass
class Loaded:
    """A photo on its way; `seconds` collects what each part took."""

    photo: Photo
    seconds: dict[str, float] = field(default_factory=dict)
    matte: np.ndarray | None = None  # float32 (H, W), what the network says


@dataclass(frozen=True)
class PhotoStages:
    """The stages of pipeline.run_overlapped for photos, each written below `folder`."""

    predictor: Predictor
    folder: Path
    style: Style
    max_pixels: int = photos.MAX_PIXELS
    clock: NetworkClock | None = None

    def load(self, job: Job) -> Loaded:
        start = time.perf_counter()
        photo = photos.read_photo(job.source, max_pixels=self.max_pixels)
        return Loaded(photo, {"decode": time.perf_counter() - start})

    def compute(self, job: Job, loaded: Loaded) -> Loaded:
        start = time.perf_counter()
        loaded.matte = predict_matte(self.predictor, loaded.photo.image)
        seconds = time.perf_counter() - start
        if self.clock is None:
            loaded.seconds["network"] = seconds
        else:
            loaded.seconds |= {"student": self.clock.student, "refiner": seconds - self.clock.student}
        return loaded

    def store(self, job: Job, loaded: Loaded) -> dict[str, Any]:
        """Render and write; returns the row."""
        start = time.perf_counter()
        path = self.folder / job.output
        make_folder(path.parent)
        rendered = render(loaded.photo, loaded.matte, self.style)
        middle = time.perf_counter()
        write_rendered(path, rendered, self.style, loaded.photo.icc_profile)
        loaded.seconds |= {"render": middle - start, "encode": time.perf_counter() - middle}
        return photo_row(job, loaded)


def predict_matte(predictor: Predictor, image: np.ndarray) -> np.ndarray:
    """The network's matte, float32 (H, W), of a photo (H, W, 3), uint8 or uint16."""
    pixels = torch.from_numpy(photos.to_uint8(image)).permute(2, 0, 1)  # (3, H, W)
    return predictor(pixels).refined_alpha[0].float().cpu().numpy()


def make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise photos.PhotoError(f"{folder} cannot be made ({error.strerror}): choose another --output.") from error


def write_rendered(path: Path, rendered: np.ndarray, style: Style, icc_profile: bytes | None = None) -> None:
    """Write what rendering.render gave. A matte has no colours, so no profile."""
    if style.kind == "alpha":
        photos.write_alpha(path, rendered, style.bits)
    else:
        photos.write_image(path, rendered, icc_profile)


def photo_row(job: Job, loaded: Loaded) -> dict[str, Any]:
    height, width = loaded.matte.shape
    seconds = {part: round(spent, 4) for part, spent in loaded.seconds.items()}
    return {
        **job.names,
        "width": width,
        "height": height,
        "seconds": seconds,
        "unsure_interior": round(unsure_interior(loaded.matte), 4),
        "notes": [*loaded.photo.notes, *([] if has_subject(loaded.matte) else ["no subject found"])],
    }


def has_subject(matte: np.ndarray) -> bool:
    return bool(matte.max() >= SUBJECT)


def unsure_interior(matte: np.ndarray) -> float:
    """Share of the subject's inside that is grey: what should be opaque and is not.

    The inside is where alpha is over 0.1 for 1 % of the long side in every direction, so that an edge does not count;
    grey is below 0.9. 0 where there is no inside.
    """
    scale = min(1.0, REPORT_SIDE / max(matte.shape))
    if scale < 1:
        size = tuple(max(1, round(side * scale)) for side in matte.shape[::-1])
        matte = cv2.resize(matte, size, interpolation=cv2.INTER_AREA)
    reach = max(1, round(max(matte.shape) / 100))
    square = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    inside = cv2.erode((matte > 0.1).astype(np.uint8), square, borderType=cv2.BORDER_CONSTANT, borderValue=1) > 0
    return float(np.mean(matte[inside] < 0.9)) if inside.any() else 0.0
