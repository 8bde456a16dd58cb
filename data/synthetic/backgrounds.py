"""Textures, outlines, and the textured scenes that stand behind a synthetic subject.

Everything takes its randomness from the generator passed in. Geometry is in frame units: the
frame is [0, 1] x [0, 1], x to the right and y down. Pictures are RGB uint8 (S, S, 3).
"""

from __future__ import annotations

import math
from functools import cache

import cv2
import numpy as np
from numpy.random import Generator

SUBPIXEL_BITS = 4  # OpenCV fixed point: 1/16 of a pixel


def to_fixed(points: np.ndarray, size: int) -> np.ndarray:
    """Frame units (..., 2) to OpenCV's fixed-point pixel coordinates (int32), 0.5 being a centre."""
    pixels = np.minimum(np.maximum(points, -4.0), 5.0) * size - 0.5  # np.clip is slow on small arrays
    return np.rint(pixels * (1 << SUBPIXEL_BITS)).astype(np.int32)


def noise(rng: Generator, size: int, cells: float, octaves: int = 3) -> np.ndarray:
    """Multi-octave value noise, uint8 (S, S) stretched to 0..255; `cells` is the coarsest grid."""
    total: np.ndarray = np.zeros((2, 2), np.float32)
    for octave in range(octaves):  # each octave enlarges the sum of those before it: one full-size resize
        count = max(2, round(cells * 2**octave) + 1)
        if octave and count > size:
            break
        total = cv2.resize(total, (count, count), interpolation=cv2.INTER_CUBIC)
        total = total + rng.random((count, count), np.float32) * 0.55**octave
    low, high = total.min(), total.max()
    field = np.rint((total - low) * (255 / max(high - low, 1e-6))).astype(np.uint8)
    is_fine = 3 * len(field) >= size  # then linear looks the same, and is faster
    return cv2.resize(field, (size, size), interpolation=cv2.INTER_LINEAR if is_fine else cv2.INTER_CUBIC)


def random_palette(rng: Generator, base: np.ndarray | None = None, spread: float = 0.18) -> np.ndarray:
    """Four RGB colours in [0, 1], (4, 3), dark to light, around `base` (a random colour when None)."""
    if base is None:
        value, saturation = rng.uniform(0.15, 0.95), rng.beta(1.2, 3.0)
        base = value * (1 - saturation * (1 - rng.permutation([1.0, rng.random(), 0.0])))
    shades = np.array([[-1.0], [-0.33], [0.33], [1.0]]) * spread * rng.uniform(0.6, 1.5)
    return np.minimum(np.maximum(base + shades + rng.normal(0, 0.3 * spread, (4, 3)), 0.01), 0.99)


