"""Native-resolution prediction: tiles agree with the whole, skipped tiles could not have changed, no seams."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import matting
from matting import BYTES_PER_CHANNEL, GATE, as_pixels, cover, predict_alpha, predict_mattes, refine_uncertain
from models import Refiner, build_model
from models.refiner import uncertainty

ROOT = Path(__file__).parent.parent


def awake_refiner(**options) -> Refiner:
    torch.manual_seed(0)
    refiner = Refiner(**options).eval()
    torch.nn.init.normal_(refiner.head.weight, std=0.05)
    return refiner


def photo_and_disc(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random pixels, and a coarse alpha that is sure but for a soft ring."""
    torch.manual_seed(height * width)
    y, x = np.mgrid[:height, :width]
    distance = np.hypot(y - 0.5 * height, x - 0.45 * width) / max(height, width)
    alpha = np.clip((0.3 - distance) * 40 + 0.5, 0, 1).astype(np.float32)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8), torch.from_numpy(alpha)[None]


@pytest.mark.parametrize("size", [(300, 410), (257, 255), (64, 700), (33, 20), (1, 1), (513, 96)])
@pytest.mark.parametrize("tile", [64, 100, 256])
@torch.inference_mode()
def test_tiles_agree_with_the_whole_photo(size, tile):
    refiner = awake_refiner()
    image, coarse = photo_and_disc(*size)
    whole = refiner(image[None].float() / 255, coarse[None])[0]
    tiled, share = refine_uncertain(refiner, image, coarse, tile=tile, max_memory=2**24)
    difference = (tiled - whole).abs()
    is_left = (tiled - whole).abs() > 1e-5  # all else is refined as in the whole photo
    assert torch.equal(tiled[is_left], coarse[is_left].round())
    assert (uncertainty(coarse)[is_left] < GATE).all() and difference.max() < GATE
    assert 0 <= share <= 1


@pytest.mark.parametrize("span", [1, 3, 6])
def test_tiles_cover_every_cell_and_few_others(span):
    cells = np.random.default_rng(span).random((23, 57)) < 0.05
    covered = np.zeros((60, 600), bool)
    for row, column, columns in cover(cells, span):
        assert columns % 2 == 0 or columns == matting.LONGEST * span
        assert not covered[row : row + span, column].any()  # no tile starts inside another
        covered[row : row + span, column : column + columns] = True
    assert covered[:23, :57][cells].all()
    assert not list(cover(np.zeros((5, 5), bool), span))


@torch.inference_mode()
def test_sure_photos_are_not_refined_at_all():
    image = torch.randint(0, 256, (3, 200, 200), dtype=torch.uint8)
    refined, share = refine_uncertain(awake_refiner(), image, torch.ones(1, 200, 200))
    assert share == 0.0 and torch.equal(refined, torch.ones(1, 200, 200))


@torch.inference_mode()
def test_without_attention_no_tile_is_skipped():
    refiner = awake_refiner(use_attention=False)
    image, coarse = photo_and_disc(300, 410)
    refined, share = refine_uncertain(refiner, image, coarse, tile=64)
    assert share == 1.0
    assert (refined - refiner(image[None].float() / 255, coarse[None])[0]).abs().max() <= 1e-5


MEASURE_REFINER = """
import torch
from experiments.measuring import peak_memory
from matting import BYTES_PER_CHANNEL
from models import Refiner

refiner, image, coarse = Refiner().eval(), torch.rand(1, 3, 512, 512), torch.full((1, 1, 512, 512), 0.5)
with torch.inference_mode():
    refiner(image, coarse)
    with peak_memory(torch.device("cpu")) as peak:
        refiner(image, coarse)
print(peak() or 0, 512 * 512 * refiner.channels * BYTES_PER_CHANNEL)
"""


