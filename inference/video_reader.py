"""The frames of a video through OpenCV, and the time of each."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from common.decoding import require_file
from common.photos import PhotoError

DEFAULT_RATE = 25.0  # frames per second, where a file names none and gives its frames no times
PROBED = 100  # frames whose times tell the rate
MAX_PAUSE = 60.0  # seconds a picture may stand still; longer is damage more often than not
COUNTING = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")  # MP4 and MOV count their frames, and so does AVI


class VideoReader:
    """The frames of a video, upright: iterate over it, once, for RGB uint8 (H, W, 3).

    rate: per second, by the frames' own times, which headers get wrong. repeats: for each frame given so far, how
    often the one before it has to be shown again to keep the time where the rate varies. promised: how many frames the
    header counts, 0 if it does not. width, height: pixels. notes: what a person should know; resized_after: how many
    frames come before the size changes, 0 if it does not; both complete at the end. Raises PhotoError if there is no
    frame.
    """

    def __init__(self, path: Path) -> None:
        require_file(path, "video")
        require_text(path)
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # what FFmpeg prints names no file
        cv2.setLogLevel(0)
        self.path, self.notes, self.repeats, self.resized_after = path, list[str](), list[int](), 0
        self._capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        is_read, self._first = self._capture.read()
        if not is_read:
            raise PhotoError(
                f"{path} cannot be read as a video (no frame in it): it is damaged, cut short or of an unknown kind."
            )
        self.rate = self._find_rate()
        with open(path, "rb") as file:
            head = file.read(4096)
        counts = head[4:8] in COUNTING or head[:4] == b"RIFF"
        self.promised = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))) if counts else 0
        self.is_cut_short = path.stat().st_size < matroska_size(head)
        self.height, self.width = self._first.shape[:2]

    def __iter__(self) -> Iterator[np.ndarray]:
        is_read, frame, start = True, self._first, self._time()
        before, last, shown, equal = None, start - 1 / self.rate, 0, 0
        longest, number, still = 0, 0, frame  # stretch of equal frames, its last one's number, its picture
        self._varies = False
        while is_read:
            now = self._time()
            now = now if now > last else last + 1 / self.rate  # a frame without a time
            self._varies |= abs(now - last - 1 / self.rate) > max(0.002, 0.25 / self.rate)
            start += max(0.0, now - last - MAX_PAUSE)
            repeats = max(0, round((now - start) * self.rate) - shown)
            self.repeats.append(repeats)
            equal = equal + 1 if before is not None and np.array_equal(before, frame) else 0
            if equal > longest:
                longest, number, still = equal, len(self.repeats), frame
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            before, last, shown = frame, now, shown + repeats + 1
            is_read, frame = self._capture.read()
        self._capture.release()
        if self._varies:
            self.notes.append("the frame rate varies")
        if longest and not self._is_there(number, still):
            self.resized_after = number - longest

    def _is_there(self, number: int, picture: np.ndarray) -> bool:
        """Whether the file's frame of this number, from 1, is this picture.

        Where the size changes, OpenCV repeats the last picture of the size that it began with, and does not tell. A
        capture that is asked for no picture before the change gives the true one, though cropped.
        """
        probe = cv2.VideoCapture(str(self.path), cv2.CAP_FFMPEG)
        while number and probe.grab():
            number -= 1
        is_read, found = probe.retrieve()
        probe.release()
        return not is_read or np.array_equal(found, picture)

    def _time(self) -> float:
        """Seconds, of the frame read last."""
        return self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000

    def _find_rate(self) -> float:
        """The header's rate where the frames' times agree with it, else that of the times."""
        claimed = self._capture.get(cv2.CAP_PROP_FPS)
        probe = cv2.VideoCapture(str(self.path), cv2.CAP_FFMPEG)
        times: list[float] = []
        while len(times) < PROBED and probe.grab():
            times.append(probe.get(cv2.CAP_PROP_POS_MSEC) / 1000)
        probe.release()
        gaps = np.diff(times)
        gaps = gaps[gaps > 0]
        is_claimed = math.isfinite(claimed) and claimed > 0
        if not len(gaps):
            if not is_claimed:
                self.notes.append(f"no frame rate: {DEFAULT_RATE:g} assumed")
            return claimed if is_claimed else DEFAULT_RATE
        middle = float(np.median(gaps))
        measured = 1 / float(gaps[gaps <= 2 * middle].mean())  # without the pauses; a mean, as MKV rounds times to 1 ms
        return claimed if is_claimed and abs(claimed / measured - 1) < 0.01 else measured


def require_text(path: Path) -> None:
    """Raise PhotoError for a name that is no text, as old zips leave them: OpenCV would end the process."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        raise PhotoError(f"{path} has a name that is no text: rename it, or its folder.") from None


def matroska_size(head: bytes) -> int:
    """How long a file of MKV or WebM says it is, in bytes; 0 for any other, and for a recording that could not tell."""
    at = head.find(b"\x18\x53\x80\x67") + 4  # the segment, which is all but the header
    if not head.startswith(b"\x1a\x45\xdf\xa3") or at < 4 or at >= len(head) or not head[at]:
        return 0
    length = 9 - head[at].bit_length()
    largest = 2 ** (7 * length) - 1
    size = int.from_bytes(head[at : at + length], "big") & largest
    return 0 if size == largest else at + length + size
