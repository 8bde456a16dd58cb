"""Films in, films or folders of numbered PNG files out, frame by frame. Each appears when its last frame is written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from tqdm import tqdm

from common import distributed
from common.errors import UserError
from common.files import atomic_folder, atomic_write, make_folder
from common.photos import to_uint8
from inference.media import FRAMES_SUFFIX
from inference.rendering import NO_SUBJECT, Style, has_subject, render
from inference.video_reader import BT709, EXACT, UNKNOWN, Film, Frame, filtered, make_filters


class Format(NamedTuple):
    """How a film is written, in FFmpeg's names. pixels: grey, in colours, and with transparency ("": it holds none);
    deep: those with more than 8 bits a channel; others: sound and subtitles that players expect in it, "" for any."""

    codec: str
    pixels: tuple[str, str, str]
    deep: tuple[str, str, str] = ("", "", "")
    bits: int = 8
    options: dict[str, str] = {}
    others: str = ""


_PRORES = ("yuv444p10le", "yuv444p10le", "yuva444p10le")
_H264 = {"crf": "18", "bf": "0"}  # with B-frames the length of a film of varying rate is written wrong
_VP9 = {"crf": "20", "cpu-used": "4", "row-mt": "1", "auto-alt-ref": "0"}  # the last, or no transparency
FORMATS = {
    ".mkv": Format("ffv1", ("gray", "bgr0", "bgra"), ("gray16le", "gbrp16le", "gbrap16le"), 16),
    FRAMES_SUFFIX: Format("png", ("gray", "rgb24", "rgba"), ("gray16be", "rgb48be", "rgba64be"), 16),
    ".mp4": Format(
        "libx264", ("yuv420p", "yuv420p", ""), options=_H264, others="aac mp3 ac3 eac3 opus flac alac mov_text"
    ),
    ".mov": Format("prores_ks", _PRORES, _PRORES, 10, others="aac mp3 ac3 alac pcm_s16le pcm_s24le pcm_s16be mov_text"),
    ".webm": Format("libvpx-vp9", ("yuv420p", "yuv420p", "yuva420p"), options=_VP9, others="opus vorbis webvtt"),
}
_PLACES = {"alpha": 0, "cutout": 2}  # of a kind's pixels in a Format and in the next line; 1 for the others
_ARRAYS = (("gray", "rgb24", "rgba"), ("gray16le", "rgb48le", "rgba64le"))  # of 8 and of 16 bits


def matte_video(
    source: Path, target: Path, style: Style, predict: Callable[[np.ndarray], np.ndarray], overlapped: Callable
) -> dict[str, Any]:
    """Read, matte, render and write each frame of a film; returns what its row in the manifest says.

    predict: a frame, uint8 or uint16 (H, W, 3), to its alpha, float32 (H, W). overlapped: common.pool.bounded_map with
    its executor: it takes frames through the network and the rendering. Raises UserError, and what predict
    raises.
    """
    begun = time.perf_counter()
    film, subject = Film(source, style.bits), False

    def matte_frame(frame: Frame) -> tuple[np.ndarray, bool]:
        alpha = predict(frame.photo.image)
        return render(frame.photo, alpha, style), has_subject(alpha)

    make_folder(target.parent, "choose another --output")
    with write_film(target, film, style) as append:
        frames = overlapped(matte_frame, film)
        is_quiet = not distributed.is_main()
        for frame, outcome in tqdm(frames, source.name, film.expected, False, unit="frame", disable=is_quiet):
            if isinstance(outcome, Exception):
                raise outcome
            append(outcome[0], frame)
            subject |= outcome[1]
    if target.suffix == FRAMES_SUFFIX:
        unseen = {"the frame rate varies": film.varies, "its pixels are not square": film.pixel_shape != 1}
        film.notes += [f"{text}, which numbered pictures do not show" for text, is_so in unseen.items() if is_so]
    notes = film.notes + ([] if subject else [NO_SUBJECT])
    size = {"width": film.width, "height": film.height, "frames": film.count}
    times = {"frame_rate": round(film.mean_rate, 3), "seconds": round(time.perf_counter() - begun, 4)}
    return {**size, **times, "notes": notes} | ({"error": film.fault} if film.fault else {})


@contextmanager
def write_film(path: Path, film: Film, style: Style) -> Iterator[Callable[[np.ndarray, Frame], None]]:
    """Give a function that appends what was rendered for a frame; the file appears at the end, complete.

    It has the times and the pixel shape of the film, and those of its sounds and subtitles that it can hold. Raises
    UserError.
    """
    if path.suffix not in FORMATS:
        raise UserError(f"{path} is of a kind that is not written: use {', '.join(FORMATS)}.")
    is_folder = path.suffix == FRAMES_SUFFIX
    with atomic_folder(path, replace=True) if is_folder else atomic_write(path) as temporary:
        name = str(temporary / "%06d.png" if is_folder else temporary)
        with av.open(name, "w", container_options={} if is_folder else {"movflags": "faststart"}) as output:
            writer = _Writer(output, path, film, style)
            yield writer.append
            writer.finish()


class _Writer:
    def __init__(self, output: Any, path: Path, film: Film, style: Style) -> None:
        form, place = FORMATS[path.suffix], _PLACES.get(style.kind, 1)
        self.output, self.film, self.lengths, self.last = output, film, dict[int, int](), -1
        self.is_deep = min(style.bits, form.bits) > 8
        self.array, pixels = _ARRAYS[self.is_deep][place], (form.deep if self.is_deep else form.pixels)[place]
        if style.bits > form.bits:
            film.note(f"{path.suffix} holds {form.bits} bits: --video mkv keeps {style.bits}")
        is_yuv = pixels.startswith("yuv")
        steps = [("scale", EXACT + ":out_color_matrix=bt709:out_range=tv" * is_yuv), ("format", pixels)]
        # H.264 takes even sizes only: an odd last row or column stands there twice.
        self.padding = [(0, side % 2 * (form.codec == "libx264")) for side in (film.height, film.width)]
        height, width = film.height + self.padding[0][1], film.width + self.padding[1][1]
        self.graph = make_filters(width, height, self.array, film.time_base, steps)
        try:
            self.stream = output.add_stream(form.codec, film.rate, options=dict(form.options))
            self.stream.height, self.stream.width, self.stream.pix_fmt = height, width, pixels
            self.stream.time_base = film.time_base
            context = self.stream.codec_context
            context.time_base, context.sample_aspect_ratio = film.time_base, film.pixel_shape
            context.colorspace, context.color_range = (BT709, 1) if is_yuv else (0, 2)
            context.color_primaries = context.color_trc = UNKNOWN if style.kind == "alpha" else film.colours
            self.sounds = {}
            for sound in film.sounds:
                name = sound.codec_context.codec.canonical_name
                with suppress(ValueError):
                    if name in (form.others or name).split():
                        self.sounds[sound.index] = output.add_stream_from_template(sound)
                if sound.index not in self.sounds:
                    film.note(f"{sound.type} ({name}) is left out: {path.suffix} cannot hold it")
            output.start_encoding()
        except (av.FFmpegError, ValueError) as error:
            if isinstance(error, OSError):  # a full disk
                raise
            raise UserError(f"{path} cannot be written as {width} x {height} ({error}): try --video png.") from error

    def append(self, picture: np.ndarray, frame: Frame) -> None:
        if picture.dtype == np.float32:
            picture = np.rint(picture * 65535).astype(np.uint16)
        picture = np.pad(picture, (self.padding + [(0, 0)])[: picture.ndim], mode="edge")
        made = av.VideoFrame.from_ndarray(picture if self.is_deep else to_uint8(picture), format=self.array)
        self.last = max(self.last + 1, round(frame.start / self.film.time_base))
        made.time_base, made.pts = self.film.time_base, self.last
        self.lengths[self.last] = round(frame.length / self.film.time_base)
        self._copy_sounds()
        for ready in filtered(self.graph, made):
            self._encode(ready)

    def finish(self) -> None:
        self._copy_sounds()
        self._encode(None)

    def _encode(self, frame: Any) -> None:
        for packet in self.stream.encode(frame):
            packet.duration = self.lengths.pop(packet.pts, 0)
            self._mux(packet)

    def _copy_sounds(self) -> None:
        while self.film.packets:
            packet = self.film.packets.popleft()
            stream = self.sounds.get(packet.stream_index)
            if stream is None or packet.dts is None:
                continue
            origin = round(self.film.origin / packet.time_base)
            packet.dts, packet.pts = packet.dts - origin, None if packet.pts is None else packet.pts - origin
            packet.stream = stream
            self._mux(packet)

    def _mux(self, packet: av.Packet) -> None:
        """FFmpeg holds packets back to sort them: what it says of one of sound may come with one of pictures."""
        try:
            self.output.mux(packet)
        except (av.ArgumentError, av.InvalidDataError):  # times that go back, damage
            self.film.note("parts of the sound are left out: they are damaged")
