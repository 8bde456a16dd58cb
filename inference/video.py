"""Videos through OpenCV: frames in, frames out, at the frame rate of the source. Sound is not carried over."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from common.files import atomic_write
from common.photos import PhotoError

# A matte is mostly edges between flat parts, which mp4v, made for photos, draws up to 33 of 255 levels wrong; FFV1
# keeps every level, of colours too. For pictures to look at, mp4v is what every player plays.
CODECS = {".mkv": "FFV1", ".mp4": "mp4v"}
DEFAULT_RATE = 25.0  # frames a second, where a file names none


class VideoReader:
    """The frames of a video, upright.

    rate: frames a second. promised: how many frames its header names, 0 if none. width, height: pixels. notes: what a
    person should know. Raises PhotoError where there is no frame.
    """

    def __init__(self, path: Path) -> None:
        if path.is_file() and path.stat().st_size == 0:
            raise PhotoError(f"{path} is empty (0 bytes): save or copy it again.")
        self._capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        self._next = self._read()
        if self._next is None:
            raise PhotoError(
                f"{path} cannot be read as a video (no frame in it): it is damaged, cut short or of an unknown kind."
            )
        self.notes: list[str] = []
        self.rate = self._capture.get(cv2.CAP_PROP_FPS)
        if not (math.isfinite(self.rate) and self.rate > 0):
            self.notes.append(f"no frame rate: {DEFAULT_RATE:g} assumed")
            self.rate = DEFAULT_RATE
        self.promised = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))
        self.height, self.width = self._next.shape[:2]

    def read(self) -> np.ndarray | None:
        """The next frame, RGB uint8 (H, W, 3), or None after the last."""
        frame = self._next
        if frame is None:
            self._capture.release()
            return None
        self._next = self._read()
        return cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)

    @property
    def is_at_end(self) -> bool:
        return self._next is None

    def _read(self) -> np.ndarray | None:
        is_read, frame = self._capture.read()
        return frame if is_read else None


@contextmanager
def write_video(path: Path, rate: float) -> Iterator[Callable[[np.ndarray], None]]:
    """Give a function that appends a frame, uint8 grey (H, W) or RGB (H, W, 3); the file appears at the end, whole.

    A frame of odd size gets its last row or column twice, as OpenCV would leave it out. Raises PhotoError or
    FileError where the file cannot be written.
    """
    with atomic_write(path) as temporary:
        writer = cv2.VideoWriter()
        count = 0

        def append(frame: np.ndarray) -> None:
            nonlocal count
            height, width = frame.shape[:2]
            frame = cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
            if not writer.isOpened():
                codec = cv2.VideoWriter_fourcc(*CODECS[path.suffix])
                writer.open(str(temporary), cv2.CAP_FFMPEG, codec, rate, frame.shape[1::-1], frame.ndim == 3)
                if not writer.isOpened():
                    raise PhotoError(
                        f"{path} cannot be written as a video of {width} x {height} at {rate:g} a second: "
                        "try --video png."
                    )
            writer.write(frame if frame.ndim == 2 else cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
            count += 1

        try:
            yield append
        finally:
            writer.release()
        # OpenCV says nothing about a full disk: ask the file.
        written = cv2.VideoCapture(str(temporary), cv2.CAP_FFMPEG)
        if not written.isOpened() or written.get(cv2.CAP_PROP_FRAME_COUNT) != count:
            raise PhotoError(f"{path} was not written whole: make room or use another folder.")
        written.release()