def colour_map(field: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Paint a uint8 (S, S) field with a palette (K, 3) in [0, 1], interpolated: uint8 (S, S, 3)."""
    stops = np.linspace(0, 255, len(palette))
    table = np.stack([np.interp(np.arange(256), stops, channel) for channel in palette.T], axis=-1)
    return cv2.applyColorMap(field, np.rint(table * 255).astype(np.uint8)[:, None])


def texture(rng: Generator, size: int, palette: np.ndarray) -> np.ndarray:
    """One of the texture families shared by subjects and scenes, uint8 (S, S, 3).

    Clouds, fine grain, warped stripes, warped checks or spots, gradient.
    """
    family = rng.choice(["clouds", "grain", "stripes", "spots", "gradient"], p=[0.4, 0.2, 0.12, 0.1, 0.18])
    if family == "clouds":
        field = noise(rng, size, rng.uniform(2, 6), 5)
    elif family == "grain":
        field = noise(rng, size, rng.uniform(20, 60), 3)
    else:
        angle, frequency = rng.uniform(0, math.pi), rng.uniform(6, 40)
        axis = np.linspace(0, 1, size, dtype=np.float32)
        x, y = axis[None, :], axis[:, None]
        warp = noise(rng, size, 3, 2).astype(np.float32) / 255
        along = x * math.cos(angle) + y * math.sin(angle)
        if family == "gradient":
            wave = along + 0.3 * warp
        else:
            wave = np.sin(2 * math.pi * frequency * along + 5 * warp)
            if family == "spots":
                across = y * math.cos(angle) - x * math.sin(angle)
                wave *= np.sin(2 * math.pi * frequency * across + 5 * warp)
        wave = wave + 0.3 * warp
        field = cv2.normalize(wave, np.empty_like(wave), 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    return colour_map(field, palette)


def blob(rng: Generator, roughness: float = 0.12, points: int = 72) -> np.ndarray:
    """A smooth random closed curve of mean radius about 1 around the origin, (points, 2)."""
    angle = 2 * math.pi / points * np.arange(points)
    order = np.arange(2, 7)[:, None]
    amplitude = rng.normal(0, roughness, (5, 1)) / (order - 1)
    radius = 1 + (amplitude * np.cos(order * angle + rng.uniform(0, 2 * math.pi, (5, 1)))).sum(0)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1)


@cache
def polygon(corners: int) -> np.ndarray:
    """A regular polygon of radius 1, (corners, 2)."""
    angle = np.linspace(0, 2 * math.pi, corners, endpoint=False) + math.pi / 4
    return np.stack([np.cos(angle), np.sin(angle)], -1)


@cache
def leaf(points: int = 24, belly: float = 0.35) -> np.ndarray:
    """A pointed leaf from (0, 0) to (1, 0), closed, (2 * points, 2); `belly` is its half width."""
    t = np.linspace(0, 1, points)
    half = belly * np.sin(math.pi * t**0.8) ** 1.2
    return np.concatenate([np.stack([t, half], -1), np.stack([t, -half], -1)[::-1]])


def place(
    points: np.ndarray,
    centre: tuple[float, float] | np.ndarray,
    scale: tuple[float, float] | np.ndarray | float,
    angle: float = 0.0,
) -> np.ndarray:
    """Scale, rotate (radians) and move points (..., 2)."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return (points * scale) @ np.array([[cosine, sine], [-sine, cosine]]) + centre


def _add_clutter(rng: Generator, scene: np.ndarray, palettes: list[np.ndarray]) -> None:
    """Draw textured distractor shapes onto the scene, in place."""
    size = len(scene)
    paints = [texture(rng, size, palette) for palette in palettes[:2]]
    outlines = [blob(rng, 0.2), blob(rng, 0.3), polygon(4), polygon(3), leaf() * 2 - (1, 0)]
    for _ in range(rng.integers(4, 22)):
        outline = outlines[rng.integers(len(outlines))]
        scale = rng.uniform(0.03, 0.25) * np.array([1.0, rng.uniform(0.3, 1.2)])
        shape = [to_fixed(place(outline, rng.uniform(0, 1, 2), scale, rng.uniform(0, math.pi)), size)]
        if rng.random() < 0.4:
            mask = np.zeros((size, size), np.uint8)
            cv2.fillPoly(mask, shape, 255, shift=SUBPIXEL_BITS)
            cv2.copyTo(paints[rng.integers(len(paints))], mask, scene)
        else:
            palette = palettes[rng.integers(len(palettes))]
            colour = (palette[rng.integers(len(palette))] * 255).tolist()
            cv2.fillPoly(scene, shape, colour, cv2.LINE_AA, SUBPIXEL_BITS)
    t = np.linspace(0, 1, 12)[:, None]
    for _ in range(rng.integers(0, 12)):  # poles, twigs and cables
        start, end = rng.uniform(-0.1, 1.1, (2, 2))
        line = start + t * (end - start) + (0, rng.uniform(-0.2, 0.2)) * np.sin(math.pi * t)
        colour = (palettes[rng.integers(len(palettes))][rng.integers(4)] * 255).tolist()
        thickness = max(1, round(rng.uniform(0.003, 0.03) * size))
        cv2.polylines(scene, [to_fixed(line, size)], False, colour, thickness, cv2.LINE_AA, SUBPIXEL_BITS)


def _add_lights(rng: Generator, scene: np.ndarray, radius: float) -> None:
    """Far lamps, each a bright disc as large as the circle of confusion, in place."""
    size, reach = len(scene), max(1, round(radius * (1 << SUBPIXEL_BITS)))
    for _ in range(rng.integers(4, 30)):
        disc, centre = np.zeros_like(scene), to_fixed(rng.random(2), size).tolist()
        colour = (rng.uniform(0.3, 1.0) * rng.uniform(120, 256, 3)).tolist()
        cv2.circle(disc, centre, round(reach * rng.uniform(0.8, 1.2)), colour, -1, cv2.LINE_AA, SUBPIXEL_BITS)
        cv2.add(scene, disc, dst=scene)


def render_scene(
    rng: Generator, size: int, palette: np.ndarray, others: list[tuple[np.ndarray, np.ndarray]], blur: float
) -> np.ndarray:
    """A background, float32 (S, S, 3) in [0, 1].

    palette: colours (4, 3) of its largest surface. others: (alpha (h, h), colour (h, h, 3)) pairs
    in [0, 1] of distractor subjects, drawn before the blur. blur: radius of the circle of confusion
    as a share of the frame; 0 is a sharp scene.
    """
    # A blurred scene holds no fine detail: paint it small, blur it by a few pixels, enlarge it.
    reduction = int(np.clip(blur * size / 3, 1, 8))
    small = max(16, size // reduction)
    palettes = [palette] + [random_palette(rng) for _ in range(3)]
    scene = texture(rng, small, palette)
    if rng.random() < 0.5:  # ground below a horizon
        ground, top = texture(rng, small, palettes[1]), rng.uniform(0.4, 0.85)
        outline = np.array([[-1, top], [2, top + rng.uniform(-0.1, 0.1)], [2, 2], [-1, 2]])
        mask = np.zeros((small, small), np.uint8)
        cv2.fillPoly(mask, [to_fixed(outline, small)], 255, shift=SUBPIXEL_BITS)
        cv2.copyTo(ground, mask, scene)
    if rng.random() < 0.85:
        _add_clutter(rng, scene, palettes)
    for alpha, colour in others:
        alpha = cv2.resize(alpha, (small, small), interpolation=cv2.INTER_AREA)[..., None]
        colour = cv2.resize(colour, (small, small), interpolation=cv2.INTER_AREA)
        scene = np.rint(alpha * colour * 255 + (1 - alpha) * scene).astype(np.uint8)
    if blur > 0:
        radius = blur * small
        scene = cv2.GaussianBlur(scene, (0, 0), radius / 1.5, borderType=cv2.BORDER_REFLECT_101)
        if rng.random() < 0.35:
            _add_lights(rng, scene, radius)
        scene = cv2.resize(scene, (size, size), interpolation=cv2.INTER_CUBIC)
    falloff = cv2.resize(rng.uniform(0.7, 1.1, (2, 2)).astype(np.float32), (size, size))
    scene = cv2.multiply(scene, cv2.merge([falloff] * 3), scale=1 / 255, dtype=cv2.CV_32F)
    return np.minimum(scene, np.float32(1), out=scene)
