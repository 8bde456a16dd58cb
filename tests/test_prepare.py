"""data.prepare: each public set's own layout becomes one that data.check finds nothing wrong with."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from common.photos import photo_size, read_alpha, write_image
from data import prepare
from data.check import check_dataset
from data.pairs import find_pairs, read_unknown
from data.public_sets import PUBLIC_SETS
from data.synthetic.dataset import draw_photo
from evaluation.checkpoints import open_dataset

SIZE = 64


def trimap(alpha: np.ndarray) -> np.ndarray:
    """0, 128 and 255."""
    return np.where(alpha < 0.1, 0, np.where(alpha > 0.7, 255, 128)).astype(np.uint8)


def write_download(name: str, source: Path) -> None:
    """Two photos of each split, as the authors of the set name folders and files."""
    public = PUBLIC_SETS[name]
    for number, split in enumerate(public.splits):
        for index in range(2):
            image, alpha = draw_photo(number, "train", index, SIZE)
            truth = trimap(alpha) if public.has_trimaps else np.rint(alpha * 255).astype(np.uint8)
            stem = f"{number}{index}-{split.name}_1280"
            suffixes = (".jpg", ".jpg") if name == "ppm-100" else (".jpg", ".png")
            photos = {f"{stem}{suffixes[0]}": image}
            if public.number:  # composites of one subject
                photos = {f"{stem}_0.png": image, f"{stem}_11.png": 255 - image}
            for file, picture in photos.items():
                put(source / split.photos / file, picture)
            put(source / split.truths.replace("**", "Adobe-licensed images") / f"{stem}{suffixes[1]}", truth)


def put(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, picture)


@pytest.fixture
def dis5k(tmp_path: Path) -> Path:
    write_download("dis5k", tmp_path / "DIS5K")
    return tmp_path / "DIS5K"


def run(name: str, source: Path, root: Path) -> int:
    return prepare.main([name, str(source), str(root)])


@pytest.mark.parametrize("name", PUBLIC_SETS)
def test_a_small_folder_in_each_layout(name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    public, source, root = PUBLIC_SETS[name], tmp_path / "download", tmp_path / "sets" / name
    write_download(name, source)
    assert run(name, source, root) == 0
    assert f"licence: {public.licence}" in capsys.readouterr().out
    assert [fault.sentence for fault in check_dataset(root).errors] == []
    assert {folder.name for folder in root.iterdir()} == {split.name for split in public.splits}
    for split in public.splits:
        pairs = find_pairs(root / split.name)
        assert len(pairs) == (4 if public.number else 2)
        for pair in pairs:
            assert pair.image.samefile(source / split.photos / pair.image.name)
            assert (pair.unknown is not None) == public.has_trimaps


def test_a_composite_has_the_alpha_of_its_subject(tmp_path: Path) -> None:
    write_download("composition-1k", tmp_path / "download")
    alphas = tmp_path / "download" / "Test_set" / "alpha"  # as IndexNet has it
    shutil.move(tmp_path / "download" / "Test_set" / "Adobe-licensed images" / "alpha", alphas)
    assert run("composition-1k", tmp_path / "download", tmp_path / "root") == 0
    subjects = {"10-val_1280_0": 0, "10-val_1280_11": 0, "11-val_1280_0": 1, "11-val_1280_11": 1}
    for pair in find_pairs(tmp_path / "root" / "val"):
        assert pair.alpha.samefile(alphas / f"1{subjects.pop(pair.name)}-val_1280.png")
    assert not subjects


def test_the_band_of_a_trimap_is_unknown_and_nothing_else(tmp_path: Path) -> None:
    write_download("trimaps", tmp_path / "mine")
    assert run("trimaps", tmp_path / "mine", tmp_path / "root") == 0
    for pair in find_pairs(tmp_path / "root" / "train"):
        levels = read_alpha(pair.alpha)
        unknown = read_unknown(pair.unknown, levels.shape) > 0
        assert np.array_equal(unknown, (levels > 0) & (levels < 1)) and 0 < unknown.mean() < 1


def test_a_test_split_can_be_evaluated(dis5k: Path, tmp_path: Path) -> None:
    assert run("DIS5K", dis5k, tmp_path / "root") == 0
    dataset, unpaired = open_dataset(str(tmp_path / "root" / "DIS-TE4"), Path("unused"))
    assert len(dataset) == 2 and not unpaired and dataset[0]["alpha"].shape == (1, SIZE, SIZE)


@pytest.mark.parametrize("refused", [("symlink",), ("symlink", "link")])
def test_without_symboliclinks_the_files_are_still_there(
    refused: tuple[str, ...], dis5k: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError("not permitted")

    for name in refused:
        monkeypatch.setattr(os, name, refuse)
    assert run("dis5k", dis5k, tmp_path / "root") == 0
    (path, *_) = sorted((tmp_path / "root" / "train" / "im").iterdir())
    original = dis5k / "DIS-TR" / "im" / path.name
    assert not path.is_symlink() and path.samefile(original) == ("link" not in refused)
    assert path.read_bytes() == original.read_bytes()


def test_a_split_that_was_not_downloaded_is_said(dis5k: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    shutil.rmtree(dis5k / "DIS-TE3")
    assert run("dis5k", dis5k, tmp_path / "root") == 0
    assert f"not in {dis5k}: DIS-TE3/im\n" in capsys.readouterr().out
    assert not (tmp_path / "root" / "DIS-TE3").exists()


def test_files_without_a_partner_are_named(dis5k: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    photo, truth = dis5k / "DIS-TR" / "im" / "extra.jpg", dis5k / "DIS-VD" / "gt" / "lost.png"
    shutil.copy(dis5k / "DIS-TR" / "im" / "00-train_1280.jpg", photo)
    shutil.copy(dis5k / "DIS-VD" / "gt" / "10-val_1280.png", truth)
    assert run("dis5k", dis5k, tmp_path / "root") == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.rpartition(" ")[2] for line in lines if "left out" in line] == [str(photo), str(truth)]
    assert len(find_pairs(tmp_path / "root" / "train")) == 2


def give_the_parent(source: Path, root: Path) -> None:
    source.rename(source.with_name("inner"))
    source.mkdir()
    source.with_name("inner").rename(source / "inner")


def name_twice(source: Path, root: Path) -> None:
    shutil.copy(source / "DIS-TR" / "gt" / "00-train_1280.png", source / "DIS-TR" / "gt" / "00-train_1280.jpg")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (give_the_parent, "does not hold DIS-TR/im: did you mean SOURCE/inner."),
        (lambda source, root: shutil.rmtree(source), "does not hold DIS-TR/im: name the unpacked download."),
        (lambda source, root: shutil.rmtree(source / "DIS-VD/gt"), "SOURCE/DIS-VD/im has no photo with a truth of its"),
        (name_twice, "share a name: rename or remove one of them."),
        (lambda source, root: root.mkdir(), "ROOT is there already: remove it, or name a new folder."),
    ],
)
def test_another_folder_than_expected_is_one_sentence(spoil, said, dis5k, tmp_path, capsys) -> None:
    root = tmp_path / "root"
    spoil(dis5k, root)
    assert run("dis5k", dis5k, root) == 2
    error = capsys.readouterr().err.replace(str(dis5k), "SOURCE").replace(str(root), "ROOT").replace(os.sep, "/")
    assert said in error and error.count("\n") == 1
    assert not root.exists() or not any(root.iterdir())


def test_the_root_is_complete_or_not_there(dis5k: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link, calls = prepare.link, []

    def stop_at_the_fifth(*paths: Path) -> None:
        calls.append(paths)
        if len(calls) == 5:
            raise KeyboardInterrupt
        link(*paths)

    monkeypatch.setattr(prepare, "link", stop_at_the_fifth)
    assert run("dis5k", dis5k, tmp_path / "sets" / "root") == 130
    assert list((tmp_path / "sets").iterdir()) == [] and len(list(dis5k.rglob("*.jpg"))) == 12


def test_smaller_copies_keep_the_pair_aligned_and_name_what_cannot_be_read(tmp_path: Path, capsys) -> None:
    image, alpha = draw_photo(0, "train", 0, 2 * SIZE)
    source, root = tmp_path / "mine", tmp_path / "root"
    for name, side in (("large", 2 * SIZE), ("small", SIZE // 2)):
        put(source / "train" / "im" / f"{name}.jpg", image[:side, : side // 2])
        put(source / "train" / "trimap" / f"{name}.png", trimap(alpha)[:side, : side // 2])
    put(source / "train" / "im" / "odd.jpg", image)
    put(source / "train" / "trimap" / "odd.png", trimap(alpha)[:-2])
    assert prepare.main(["trimaps", str(source), str(root), "--long-side", str(SIZE)]) == 1
    assert "odd.jpg has 128 x 128 pixels and its alpha odd.png 128 x 126" in capsys.readouterr().err
    [folder] = root.iterdir()
    large, small = find_pairs(folder)
    assert (large.name, small.name) == ("large", "small") and small.image.is_symlink()
    assert photo_size(large.image) == photo_size(large.alpha) == (SIZE // 2, SIZE)
    band = trimap(alpha)[:, :SIZE] == 128
    expected = cv2.resize(band.astype(np.float32), (SIZE // 2, SIZE), interpolation=cv2.INTER_AREA) > 0
    assert np.array_equal(read_unknown(large.unknown, (SIZE, SIZE // 2)) > 0, expected)