@torch.inference_mode()
def test_memory_setting_bounds_the_batch_of_tiles(monkeypatch):
    """The estimate that the setting is divided by is at least what a tile takes, and not far above it."""
    # in a process of its own: what other tests have left in this one's memory would count too
    done = subprocess.run([sys.executable, "-c", MEASURE_REFINER], capture_output=True, text=True, cwd=ROOT, check=True)
    peak, estimate = map(int, done.stdout.split())
    assert 0.5 * estimate < peak <= 1.15 * estimate or peak == 0
    refiner = awake_refiner()
    seen = []
    window = (48 + 2 * refiner.receptive_radius) * (16 + 2 * refiner.receptive_radius)
    monkeypatch.setattr(Refiner, "forward", lambda self, photos, mattes, borders: seen.append(photos.shape) or mattes)
    monkeypatch.setattr(matting, "crop", lambda x, pixels, borders: x)
    a_tile = window * refiner.channels * BYTES_PER_CHANNEL
    image, coarse = torch.zeros(3, 256, 256, dtype=torch.uint8), torch.zeros(1, 256, 256)
    coarse[:, 4::48, 4::80] = 0.5  # every tile is one cell, rounded up to two
    refine_uncertain(refiner, image, coarse, tile=48, max_memory=3 * a_tile)
    assert max(n * h * w for n, _, h, w in seen) == 3 * window


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = build_model(backbone="swin_tiny_patch4_window7_224", image_size=64).eval()
    torch.nn.init.normal_(model.refiner.head.weight, std=0.05)
    return model


@pytest.mark.parametrize("size", [(50, 70), (1, 1), (1, 900), (300, 200)])
def test_any_photo_gets_a_matte_of_its_size(model, size):
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    mattes = predict_mattes(model, image, precision=torch.float32)
    for alpha in (mattes.coarse_alpha, mattes.refined_alpha):
        assert alpha.shape == (1, *size) and alpha.dtype == torch.float32
        assert alpha.min() >= 0 and alpha.max() <= 1
    assert torch.equal(predict_alpha(model, image, precision=torch.float32), mattes.refined_alpha)


def test_gated_prediction_is_the_whole_prediction(model):
    image = torch.randint(0, 256, (3, 420, 300), dtype=torch.uint8)
    gated = predict_mattes(model, image, precision=torch.float32).refined_alpha
    whole = predict_mattes(model, image, precision=torch.float32, gated=False).refined_alpha
    assert (gated - whole).abs().mean() < 5e-4


def test_half_precision_costs_less_than_two_grey_levels_on_average(model):
    image = torch.randint(0, 256, (3, 200, 300), dtype=torch.uint8)
    full = predict_alpha(model, image, precision=torch.float32)
    half = predict_alpha(model, image, precision=torch.bfloat16)
    assert half.dtype == torch.float32
    assert (full - half).abs().mean() < 2 / 255


def test_the_native_photo_is_not_changed(model):
    image = torch.randint(0, 256, (3, 90, 90), dtype=torch.uint8)
    before = image.clone()
    predict_alpha(model, image)
    assert torch.equal(image, before)


def test_detail_bounds_what_is_refined(model, monkeypatch):
    image = torch.randint(0, 256, (3, 300, 200), dtype=torch.uint8)
    whole = predict_alpha(model, image)
    assert torch.equal(predict_alpha(model, image, detail=300), whole)
    seen = []

    def watch(refiner, photo, *rest, **options):
        seen.append(photo.shape[-2:])
        return refine_uncertain(refiner, photo, *rest, **options)

    monkeypatch.setattr(matting, "refine_uncertain", watch)
    limited = predict_alpha(model, image, detail=150)
    assert seen[-1] == (150, 100) and limited.shape == whole.shape and not torch.equal(limited, whole)


