"""data.transforms: the shared resize, and geometry that keeps alpha on its photo."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from common import resize as transforms
from common.resize import resize, resize_to_working_size
from data.pixel_transforms import ColourShift, JpegCoding, LensBlur, SensorNoise, SmallRotation
from data.transforms import Augmentation, Augmenter, crop_box, cut, pad_to_square

STILL = {f"{name}_share": 0.0 for name in ("flip", "rotation", "colour", "blur", "noise", "jpeg")}


def disc(height: int, width: int, centre: tuple[float, float], radius: float) -> np.ndarray:
    """An antialiased disc, uint8 (H, W); centre is (x, y) with pixel centres at whole numbers."""
    y, x = np.mgrid[:height, :width]
    distance = np.hypot(x - centre[0], y - centre[1])
    return np.rint(255 * np.clip(radius + 0.5 - distance, 0, 1)).astype(np.uint8)


def centroid(values: np.ndarray) -> tuple[float, float]:
    y, x = np.mgrid[: values.shape[0], : values.shape[1]]
    weight = values.astype(np.float64)
    return float((x * weight).sum() / weight.sum()), float((y * weight).sum() / weight.sum())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(300, 400, (48, 64)), (401, 299, (64, 48)), (64, 64, (64, 64)), (20, 30, (43, 64)), (1, 900, (1, 64))],
)
def test_working_size(height: int, width: int, expected: tuple[int, int], dtype: torch.dtype) -> None:
    image = torch.full((3, height, width), 7).to(dtype)
    small = resize_to_working_size(image, 64)
    assert small.shape == (3, *expected) and small.dtype == dtype
    assert torch.allclose(small.float(), torch.tensor(7.0))  # no dark borders


def test_resize_averages_instead_of_skipping() -> None:
    stripes = (torch.arange(640) % 2 * 255).to(torch.uint8).expand(1, 640, 640)
    small = resize(stripes, (64, 64)).float()
    assert (small - 127.5).abs().max() < 4


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_resize_in_bands_equals_resize_at_once(monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype) -> None:
    image = torch.randint(0, 256, (2, 3, 131, 217), generator=torch.Generator().manual_seed(0)).to(dtype)
    whole = F.resize(image, [40, 66], antialias=True)
    monkeypatch.setattr(transforms, "BAND_ELEMENTS", 3 * 217 * 9)  # bands of a few rows, then of a few columns
    banded = resize(image, (40, 66))
    tolerance = 1 if dtype == torch.uint8 else 1e-3  # uint8 rounds between the passes where the kernel does not
    assert (banded.float() - whole.float()).abs().max() <= tolerance
    assert banded.shape == whole.shape and banded.dtype == dtype


def test_resize_of_a_large_photo_makes_no_float_copy() -> None:
    calls = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.dtype == torch.float32:
                calls.append(result.numel())
            return result

    with Watch():
        resize_to_working_size(torch.zeros((3, 4000, 3000), dtype=torch.uint8), 256)
    assert max(calls, default=0) <= transforms.BAND_ELEMENTS


@pytest.mark.parametrize("scale", [0.31, 0.77, 1.0, 1.9])
@pytest.mark.parametrize("seed", range(3))
def test_cut_keeps_alpha_on_its_photo(scale: float, seed: int) -> None:
    alpha = disc(211, 173, (81.3, 95.7), 40)
    settings = Augmentation(128, **STILL)
    pixels = cut(cv2.merge([alpha, alpha, alpha]), alpha, scale, settings, np.random.default_rng(seed))
    assert pixels.shape == (128, 128, 4)
    assert np.abs(pixels[..., 0].astype(int) - pixels[..., 3]).max() == 0


def test_cut_has_the_scale_it_was_asked_for() -> None:
    alpha = disc(400, 400, (200, 200), 60)
    settings = Augmentation(256, unknown_share=0.0, **STILL)
    pixels = cut(cv2.merge([alpha] * 3), alpha, 0.5, settings, np.random.default_rng(0))
    inside = pixels[28:228, 28:228, 3] if pixels[0, 0, 3] else pixels[..., 3]
    # The disc of radius 60 has radius 30: its area, in full pixels, tells to a fraction of one.
    assert np.sqrt(inside.astype(float).sum() / 255 / np.pi) == pytest.approx(30, abs=0.3)


def test_unknown_share_centres_the_crop() -> None:
    alpha = np.zeros((500, 700), np.uint8)
    alpha[400:404, 600:604] = 128  # all there is of the unknown
    for seed in range(20):
        rng = np.random.default_rng(seed)
        top, left, height, width = crop_box(alpha, 1.0, Augmentation(100, unknown_share=1.0), rng)
        assert top <= 400 and left <= 600 and top + height >= 404 and left + width >= 604
        assert abs(top + height / 2 - 400) <= 4 and abs(left + width / 2 - 600) <= 4
    boxes = {crop_box(alpha, 1.0, Augmentation(100, unknown_share=0.0), np.random.default_rng(k)) for k in range(20)}
    assert len(boxes) == 20


@pytest.mark.parametrize("value", [0, 255])
def test_crop_of_a_constant_alpha(value: int) -> None:
    alpha = np.full((300, 90), value, np.uint8)
    top, left, height, width = crop_box(alpha, 0.5, Augmentation(100, unknown_share=1.0), np.random.default_rng(0))
    assert (height, width) == (200, 90) and 0 <= top <= 100 and left == 0


def test_binary_alpha_has_an_unknown_edge() -> None:
    alpha = np.zeros((400, 400), np.uint8)
    alpha[300:, 300:] = 255
    top, left, _, _ = crop_box(alpha, 1.0, Augmentation(50, unknown_share=1.0), np.random.default_rng(1))
    assert top + 50 >= 298 and left + 50 >= 298


def test_padding_reflects_even_when_wider_than_the_photo() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 4), dtype=np.uint8)
    padded = pad_to_square(pixels, 40, np.random.default_rng(0))
    assert padded.shape == (40, 40, 4)
    assert {row.tobytes() for row in padded} == {row.tobytes() for row in pixels}


def test_augmenter_is_a_function_of_its_generator_and_leaves_torch_alone() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 4), dtype=np.uint8)
    shares = dict.fromkeys(STILL, 0.5)
    augmenter = Augmenter(Augmentation(64, **shares))
    results = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        results.append([augmenter(pixels, np.random.default_rng(k)) for k in range(12)])
        assert torch.equal(before, torch.get_rng_state())
    for first, second in zip(*results, strict=True):
        assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert len({image.numpy().tobytes() for image, _ in results[0]}) > 6


def test_photo_changes_leave_alpha_alone_and_geometry_moves_both() -> None:
    matte = disc(96, 96, (40.0, 52.0), 20)
    pixels = cv2.merge([matte] * 4)
    everything = {"flip_share": 1.0, "rotation_share": 1.0}
    for seed in range(5):
        image, alpha = Augmenter(Augmentation(96, **(STILL | everything)))(pixels, np.random.default_rng(seed))
        assert image.shape == (3, 96, 96) and alpha.shape == (1, 96, 96)
        assert image.dtype == alpha.dtype == torch.uint8 and type(image) is type(alpha) is torch.Tensor
        assert torch.equal(image[:1], alpha) and not np.array_equal(alpha[0].numpy(), matte)
        photo_only = {f"{name}_share": 1.0 for name in ("colour", "blur", "noise", "jpeg")}
        image, alpha = Augmenter(Augmentation(96, **(STILL | photo_only)))(pixels, np.random.default_rng(seed))
        assert np.array_equal(alpha[0].numpy(), matte) and not torch.equal(image[:1], alpha)


def test_rotation_is_about_the_centre() -> None:
    matte = disc(101, 81, (40.0, 50.0), 20)
    turned = SmallRotation(10.0)(tv_tensors.Image(torch.from_numpy(matte)[None].repeat(3, 1, 1)))
    assert centroid(turned[0].numpy()) == pytest.approx((40.0, 50.0), abs=0.05)


@pytest.mark.parametrize(
    "transform", [ColourShift(0.0), LensBlur((1e-3, 1e-3)), SensorNoise((0.0, 0.0)), SmallRotation(0.0)]
)
def test_strength_zero_changes_nothing(transform: v2.Transform) -> None:
    image = torch.randint(0, 256, (3, 33, 47), dtype=torch.uint8)
    assert (transform(tv_tensors.Image(image)).int() - image.int()).abs().max() <= 1


def test_jpeg_keeps_the_colours() -> None:
    image = torch.tensor([200, 60, 20], dtype=torch.uint8)[:, None, None].expand(3, 40, 40)
    assert (JpegCoding((90, 90))(tv_tensors.Image(image)).int() - image.int()).abs().max() <= 3


def test_noise_has_the_sigma_it_says() -> None:
    noisy = SensorNoise((6.0, 6.0))(tv_tensors.Image(torch.full((3, 200, 200), 128, dtype=torch.uint8)))
    assert float(noisy.float().std()) == pytest.approx(6, rel=0.03)
    assert float(noisy.float().mean()) == pytest.approx(128, abs=0.1)


def test_augmentation_rejects_the_impossible() -> None:
    with pytest.raises(ValueError, match="scale"):
        Augmentation(64, scale=(2.0, 1.0))
    with pytest.raises(ValueError, match="image_size"):
        Augmentation(0)
