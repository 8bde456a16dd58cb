"""What happens to one video: frame after frame through the network, into a video or a folder of PNG files."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from common.photos import Photo, to_uint8
from inference.jobs import Job
from inference.photo_stages import (
    PhotoStages,
    has_subject,
    make_folder,
    predict_matte,
    unsure_interior,
    write_rendered,
)
from inference.pipeline import Stages, run_overlapped
from inference.rendering import render
from inference.video import CODECS, VideoReader, write_video

FRAMES_SUFFIX = ".frames"  # of a folder 000001.png, 000002.png ...
VIDEO_BITS = 8  # a channel, in a video file: cv2.VideoWriter takes no more


class VideoJob:
    """Matte one video with the predictor and style of `photo_stages`; run() returns the row.

    Frames are matted one by one: nothing ties a frame to the one before it. keep_frames: in a folder of PNG files,
    leave those as they are that are there. Raises PhotoError, as run() does.
    """

    def __init__(self, job: Job, photo_stages: PhotoStages, *, keep_frames: bool) -> None:
        self.job = job
        self.predictor = photo_stages.predictor
        self.style = photo_stages.style
        self.path = photo_stages.folder / job.output
        self.keep_frames = keep_frames
        self.reader = VideoReader(job.source)
        self.frames = 0
        self.unsure: list[float] = []
        self.shows_subject = False

    def run(self, *, workers: int, show_bar: bool) -> dict[str, Any]:
        start = time.perf_counter()
        numbers = takewhile(lambda number: not self.reader.is_at_end, count(1))
        stages = Stages(lambda number: self.reader.read(), self._matte, self._write)
        # One thread reads and one writes, at most: the frames stay in order.
        with (
            tqdm(
                total=self.reader.promised or None,
                desc=self.job.source.name,
                unit="frame",
                leave=False,
                disable=not show_bar,
            ) as bar,
            self._destination() as self._append,
        ):

            def done(number: int, outcome: Any) -> None:
                if isinstance(outcome, Exception):
                    raise outcome
                self.frames += outcome
                bar.update(outcome)

            run_overlapped(numbers, stages, done, min(workers, 1))
        return self._row(time.perf_counter() - start)

    @contextmanager
    def _destination(self) -> Iterator[Callable[[int, np.ndarray], None]]:
        """Where frames go: a function of their number and what was rendered."""
        make_folder(self.path.parent)
        if self.path.suffix not in CODECS:
            make_folder(self.path)
            yield lambda number, rendered: write_rendered(self._frame_path(number), rendered, self.style)
            return
        with write_video(self.path, self.reader.rate) as append:
            yield lambda number, rendered: append(_to_levels(rendered))

    def _matte(self, number: int, frame: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None] | None:
        if frame is None:  # one more was asked for while the last was being read
            return None
        if self.keep_frames and self._frame_path(number).exists():
            return frame, None
        return frame, predict_matte(self.predictor, frame)

    def _write(self, number: int, matted: tuple[np.ndarray, np.ndarray | None] | None) -> int:
        """Returns how many frames that were, 1 or 0."""
        if matted is None:
            return 0
        frame, matte = matted
        if matte is not None:
            self._append(number, render(Photo(frame, None, None, ()), matte, self.style))
            self.unsure.append(unsure_interior(matte))
            self.shows_subject |= has_subject(matte)
        return 1

    def _frame_path(self, number: int) -> Path:
        return self.path / f"{number:06d}.png"

    def _row(self, seconds: float) -> dict[str, Any]:
        reader = self.reader
        notes = list(reader.notes)
        if self.unsure and not self.shows_subject:
            notes.append("no subject found")
        if self.path.suffix in CODECS and self.style.bits > VIDEO_BITS:
            notes.append(f"a video holds {VIDEO_BITS} bits: --video png keeps {self.style.bits}")
        row = {
            **self.job.names,
            "width": reader.width,
            "height": reader.height,
            "frames": self.frames,
            "frame_rate": reader.rate,
            "seconds": {"total": round(seconds, 4)},
            "unsure_interior": round(float(np.mean(self.unsure)), 4) if self.unsure else None,
            "notes": notes,
        }
        if self.frames < 0.9 * reader.promised:  # headers are often a little wrong
            row["error"] = (
                f"{self.job.source} is cut short, only {self.frames} of {reader.promised} frames could be "
                "read: copy it again."
            )
        return row


def _to_levels(rendered: np.ndarray) -> np.ndarray:
    """A matte, float32 (H, W), or colours, uint8 or uint16 (H, W, 3), as the uint8 that a video file takes."""
    return (rendered * 255 + 0.5).astype(np.uint8) if rendered.dtype == np.float32 else to_uint8(rendered)