def test_tiles_show_no_seam_through_all_octaves(model, monkeypatch):
    """Every tile refined at each octave, against whole octaves."""
    monkeypatch.setattr(matting, "GATE", -1.0)
    image = torch.randint(0, 256, (3, 420, 300), dtype=torch.uint8)
    for tile in (48, 64, 200):
        tiled = predict_mattes(model, image, precision=torch.float32, tile=tile)
        whole = predict_mattes(model, image, precision=torch.float32, gated=False)
        assert tiled.refined_share == 1.0 and tiled.refined_alpha is not None and whole.refined_alpha is not None
        difference = (tiled.refined_alpha - whole.refined_alpha).abs()
        assert difference.mean() < 1e-5 and difference.max() < 1e-3  # each octave carries rounding on ten times larger
        assert (whole.refined_alpha - whole.coarse_alpha).abs().max() > 0.01  # the refiner did something


def test_what_people_have_is_one_photo(model):
    """Tensor, array and PIL image, in uint8 and in float, are the same pixels."""
    pixels = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    array = pixels.permute(1, 2, 0).numpy()
    rgba = Image.fromarray(array)
    rgba.putalpha(100)
    photos = (pixels.float() / 255, pixels.double() / 255, array, array[:, ::-1][:, ::-1], array / 255, rgba)
    floats = (array / np.longdouble(255), (array / 255).astype(">f4"), (array / 255).astype(np.float16))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # as Pillow gives an array, torch may not write to it
        assert torch.equal(as_pixels(np.asarray(Image.fromarray(array))), pixels)
    others = (np.asfortranarray(array), Image.fromarray(array), pixels.permute(1, 2, 0).permute(2, 0, 1))
    for photo in (*photos, *floats, *others):
        assert torch.equal(as_pixels(photo), pixels)
    grey = as_pixels(Image.fromarray(array[..., 0]))
    assert grey.shape == (3, 20, 30) and torch.equal(grey[2], pixels[0])
    assert torch.equal(predict_alpha(model, array / 255), predict_alpha(model, pixels))


@pytest.mark.parametrize(
    ("image", "cure"),
    [
        (torch.zeros(20, 30, 3, dtype=torch.uint8), r"\(3, H, W\)"),
        (torch.zeros(1, 3, 20, 30), r"one photo in RGB, \(3, H, W\)"),
        (torch.zeros(4, 20, 30), r"\(3, H, W\)"),
        (torch.zeros(20, 30), r"\(3, H, W\)"),
        (torch.zeros(3, 0, 30), r"\(3, H, W\)"),
        (np.zeros((3, 20, 30), np.uint8), r"\(H, W, 3\)"),
        (np.zeros((20, 30, 4), np.uint8), r"\(H, W, 3\)"),
        (np.zeros((20, 30, 3), np.uint16), "uint16: give uint8"),
        (np.zeros((20, 30, 3), np.int64), "int64: give uint8"),
        (np.zeros((20, 30, 3), bool), "bool: give uint8"),
        (np.zeros((20, 30, 3), np.complex64), "complex64: give uint8"),
        (np.full((20, 30, 3), None), "object: give uint8"),
        (np.zeros((20, 30), np.uint8), r"one photo in RGB, \(H, W, 3\)"),
        (np.zeros((1, 20, 30, 3), np.uint8), r"one photo in RGB, \(H, W, 3\)"),
        (torch.zeros(3, 20, 30, dtype=torch.complex64), "complex64: give uint8"),
        ([[[0, 0, 0]]], "list: give uint8"),
        (np.full((20, 30, 3), 255.0), "from 255 to 255"),
        (torch.full((3, 20, 30), -0.1), "-0.1"),
        (torch.full((3, 20, 30), torch.nan), "nan"),
        (Image.new("I;16", (30, 20)), "read_photo"),
        (Image.new("F", (30, 20)), "read_photo"),
        ("cat.jpg", "str: give uint8"),
        (None, "NoneType: give uint8"),
    ],
)
def test_what_is_no_photo_is_refused_in_a_sentence(model, image, cure):
    with pytest.raises(ValueError, match=cure):
        predict_alpha(model, image)
