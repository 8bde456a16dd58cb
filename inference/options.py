"""The options of predict.py, export.py, app.py and inference.pseudo_labels."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from common import hub, photos
from common.command import add_checkpoint, add_device, new_parser
from inference.media import FRAMES_SUFFIX, is_named_as_media

KINDS = ("alpha", "cutout", "foreground", "composite")
VIDEO_SUFFIXES = {"mkv": ".mkv", "mp4": ".mp4", "mov": ".mov", "webm": ".webm", "png": FRAMES_SUFFIX}
HOLDS = {"png": KINDS, "webp": KINDS[1:], "jpg": KINDS[2:]}  # format of a photo's output: what it can hold
USUAL_VIDEO = {"alpha": "mkv", "cutout": "png", "foreground": "mp4", "composite": "mp4"}
PAGE_PIXELS = 50_000_000  # take 16 s and 1.2 GB on one CPU core, the network not counted
PAGE_UPLOAD = 100  # MB


def predict_options(description: str | None, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line's options, with output_name where --output names a file.

    Ends the program with exit code 2 where they do not go together.
    """
    parser = predict_parser(description)
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


def predict_parser(description: str | None) -> argparse.ArgumentParser:
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


def export_options(description: str | None, argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = new_parser(description)
    add_checkpoint(parser.add_argument, formats="")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="F.onnx",
        help="file to write; the refiner goes to F.refiner.onnx (default: in the checkpoint's folder)",
    )
    parser.add_argument("--half", action="store_true", help="float16 weights and arithmetic, for GPUs")
    options = parser.parse_args(argv)
    if options.output and options.output.suffix.lower() != ".onnx":
        parser.error(f"--output {options.output}: the name must end in .onnx")
    if hub.is_name(options.checkpoint) and not options.output:
        parser.error(f"--checkpoint {options.checkpoint}: name the file to write with --output")
    return options


def app_options(description: str | None, argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = new_parser(description)
    flag = parser.add_argument
    add_checkpoint(flag)
    who = "address to listen on (default: %(default)s, this computer only; 0.0.0.0 admits the whole network)"
    flag("--host", default="127.0.0.1", help=who)
    flag("--port", type=int, default=7860, help="default: %(default)s")
    behind = "path that a proxy serves the page at, such as /matte"
    flag("--root-path", metavar="PATH", help=behind)
    flag("--max-pixels", type=int, metavar="N", default=PAGE_PIXELS, help="refuse larger photos (default: %(default)s)")
    flag("--max-upload", type=int, metavar="MB", default=PAGE_UPLOAD, help="refuse larger files (default: %(default)s)")
    add_device(flag)
    options = parser.parse_args(argv)
    if options.max_pixels < 1 or options.max_upload < 1 or not 1 <= options.port <= 65535:
        parser.error("--max-pixels and --max-upload must be positive, --port from 1 to 65535")
    return options


def pseudo_label_options(description: str | None, argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = new_parser(description)
    parser.add_argument("models", type=Path, nargs="*", metavar="MODEL", help="ONNX files of U2-Net")
    parser.add_argument("source", type=Path, metavar="PHOTOS", help="the folder of photos")
    parser.add_argument("root", type=Path, metavar="ROOT", help="the folder to make")
    parser.add_argument("--maps", action="store_true", help="write the networks' mean maps, not a data set")
    options = parser.parse_args(argv)
    if options.maps and not options.models:
        parser.error("--maps needs a MODEL")
    return options
