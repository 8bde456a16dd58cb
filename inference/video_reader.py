"""The frames of a film and when they are shown, through PyAV, which is FFmpeg."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.filter import Graph
from av.stream import Disposition

from common.decoding import require_file
from common.errors import UserError
from common.photos import MAX_PIXELS, Photo

# Of films only: other kinds name further files, or addresses, which FFmpeg would open.
CONTAINERS = "mov,matroska,avi,mpegts,mpeg,asf,flv,ogg,mxf,dv,ivf,h264,hevc,m4v,mjpeg,mpegvideo"
DEFAULT_RATE = Fraction(25)  # frames a second, where a file names none
BT709, UNKNOWN = 1, 2  # codes of ISO/IEC 23091-2 for matrix, primaries and transfer
HDR = (16, 18)  # transfer: PQ, HLG
WIDE = (9, 11, 12)  # primaries: BT.2020, DCI-P3, Display P3
EXACT = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"


class Frame(NamedTuple):
    """A picture, when it appears and for how long it stays, in seconds; 0 if the file does not say."""

    photo: Photo
    start: Fraction
    length: Fraction


class Film:
    """Iterate over it, once, for its frames: upright, deinterlaced, wide colours and HDR converted to BT.709.

    width, height: pixels of a frame; pixel_shape: the width of a pixel over its height. rate: frames per second, and
    expected: how many frames, by the header. time_base: the unit of times, in seconds; origin: when it begins. colours:
    code of its primaries and transfer. sounds: the streams of sound and subtitles; their packets are put into `packets`
    as the film comes to them. notes: what a person should know. Raises UserError if there is no frame.

    Known at the end: count, of frames; mean_rate; varies: whether the rate does; fault: why frames are missing, or "".
    """

    def __init__(self, path: Path, bits: int = 8) -> None:
        """bits: 16 gives frames of uint16 where the film has more than 8."""
        require_file(path, "video")
        self.path, self.notes, self.packets, self.fault = path, list[str](), deque[Any](), ""
        self.count, self._damaged, self._is_cut_off, self._end = 0, 0, False, Fraction(0)
        try:
            options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
            self._container: Any = av.open(str(path.absolute()), options=options, metadata_errors="replace")
            films: list[Any] = [
                s for s in self._container.streams.video if not s.disposition & Disposition.attached_pic
            ]
            self._stream = max(films, key=lambda stream: bool(stream.disposition & Disposition.default))
            self._stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
            self._stream.thread_type = "AUTO"
            self.sounds = [s for s in self._container.streams if s.type in ("audio", "subtitle") and s.codec_context]
            self._frames = self._decode()
            first = next(self._frames)
            self._turns = round(first.rotation / 90) % 4  # anticlockwise
            self._graph = self._find_filters(first, bits)
        except (av.FFmpegError, ValueError, StopIteration) as error:
            reason = getattr(error, "strerror", None) or "no frame in it"
            raise UserError(
                f"{path} cannot be read as a video ({reason}): it is damaged, or of another kind."
            ) from error
        self._frames = chain([first], self._frames)
        self._size = first.width, first.height
        self.width, self.height = self._size[::-1] if self._turns % 2 else self._size
        shape = self._stream.sample_aspect_ratio or Fraction(1)
        self.pixel_shape = 1 / shape if self._turns % 2 else shape
        self.rate, self.time_base = self._stream.average_rate or DEFAULT_RATE, self._stream.time_base
        self.origin = Fraction(max(0, self._container.start_time or 0), av.time_base)
        self.expected = self._stream.frames or None

    def __iter__(self) -> Iterator[Frame]:
        last, step, shift = Fraction(-1), 1 / self.rate, Fraction(0)
        shortest, longest, total = Fraction(10**6), Fraction(0), Fraction(0)  # times between frames
        for picture in chain(self._frames, [None]):
            if picture and (picture.width, picture.height) != self._size:
                self.note(f"its size changes: shown as {self.width} x {self.height}")
            for ready in filtered(self._graph, picture):
                start = last + step if ready.pts is None else ready.pts * ready.time_base - self.origin + shift
                if start <= last:  # recordings that were joined begin again at 0
                    start, shift = last + step, shift + last + step - start
                if self.count:
                    shortest, longest = min(shortest, start - last), max(longest, start - last)
                    total += start - last
                self.count, last = self.count + 1, start
                yield Frame(self._photo(ready), start, (ready.duration or 0) * ready.time_base)
        self.varies = 2 * longest > 3 * shortest
        self.mean_rate = float((self.count - 1) / total if total else self.rate)
        promised = Fraction(
            self._container.duration or 0, av.time_base
        )  # of the sound too, which may outlast the pictures
        if self._is_cut_off or self._end + step < 0.9 * promised:  # headers are often a little wrong
            self.fault = f"{self.path} is cut short, only {self.count} frames could be read: copy it again."
        elif self._damaged:
            self.fault = f"{self.path} is damaged: {self._damaged} of its frames are broken or missing: copy it again."

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def _decode(self) -> Iterator[Any]:
        """What can be decoded: past what is damaged, and up to where the file ends."""
        has_any = False
        try:
            for packet in self._container.demux(self._stream, *self.sounds):
                if packet.pts is not None:
                    self._end = max(self._end, packet.pts * packet.time_base)
                if packet.stream_index != self._stream.index:
                    if packet.size:
                        self.packets.append(packet)
                    continue
                try:
                    for frame in packet.decode():
                        self._damaged += has_any and frame.is_corrupt
                        has_any |= not frame.is_corrupt  # before: a recording that begins between two key frames
                        yield frame
                except av.FFmpegError:
                    self._damaged += has_any
        except av.FFmpegError:
            self._is_cut_off = True
            yield from self._stream.decode(None)

    def _find_filters(self, first: Any, bits: int) -> Graph:
        """From decoded frames to RGB or RGBA, all at the size of the first."""
        steps = []
        if first.interlaced_frame:
            self.note("interlaced: deinterlaced")
            steps.append(("bwdif", "mode=send_frame:deint=interlaced"))
        scale = f"{first.width}:{first.height}:{EXACT}"
        if self._stream.metadata.get("alpha_mode") == "1":  # of VP8 and VP9; FFmpeg's own decoders skip it
            self.note("its transparency is not read")
        if first.colorspace == UNKNOWN and (first.width >= 1280 or first.height > 576):  # as players guess
            scale += ":in_color_matrix=bt709"
        self.colours = BT709 if first.color_primaries == BT709 else UNKNOWN
        if first.color_trc in HDR or first.color_primaries in WIDE:
            scale += ":out_primaries=bt709:out_transfer=bt709:intent=relative_colorimetric"
            self.note(f"{'HDR' if first.color_trc in HDR else 'wide colours'} converted to BT.709")
            self.colours = BT709
        has_alpha = any(part.is_alpha for part in first.format.components)
        is_deep = bits > 8 and first.format.components[0].bits > 8
        pixels = ("rgba64le" if is_deep else "rgba") if has_alpha else ("rgb48le" if is_deep else "rgb24")
        steps += [("scale", scale), ("format", pixels)]
        return make_filters(first.width, first.height, first.format.name, first.time_base, steps)

    def _photo(self, ready: av.VideoFrame) -> Photo:
        pixels = np.ascontiguousarray(np.rot90(ready.to_ndarray(), self._turns))
        if pixels.shape[2] == 3:
            return Photo(pixels, None, None, ())
        alpha = pixels[..., 3] / np.float32(np.iinfo(pixels.dtype).max)
        return Photo(np.ascontiguousarray(pixels[..., :3]), alpha, None, ())


def make_filters(width: int, height: int, pixels: str, time_base: Fraction, steps: list[tuple[str, str]]) -> Graph:
    """FFmpeg's filters, one after the other, for frames of this form."""
    graph = Graph()
    source = graph.add_buffer(width=width, height=height, format=av.VideoFormat(pixels), time_base=time_base)
    nodes = [graph.add(name, options) for name, options in steps]
    graph.link_nodes(source, *nodes, graph.add("buffersink")).configure()
    return graph


def filtered(graph: Graph, frame: av.VideoFrame | None) -> Iterator[Any]:
    """What comes out for a frame; for None, at the end, what was held back."""
    graph.push(frame)
    with suppress(av.BlockingIOError, av.EOFError):
        while True:
            yield graph.pull()
