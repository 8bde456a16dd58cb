"""The ablation's set: exact, repeatable, and with nothing of training in its validation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from common.photos import read_photo, write_image
from data.pairs import find_pairs
from data.quick_check import quick_check
from experiments.composites import compose, main, placed_cutout, share

SIZE = 48


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("sources")
    rng = np.random.default_rng(0)
    for kind, channels in (("backgrounds", 3), ("cutouts", 4)):
        (folder / kind).mkdir()
        for index in range(6):
            pixels = rng.integers(0, 256, (60, 90, channels), np.uint8)
            write_image(folder / kind / f"{index}.png", pixels)
    return folder / "backgrounds", folder / "cutouts"


def test_validation_sees_no_file_of_training() -> None:
    files = [Path(f"{index}.png") for index in range(11)]
    train, val = share(files, "train"), share(files, "val")
    assert len(val) == 3 and not set(train) & set(val) and set(train) | set(val) == set(files)


def test_an_image_is_its_seed_split_and_index(sources: tuple[Path, Path]) -> None:
    backgrounds, cutouts = (sorted(folder.iterdir()) for folder in sources)
    for index in range(8):
        image, alpha = compose(3, "train", index, SIZE, backgrounds, cutouts)
        again, _ = compose(3, "train", index, SIZE, backgrounds, cutouts)
        other, _ = compose(3, "val", index, SIZE, backgrounds, cutouts)
        assert image.shape == (SIZE, SIZE, 3) and image.dtype == np.uint8
        assert alpha.shape == (SIZE, SIZE) and alpha.min() >= 0 and alpha.max() <= 1
        assert np.array_equal(image, again) and not np.array_equal(image, other)


def test_a_cutout_is_placed_with_its_own_colour(tmp_path: Path) -> None:
    """Straight alpha comes back: transparent neighbours must not darken the edge."""
    pixels = np.zeros((100, 100, 4), np.uint8)
    pixels[20:80, 20:80] = (200, 100, 50, 255)
    write_image(tmp_path / "square.png", pixels)
    colour, alpha = placed_cutout(np.random.default_rng(1), tmp_path / "square.png", SIZE)
    assert 0.1 < alpha.mean() < 0.9
    seen = alpha > 0.05
    assert np.abs(colour[seen] - np.array([200, 100, 50]) / 255).max() < 0.02


def test_the_folder_is_a_set_that_the_doctor_passes(sources: tuple[Path, Path], tmp_path: Path) -> None:
    backgrounds, cutouts = sources
    folders = {"--backgrounds": backgrounds, "--cutouts": cutouts, "--output": tmp_path}
    flags = [text for flag, folder in folders.items() for text in (flag, str(folder))]
    flags += f"--size {SIZE} --train 6 --val 3".split()
    assert main(flags) == 0
    assert not quick_check(tmp_path).errors
    assert (len(find_pairs(tmp_path / "train")), len(find_pairs(tmp_path / "val"))) == (6, 3)
    assert read_photo(tmp_path / "val" / "im" / "00000.png").image.shape == (SIZE, SIZE, 3)


def test_too_few_backgrounds_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["--backgrounds", str(tmp_path), "--output", str(tmp_path / "set")]) == 2
    assert "give 5 or more" in capsys.readouterr().err
