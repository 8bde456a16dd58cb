"""data.check: each planted fault is found and named, a clean set has none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from common.photos import write_alpha, write_image
from data.check import as_json, check_dataset, main, quick_check
from data.kinds import SEVERITY
from data.pairs import read_pair
from data.synthetic.dataset import write_folder

COPY = 100  # added to a pair's number for a copy of it


@pytest.fixture(scope="module")
def clean_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clean")
    write_folder(root, count=6, size=128, seed=3)
    return root


@pytest.fixture
def dataset(clean_set: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(clean_set, tmp_path / "set"))


def photo(root: Path, number: int, split: str = "train") -> Path:
    return root / split / "im" / f"{split}_{number:06d}.png"


def alpha(root: Path, number: int, split: str = "train") -> Path:
    return root / split / "gt" / f"{split}_{number:06d}.png"


def truth(root: Path, number: int) -> np.ndarray:
    return read_pair(photo(root, number), alpha(root, number))[1]


# Each plants its fault at the pair of a number, in train, and returns the file that must be named.


def plant_photo_without_alpha(root: Path, number: int) -> Path:
    alpha(root, number).unlink()
    return photo(root, number)


def plant_alpha_without_photo(root: Path, number: int) -> Path:
    photo(root, number).unlink()
    return alpha(root, number)


def plant_name_twice(root: Path, number: int) -> Path:
    first, second = photo(root, number), photo(root, number).with_suffix(".jpg")
    write_image(second, np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8))
    return min(first, second)


def plant_sizes_differ(root: Path, number: int) -> Path:
    write_alpha(alpha(root, number), truth(root, number)[:, :-1])
    return photo(root, number)


def plant_photo_truncated(root: Path, number: int) -> Path:
    target = photo(root, number)
    pixels = read_pair(target, alpha(root, number))[0]
    target.unlink()
    target = target.with_suffix(".jpg")
    write_image(target, pixels)
    target.write_bytes(target.read_bytes()[:-600])  # the header is whole, the scan is not
    return target


def plant_alpha_unreadable(root: Path, number: int) -> Path:
    alpha(root, number).write_bytes(b"<html>404: no such file</html>")
    return alpha(root, number)


def plant_alpha_empty(root: Path, number: int) -> Path:
    write_alpha(alpha(root, number), np.zeros((128, 128), np.float32))
    return alpha(root, number)


def plant_alpha_full(root: Path, number: int) -> Path:
    write_alpha(alpha(root, number), np.ones((128, 128), np.float32))
    return alpha(root, number)


def plant_alpha_inverted(root: Path, number: int) -> Path:
    disc = cv2.GaussianBlur(cv2.circle(np.zeros((128, 128), np.float32), (64, 60), 40, 1.0, -1), (0, 0), 1)
    write_alpha(alpha(root, number), 1 - disc)
    return alpha(root, number)


def plant_alpha_scale(root: Path, number: int) -> Path:
    matte = truth(root, number)
    cv2.imwrite(str(alpha(root, number)), (matte > 0.5).astype(np.uint8))  # 0 and 1, the factor 255 forgotten
    return alpha(root, number)


def plant_alpha_binary(root: Path, number: int) -> Path:
    write_alpha(alpha(root, number), (truth(root, number) > 0.5).astype(np.float32))
    return alpha(root, number)


def plant_duplicate(root: Path, number: int) -> Path:
    for place in (photo, alpha):
        shutil.copy(place(root, number), place(root, number + COPY))
    return photo(root, number + COPY)


def plant_leak_exact(root: Path, number: int) -> Path:
    for place in (photo, alpha):
        shutil.copy(place(root, number), place(root, number + COPY, "val"))
    return photo(root, number + COPY, "val")


def plant_leak_similar(root: Path, number: int) -> Path:
    pixels, matte = read_pair(photo(root, number), alpha(root, number))
    write_alpha(alpha(root, number + COPY, "val"), cv2.resize(matte, (112, 112), interpolation=cv2.INTER_AREA))
    target = photo(root, number + COPY, "val").with_suffix(".jpg")  # another size, another format
    write_image(target, cv2.resize(pixels, (112, 112), interpolation=cv2.INTER_AREA))
    return target


PLANTED = {
    "photo_without_alpha": (plant_photo_without_alpha, "photo_without_alpha"),
    "alpha_without_photo": (plant_alpha_without_photo, "alpha_without_photo"),
    "name_twice": (plant_name_twice, "name_twice"),
    "sizes_differ": (plant_sizes_differ, "sizes_differ"),
    "photo_truncated": (plant_photo_truncated, "photo_unreadable"),
    "alpha_unreadable": (plant_alpha_unreadable, "alpha_unreadable"),
    "alpha_empty": (plant_alpha_empty, "alpha_empty"),
    "alpha_full": (plant_alpha_full, "alpha_full"),
    "alpha_inverted": (plant_alpha_inverted, "alpha_inverted"),
    "alpha_scale": (plant_alpha_scale, "alpha_scale"),
    "alpha_binary": (plant_alpha_binary, "alpha_binary"),
    "duplicate": (plant_duplicate, "duplicate"),
    "leak_exact": (plant_leak_exact, "leak_exact"),
    "leak_similar": (plant_leak_similar, "leak_similar"),
}


def test_there_are_fourteen_faults() -> None:
    assert len(PLANTED) == 14 and set(SEVERITY) == {kind for _, kind in PLANTED.values()} | {"folder_missing"}


@pytest.mark.parametrize("name", PLANTED)
def test_finds_each_planted_fault(dataset: Path, name: str) -> None:
    plant, kind = PLANTED[name]
    path = plant(dataset, 2)
    report = check_dataset(dataset)
    assert [(fault.kind, Path(fault.path)) for fault in report.faults] == [(kind, path)]  # it, and nothing else
    assert path.name in report.faults[0].sentence
    assert main([str(dataset)]) == (1 if SEVERITY[kind] == "error" else 0)


def test_finds_all_fourteen_in_one_dataset(tmp_path: Path) -> None:
    """Each at a pair of its own, so that none hides another: what an unreadable alpha holds, nobody can say."""
    write_folder(tmp_path, count=len(PLANTED), size=128, seed=3)
    planted = {(kind, plant(tmp_path, number)) for number, (plant, kind) in enumerate(PLANTED.values())}
    report = check_dataset(tmp_path)
    assert len(report.faults) == len(planted) == 14  # they, and nothing else
    assert {(fault.kind, Path(fault.path)) for fault in report.faults} == planted


def test_finds_several_faults_at_once(dataset: Path, tmp_path: Path) -> None:
    planted = [plant_leak_exact(dataset, 0), plant_alpha_binary(dataset, 2)]
    alpha(dataset, 3).unlink()
    write_alpha(alpha(dataset, 4, "val"), np.zeros((128, 128), np.float32))
    (dataset / "val" / "im" / "val_000005.png").write_bytes(b"")
    planted += [photo(dataset, 3), alpha(dataset, 4, "val"), photo(dataset, 5, "val")]
    assert {Path(fault.path) for fault in check_dataset(dataset).faults} == set(planted)
    file = tmp_path / "report.json"
    assert main([str(dataset), "--json", str(file)]) == 1
    written = json.loads(file.read_text(encoding="utf-8"))
    assert (written["errors"], written["warnings"], len(written["faults"])) == (4, 1, 5)


def test_clean_set_has_no_fault(clean_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    report = check_dataset(clean_set)
    assert report.faults == [] and quick_check(clean_set) == []
    assert as_json(report)["splits"]["train"]["pairs"] == 6
    sheet = tmp_path / "sheet.png"
    assert main([str(clean_set), "--contact-sheet", str(sheet)]) == 0
    assert cv2.imread(str(sheet)) is not None
    assert "train: 6 pairs" in capsys.readouterr().out


def test_8_bit_values_in_a_16_bit_file(dataset: Path) -> None:
    levels = np.rint(truth(dataset, 2) * 255).astype(np.uint16)
    cv2.imwrite(str(alpha(dataset, 2)), levels)
    assert [fault.kind for fault in check_dataset(dataset).faults] == ["alpha_scale"]


def test_subject_that_touches_the_border_is_not_inverted(dataset: Path) -> None:
    matte = np.zeros((128, 128), np.float32)
    matte[30:, 20:] = 1  # fills two borders
    write_alpha(alpha(dataset, 2), cv2.blur(matte, (5, 5)))
    assert check_dataset(dataset).faults == []


def test_quick_check_reads_headers_only(dataset: Path) -> None:
    plant_sizes_differ(dataset, 2)
    photo(dataset, 4).unlink()
    alpha(dataset, 1, "val").unlink()
    photo(dataset, 0).write_bytes(photo(dataset, 0).read_bytes()[:-300])  # only decoding would tell
    sentences = quick_check(dataset)
    assert len(sentences) == 3
    for sentence, name in zip(sentences, ("val_000001", "train_000004", "train_000002"), strict=True):
        assert name in sentence


def test_missing_folders(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([str(tmp_path / "nowhere")]) == 2
    assert main([str(tmp_path)]) == 2
    (tmp_path / "im").mkdir()
    assert main([str(tmp_path)]) == 1  # there is half a dataset
    (tmp_path / "gt").mkdir()
    assert main([str(tmp_path)]) == 2
    assert "holds no photos" in capsys.readouterr().err
    assert "nowhere" in quick_check(tmp_path / "nowhere")[0]
