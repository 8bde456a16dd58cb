"""Films for the tests, through PyAV."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from inference.video_reader import EXACT, filtered, make_filters

MATRICES = {1: "bt709", 5: "bt601", 9: "bt2020"}


def frames(count: int, height: int = 36, width: int = 48) -> list[np.ndarray]:
    """Noise: each frame is another, and large in a file."""
    return [np.random.default_rng(i).integers(0, 256, (height, width, 3), dtype=np.uint8) for i in range(count)]


def make_film(
    path: Path,
    pictures: Sequence[np.ndarray],
    codec: str = "ffv1",
    pixels: str | None = None,
    *,
    rate: int = 10,
    stamps: Sequence[int] | None = None,  # milliseconds
    angle: int = 0,  # by which a player turns it anticlockwise
    shape: Fraction | None = None,
    matrix: int = 2,
    stored: int = 0,  # the matrix that was used, where the film names another
    full: int = 0,
    primaries: int = 2,
    transfer: int = 2,
    interlaced: bool = False,
    sounds: Sequence[str] = (),
    seconds: float = 1.0,  # of sound
    options: dict[str, str] | None = None,
) -> Path:
    """Write uint8 (H, W, 3) as a film. pixels: FFmpeg's name, by default the usual one of the codec."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = pixels or {"ffv1": "bgr0", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
    base = Fraction(1, 1000 if stamps else rate)
    height, width = pictures[0].shape[:2]
    named = MATRICES[stored or (matrix if matrix in MATRICES else 5)]
    to_yuv = f":out_color_matrix={named}:out_range={'pc' if full else 'tv'}"
    steps = [("scale", EXACT + ("" if pixels[0] in "rgb" else to_yuv)), ("format", pixels)]
    steps += [("setfield", "tff")] if interlaced else []
    array = "rgb48le" if pixels.endswith("16le") else "rgb24"  # swscale loses levels from 8 bits to 16
    graph = make_filters(width, height, array, base, steps)
    with av.open(str(path), "w", container_options={"movflags": "faststart"}) as film:
        stream = film.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt, stream.time_base = width, height, pixels, base
        context = stream.codec_context
        context.time_base, context.colorspace, context.color_range = base, matrix if pixels[0] == "y" else 0, 1 + full
        context.color_primaries, context.color_trc = primaries, transfer
        if interlaced:
            stream.options = {"flags": "+ildct+ilme"}
        if shape:
            context.sample_aspect_ratio = shape
        if angle:
            stream.set_display_rotation(angle)
        tracks = [film.add_stream(sound, rate=48000) for sound in sounds]
        for track in tracks:
            track.layout = "stereo"
        for number, picture in enumerate(pictures):
            levels = picture if array == "rgb24" else picture.astype(np.uint16) * 257
            frame = av.VideoFrame.from_ndarray(levels, format=array)
            frame.pts, frame.time_base = stamps[number] if stamps else number, base
            for ready in filtered(graph, frame):
                film.mux(stream.encode(ready))
        film.mux(stream.encode(None))
        for track in tracks:
            _hum(film, track, seconds)
    return path


def _hum(film: av.container.OutputContainer, track: av.AudioStream, seconds: float) -> None:
    size = 1024
    for start in range(0, int(48000 * seconds) - size, size):
        wave = np.int16(8000 * np.sin(np.arange(start, start + size) / 20))
        frame = av.AudioFrame.from_ndarray(np.repeat(wave, 2)[None], format="s16", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        film.mux(track.encode(frame))
    film.mux(track.encode(None))


def times(path: Path) -> list[float]:
    """When each frame is shown, in seconds."""
    with av.open(str(path)) as film:
        return [frame.time for frame in film.decode(video=0)]
