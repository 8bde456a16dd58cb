"""Colours that a photo names without an ICC profile, as the ICC profile that says the same.

HEIC and AVIF name their primaries and transfer by the numbers of ITU-T H.273 (nclx), PNG by these (cICP) or by gAMA and
cHRM, cameras set to Adobe RGB by a word in the EXIF block.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache

import numpy as np
from PIL import Image

D65 = (0.3127, 0.329)
SRGB = (0.64, 0.33, 0.3, 0.6, 0.15, 0.06, *D65)  # x and y of red, green, blue and white
PRIMARIES = {  # by their number in H.273, table 2; 2 is "unspecified"
    **dict.fromkeys((1, 2), SRGB),
    4: (0.67, 0.33, 0.21, 0.71, 0.14, 0.08, 0.31, 0.316),
    5: (0.64, 0.33, 0.29, 0.6, 0.15, 0.06, *D65),
    **dict.fromkeys((6, 7), (0.63, 0.34, 0.31, 0.595, 0.155, 0.07, *D65)),
    9: (0.708, 0.292, 0.17, 0.797, 0.131, 0.046, *D65),  # BT.2020
    11: (0.68, 0.32, 0.265, 0.69, 0.15, 0.06, 0.314, 0.351),
    12: (0.68, 0.32, 0.265, 0.69, 0.15, 0.06, *D65),  # Display P3
    22: (0.63, 0.34, 0.295, 0.605, 0.155, 0.077, *D65),
}
ADOBE_RGB = (0.64, 0.33, 0.21, 0.71, 0.15, 0.06, *D65)
WHITE = 203  # cd / m2: white of an SDR picture shown beside HDR (ITU-R BT.2408)
D50 = np.array([0.9642, 1.0, 0.8249])
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
LEVELS = np.linspace(0, 1, 4096)
HDR = "HDR: what is brighter than white is cut off"  # an ICC profile ends at white


def srgb(e: np.ndarray) -> np.ndarray:
    return np.where(e <= 0.04045, e / 12.92, ((e + 0.055) / 1.055) ** 2.4)


def pq(e: np.ndarray) -> np.ndarray:
    """SMPTE ST 2084, white being 1."""
    root = e ** (32 / 2523)
    return (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (8192 / 1305) * 10_000 / WHITE


def hlg(e: np.ndarray) -> np.ndarray:
    """ITU-R BT.2100 on a display of 1000 cd / m2, white being 1."""
    scene = np.where(e <= 0.5, e**2 / 3, (np.exp((e - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    return scene**1.2 * 1000 / WHITE


def power(gamma: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda e: e**gamma


# by their number in H.273, table 3; viewers show 1, 6, 14 and 15, a camera's curve, as sRGB
TRANSFERS = {**dict.fromkeys((1, 2, 6, 13, 14, 15), srgb), 4: power(2.2), 5: power(2.8), 8: power(1.0), 16: pq, 18: hlg}


def find_profile(picture: Image.Image, head: bytes, exif: Image.Exif) -> tuple[bytes | None, str]:
    """(profile, note): of an opened photo; None is sRGB, or what viewers take for it. head: the file's first bytes."""
    icc = picture.info.get("icc_profile")
    codes = re.search(rb"\x00\x00\x00\x04cICP(.)(.)", head, re.DOTALL)  # counts more than iCCP
    if picture.format in ("AVIF", "HEIF") and not icc:
        codes = re.search(rb"colrnclx\x00(.)\x00(.)", head, re.DOTALL)
    if codes:
        return by_numbers(codes[1][0], codes[2][0])
    if icc:
        return icc, ""
    if picture.format == "PNG" and "srgb" not in picture.info:
        white_first = picture.info.get("chromaticity", (*SRGB[6:], *SRGB[:6]))
        primaries, gamma = (*white_first[2:], *white_first[:2]), picture.info.get("gamma", 1 / 2.2)
        if np.allclose((*primaries, gamma), (*SRGB, 1 / 2.2), rtol=0, atol=0.005):
            return None, ""
        if not (gamma > 0 and min(primaries[1::2]) > 0):
            return None, "broken colour values are ignored"
        return build_profile(primaries, power(1 / gamma) if "gamma" in picture.info else srgb), ""
    with suppress(Exception):  # on a broken block Pillow raises nearly anything
        if exif.get_ifd(0xA005).get(1) == "R03":
            return build_profile(ADOBE_RGB, power(563 / 256)), ""
    return None, ""


def by_numbers(primaries: int, transfer: int) -> tuple[bytes | None, str]:
    """As find_profile, of two numbers of H.273."""
    if primaries not in PRIMARIES or transfer not in TRANSFERS:
        return None, f"colours of an unknown kind (H.273: {primaries}, {transfer}) are taken for sRGB"
    if PRIMARIES[primaries] == SRGB and TRANSFERS[transfer] is srgb:
        return None, ""
    return build_profile(PRIMARIES[primaries], TRANSFERS[transfer]), HDR if transfer in (16, 18) else ""


@lru_cache(maxsize=8)
def build_profile(chromaticities: tuple[float, ...], transfer: Callable[[np.ndarray], np.ndarray]) -> bytes:
    """An ICC profile, version 2: three primaries under D50 (adapted by Bradford) and one curve.

    chromaticities: as SRGB. transfer: encoded [0, 1] to light, white being 1; more is cut off.
    """
    x, y = np.reshape(chromaticities, (4, 2)).T
    columns = np.stack([x / y, np.ones(4), (1 - x - y) / y])  # XYZ of red, green, blue, white at Y = 1
    primaries = columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3])
    adaptation = np.linalg.solve(BRADFORD, np.diag(BRADFORD @ D50 / (BRADFORD @ columns[:, 3])) @ BRADFORD)
    curve = np.rint(np.clip(transfer(LEVELS), 0, 1) * 65535).astype(">u2")
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 8) + b"TSR-Mat\0" + bytes(78),
        b"cprt": b"text" + bytes(4) + b"CC0\0",
        b"wtpt": _xyz(D50),
        **{
            name: _xyz(column)
            for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), (adaptation @ primaries).T, strict=True)
        },
        b"rTRC": b"curv" + bytes(4) + struct.pack(">I", len(curve)) + curve.tobytes(),
    }
    at = 128 + 4 + 12 * (len(tags) + 2)
    table, body = struct.pack(">I", len(tags) + 2), b""
    for name, data in tags.items():
        for same in (b"rTRC", b"gTRC", b"bTRC") if name == b"rTRC" else (name,):
            table += same + struct.pack(">II", at + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    head = struct.pack(">I4sI4s4s4s", at + len(body), bytes(4), 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    return head + bytes(12) + b"acsp" + bytes(28) + _xyz(D50)[8:] + bytes(48) + table + body


def _xyz(values: np.ndarray) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *np.rint(values * 65536).astype(int))
