"""data.dataset and data.pairs: pairing, alignment, composites, broken files."""

from __future__ import annotations

import unicodedata
import warnings
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from common.photos import read_alpha, read_alpha_levels, write_alpha, write_image
from data import pairs
from data.augmentation import Augmentation
from data.dataset import CompositeDataset, MixedDataset, PhotoDataset, PhotoValidation
from data.loader import EpochSampler
from data.pairs import find_pairs, read_reduced_pair
from tests.test_augmentation import STILL, centroid, disc


def write_pair(root: Path, name: str, alpha: np.ndarray, suffix: str = ".jpg") -> None:
    """A grey photo that shows its own alpha (uint8), and the alpha."""
    for folder in ("im", "gt"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    Image.fromarray(cv2.merge([alpha] * 3)).save(root / "im" / f"{name}{suffix}", quality=97, subsampling=0)
    Image.fromarray(alpha).save(root / "gt" / f"{name}.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(4):
        write_pair(tmp_path, f"disc{number}", disc(120 + number, 90, (40 + number, 60), 30))
    return tmp_path


def test_pairs_by_stem(tmp_path: Path) -> None:
    names = ["cat.v2.final", "two words", "größe", "猫", "UPPER"]
    for name in names:
        write_pair(tmp_path, name, disc(20, 20, (9, 9), 6))
    (tmp_path / "im" / "UPPER.jpg").rename(tmp_path / "im" / "UPPER.JPG")
    decomposed = unicodedata.normalize("NFD", "größe")  # as macOS may write it
    (tmp_path / "gt" / "größe.png").rename(tmp_path / "gt" / f"{decomposed}.png")
    (tmp_path / "im" / "notes.txt").write_text("no photo")
    (tmp_path / "im" / "lonely.jpg").write_bytes(b"")
    (tmp_path / "im" / ".hidden.jpg").write_bytes(b"")
    pairs = find_pairs(tmp_path)
    assert [pair.name for pair in pairs] == sorted(names)
    assert all(pair.image.is_file() and pair.alpha.is_file() for pair in pairs)
    assert len(PhotoValidation(tmp_path)) == len(PhotoDataset(tmp_path, Augmentation(16), 0)) == 5


def test_pairing_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="im does not exist"):
        find_pairs(tmp_path)
    write_pair(tmp_path / "train", "a", disc(20, 20, (9, 9), 6))
    with pytest.raises(ValueError, match="did you mean"):
        find_pairs(tmp_path)
    write_pair(tmp_path / "train", "a", disc(20, 20, (9, 9), 6), suffix=".png")
    with pytest.raises(ValueError, match=r"a\.jpg and a\.png share a name"):
        find_pairs(tmp_path / "train")
    for path in (tmp_path / "train" / "im").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="holds 0 photos and 1 alphas"):
        find_pairs(tmp_path / "train")


@pytest.mark.parametrize("size", [(1203, 901), (1205, 903), (1207, 907), (1200, 900)])
@pytest.mark.parametrize("long_side", [1300, 600, 300, 150])
def test_reduced_photo_and_alpha_agree_at_odd_sizes(tmp_path: Path, size: tuple[int, int], long_side: int) -> None:
    height, width = size
    # Near the far corner, where a stretch would show most.
    write_pair(tmp_path, "a", disc(height, width, (width - 130.4, height - 141.8), 100))
    photo, alpha = read_reduced_pair(tmp_path / "im" / "a.jpg", tmp_path / "gt" / "a.png", long_side=long_side)
    assert photo.shape[:2] == alpha.shape
    assert max(alpha.shape) >= min(long_side, height) - 1  # never smaller than what is wanted
    if long_side <= height // 2:
        assert max(alpha.shape) < height  # it did save work
    both = centroid(photo[..., 0]), centroid(alpha)
    assert np.abs(np.subtract(*both)).max() < 0.1
    assert np.sqrt(photo[..., 0].sum() / alpha.sum()) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_photo_onto_its_alpha(tmp_path: Path, orientation: int) -> None:
    upright = disc(1203, 901, (300.0, 800.0), 180)
    write_pair(tmp_path, "a", upright)
    undo = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]  # Image.Transpose that EXIF undoes
    stored = Image.fromarray(upright) if undo is None else Image.fromarray(upright).transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.convert("RGB").save(tmp_path / "im" / "a.jpg", exif=exif, quality=95)
    for long_side in (1203, 600, 150):
        photo, alpha = read_reduced_pair(tmp_path / "im" / "a.jpg", tmp_path / "gt" / "a.png", long_side=long_side)
        # 0.5 is reached where the photo is turned and its incomplete block, now the first, is half full.
        assert np.abs(np.subtract(centroid(photo[..., 0]), centroid(alpha))).max() < 0.505


