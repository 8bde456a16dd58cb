"""The options of predict.py."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from common import photos
from common.command import add_checkpoint, add_device, new_parser
from inference import video
from inference.media import is_named_as_media
from inference.rendering import KINDS

VIDEO_SUFFIXES = {"mkv": ".mkv", "mp4": ".mp4", "mov": ".mov", "webm": ".webm", "png": video.FRAMES_SUFFIX}
HOLDS = {"png": KINDS, "webp": KINDS[1:], "jpg": KINDS[2:]}  # format of a photo's output: what it can hold
USUAL_VIDEO = {"alpha": "mkv", "cutout": "png", "foreground": "mp4", "composite": "mp4"}


def parse_options(argv: Sequence[str] | None, description: str | None = None) -> argparse.Namespace:
    """The command line's options, with output_name where --output names a file.

    Ends the program with exit code 2 where they do not go together.
    """
    parser = build_parser(description)
    options = parser.parse_args(argv)
    positive = (options.max_pixels, options.max_memory, options.detail)
    if options.workers < 0 or any(value is not None and value < 1 for value in positive):
        parser.error("--workers must not be negative, --max-pixels, --max-memory and --detail must be positive")
    if options.background and options.kind != "composite":
        parser.error("--background belongs to --kind composite")
    if options.kind == "composite":
        options.background = options.background or "white"
    options.output_name, suffix = "", options.output.suffix.lower()
    if is_named_as_media(options.output.name) and not os.path.isdir(options.output):
        options.output, options.output_name = options.output.parent, options.output.name
        by_suffix = {".jpeg": "jpg", **{f".{name}": name for name in HOLDS}}
        options.format = options.format or by_suffix.get(suffix)
        options.video = options.video or {end: name for name, end in VIDEO_SUFFIXES.items()}.get(suffix)
    options.format = options.format or "png"
    if options.kind not in HOLDS[options.format] or (options.bits == 16 and options.format != "png"):
        parser.error(f"--format {options.format} holds no {options.kind} of {options.bits} bits: use png")
    if options.bits > 8 and options.video in ("mp4", "webm"):
        parser.error(f"--bits {options.bits}: a .{options.video} holds 8 bits: use --video mkv or png")
    if options.video == "mp4" and options.kind == "cutout":
        parser.error("--video mp4 holds no transparency: use --video mkv, mov, webm or png")
    options.video = options.video or USUAL_VIDEO[options.kind]
    return options


def build_parser(description: str | None) -> argparse.ArgumentParser:
    parser = new_parser(description)
    files = parser.add_argument_group("files").add_argument
    paths = "photos, videos, folders (all below them too), .txt lists of these (default: test_data)"
    files("--input", type=Path, nargs="+", metavar="PATH", default=[Path("test_data")], help=paths)
    where = "folder, or with one input the file to write, such as cut.png (default: %(default)s)"
    files("--output", type=Path, metavar="PATH", default=Path("test_results"), help=where)
    add_checkpoint(files)
    skip = "finish a job: skip inputs whose output was made of the same files by the same settings"
    files("--skip-existing", action="store_true", help=skip)
    limit = "refuse larger photos (default: %(default)s)"
    files("--max-pixels", type=int, metavar="N", default=photos.MAX_PIXELS, help=limit)
    look = parser.add_argument_group("what to write").add_argument
    kinds = (
        "alpha: the matte, grey. cutout: the subject in its own colours on nothing. foreground: those colours alone. "
        "composite: the subject on a background (default: %(default)s)"
    )
    look("--kind", choices=KINDS, default="alpha", help=kinds)
    grounds = "of a composite: red, #00ff00, a photo's path, or blur for its own background, blurred (default: white)"
    look("--background", metavar="B", help=grounds)
    formats = "file format of a cutout, foreground or composite (default: that of --output, else png)"
    look("--format", choices=tuple(HOLDS), help=formats)
    bits = "bits per channel of a PNG or a .mkv (default: 8)"
    look("--bits", type=int, choices=(8, 16), default=8, help=bits)
    videos = (
        "what a video becomes: .mkv (FFV1, lossless), .mp4 (H.264, plays everywhere, not transparent), .mov (ProRes "
        "4444, for editors), .webm (VP9) or a folder of PNG (default: mkv for alpha, png for cutout, else mp4)"
    )
    look("--video", choices=VIDEO_SUFFIXES, help=videos)
    machine = parser.add_argument_group("machine").add_argument
    add_device(machine)
    precisions = "number type of the network; off is float32 (default: the fastest that the device has)"
    machine("--precision", choices=("auto", "bf16", "fp16", "off"), default="auto", help=precisions)
    memory = "memory for tiles, in MB (default: a share of what is free)"
    machine("--max-memory", type=int, metavar="MB", help=memory)
    details = "refine a larger photo up to this long side and interpolate from there: faster, softer edges"
    machine("--detail", type=int, metavar="PIXELS", help=details)
    workers = "photos read ahead of the network and written after it; each takes memory; 0: no threads (default: 1)"
    machine("--workers", type=int, metavar="N", default=1, help=workers)
    return parser
