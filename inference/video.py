"""Videos through OpenCV, frame by frame. Sound is not carried over.

A video becomes a video file, in which pictures are repeated where the source's frame rate varies, or a folder of
numbered PNG files, one a frame; either appears when its last frame is written.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from common import distributed
from common.files import atomic_write, make_folder
from common.photos import Photo, PhotoError, to_uint8
from inference.rendering import NO_SUBJECT, Style, has_subject, render, write_rendered
from inference.video_reader import VideoReader, require_text

# A matte is mostly edges between flat parts, which mp4v, made for photos, draws up to 33 of 255 levels wrong; FFV1
# keeps every level, of colours too. For pictures to look at, mp4v is what every player plays.
CODECS = {".mkv": "FFV1", ".mp4": "mp4v"}
FRAMES_SUFFIX = ".frames"  # of a folder 000001.png, 000002.png ...
BITS = 8  # a channel, in a video file: cv2.VideoWriter takes no more

Append = Callable[[np.ndarray], None]


def matte_video(
    source: Path, target: Path, style: Style, predict: Callable[[np.ndarray], np.ndarray], overlapped: Callable
) -> dict[str, Any]:
    """Read, matte, render and write each frame of a video; returns what its row in the manifest says.

    predict: a frame, uint8 (H, W, 3), to its alpha, float32 (H, W). overlapped: common.pool.bounded_map with its
    executor: it takes frames through the network and the rendering. Raises PhotoError, UserError, and what
    predict raises.
    """
    start = time.perf_counter()
    reader, has_any, is_file = VideoReader(source), [], target.suffix in CODECS

    def matte_frame(frame: np.ndarray) -> np.ndarray:
        alpha = predict(frame)
        has_any.append(has_subject(alpha))
        return render(Photo(frame, None, None, ()), alpha, style)

    make_folder(target.parent, "choose another --output")
    with write_video(target, reader.rate) if is_file else write_frames(target, style) as append:
        frames = overlapped(matte_frame, reader)
        bar = tqdm(frames, source.name, reader.promised or None, False, unit="frame", disable=not distributed.is_main())
        before = np.empty(0)
        for number, (_, picture) in enumerate(bar):
            if isinstance(picture, Exception):
                raise picture
            for _ in range(reader.repeats[number] if is_file else 0):  # 0 for the first
                append(before)
            append(picture)
            before = picture
    notes = reader.notes + ([] if any(has_any) else [NO_SUBJECT])
    if is_file and any(reader.repeats):
        notes.append(f"{sum(reader.repeats)} pictures are repeated to keep the time")
    if is_file and style.bits > BITS:
        notes.append(f"a video holds {BITS} bits: --video png keeps {style.bits}")
    count, seconds = len(has_any), round(time.perf_counter() - start, 4)
    row = {"width": reader.width, "height": reader.height, "frames": count, "frame_rate": reader.rate}
    if reader.is_cut_short:
        row["error"] = f"{source} is cut short, only {count} frames could be read: copy it again."
    elif count < 0.9 * reader.promised:  # headers are often a little wrong
        row["error"] = f"{source} is cut short, only {count} of {reader.promised} frames could be read: copy it again."
    elif reader.resized_after:
        changes = f"{source} changes its size after frame {reader.resized_after}, which is shown from there on"
        row["error"] = f"{changes}: convert it to one size, or cut it there."
    return {**row, "seconds": seconds, "notes": notes}


@contextmanager
def write_frames(folder: Path, style: Style) -> Iterator[Append]:
    """Give a function that writes a rendered frame as the next PNG file; the folder appears at the end, complete."""
    temporary, count = folder.with_name(f".part-{folder.name[-200:]}"), 0
    shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed

    def append(rendered: np.ndarray) -> None:
        nonlocal count
        count += 1
        write_rendered(temporary / f"{count:06d}.png", rendered, style)

    try:
        yield append
        try:
            shutil.rmtree(folder, ignore_errors=True)
            temporary.replace(folder)
        except OSError as error:
            raise PhotoError(f"{folder} cannot be written ({error.strerror}): move what is there.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def write_video(path: Path, rate: float) -> Iterator[Append]:
    """Give a function that appends a frame; the file appears at the end, complete.

    A frame is a matte, float32 (H, W) in [0, 1], or grey (H, W) or RGB (H, W, 3) of uint8 or uint16. One of odd size
    gets its last row or column twice, as OpenCV would leave it out. Raises PhotoError if the file cannot be written.
    """
    require_text(path)
    with atomic_write(path) as temporary:
        writer = cv2.VideoWriter()
        count = 0

        def append(frame: np.ndarray) -> None:
            nonlocal count
            frame = np.rint(frame * 255).astype(np.uint8) if frame.dtype == np.float32 else to_uint8(frame)
            height, width = frame.shape[:2]
            frame = cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
            if not writer.isOpened():
                codec = cv2.VideoWriter.fourcc(*CODECS[path.suffix])
                size = (frame.shape[1], frame.shape[0])
                writer.open(str(temporary), cv2.CAP_FFMPEG, codec, rate, size, frame.ndim == 3)
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
            raise PhotoError(f"{path} was not written completely: make room or use another folder.")
        written.release()