def test_items_are_a_function_of_seed_epoch_and_index(folder: Path) -> None:
    first, second = (PhotoDataset(folder, Augmentation(64), seed=7) for _ in range(2))
    keys = [(epoch, index) for epoch in range(3) for index in range(4)]
    there = [first[key] for key in keys]
    back = [second[key] for key in reversed(keys)][::-1]
    for one, other in zip(there, back, strict=True):
        assert torch.equal(one["image"], other["image"]) and torch.equal(one["alpha"], other["alpha"])
        assert one["image"].shape == (3, 64, 64) and one["alpha"].shape == (1, 64, 64)
        assert one["image"].dtype == one["alpha"].dtype == one["unknown"].dtype == torch.uint8
        assert one["unknown"].shape == (1, 64, 64) and not one["unknown"].any()  # no mask, all known
    assert len({item["image"].numpy().tobytes() for item in there}) == len(keys)
    other_seed = PhotoDataset(folder, Augmentation(64), seed=8)[(0, 0)]
    assert not torch.equal(other_seed["image"], there[0]["image"])
    with pytest.raises(IndexError):
        first[(0, 4)]


@pytest.mark.parametrize("number", range(4))
def test_training_photo_lies_on_its_alpha(folder: Path, number: int) -> None:
    settings = Augmentation(64, **(STILL | {"rotation_share": 1.0, "flip_share": 0.5}))
    dataset = PhotoDataset(folder, settings, seed=1)
    for epoch in range(4):
        item = dataset[(epoch, number)]
        difference = item["image"][0].float() - item["alpha"][0].float()
        # A shift by half a pixel would move a quarter of the level at an edge, on all of the edge.
        assert difference.abs().mean() < 1.5 and difference.abs().max() < 40


def test_validation_is_native(folder: Path) -> None:
    item = PhotoValidation(folder)[2]
    assert item["name"] == "disc2" and item["image"].shape == (3, 122, 90) and item["image"].dtype == torch.uint8
    assert item["alpha"].dtype == torch.float32 and item["alpha"].shape == (1, 122, 90)
    assert torch.equal(item["alpha"][0], torch.from_numpy(read_alpha(folder / "gt" / "disc2.png")))


def test_sizes_that_differ_are_named(folder: Path) -> None:
    write_alpha(folder / "gt" / "disc1.png", np.zeros((121, 80), np.float32))
    with pytest.raises(ValueError, match=r"disc1\.jpg has 90 x 121 pixels and its alpha disc1\.png 80 x 121"):
        PhotoValidation(folder)[1]
    with pytest.raises(ValueError, match=r"disc1\.jpg has 90 x 121 .* 80 x 121"):
        read_reduced_pair(folder / "im" / "disc1.jpg", folder / "gt" / "disc1.png", long_side=30)


def test_broken_file_is_replaced_and_named_once(folder: Path) -> None:
    (folder / "im" / "disc1.jpg").write_bytes(b"no photo")
    dataset, again = (PhotoDataset(folder, Augmentation(32), seed=0) for _ in range(2))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        items = [dataset[(epoch, 1)] for epoch in range(6)]
        assert all(torch.equal(again[(epoch, 1)]["image"], item["image"]) for epoch, item in enumerate(items))
    assert {item["name"] for item in items} <= {"disc0", "disc2", "disc3"}
    assert ["disc1.jpg" in str(warning.message) for warning in caught] == [True, True]  # once a dataset


