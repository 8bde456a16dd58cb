"""data.build: several data sets as one, by their words; what train.py makes of them."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import train
from common.errors import UserError
from common.photos import write_image
from data.augmentation import Augmentation
from data.build import Source, build_training_set, build_validation_sets, parse_source
from data.synthetic.folder import write_folder
from tests.tiny import FLAGS, use_tiny_networks
from training.checkpoint import load_training_state

SETTINGS = Augmentation(32)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn")
    for number, name in enumerate(("a", "b")):
        write_folder(root / name, count=3, size=48, seed=number)
        (root / name / "contact_sheet.png").unlink()
    shutil.rmtree(root / "b" / "val")
    return root


@pytest.fixture
def sets(drawn: Path, tmp_path: Path) -> Path:
    """a with train and val, b with train alone; a copy that a test may change."""
    return Path(shutil.copytree(drawn, tmp_path / "sets"))


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("Datasets/a", Source("Datasets/a", 1)),
        ("Datasets/a*2", Source("Datasets/a", 2)),
        ("synthetic*0.5", Source("synthetic", 0.5)),
        ("odd*name*3", Source("odd*name", 3)),
    ],
)
def test_a_source_has_a_path_and_a_weight(text: str, source: Source) -> None:
    assert parse_source(text) == source


@pytest.mark.parametrize("text", ["a*", "a*b", "*2", "a*0", "a*-1", "a*nan", "a*inf", "a*1e999"])
def test_a_weight_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"is no data set: write a folder.*mine\*2"):
        parse_source(text)


def write_cutouts(root: Path, count: int) -> str:
    root.mkdir()
    for number in range(count):
        pixels = np.full((40, 40, 4), 200, np.uint8)
        pixels[10:, :, 3] = 0
        write_image(root / f"{root.name}{number}.png", pixels)
    return str(root)


def test_folders_drawn_photos_and_cut_outs_are_one_set(sets: Path) -> None:
    """Several folders of foregrounds, each with its weight, over the photos of all backgrounds."""
    scenes = [str(sets / name / "train" / "im") for name in ("a", "b")]
    mixed = build_training_set(
        [f"{sets}/a*2", f"{sets}/b", "synthetic*0.5"],
        settings=SETTINGS,
        samples=8,
        seed=0,
        foregrounds=[write_cutouts(sets / "people", 2), write_cutouts(sets / "cats", 1) + "*3"],
        backgrounds=scenes,
    )
    assert len(mixed) == 2 * 3 + 3 + 4 + 2 + 3
    items = [mixed[(epoch, index)] for epoch in (0, 1) for index in range(len(mixed))]
    assert {item["image"].shape for item in items} == {(3, 32, 32)}
    names = [item["name"] for item in items]
    assert sum(name.startswith("people") for name in names) == 2 * 2
    assert sum(name.startswith("cats") for name in names) == 2 * 3
    assert {name.split("+")[1] for name in names if "+" in name} == {f"train_00000{n}" for n in range(3)}


def test_one_set_alone_is_not_mixed(sets: Path) -> None:
    """Its items are those of earlier versions."""
    options = dict(settings=SETTINGS, samples=4, seed=0)
    alone, drawn = (build_training_set([word], **options) for word in (f"{sets}/a", "synthetic"))
    assert [alone[(1, index)]["name"] for index in range(3)] == [f"train_00000{index}" for index in range(3)]
    assert drawn[(1, 2)]["name"] == "train_000006"


def validation(*datasets: object, image_size: int = 32, samples: int = 2, seed: int = 0) -> dict:
    return build_validation_sets(list(map(str, datasets)), image_size=image_size, samples=samples, seed=seed)


def test_validation_sets_go_by_name(sets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(sets / "a", sets / "other" / "a")
    found = validation(sets / "a", f"{sets}/b*2", "synthetic", sets / "other" / "a", sets / "a")
    assert list(found) == ["a", "synthetic", str(sets / "other" / "a")]  # b has no val
    assert [len(dataset) for dataset in found.values()] == [3, 2, 3]
    monkeypatch.chdir(sets / "a")
    assert list(validation(".")) == ["a"]


def test_sets_that_cannot_be_used_are_named(sets: Path) -> None:
    with pytest.raises(UserError, match=r"b/val/im does not exist"):
        validation(sets / "b")
    shutil.copytree(sets / "b", sets / "c")
    with pytest.raises(UserError, match=r"None of .*b, .*c has a val folder"):
        validation(sets / "b", f"{sets}/c*2")
    for build in (validation, lambda *words: build_training_set(words, settings=SETTINGS, samples=1, seed=0)):
        with pytest.raises(UserError, match="nowhere is not there"):
            build("synthetic", "nowhere")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_networks(monkeypatch)


def fit(output: Path, *flags: str, code: int = 0) -> Path:
    """Run train.py in this process; its run folder."""
    start = FLAGS[2:] if "--resume" not in flags else ()  # without --dataset synthetic
    assert train.main([*start, *flags, "--teacher-epochs", "0", "--output", str(output)]) == code
    return max(output.iterdir())


def rows(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "training_log.csv").open(encoding="utf-8")))


def test_training_on_several_sets_logs_each(sets: Path, tmp_path: Path, tiny: None) -> None:
    shutil.copytree(sets / "a" / "val", sets / "b" / "val")
    (sets / "a" / "val" / "im" / "val_000002.png").unlink()
    (sets / "a" / "val" / "gt" / "val_000002.png").unlink()
    run = fit(tmp_path / "runs", "--dataset", f"{sets}/a", f"{sets}/b*2", "--epochs", "1")
    assert json.loads((run / "config.json").read_text())["dataset"] == [f"{sets}/a", f"{sets}/b*2"]
    (row,) = rows(run)
    assert int(row["step"]) == (3 + 2 * 3) // 2
    for figure in ("coarse_image_sad", "refined_edge_grad"):
        each = [float(row[f"val_{name}_{figure}"]) for name in ("a", "b")]
        assert each[0] != each[1]
        assert float(row[f"val_{figure}"]) == pytest.approx(np.mean(each), rel=1e-4)  # of rounded figures
    only = fit(tmp_path / "alone", "--dataset", f"{sets}/a", "--epochs", "1")
    assert not any(name.startswith("val_a_") for name in rows(only)[0])


def test_the_record_starts_anew_on_another_validation_set(
    sets: Path, tmp_path: Path, tiny: None, capsys: pytest.CaptureFixture
) -> None:
    run = fit(tmp_path / "runs", "--dataset", f"{sets}/a", "--epochs", "1")
    unbeatable = load_training_state(run)
    unbeatable["progress"] |= {"best_score": 1e-9, "best_epoch": 0}  # 0: where the weights of --init-from are the best
    torch.save(unbeatable, run / "last.pt")
    weights = (run / "best.safetensors").read_bytes()

    fit(tmp_path / "runs", "--resume", "--epochs", "2")
    assert "have changed" not in capsys.readouterr().out
    assert (run / "best.safetensors").read_bytes() == weights

    (sets / "a").rename(sets / "moved")
    fit(tmp_path / "runs", "--resume", "--epochs", "3", "--dataset", f"{sets}/moved")
    assert "have changed" not in capsys.readouterr().out
    assert (run / "best.safetensors").read_bytes() == weights

    for side in ("im", "gt"):
        shutil.copy(sets / "moved" / "val" / side / "val_000000.png", sets / "moved" / "val" / side / "more.png")
    fit(tmp_path / "runs", "--resume", "--epochs", "4")
    assert capsys.readouterr().out.count("The validation photos have changed: the record starts anew") == 1
    assert (run / "best.safetensors").read_bytes() != weights
    fit(tmp_path / "runs", "--resume", "--epochs", "5")
    assert "have changed" not in capsys.readouterr().out
    assert [row["val_photos"] for row in rows(run)] == ["3", "3", "3", "4", "4"]


def test_a_validation_without_all_of_its_photos_cannot_be_the_best(
    sets: Path, tmp_path: Path, tiny: None, capsys: pytest.CaptureFixture
) -> None:
    """Its weights are kept only where there are no others; the header of the photo is whole."""
    photo = sets / "a" / "val" / "im" / "val_000001.png"
    whole = photo.read_bytes()
    photo.write_bytes(whole[:-1000])
    run = fit(tmp_path / "runs", "--dataset", f"{sets}/a", "--epochs", "1")
    output = capsys.readouterr()
    assert "1 of 3 validation photos could not be scored: this epoch cannot be the best" in output.out
    assert "failed: val_000001" in output.err and (run / "best.safetensors").exists()
    assert load_training_state(run)["progress"]["best_score"] == np.inf
    photo.write_bytes(whole)
    fit(tmp_path / "runs", "--resume", "--epochs", "2")
    state, weights = load_training_state(run), (run / "best.safetensors").read_bytes()
    assert state["progress"]["best_epoch"] == 2 and "have changed" not in capsys.readouterr().out
    photo.write_bytes(whole[:-1000])
    fit(tmp_path / "runs", "--resume", "--epochs", "3", "--learning-rate", "0.01")
    assert (run / "best.safetensors").read_bytes() == weights
    assert [row["val_photos"] for row in rows(run)] == ["2", "3", "2"]


def test_truths_of_a_wrong_scale_do_not_train(
    sets: Path, tmp_path: Path, tiny: None, capsys: pytest.CaptureFixture
) -> None:
    for path in (sets / "b" / "train" / "gt").iterdir():
        write_image(path, np.eye(48, dtype=np.uint8))
    flags = [*FLAGS[2:], "--dataset", "synthetic", f"{sets}/b*2", "--output", str(tmp_path / "runs")]
    assert train.main(flags) == 2
    assert "train_000000.png reaches only 1 of 255" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    assert train.main([*flags, "--no-check-data", "--epochs", "1"]) == 0


def test_unknown_pixels_do_not_train(sets: Path, tmp_path: Path, tiny: None) -> None:
    """Where nothing is known in the truth, its values do not matter."""
    (sets / "b" / "train" / "unknown").mkdir()
    for path in sorted((sets / "b" / "train" / "im").iterdir()):
        mask = np.full((48, 48), 255, np.uint8)
        mask[:2, :2] = 0  # a mask that hides all is a fault
        write_image(sets / "b" / "train" / "unknown" / path.name, mask)
    losses = []
    for level in (64, 200):
        for path in (sets / "b" / "train" / "gt").iterdir():
            truth = np.full((48, 48), level, np.uint8)
            truth[:2, :2] = (0, 80), (160, 255)
            write_image(path, truth)
        flags = ("--dataset", f"{sets}/b", f"{sets}/a*0.01", "--epochs", "1", "--seed", "1")
        losses.append(rows(fit(tmp_path / f"runs{level}", *flags))[0]["loss"])
    assert losses[0] == losses[1]
