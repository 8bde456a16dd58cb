"""Living subjects, each a function that draws itself onto a Canvas: fur, hair, leaves, feathers, seeds.

Coordinates are frame units before the subject's pose; the subject fills about [0.15, 0.85]. The count
of strands grows with the size of the picture, since strands keep their width in pixels.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from data.synthetic.backgrounds import blob, colour_map, leaf, noise, place, polygon, random_palette
from data.synthetic.foregrounds import Canvas, rim, strands

FUR = np.array([
    [0.45, 0.30, 0.18], [0.75, 0.55, 0.33], [0.12, 0.11, 0.11], [0.85, 0.83, 0.80], [0.50, 0.50, 0.52],
    [0.30, 0.20, 0.13], [0.80, 0.45, 0.20], [0.93, 0.86, 0.72],
])  # fmt: skip
SKIN = np.array([[0.93, 0.76, 0.65], [0.80, 0.60, 0.46], [0.58, 0.39, 0.28], [0.36, 0.24, 0.18]])


def draw_fur(canvas: Canvas, outline: np.ndarray, palette: np.ndarray, length: float, count: float) -> None:
    """A rim of tufted fur around a part, in two widths."""
    rng, lean = canvas.rng, canvas.rng.normal(0, 0.5)
    for share, width in ((0.6, rng.uniform(0.8, 1.6)), (0.4, rng.uniform(0.3, 0.8))):
        roots, angles = rim(rng, outline, canvas.crowd(count * share), 0.4 * length)
        reach, droop = length * (1.5 - share), rng.uniform(0, 0.4)
        hair = strands(rng, (roots, angles + lean), reach, bend=0.6, droop=droop)
        canvas.lines(hair, width, palette)


def _coat(canvas: Canvas, outline: np.ndarray, palette: np.ndarray, length: float, count: float) -> None:
    """Short hair over the inside of a part (colour only shows: it is opaque already)."""
    rng = canvas.rng
    centre = outline.mean(0)
    roots = centre + (outline[rng.integers(len(outline), size=canvas.crowd(count))] - centre) * np.sqrt(
        rng.uniform(0, 0.8, (canvas.crowd(count), 1))
    )
    order = np.argsort(roots[:, 0] + 0.3 * roots[:, 1])
    angles = math.pi / 2 + 2 * (roots[order, 0] - centre[0])
    canvas.strokes(strands(rng, (roots[order], angles), length, bend=0.3, points=6), 0.8, palette)


def draw_eyes(canvas: Canvas, centre: tuple[float, float], gap: float, size: float) -> None:
    """Two dark eyes with a highlight."""
    for side in (-1, 1):
        at = (centre[0] + side * gap, centre[1])
        canvas.paint(place(polygon(24), at, size), (0.07, 0.05, 0.05))
        gleam = (at[0] - 0.3 * size, at[1] - 0.3 * size)
        canvas.paint(place(polygon(12), gleam, 0.25 * size), (0.95, 0.95, 1.0))


def animal(canvas: Canvas) -> None:
    """A sitting furry animal: body, head, ears, fur rim, whiskers."""
    rng = canvas.rng
    palette = random_palette(rng, FUR[rng.integers(len(FUR))], 0.13)
    length, count = rng.uniform(0.03, 0.12), rng.uniform(200, 350)
    coat = canvas.texture(palette)
    body = place(blob(rng, 0.06), (0.5, 0.84), (rng.uniform(0.2, 0.3), rng.uniform(0.31, 0.4)))
    head_at, radius = (rng.uniform(0.42, 0.58), rng.uniform(0.36, 0.44)), rng.uniform(0.15, 0.19)
    head = place(blob(rng, 0.04), head_at, (radius * 1.1, radius))
    draw_fur(canvas, body, palette, length, count)
    canvas.fill(body, coat)
    _coat(canvas, body, palette, 0.07, 300)
    ear_length, spread = rng.uniform(0.9, 2.0) * radius, rng.uniform(0.35, 0.8)
    for side in (-1, 1):
        turn = -math.pi / 2 + side * spread
        root = (head_at[0] + 0.75 * radius * math.cos(turn), head_at[1] + 0.75 * radius * math.sin(turn))
        ear = place(leaf(belly=0.42), root, ear_length, turn)
        draw_fur(canvas, ear, palette, 0.5 * length, count / 4)
        canvas.fill(ear, coat)
        pink = tuple(0.5 * palette[1] + [0.35, 0.2, 0.2])
        canvas.paint(place(leaf(belly=0.42), root, 0.7 * ear_length, turn), pink)
    draw_fur(canvas, head, palette, 0.7 * length, count)
    canvas.fill(head, coat)
    _coat(canvas, head, palette, 0.05, 200)
    draw_eyes(canvas, (head_at[0], head_at[1] - 0.1 * radius), 0.4 * radius, rng.uniform(0.1, 0.2) * radius)
    nose = (head_at[0], head_at[1] + 0.4 * radius)
    canvas.paint(place(blob(rng, 0.05), nose, (0.16 * radius, 0.11 * radius)), (0.15, 0.1, 0.1))
    angles = np.concatenate([rng.uniform(-0.4, 0.4, 5), math.pi + rng.uniform(-0.4, 0.4, 5)])
    whiskers = strands(rng, (np.tile(nose, (10, 1)), angles), 2.6 * radius, bend=0.2, wave=0.02, points=16)
    canvas.lines(whiskers, rng.uniform(0.4, 1.2), random_palette(rng, np.array([0.9, 0.9, 0.9]), 0.05))


def _hair(canvas: Canvas, palette: np.ndarray, wave: float) -> None:
    """The hair behind a head: a mass that hangs down, and loose strands around it."""
    rng = canvas.rng
    hang, droop = rng.choice([0.0, 0.06, 0.18]), rng.uniform(0.1, 1.0)
    radii = (rng.uniform(0.17, 0.21), rng.uniform(0.2, 0.23) + hang)
    mass = place(blob(rng, 0.05), (0.5, 0.38 + hang), radii)
    for count, width, length in ((300, 1.1, rng.uniform(0.05, 0.16)), (120, 0.6, rng.uniform(0.12, 0.3))):
        roots, angles = rim(rng, mass, canvas.crowd(count), 0.02)
        bend = rng.uniform(0.3, 0.8)
        hair = strands(rng, (roots, angles), length, bend=bend, wave=wave, droop=droop, points=14)
        canvas.lines(hair, width, palette)
    canvas.fill(mass, canvas.texture(palette))
    _coat(canvas, mass, palette, 0.16, 250)


def _face(canvas: Canvas, skin: np.ndarray, hair: np.ndarray) -> None:
    """Head with neck, eyes, brows, mouth and a shaded nose."""
    rng = canvas.rng
    paint = colour_map(noise(rng, canvas.size, 3, 5), random_palette(rng, skin, 0.04))
    canvas.fill(place(polygon(4), (0.5, 0.68), (0.1, 0.2)), cv2.convertScaleAbs(paint, None, 0.75, 0))
    canvas.fill(place(blob(rng, 0.02), (0.5, 0.43), (0.14, 0.19)), paint)
    for side in (-1, 1):
        eye = place(leaf(12, 0.25), (0.5 + side * 0.03, 0.41), (side * 0.055, 0.055))
        brow = place(leaf(12, 0.12), (0.5 + side * 0.025, 0.375), (side * 0.07, 0.07))
        canvas.paint(eye, (0.93, 0.92, 0.9))
        canvas.paint(place(polygon(16), (0.5 + side * 0.057, 0.41), 0.012), tuple(hair[0] * 0.5))
        canvas.paint(brow, tuple(hair[0] * 0.8))
    canvas.paint(place(leaf(8, 0.12), (0.508, 0.4), 0.09, math.pi / 2), tuple(skin * 0.88))
    canvas.paint(place(leaf(12, 0.2), (0.45, 0.54), (0.1, 0.06)), tuple(skin * [0.85, 0.55, 0.55]))


def portrait(canvas: Canvas) -> None:
    """Head and shoulders with short or long, straight or curly hair and flyaway strands."""
    rng = canvas.rng
    hair = random_palette(rng, FUR[rng.integers(len(FUR))] * rng.uniform(0.4, 1.0), 0.1)
    skin = SKIN[rng.integers(len(SKIN))] * rng.uniform(0.85, 1.05)
    wave = rng.uniform(0.05, 0.9)
    _hair(canvas, hair, wave)
    _face(canvas, skin, hair)
    shoulders = place(blob(rng, 0.03), (0.5, 1.08), (rng.uniform(0.36, 0.44), rng.uniform(0.33, 0.38)))
    clothes = random_palette(rng) if rng.random() < 0.7 else canvas.palette
    canvas.fill(shoulders, canvas.texture(clothes))
    cap = place(blob(rng, 0.04), (0.5, 0.265), (0.16, rng.uniform(0.07, 0.1)))
    canvas.fill(cap, canvas.texture(hair))
    roots, angles = rim(rng, cap, canvas.crowd(150), 0.04)
    fringe = strands(rng, (roots, angles), rng.uniform(0.06, 0.14), bend=0.3, wave=wave, droop=0.6)
    canvas.lines(fringe, 1.2, hair)
    _coat(canvas, cap, hair, 0.08, 150)
    roots, angles = rim(rng, cap, canvas.crowd(rng.uniform(20, 100)), 0.01)
    is_free = roots[:, 1] < 0.25  # the others would cross the face
    roots, angles, length = roots[is_free], angles[is_free], rng.uniform(0.1, 0.3)
    flying = strands(rng, (roots, angles), length, bend=0.9, wave=wave, points=14)
    canvas.lines(flying, rng.uniform(0.3, 0.8), hair)


def veil(canvas: Canvas) -> None:
    """A portrait under translucent cloth with folds and a fringed hem."""
    rng = canvas.rng
    portrait(canvas)
    cloth = random_palette(rng, rng.uniform(0.5, 1.0, 3), 0.1)
    y = np.linspace(0, 1, 40)
    half = rng.uniform(0.34, 0.45) * (0.6 * np.sqrt(np.minimum(1, 4 * y)) + 0.4 * y**1.5)
    half += 0.02 * y * np.sin(y * rng.uniform(10, 25))
    sides = [np.stack([0.5 + side * half, 0.1 + rng.uniform(0.7, 1.0) * y], -1) for side in (-1, 1)]
    outline = np.concatenate([sides[0], sides[1][::-1]])
    warp = noise(rng, canvas.size, 4, 2).astype(np.float32) / 255
    across = np.linspace(0, rng.uniform(30, 80), canvas.size, dtype=np.float32)
    density = rng.uniform(0.3, 0.55) + rng.uniform(0.1, 0.3) * np.sin(across + 9 * warp) * warp
    film = np.rint(np.clip(density, 0, 1) * 255).astype(np.uint8)
    sheen = cv2.cvtColor(cv2.convertScaleAbs(film, None, 0.7, 90), cv2.COLOR_GRAY2RGB)
    canvas.film(outline, film, cv2.multiply(canvas.texture(cloth), sheen, scale=1 / 200))
    canvas.lines(np.stack(sides), 1.5, cloth, taper=False)
    roots, angles = rim(rng, outline, canvas.crowd(200), 0.0)
    canvas.lines(strands(rng, (roots, angles), 0.04, bend=0.2, wave=0.5, droop=0.5), 0.8, cloth)


def plant(canvas: Canvas) -> None:
    """Stems with leaves, sometimes with flowers."""
    rng = canvas.rng
    green = random_palette(rng, rng.uniform([0.1, 0.35, 0.1], [0.5, 0.65, 0.3]))
    paint = canvas.texture(green)
    belly, size, gap = rng.uniform(0.05, 0.35), rng.uniform(0.12, 0.26), rng.integers(1, 4)
    petals = random_palette(rng)
    for _ in range(rng.integers(3, 6)):
        root = np.array([[rng.uniform(0.4, 0.6), 1.05]])
        angle, length = rng.normal(-math.pi / 2, 0.35, 1), rng.uniform(0.8, 1.2)
        stem = strands(rng, (root, angle), length, bend=0.4, points=16)
        canvas.lines(stem, rng.uniform(0.006, 0.015) * canvas.size, green)
        for k in range(4, 16, gap):
            for side in (-1, 1):
                heading = math.atan2(*(stem[0, k] - stem[0, k - 1])[::-1]) + side * rng.uniform(0.5, 1.1)
                outline = place(leaf(belly=belly), stem[0, k], size * rng.uniform(0.5, 1.0), heading)
                canvas.fill(outline, paint if k % 5 == 0 else tuple(green[rng.integers(4)]))
                canvas.strokes(outline[None, [0, 23]], 1.0, green[::-1])
        if rng.random() < 0.5:
            for turn in np.linspace(0, 2 * math.pi, rng.integers(5, 14), endpoint=False):
                canvas.fill(place(leaf(belly=0.3), stem[0, -1], 0.11, turn), tuple(petals[rng.integers(4)]))
            canvas.fill(place(polygon(20), stem[0, -1], 0.03), (0.9, 0.75, 0.2))


def feather(canvas: Canvas) -> None:
    """One to three feathers: a shaft, a thin vane with splits, free barbs."""
    rng = canvas.rng
    for _ in range(rng.integers(1, 4)):
        palette = random_palette(rng)
        root = np.array([[rng.uniform(0.35, 0.65), rng.uniform(0.9, 1.0)]])
        shaft = strands(rng, (root, rng.normal(-math.pi / 2, 0.4, 1)), 1.3, bend=0.3, wave=0.05, points=48)[0]
        count = canvas.crowd(160)
        t = np.linspace(0.12, 1, count)
        width = rng.uniform(0.12, 0.24) * np.sin(math.pi * t**0.7) ** 0.6 + 0.02
        roots = np.stack([np.interp(t, np.linspace(0, 1, 48), axis) for axis in shaft.T], -1)
        heading = np.arctan2(*np.gradient(roots, axis=0).T[::-1])
        sides = []
        for side in (-1, 1):
            angles = heading + side * rng.uniform(0.5, 0.8)
            barbs = strands(rng, (roots, angles), 1.0, bend=0.15, wave=0.03, points=8)
            sides.append(roots[:, None] + (barbs - roots[:, None]) * width[:, None, None])
        vane = np.concatenate([sides[0][:, 5], sides[1][::-1, 5]])
        canvas.film(vane, rng.uniform(0.6, 1.0), canvas.texture(palette))
        for at in rng.integers(count // 8, count - 4, rng.integers(2, 7)):
            edge = sides[rng.integers(2)]
            canvas.cut(np.concatenate([edge[at, 1:], edge[at + 3, :0:-1] + rng.normal(0, 0.004, 2)]))
        for barbs in sides:
            canvas.lines(barbs, rng.uniform(0.5, 1.3), palette)
        canvas.lines(shaft[None], 0.008 * canvas.size, random_palette(rng, np.array([0.85, 0.8, 0.7]), 0.05))


def dandelion(canvas: Canvas) -> None:
    """Seed heads: stems, a core, rays that end in tufts."""
    rng = canvas.rng
    for centre in rng.uniform(0.3, 0.7, (rng.integers(1, 4), 2)) * (1, 0.8):
        radius = rng.uniform(0.14, 0.28)
        palette = random_palette(rng, rng.uniform(0.5, 1.0) * np.array([1.0, 0.98, 0.9]), 0.06)
        stem = np.stack([np.linspace(centre[0], 0.5, 16), np.linspace(centre[1], 1.1, 16)], -1)[None]
        canvas.lines(stem, 0.012 * canvas.size, random_palette(rng, np.array([0.4, 0.5, 0.2])), taper=False)
        turns = rng.uniform(0, 2 * math.pi, canvas.crowd(90))
        reach = radius * np.sqrt(rng.uniform(0.2, 1.0, len(turns)))[:, None]
        tips = centre + reach * np.stack([np.cos(turns), np.sin(turns)], -1)
        rays = np.stack([np.tile(centre, (len(tips), 1)), tips], 1)
        canvas.lines(rays, rng.uniform(0.4, 0.9), palette, taper=False)
        tufts = np.repeat(turns, 9) + rng.normal(0, 0.7, 9 * len(turns))
        hair = strands(rng, (np.repeat(tips, 9, 0), tufts), 0.3 * radius, bend=0.1, wave=0.05, points=5)
        canvas.lines(hair, rng.uniform(0.3, 0.7), palette)
        core = place(blob(rng, 0.08), tuple(centre), 0.18 * radius)
        canvas.fill(core, tuple(palette[0] * [0.6, 0.5, 0.35]))
