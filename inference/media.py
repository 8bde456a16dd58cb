"""Whether a file is a photo or a video: what it holds decides, its suffix only where that says nothing."""

from __future__ import annotations

import os
import re
from pathlib import Path

from common.photos import SUFFIXES as PHOTO_SUFFIXES

PHOTO, VIDEO = "photo", "video"
FRAMES_SUFFIX = ".frames"  # of a folder 000001.png, 000002.png ... that predict.py writes
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".3gp", ".avi", ".mkv", ".webm", ".mts", ".m2ts", ".ts", ".wmv")
SHARED_SUFFIXES = (".ts", ".mts")  # those of TypeScript too: only what such a file holds makes it a video

HEAD = 4096  # bytes that are looked at
STILLS = rb"hei[cxms]|hev[cxms]|mif[12]|msf1|avi[fs]"  # brands of HEIC and AVIF, which share MP4's boxes
PHOTO_START = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8|BM....\0\0\0\0|II[*+]\0|MM\0[*+]|RIFF....WEBP|....ftyp(" + STILLS + rb")",
    re.DOTALL,
)
VIDEO_START = re.compile(
    rb"....(ftyp(?!" + STILLS + rb"|crx)|moov|mdat|wide|free|skip|pnot)|\x1aE\xdf\xa3|RIFF....AVI |FLV\1|OggS"
    rb"|0&\xb2u\x8ef\xcf\x11|\0\0\1[\xba\xb3]",
    re.DOTALL,
)
# a transport stream has the byte 0x47 every 188 or, in AVCHD, 192 bytes; a recording may start within such a packet
PACKETS = re.compile(rb".{0,191}?(?:(?:G.{187}){8}|(?:G.{191}){8})", re.DOTALL)


def kind_of(path: Path) -> str:
    """PHOTO or VIDEO; "" for a file that is neither by what it holds nor by its suffix. A pipe is not opened."""
    head = b""
    if os.path.isfile(path):
        try:
            with open(path, "rb") as file:
                head = file.read(HEAD)
        except OSError:  # whoever reads it says why
            pass
    if VIDEO_START.match(head) or PACKETS.match(head):
        return VIDEO
    suffix = path.suffix.lower()
    if PHOTO_START.match(head) or suffix in PHOTO_SUFFIXES:
        return PHOTO
    is_text = suffix in SHARED_SUFFIXES and head and b"\0" not in head
    return VIDEO if suffix in VIDEO_SUFFIXES and not is_text else ""


def is_named_as_media(name: str) -> bool:
    return name.lower().endswith(PHOTO_SUFFIXES + VIDEO_SUFFIXES) and not name.startswith(".")