def test_only_broken_files_end_the_run(folder: Path) -> None:
    for path in (folder / "gt").iterdir():
        path.write_bytes(b"")
    with pytest.warns(UserWarning), pytest.raises(RuntimeError, match=r"in a row.*disc.*data\.check"):
        PhotoDataset(folder, Augmentation(32), seed=0)[(0, 0)]


@pytest.fixture
def composites(tmp_path: Path) -> CompositeDataset:
    """Red cut-outs, green where transparent, over one shade of blue."""
    for name in ("cutouts", "scenes"):
        (tmp_path / name).mkdir()
    for number in range(3):
        opacity = cv2.GaussianBlur(disc(150, 131, (60 + number, 80), 45), (0, 0), 6)
        pixels = np.zeros((150, 131, 4), np.uint8)
        pixels[opacity > 0] = (220, 0, 0, 0)
        pixels[opacity == 0] = (0, 255, 0, 0)
        pixels[..., 3] = opacity
        write_image(tmp_path / "cutouts" / f"c{number}.png", pixels)
    write_image(tmp_path / "scenes" / "sea.png", np.full((90, 160, 3), (0, 0, 180), np.uint8))
    return CompositeDataset(tmp_path / "cutouts", [tmp_path / "scenes"], Augmentation(96, **STILL), seed=0)


def test_composite_equation(composites: CompositeDataset) -> None:
    for epoch in range(6):
        item = composites[(epoch, epoch % 3)]
        alpha = item["alpha"][0].float() / 255
        image = item["image"].float()
        assert 0 < alpha.mean() < 1
        # alpha F + (1 - alpha) B: half a level of rounding in the image, and 220 / 510 from alpha's own.
        assert (image[0] - 220 * alpha).abs().max() < 1
        assert (image[2] - 180 * (1 - alpha)).abs().max() < 1
        assert image[1].max() == 0  # nothing of the colour under alpha 0 bleeds in


def test_composites_need_transparency(composites: CompositeDataset, tmp_path: Path) -> None:
    write_image(tmp_path / "cutouts" / "c1.png", np.full((30, 30, 3), 90, np.uint8))
    with pytest.warns(UserWarning, match=r"c1\.png has no transparency"):
        assert composites[(0, 1)]["name"] in ("c0+sea", "c2+sea")
    with pytest.raises(ValueError, match="holds no images"):
        (tmp_path / "nothing").mkdir()
        CompositeDataset(tmp_path / "nothing", [tmp_path / "scenes"], Augmentation(96), seed=0)


@pytest.mark.parametrize("side", ["im", "gt", "unknown"])
def test_a_mask_of_unknown_pixels_is_optional_and_paired_by_name(folder: Path, side: str) -> None:
    write_unknown(folder, "disc2", np.eye(122, 90, dtype=np.uint8) * 255)
    assert [pair.unknown and pair.unknown.name for pair in find_pairs(folder)] == [None, None, "disc2.png", None]
    write_image(folder / side / "disc2.webp", np.zeros((122, 90, 3), np.uint8))
    with pytest.raises(ValueError, match=r"disc2\.(jpg|png) and disc2\.webp share a name"):
        find_pairs(folder)


def write_unknown(root: Path, name: str, mask: np.ndarray) -> None:
    (root / "unknown").mkdir(exist_ok=True)
    Image.fromarray(mask).save(root / "unknown" / f"{name}.png")


def test_unknown_pixels_move_with_the_photo(folder: Path) -> None:
    """The mask is the disc itself, so it must cover what it covers in the photo, however small the item is."""
    for number in range(4):
        alpha = read_alpha_levels(folder / "gt" / f"disc{number}.png")
        write_unknown(folder, f"disc{number}", np.where(alpha > 0, 255, 0).astype(np.uint8))
    settings = Augmentation(24, **(STILL | {"rotation_share": 1.0, "flip_share": 0.5}))
    dataset = PhotoDataset(folder, settings, seed=1)
    for epoch in range(4):
        for number in range(4):
            item = dataset[(epoch, number)]
            assert set(np.unique(item["unknown"])) <= {0, 1}
            touched = item["alpha"] > 0
            assert item["unknown"][touched].all()  # whatever an unknown pixel reached is unknown
            assert item["unknown"].sum() <= 1.2 * touched.sum()


