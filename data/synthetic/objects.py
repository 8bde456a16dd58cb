"""Made things, each a function that draws itself onto a Canvas: wires, strings, holes, glass.

Coordinates are frame units before the subject's pose; the subject fills about [0.15, 0.85]. Wires and
strings have widths in pixels of the picture.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from data.synthetic.backgrounds import blob, leaf, noise, place, polygon, random_palette
from data.synthetic.creatures import draw_eyes, draw_fur
from data.synthetic.foregrounds import SUPERSAMPLING, Canvas, strands

# half widths of turned glassware from the top to the foot
BOWL = np.array([0.75, 0.85, 0.95, 1.0, 0.9, 0.6, 0.12, 0.08, 0.08, 0.1, 0.7, 0.8])
BOTTLE = np.array([0.3, 0.3, 0.35, 0.5, 0.9, 1, 1, 1, 1, 1, 1, 0.9])


def _grid(canvas: Canvas, corners: np.ndarray, count: int, width: float, palette: np.ndarray) -> None:
    """Crossing wires between the sides of a quadrilateral (4, 2)."""
    t = np.linspace(0, 1, count)[:, None]
    for a, b, c, d in (corners, np.roll(corners, 1, axis=0)):
        ends = np.stack([a + (b - a) * t, d + (c - d) * t], 1)
        canvas.lines(ends, width, palette, taper=False)


def bicycle(canvas: Canvas) -> None:
    """A bicycle: rims, spokes, tubes and a basket of wire."""
    rng = canvas.rng
    steel = random_palette(rng, np.array([0.65, 0.66, 0.7]) * rng.uniform(0.3, 1.2), 0.12)
    radius = rng.uniform(0.2, 0.27)
    hubs = np.array([[0.25, 0.68], [0.25 + rng.uniform(0.5, 0.56), 0.68]])
    circle = np.concatenate([polygon(64), polygon(64)[:1]])
    for hub in hubs:
        turns = np.linspace(0, 2 * math.pi, rng.integers(16, 36), endpoint=False)
        ends = place(np.stack([np.cos(turns), np.sin(turns)], -1), hub, radius)
        starts = place(np.stack([np.cos(turns + 1.2), np.sin(turns + 1.2)], -1), hub, 0.02)
        canvas.lines(np.stack([starts, ends], 1), rng.uniform(0.5, 1.3), steel, taper=False)
        for share, width, colour in ((1.0, 0.03, (0.1, 0.1, 0.1)), (0.93, 0.012, tuple(steel[2]))):
            tyre = place(circle, hub, radius * share)[None]
            canvas.lines(tyre, width * canvas.size, np.array([colour]), taper=False)
        canvas.fill(place(polygon(20), hub, 0.03), tuple(steel[1]))
    seat, crank, head = np.array([0.38, 0.36]), np.array([0.47, 0.7]), np.array([0.68, 0.36])
    back, front = hubs
    tubes = np.array([[back, seat], [back, crank], [crank, seat], [crank, head], [seat, head], [head, front]])
    canvas.lines(tubes, rng.uniform(0.018, 0.035) * canvas.size, canvas.palette[2:3], taper=False)
    handle = np.array([[head, head - [0.02, 0.1], head - [-0.08, 0.13], head - [-0.12, 0.08]]])
    canvas.lines(handle, 0.02 * canvas.size, steel, taper=False)
    canvas.fill(place(blob(rng, 0.05), tuple(seat - [0, 0.04]), (0.09, 0.025)), (0.12, 0.1, 0.1))
    basket = place(polygon(4), (0.8, 0.28), (0.16, 0.12), rng.normal(0, 0.05))
    _grid(canvas, basket, int(rng.integers(5, 11)), rng.uniform(0.6, 1.6), steel)


def racket(canvas: Canvas) -> None:
    """A racket: an oval frame with strings, or a cage of bars with a small animal behind them."""
    rng = canvas.rng
    centre, radii = (0.5, 0.36), np.array([rng.uniform(0.22, 0.3), rng.uniform(0.28, 0.34)])
    oval = place(np.concatenate([polygon(80), polygon(80)[:1]]), centre, radii)
    strings = random_palette(rng, np.array([0.85, 0.85, 0.8]) * rng.uniform(0.2, 1.0), 0.06)
    if rng.random() < 0.5:
        bird = place(blob(rng, 0.08), (centre[0], centre[1] + 0.1), (0.11, 0.14))
        palette = random_palette(rng)
        draw_fur(canvas, bird, palette, 0.04, 200)
        canvas.fill(bird, canvas.texture(palette))
        draw_eyes(canvas, (centre[0], centre[1] + 0.03), 0.04, 0.014)
    width = rng.uniform(0.5, 1.8)
    for axis in (0, 1):
        at = np.linspace(-0.93, 0.93, rng.integers(9, 22))
        reach = np.sqrt(1 - at**2)
        ends = np.stack([np.stack([at, -reach], -1), np.stack([at, reach], -1)], 1)
        canvas.lines(place(ends[..., ::-1] if axis else ends, centre, radii), width, strings, taper=False)
    tube = rng.uniform(0.02, 0.05) * canvas.size
    canvas.lines(oval[None], tube, canvas.palette[1:3], taper=False)
    throat = np.array([[[0.5 - 0.12, 0.62], [0.5, 0.8]], [[0.5 + 0.12, 0.62], [0.5, 0.8]]])
    canvas.lines(throat, 0.7 * tube, canvas.palette[1:3], taper=False)
    grip = np.array([[0.465, 0.78], [0.535, 0.78], [0.54, 1.1], [0.46, 1.1]])
    canvas.fill(grip, canvas.texture(canvas.palette))


def glass(canvas: Canvas) -> None:
    """Glassware: a turned profile, clear in the middle, dense at the rim, with highlights and a drink."""
    rng = canvas.rng
    places = [(0.5, 1.5)] if rng.random() < 0.5 else [(0.3, 1.0), (0.7, 1.0)]
    y, heights = np.linspace(0.1, 0.95, 64), np.linspace(0.1, 0.95, 12)
    for at, widen in places:
        bowl = rng.uniform(0.13, 0.2) * BOWL
        bottle = rng.uniform(0.1, 0.16) * BOTTLE
        vase = rng.uniform(0.12, 0.2) * (0.8 + 0.4 * np.sin(np.linspace(0, rng.uniform(3, 7), 12)))
        half = np.interp(y, heights, widen * [bowl, bottle, vase][rng.integers(3)])
        half = cv2.GaussianBlur(half[:, None], (1, 9), 2)[:, 0]
        profile = np.concatenate([np.stack([at + half, y], -1), np.stack([at - half, y], -1)[::-1]])
        depth = cv2.GaussianBlur(canvas.mask([profile], 1), (0, 0), rng.uniform(0.012, 0.03) * canvas.size)
        wall = (255 - depth.astype(np.float32)) / 127  # 0 well inside, 1 at the outline
        clear = rng.uniform(0.1, 0.4)
        streaks = 0.15 * (noise(rng, canvas.size, 4) / np.float32(255) - 0.5)
        density = np.clip(clear + (0.9 - clear) * wall**1.5 + streaks, 0, 1)
        tint = random_palette(rng, rng.uniform(0.3, 0.95, 3), 0.12)
        canvas.film(profile, np.rint(density * 255).astype(np.uint8), canvas.texture(tint))
        level = int(rng.integers(12, 40))
        drink = np.concatenate([profile[level:60], profile[68 : 128 - level]])
        drink[:, 0] = at + 0.9 * (drink[:, 0] - at)
        if rng.random() < 0.6:
            canvas.film(drink, rng.uniform(0.3, 0.95), canvas.texture(random_palette(rng)))
        for side, width in ((-0.7, 0.012), (-0.55, 0.005), (0.72, 0.008)):  # windows mirrored in the glass
            start, stop = sorted(rng.integers(2, 62, 2))
            line = np.stack([at + side * half[start : stop + 2], y[start : stop + 2]], -1)
            width *= canvas.size * rng.uniform(0.5, 1.5)
            canvas.lines(line[None], width, np.ones((1, 3)), taper=False)


def _cut_letters(canvas: Canvas) -> None:
    """Cut two rows of random letters through the subject."""
    rng, side = canvas.rng, canvas.size * SUPERSAMPLING
    letters = np.zeros((side, side), np.uint8)
    faces = [cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_TRIPLEX, cv2.FONT_HERSHEY_SCRIPT_COMPLEX]
    thickness = max(2, round(side / 512 * rng.integers(6, 22)))
    for row in (0.40, 0.58):
        text = "".join(rng.choice(list("ABCDEFGHKMNPRSTVWXYZ0358&"), rng.integers(3, 6)))
        face, scale = int(rng.choice(faces)), side / 512 * rng.uniform(2.5, 4.5)
        width = cv2.getTextSize(text, face, scale, thickness)[0][0]
        fit = min(1.0, 0.6 * side / width)
        start = (round(0.5 * (side - width * fit)), round(side * row))
        cv2.putText(letters, text, start, face, scale * fit, 255, thickness, cv2.LINE_AA)
    pose = canvas.matrix * [[1, 1, side], [1, 1, side]]
    canvas.cover = cv2.subtract(canvas.cover, cv2.warpAffine(letters, pose, letters.shape))


def sign(canvas: Canvas) -> None:
    """A plate on a post with letters or a lattice cut out of it."""
    rng = canvas.rng
    plate = [polygon(4) * 1.25, blob(rng, 0.08), polygon(6)][rng.integers(3)]
    outline = place(plate, (0.5, 0.42), (0.36, 0.3))
    canvas.fill(np.array([[0.47, 0.5], [0.53, 0.5], [0.53, 1.2], [0.47, 1.2]]), tuple(canvas.palette[1]))
    canvas.fill(outline, canvas.texture(canvas.palette))
    if rng.random() < 0.5:
        _cut_letters(canvas)
        return
    holes = [blob(rng, 0.15, 24), polygon(4), polygon(6), leaf(8) * 2 - (1, 0)]
    hole, step = holes[rng.integers(len(holes))], rng.uniform(0.05, 0.1)
    for column in range(-3, 4):
        for row in range(-2, 3):
            canvas.cut(place(hole, (0.5 + column * step, 0.42 + row * step), 0.4 * step))


def sculpture(canvas: Canvas) -> None:
    """A pile of smooth and angular bodies with holes, tassels and strings."""
    rng = canvas.rng
    paints = [canvas.texture(canvas.palette), canvas.texture(random_palette(rng))]
    shapes = [blob(rng, 0.2), blob(rng, 0.08), polygon(4), polygon(5), leaf() * 2 - (1, 0)]
    for _ in range(rng.integers(2, 6)):
        centre, scale = rng.normal(0.5, 0.11, 2), rng.uniform(0.08, 0.24) * rng.uniform(0.6, 1.4, 2)
        outline = place(shapes[rng.integers(len(shapes))], centre, scale, rng.uniform(0, math.pi))
        kind = rng.integers(4)
        if kind == 0:
            draw_fur(canvas, outline, canvas.palette, rng.uniform(0.03, 0.1), rng.uniform(100, 300))
        canvas.fill(outline, paints[rng.integers(2)])
        if kind == 1:
            canvas.cut(place(blob(rng, 0.1), centre, 0.5 * scale))
        if kind == 2:
            roots = outline[rng.integers(len(outline))] + rng.normal(0, 0.01, (canvas.crowd(60), 2))
            tassel = strands(rng, (roots, np.full(len(roots), 1.5)), 0.3, bend=0.2, wave=0.3, points=14)
            canvas.lines(tassel, rng.uniform(0.6, 1.4), canvas.palette)
    ends = rng.normal(0.5, 0.1, (rng.integers(1, 6), 2))
    string = strands(rng, (ends, rng.uniform(0, 7, len(ends))), 1.0, bend=0.3, wave=0.2, points=24)
    canvas.lines(string, rng.uniform(0.5, 2.5), random_palette(rng), taper=False)
