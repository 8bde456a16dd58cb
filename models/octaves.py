"""Refinement in octaves: from the student's working size to native size by factors of two.

The refiner is never asked to sharpen a matte that is more than two times too coarse. Training and prediction
share this function, so the refiner sees the same inputs in both: the student's matte at the first octave, its own at
each later one.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from common.resize import Size, resize, resize_alpha


def octave_sizes(native: Size, working: Size) -> list[Size]:
    """(height, width) of each octave, ascending; the last is the native size.

    Native size is halved, rounded up, while its long side stays at or above the working size's: the first octave is
    at most 2x of the working size, the others are 2x of the one before. A photo at or below the working size has one.
    """
    sizes = [native]
    while max(half := (-(-sizes[0][0] // 2), -(-sizes[0][1] // 2))) >= max(working) and half != sizes[0]:
        sizes.insert(0, half)
    return sizes


def interpolate(alpha: Tensor, size: Size, use_octaves: bool = True) -> Tensor:
    """(N, 1, h, w) -> (N, 1, *size) through the octaves; identical to the output of a refiner that changes nothing."""
    for octave in octave_sizes(size, _size(alpha)) if use_octaves else [size]:
        alpha = resize_alpha(alpha, octave)
    return alpha


def climb(
    image: Tensor, alpha: Tensor, refine: Callable[[Tensor, Tensor], Tensor], use_octaves: bool = True
) -> list[Tensor]:
    """Refine an alpha at each octave up to the image's size; the refined alphas, ascending, the native one last.

    image: (..., 3, H, W), uint8 or float; alpha: (N, 1, h, w) of the working size. refine(photo, alpha) is given both
    at the octave's size and returns an alpha of that size. use_octaves=False jumps to native size, for comparison.
    """
    sizes = octave_sizes(_size(image), _size(alpha)) if use_octaves else [_size(image)]
    photos = [image]
    for size in sizes[-2::-1]:  # each from the one above: the pyramid costs a third of the photo
        photos.insert(0, resize(photos[0], size))
    refined = []
    for photo in photos:
        alpha = refine(photo, resize_alpha(alpha, _size(photo)))
        refined.append(alpha)
    return refined


def _size(x: Tensor) -> Size:
    return x.shape[-2], x.shape[-1]