def test_validation_has_unknown_pixels_where_there_is_a_mask(folder: Path) -> None:
    mask = np.zeros((122, 90), np.uint8)
    mask[3:9, 5:7] = 255
    write_unknown(folder, "disc2", mask)
    items = [PhotoValidation(folder)[number] for number in range(4)]
    assert ["unknown" in item for item in items] == [False, False, True, False]
    assert items[2]["unknown"].dtype == torch.bool
    assert torch.equal(items[2]["unknown"][0], torch.from_numpy(mask > 0))
    write_unknown(folder, "disc2", mask[1:])
    for read in (
        lambda: PhotoValidation(folder)[2],
        lambda: pairs.read_reduced_pair(*find_pairs(folder)[2][1:], long_side=9),
    ):
        with pytest.raises(ValueError, match=r"disc2\.png has 90 x 121 pixels and its alpha 90 x 122"):
            read()


class Numbers(Dataset):
    """Returns the key that it is asked for."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: tuple[int, int]) -> tuple[int, int, int]:
        assert 0 <= key[1] < self.count
        return (self.count, *key)


@pytest.mark.parametrize("weight", [1, 2, 0.5, 0.3, 1.7])
def test_every_sample_is_seen_equally_often(weight: float) -> None:
    mixed = MixedDataset([(Numbers(10), weight), (Numbers(7), 1)], seed=3)
    count = round(10 * weight)
    assert len(mixed) == count + 7
    epochs = [[mixed[(epoch, index)] for index in range(len(mixed))] for epoch in range(10)]
    seen = [key for epoch in epochs for key in epoch]
    assert len(set(seen)) == len(seen)  # no sample comes twice with the same augmentation
    times = Counter(key[2] for key in seen if key[0] == 10)
    assert set(times) == set(range(10)) and set(times.values()) == {count}
    assert all(sorted(key[2] for key in epoch if key[0] == 7) == list(range(7)) for epoch in epochs)
    orders = {tuple(key[2] for key in epoch if key[0] == 7) for epoch in epochs}
    assert len(orders) > 5


def test_mixed_items_are_those_of_their_sets(folder: Path, composites: CompositeDataset) -> None:
    photos = PhotoDataset(folder, Augmentation(96, **STILL), seed=0)
    mixed, again = (MixedDataset([(photos, 1), (composites, 2)], seed=0) for _ in range(2))
    assert len(mixed) == 4 + 6
    names = [mixed[(2, index)]["name"].split("+")[0] for index in range(10)]
    assert sorted(names) == sorted([f"disc{n}" for n in range(4)] + 2 * [f"c{n}" for n in range(3)])
    item = mixed[(2, 1)]
    assert torch.equal(item["image"], photos[(2, int(item["name"][-1]))]["image"])
    assert torch.equal(item["image"], again[(2, 1)]["image"])
    with pytest.raises(IndexError):
        mixed[(0, 10)]
    assert len(MixedDataset([(photos, 0.01), (composites, 1)], seed=0)) == 1 + 3  # a small weight still gives a sample


def test_two_ranks_and_a_resumed_run_share_a_mixed_epoch() -> None:
    mixed = MixedDataset([(Numbers(9), 2), (Numbers(6), 0.5)], seed=1)

    def epoch_of(rank: int, world_size: int, start: int = 0) -> list[tuple[int, int, int]]:
        sampler = EpochSampler(len(mixed), batch_size=4 // world_size, seed=5, rank=rank, world_size=world_size)
        sampler.set_epoch(3, start_batch=start)
        return [mixed[key] for key in sampler]

    alone, first, second = epoch_of(0, 1), epoch_of(0, 2), epoch_of(1, 2)
    assert sorted(alone) == sorted(first + second) and not set(first) & set(second)
    assert epoch_of(0, 1, start=2) == alone[8:]
