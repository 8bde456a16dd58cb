"""Synthetic subjects with an exact matte: fur, hair, feathers, leaves, wires, holes, glass, veils.

A subject draws onto a Canvas: opacity at twice the output size, colour at the output size. The
colour reaches past the edge of every part, so it is defined wherever the antialiased matte is not
zero. Sizes of bodies are shares of the frame; strands and wires have widths in output pixels, so
a larger picture has finer hair.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.random import Generator

from data.synthetic.backgrounds import SUBPIXEL_BITS, texture, to_fixed

SUPERSAMPLING = 2
Colour = tuple[float, float, float]


class Canvas:
    """Opacity (uint8, 2S x 2S) and colour (uint8, S x S x 3) of a subject being drawn."""

    def __init__(self, *, rng: Generator, size: int, matrix: np.ndarray, palette: np.ndarray) -> None:
        self.rng, self.size, self.matrix, self.palette = rng, size, matrix, palette
        self.cover: np.ndarray = np.zeros((size * SUPERSAMPLING,) * 2, np.uint8)
        self.colour: np.ndarray = np.full((size, size, 3), int(palette.mean() * 255), np.uint8)
        self.light = rng.uniform(-1, 1, 2) * 0.03

    def fixed(self, points: np.ndarray, supersampling: int = 1) -> np.ndarray:
        """Subject units (..., 2) through the subject's pose to fixed-point pixels."""
        posed = points.reshape(-1, 2) @ self.matrix[:, :2].T + self.matrix[:, 2]
        return to_fixed(posed, self.size * supersampling).reshape(points.shape)

    def mask(self, outlines: list[np.ndarray], supersampling: int = SUPERSAMPLING) -> np.ndarray:
        """Antialiased mask of closed outlines, uint8."""
        mask = np.zeros((self.size * supersampling,) * 2, np.uint8)
        for outline in outlines:  # one by one: together, OpenCV fills by the even-odd rule
            cv2.fillPoly(mask, [self.fixed(outline, supersampling)], 255, cv2.LINE_AA, SUBPIXEL_BITS)
        return mask

    def paint(self, outline: np.ndarray, paint: np.ndarray | Colour) -> None:
        """Colour a part and a margin around it, without changing the opacity.

        paint: one RGB colour in [0, 1], or a texture (S, S, 3), which gets lit as a round body.
        """
        points, margin = [self.fixed(outline)], max(3, self.size // 64)
        if len(paint) == 3:
            colour = tuple(255 * channel for channel in paint)
            cv2.fillPoly(self.colour, points, colour, shift=SUBPIXEL_BITS)
            cv2.polylines(self.colour, points, True, colour, 3, shift=SUBPIXEL_BITS)
            return
        mask = np.zeros((self.size, self.size), np.uint8)
        cv2.fillPoly(mask, points, 255, shift=SUBPIXEL_BITS)
        cv2.polylines(mask, points, True, 255, margin, shift=SUBPIXEL_BITS)
        small = cv2.resize(mask, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
        shift = np.array([[1, 0, self.light[0] * len(small)], [0, 1, self.light[1] * len(small)]], np.float32)
        small = cv2.GaussianBlur(cv2.warpAffine(small, shift, small.shape[::-1]), (0, 0), 0.05 * len(small))
        shade = cv2.resize(cv2.convertScaleAbs(small, None, 0.75, 80), mask.shape[::-1])
        lit = cv2.multiply(np.asarray(paint), cv2.cvtColor(shade, cv2.COLOR_GRAY2RGB), scale=1 / 220)
        cv2.copyTo(lit, mask, self.colour)

    def texture(self, palette: np.ndarray) -> np.ndarray:
        """A texture of a random family as large as the picture, uint8 (S, S, 3)."""
        return texture(self.rng, self.size, palette)

    def crowd(self, count: float) -> int:
        """A number of strands, given for a picture of 256 pixels, at this canvas's size."""
        return max(4, round(count * self.size / 256))

    def fill(self, outline: np.ndarray, paint: np.ndarray | Colour) -> None:
        """Draw an opaque part."""
        cv2.fillPoly(self.cover, [self.fixed(outline, SUPERSAMPLING)], 255, cv2.LINE_AA, SUBPIXEL_BITS)
        self.paint(outline, paint)

    def cut(self, outline: np.ndarray) -> None:
        """Cut a hole through everything drawn so far."""
        cv2.fillPoly(self.cover, [self.fixed(outline, SUPERSAMPLING)], 0, cv2.LINE_AA, SUBPIXEL_BITS)

    def film(self, outline: np.ndarray, opacity: np.ndarray | float, paint: np.ndarray) -> None:
        """Draw a part with partial opacity: a number in [0, 1] or a map uint8 (S, S)."""
        before, shape = self.colour, self.colour.shape[:2]
        self.colour = before.copy()
        self.paint(outline, paint)
        mask = self.mask([outline])
        under = cv2.resize(self.cover, shape, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        if isinstance(opacity, np.ndarray):
            over = opacity.astype(np.float32) / 255
            _lay(self.cover, cv2.multiply(mask, cv2.resize(opacity, mask.shape), scale=1 / 255))
        else:
            over = np.full(shape, opacity, np.float32)
            _lay(self.cover, cv2.convertScaleAbs(mask, None, opacity))
        under *= 1 - over  # what shows through; the two colours mix by their share of the opacity
        share = over / np.maximum(over + under, 1e-3)
        self.colour = cv2.blendLinear(self.colour, before, share, 1 - share)

    def lines(self, lines: np.ndarray, width: float, palette: np.ndarray, taper: bool = True) -> None:
        """Draw strands or wires (N, P, 2), `width` output pixels at the root, finer to the tip.

        A strand finer than a supersampled pixel keeps that width and loses opacity instead.
        """
        if not lines.size:
            return
        fine = self.fixed(lines, SUPERSAMPLING)
        points = (fine >> 1) - (1 << SUBPIXEL_BITS) // 4  # the same at the output size
        reach, thickness = math.ceil(width / 2) + 3, max(1, round(width)) + 2
        low = np.clip((points.min((0, 1)) >> SUBPIXEL_BITS) - reach, 0, self.size)
        high = np.clip((points.max((0, 1)) >> SUBPIXEL_BITS) + reach, low, self.size)
        if (low == high).any():
            return  # outside the frame
        cover = self.cover[tuple(slice(2 * a, 2 * b) for a, b in zip(low[::-1], high[::-1], strict=True))]
        colour = self.colour[tuple(slice(a, b) for a, b in zip(low[::-1], high[::-1], strict=True))]
        solid = (cv2.resize(cover, high - low, interpolation=cv2.INTER_AREA) >= 254).view(np.uint8)
        before = colour.copy()
        fine -= (SUPERSAMPLING * low << SUBPIXEL_BITS).astype(np.int32)
        _lay(cover, _strand_mask(fine, width * SUPERSAMPLING, cover.shape, taper))
        cv2.polylines(self.colour, list(points), False, palette.mean(0) * 255, thickness, shift=SUBPIXEL_BITS)
        cv2.copyTo(before, solid, colour)  # no margin is needed before an opaque part
        self._colour_strands(points, width, palette)

    def strokes(self, lines: np.ndarray, width: float, palette: np.ndarray) -> None:
        """Colour strands (N, P, 2) in turn from a palette (K, 3), without changing the opacity."""
        self._colour_strands(self.fixed(lines), width, palette)

    def _colour_strands(self, points: np.ndarray, width: float, palette: np.ndarray) -> None:
        """As strokes, from fixed-point pixels."""
        thickness = max(1, round(width))
        for k in range(min(len(palette), len(points))):
            group = list(points[k :: len(palette)])
            cv2.polylines(self.colour, group, False, palette[k] * 255, thickness, cv2.LINE_AA, SUBPIXEL_BITS)


def _lay(cover: np.ndarray, layer: np.ndarray) -> None:
    """Lay a film of opacity (uint8) over another, in place: a + b - ab."""
    product = cv2.multiply(cover, layer, scale=1 / 255)
    cover[...] = cv2.add(cv2.subtract(cover, product), layer)


def _strand_mask(points: np.ndarray, width: float, shape: tuple[int, ...], taper: bool) -> np.ndarray:
    """Opacity of strands, uint8 of the given shape; points (N, P, 2) in fixed point, width in pixels."""
    mask = np.zeros(shape, np.uint8)
    if width > 4 or not taper:
        value, thickness = 255 * min(1.0, width), max(1, round(width))
        cv2.polylines(mask, list(points), False, value, thickness, cv2.LINE_AA, SUBPIXEL_BITS)
        return mask
    # Thin lines side by side that meet at the tip: a smooth taper, and several times as fast as
    # OpenCV's antialiased lines of more than one pixel.
    along = np.gradient(points.astype(np.float32), axis=1)
    normal = along[..., ::-1] * (1, -1) / np.maximum(np.linalg.norm(along, axis=-1, keepdims=True), 1)
    narrow = np.linspace(1, 0.1, points.shape[1])[:, None]
    reach = max(0.0, width - 1) / 2 * (1 << SUBPIXEL_BITS)
    count, middle = max(1, round(width)), points.shape[1] // 2
    for start, stop, share in ((middle, points.shape[1], 0.6), (0, middle + 1, 1.0)):
        for offset in np.linspace(-reach, reach, count) if count > 1 else (0.0,):
            shifted = np.rint(points + offset * narrow * normal).astype(np.int32)[:, start:stop]
            value = 255 * share * min(1.0, width)
            cv2.polylines(mask, list(shifted), False, value, 1, cv2.LINE_AA, SUBPIXEL_BITS)
    return mask


def strands(
    rng: Generator,
    starts: tuple[np.ndarray, np.ndarray],
    length: float,
    *,
    bend: float = 0.5,
    wave: float = 0.2,
    droop: float = 0.0,
    points: int = 10,
) -> np.ndarray:
    """Curved strands (N, points, 2); neighbours bend alike (tufts).

    starts: roots (N, 2) and angles (N,). length: of the longest, in frame units. bend, wave: turns in
    radians. droop: share of the turn towards straight down (y grows downwards) made on the way to the tip.
    """
    roots, angles = starts
    count, t = len(roots), np.linspace(0, 1, points)
    knots = rng.normal(0, bend, max(2, count // 6))
    tuft = np.interp(np.linspace(0, 1, count), np.linspace(0, 1, len(knots)), knots)
    fall = (np.mod(math.pi / 2 - angles + math.pi, 2 * math.pi) - math.pi) * droop
    theta = angles[:, None] + (tuft + rng.normal(0, 0.4 * bend, count) + fall)[:, None] * t
    theta += wave * np.sin(2 * math.pi * (rng.uniform(0.6, 1.4, (count, 1)) * t + rng.random((count, 1))))
    step = length * rng.uniform(0.45, 1.1, (count, 1)) / (points - 1)
    path = np.cumsum(step[..., None] * np.stack([np.cos(theta), np.sin(theta)], -1), axis=1)
    return roots[:, None] + path


def rim(rng: Generator, outline: np.ndarray, count: int, inset: float) -> tuple[np.ndarray, np.ndarray]:
    """Ordered random points just inside a closed outline and their outward angles: (N, 2), (N,)."""
    at = np.sort(rng.uniform(0, len(outline), count))
    index, share = at.astype(int), (at % 1)[:, None]
    following = outline[(index + 1) % len(outline)]
    tangent = following - outline[index]
    angles = np.arctan2(-tangent[:, 0], tangent[:, 1])
    roots = outline[index] * (1 - share) + following * share
    return roots - inset * np.stack([np.cos(angles), np.sin(angles)], -1), angles


def _shift(layers: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Move (S, S, C) layers by a fraction of a pixel; the border repeats."""
    matrix = np.column_stack([np.eye(2), offset])
    return cv2.warpAffine(layers, matrix, layers.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)


def soften(rng: Generator, alpha: np.ndarray, colour: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Blur the subject as a lens or a motion does: opacity, and colour weighted by opacity.

    alpha (S, S), colour (S, S, 3), float32 in [0, 1] in and out. Two thirds stay sharp.
    """
    size = len(alpha)
    mode = rng.choice(["sharp", "lens", "partial", "motion"], p=[0.64, 0.2, 0.08, 0.08])
    if mode == "sharp":
        return alpha, colour
    if mode == "lens":  # under a pixel: the colour's own margin is wide enough, no weights needed
        sigma = rng.uniform(0.4, 0.8)
        return cv2.GaussianBlur(alpha, (0, 0), sigma), cv2.GaussianBlur(colour, (0, 0), sigma)
    premultiplied = cv2.merge([*cv2.split(colour * alpha[..., None]), alpha])
    if mode == "motion":
        step, turn = rng.uniform(0.01, 0.05) * size / 4, rng.uniform(0, math.pi)
        direction = np.array([math.cos(turn), math.sin(turn)])
        blurred: np.ndarray = premultiplied
        while step > 0.25:  # the mean of two copies, then of two of those ...: a box of 4 steps
            ahead, behind = _shift(blurred, step * direction), _shift(blurred, -step * direction)
            blurred = cv2.addWeighted(ahead, 0.5, behind, 0.5, 0)
            step /= 2
    else:  # one side of the subject leaves the depth of field
        sigma = rng.uniform(0.006, 0.016) * size
        width = 2 * round(2.5 * sigma) + 1  # by default OpenCV takes 4 sigma each way
        blurred = cv2.GaussianBlur(premultiplied, (width, width), sigma, borderType=cv2.BORDER_REPLICATE)
        corners = rng.permutation([0.0, 0.0, 1.0, 1.0]).reshape(2, 2).astype(np.float32)
        sharp = np.asarray(cv2.resize(corners, (size, size)), np.float32)[..., None]
        blurred = blurred + (np.asarray(premultiplied, np.float32) - np.asarray(blurred, np.float32)) * sharp
    alpha = np.minimum(blurred[..., 3], np.float32(1))
    weight = np.minimum(alpha * 255, np.float32(1))  # where next to nothing is left, keep the colour
    ratio = (weight / np.maximum(alpha, np.float32(1e-3)))[..., None]
    return alpha, colour * (1 - weight)[..., None] + blurred[..., :3] * ratio
