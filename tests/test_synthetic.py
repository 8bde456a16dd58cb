"""The synthetic set: exact composites, the same samples whoever draws them, mattes with soft edges."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from data.pairs import read_pair
from data.synthetic.__main__ import main
from data.synthetic.backgrounds import random_palette
from data.synthetic.dataset import (
    SUBJECTS,
    SyntheticDataset,
    SyntheticValidation,
    degrade,
    draw_subject,
    render_sample,
)

SIZES = (64, 256)
INDICES = range(12)


@pytest.fixture(scope="module")
def samples():
    return {size: [render_sample(3, "train", index, size) for index in INDICES] for size in SIZES}


@pytest.mark.parametrize("size", SIZES)
def test_image_is_the_composite_of_its_parts(samples, size):
    for sample in samples[size]:
        alpha = sample.alpha.astype(np.float64)[..., None]
        composite = alpha * sample.foreground + (1 - alpha) * sample.background
        np.testing.assert_allclose(sample.image, composite, atol=3e-7, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_arrays_are_float32_in_range_and_of_the_asked_size(samples, size):
    for sample in samples[size]:
        for name, array in sample._asdict().items():
            assert array.dtype == np.float32
            assert array.shape == ((size, size) if name == "alpha" else (size, size, 3))
            assert array.min() >= 0 and array.max() <= 1 + 1e-6, name


def test_mattes_reach_both_ends_and_have_soft_pixels(samples):
    alphas = np.stack([sample.alpha for sample in samples[256]])
    assert np.all((alphas == 0).mean((1, 2)) > 0.05)  # every sample has sure background
    assert np.mean((alphas > 0.995).mean((1, 2)) > 0.02) > 0.7  # glass may have no sure foreground
    is_soft = (alphas > 0.02) & (alphas < 0.98)
    assert is_soft.mean() > 0.04
    assert 0.1 < alphas.mean() < 0.6


@pytest.mark.parametrize("family", SUBJECTS)
def test_every_family_covers_part_of_the_frame_and_is_coloured_there(family):
    """The untouched canvas is one grey; colour must reach past the antialiased edge of every part."""
    shares = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        palette = random_palette(rng)
        canvas = draw_subject(rng, 128, palette, family)
        alpha = cv2.resize(canvas.cover.astype(np.float32) / 255, (128, 128), interpolation=cv2.INTER_AREA)
        is_undrawn = (canvas.colour == int(palette.mean() * 255)).all(-1)
        assert (is_undrawn & (alpha > 0.01)).mean() < 1e-3
        shares.append(alpha.mean())
    assert 0.08 < np.mean(shares) < 0.65  # of the frame


def test_a_sample_does_not_depend_on_what_was_drawn_before(samples):
    render_sample(9, "val", 4, 64)
    np.random.seed(1)
    for index in reversed(INDICES):
        again = render_sample(3, "train", index, 64)
        for first, second in zip(samples[64][index], again, strict=True):
            np.testing.assert_array_equal(first, second)


def test_seed_split_and_index_each_change_the_sample():
    reference = render_sample(0, "train", 0, 64)
    for seed, split, index in ((1, "train", 0), (0, "val", 0), (0, "train", 1)):
        other = render_sample(seed, split, index, 64)
        assert np.abs(reference.image - other.image).mean() > 0.02


def test_train_and_val_share_no_picture():
    drawn = {
        split: {render_sample(0, split, index, 64).alpha.tobytes() for index in range(40)} for split in ("train", "val")
    }
    assert len(drawn["train"]) == len(drawn["val"]) == 40
    assert not drawn["train"] & drawn["val"]


def test_training_item_follows_the_contract_and_the_epoch():
    dataset = SyntheticDataset(samples=5, size=64, seed=2)
    item = dataset[(1, 3)]
    assert len(dataset) == 5
    assert item["image"].dtype == torch.uint8 and item["image"].shape == (3, 64, 64)
    assert item["alpha"].dtype == torch.uint8 and item["alpha"].shape == (1, 64, 64)
    assert item["unknown"].shape == (1, 64, 64) and not item["unknown"].any()
    truth = render_sample(2, "train", 1 * 5 + 3, 64)
    np.testing.assert_array_equal(item["alpha"][0].numpy(), np.rint(truth.alpha * 255))  # never degraded
    assert not torch.equal(item["image"], dataset[(0, 3)]["image"])
    assert item["name"] != dataset[(0, 3)]["name"]
    with pytest.raises(IndexError):
        dataset[(0, 5)]


def test_validation_item_is_the_exact_matte_at_float_precision():
    dataset = SyntheticValidation(samples=3, size=64, seed=2)
    item = dataset[2]
    assert item["image"].dtype == torch.uint8 and item["image"].shape == (3, 64, 64)
    assert item["alpha"].dtype == torch.float32
    np.testing.assert_array_equal(item["alpha"][0].numpy(), render_sample(2, "val", 2, 64).alpha)
    assert [entry["name"] for entry in dataset] == ["val_000000", "val_000001", "val_000002"]


def test_degradation_stays_near_the_picture(samples):
    image = samples[256][0].image
    for seed in range(8):
        degraded = degrade(np.random.default_rng(seed), image)
        assert degraded.dtype == np.uint8 and degraded.shape == image.shape
        assert np.abs(degraded / 255 - image).mean() < 0.05


def test_command_writes_the_flat_layout_and_a_contact_sheet(tmp_path):
    main(["--output", str(tmp_path), "--count", "2", "--size", "64"])
    for split in ("train", "val"):
        images = sorted(path.name for path in (tmp_path / split / "im").iterdir())
        assert images == sorted(path.name for path in (tmp_path / split / "gt").iterdir())
        assert len(images) == 2
    written = read_pair(tmp_path / "val" / "im" / "val_000001.png", tmp_path / "val" / "gt" / "val_000001.png")
    item = SyntheticValidation(samples=2, size=64, seed=0)[1]
    np.testing.assert_array_equal(written[0].transpose(2, 0, 1), item["image"].numpy())  # red is red
    np.testing.assert_allclose(written[1], item["alpha"][0].numpy(), atol=0.51 / 255)
    assert cv2.imread(str(tmp_path / "contact_sheet.png")).shape[0] >= 64
