"""evaluate.py from its command line: folders against folders, checkpoints on photos, exit codes, torchrun."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import evaluate
from common import distributed, plots
from common.photos import write_alpha, write_image
from evaluation import checkpoints
from evaluation.validation import COARSE, REFINED, MatteSource
from models import build_model
from models.checkpoint import MODEL_FILE, load_model, read_metadata, save_model
from tests.test_scoring import disc

ROOT = Path(evaluate.__file__).parent
Folders = tuple[Path, Path]


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Five soft truths, and predictions of them that are shifted by 0 to 4 pixels."""
    for folder in ("predictions", "truths"):
        (tmp_path / folder).mkdir()
    for index in range(5):
        write_alpha(tmp_path / "predictions" / f"photo{index}.png", disc(index))
        write_alpha(tmp_path / "truths" / f"photo{index}.png", disc())
    return tmp_path / "predictions", tmp_path / "truths"


def run(*arguments: object) -> int:
    return evaluate.main([str(argument) for argument in arguments])


def score(folders: Folders, *arguments: object) -> int:
    return run("--predictions", folders[0], "--ground-truth", folders[1], "--workers", 0, *arguments)


def read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def read_csv(path: Path) -> list[dict]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def lines_with(start: str, text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]


def test_a_folder_against_itself_has_no_error(folders, tmp_path, capsys):
    truths = folders[1]
    assert score((truths, truths), "--json", tmp_path / "a.json") == 0
    mattes = read_json(tmp_path / "a.json")["mattes"][str(truths)]
    assert mattes and all(summary["mean"] == 0 for summary in mattes.values())
    assert "edge band" in capsys.readouterr().out


def test_table_csv_and_worst_files(folders, tmp_path, capsys):
    assert score(folders, "--csv", tmp_path / "new" / "a.csv") == 0
    output = capsys.readouterr().out
    (line,) = lines_with("image  sad ", output)
    assert [word.strip(",") for word in line.split() if word.startswith("photo")] == ["photo4", "photo3", "photo2"]
    assert "sum |p - g| / 1000" in output and "5 soft" in output
    rows = read_csv(tmp_path / "new" / "a.csv")
    assert [row["name"] for row in rows] == [f"photo{index}" for index in range(5)]
    expected = np.abs(np.rint(disc(3) * 255) - np.rint(disc() * 255)).sum() / 255 / 1000
    assert float(rows[3]["image_sad"]) == pytest.approx(expected, rel=1e-6)


def test_bad_files_are_named_and_the_others_scored(folders, tmp_path, capsys):
    predictions = folders[0]
    write_alpha(predictions / "photo1.png", disc(size=40))
    (predictions / "photo2.png").write_bytes(b"no picture")
    (predictions / "photo3.png").unlink()
    write_alpha(predictions / "extra.png", disc())
    assert score(folders, "--json", tmp_path / "a.json") == 1
    report, names = read_json(tmp_path / "a.json"), {"photo1", "photo2", "photo3", "extra"}
    assert {entry["name"] for entry in report["failed"]} == names and report["photos"] == 2
    errors = capsys.readouterr().err
    assert all(f"failed: {name}" in errors for name in names)


def test_files_that_are_no_mattes_are_counted(folders, capsys):
    for name in ("photo0.exr", "photo1.npy", "photo2.npy"):
        (folders[0] / name).write_bytes(b"")
    assert score(folders) == 0
    assert lines_with(f"{folders[0]}: 3 files left out: 1 .exr, 2 .npy;", capsys.readouterr().out)


def test_unknown_pixels_are_left_out_and_said(folders, tmp_path, capsys):
    """photo4 has a mask over everything but its left column, which is right; one mask has no truth."""
    mask = np.ones((32, 32), np.float32)
    mask[:, 0] = 0
    (tmp_path / "masks").mkdir()
    for name in ("photo4", "alone"):
        write_alpha(tmp_path / "masks" / f"{name}.png", mask)
    assert score(folders, "--csv", tmp_path / "a.csv", "--unknown", tmp_path / "masks") == 1
    output = capsys.readouterr()
    assert "992 pixels in 1 photos are marked as unknown truth" in output.out and "failed: alone" in output.err
    rows = read_csv(tmp_path / "a.csv")
    assert float(rows[4]["image_sad"]) == 0 < float(rows[3]["image_sad"])
    assert [row["unknown_pixels"] for row in rows] == ["0"] * 4 + ["992"]


def levels(top: int, dtype: type = np.uint8, binary: bool = False) -> Callable[[np.ndarray], np.ndarray]:
    return lambda alpha: np.rint((alpha > 0.5 if binary else alpha) * top).astype(dtype)


# How a file is made from an alpha, and by how much it has to be multiplied; with two levels it is certainly no glass.
CERTAIN = {
    "0 and 1": (levels(1, binary=True), "255,"),
    "0 and 128": (levels(128, binary=True), "1.9922,"),
    "12 bits in 16": (levels(4095, np.uint16, binary=True), "16.004,"),
    "8 bits in 16": (levels(255, np.uint16), "257,"),  # not two levels, but so faint that nothing would be to be seen
}
DOUBTFUL = {
    "percent": (levels(100), "multiply it by 2.55,"),
    "14 bits in 16": (levels(16383, np.uint16), "multiply it by 4.0002,"),
    "trimap": (lambda alpha: np.where((alpha > 0) & (alpha < 1), 128, alpha * 255).astype(np.uint8), "a trimap"),
}


def rewrite(folder: Path, make: Callable[[np.ndarray], np.ndarray], names: str = "*") -> None:
    for path in sorted(folder.glob(f"{names}.png")):
        cv2.imwrite(str(path), make(cv2.imread(str(path), cv2.IMREAD_UNCHANGED) / 255))


@pytest.mark.parametrize(("make", "factor"), CERTAIN.values(), ids=CERTAIN)
def test_a_truth_of_another_scale_is_not_scored(folders, capsys, make, factor):
    rewrite(folders[1], make, "photo1")
    assert score(folders) == 1
    output = capsys.readouterr()
    (line,) = lines_with("failed: ", output.err)
    assert line.startswith(f"failed: photo1: {folders[1] / 'photo1.png'} reaches only") and line.endswith(".")
    assert f"multiply it by {factor}" in line and "4 photos" in output.out and "WARNING" not in output.out


@pytest.mark.parametrize(("make", "cure"), DOUBTFUL.values(), ids=DOUBTFUL)
def test_truths_that_may_be_a_glass_are_scored_and_noted(folders, tmp_path, capsys, make, cure):
    """All of them are hardly glasses, even where one photo shows nothing; the warning says so."""
    rewrite(folders[1], make, "photo[12]")
    assert score(folders) == 0
    (line,) = lines_with("WARNING", capsys.readouterr().out)
    assert line.startswith("WARNING: 2 of 5 truths may have a wrong scale.")
    assert str(folders[1] / "photo1.png") in line and cure in line and line.endswith(".")
    rewrite(folders[1], make, "photo[034]")
    write_alpha(folders[1] / "photo4.png", np.zeros((32, 32)))
    assert score(folders, "--json", tmp_path / "a.json", "--csv", tmp_path / "a.csv") == 0
    warnings = read_json(tmp_path / "a.json")["notes"][-1:]
    assert warnings == lines_with("WARNING", capsys.readouterr().out)
    assert warnings[0].startswith("WARNING: 4 of 5 truths have a wrong scale.")
    assert "fault" not in (tmp_path / "a.csv").read_text(encoding="utf-8")  # figures only


@pytest.mark.parametrize(("make", "cure"), [CERTAIN["0 and 128"], *DOUBTFUL.values()], ids=["0 and 128", *DOUBTFUL])
def test_mattes_that_all_have_another_scale_are_scored_and_noted(folders, capsys, make, cure):
    """Some may be faint or empty, as the mattes of a weak network are."""
    write_alpha(folders[0] / "photo2.png", np.zeros((32, 32)))
    rewrite(folders[0], make, "photo[01]")
    assert score(folders) == 0 and "WARNING" not in capsys.readouterr().out
    rewrite(folders[0], make, "photo[34]")
    assert score(folders) == 0
    (line,) = lines_with("WARNING", capsys.readouterr().out)
    assert f"all mattes of {folders[0]} may have a wrong scale" in line and cure in line


def test_a_trimap_is_a_truth_where_its_band_is_unknown(folders, tmp_path, capsys):
    (tmp_path / "unknown").mkdir()
    for path in folders[1].glob("*.png"):
        alpha = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        write_alpha(tmp_path / "unknown" / path.name, (alpha > 0) & (alpha < 255))
    rewrite(folders[1], DOUBTFUL["trimap"][0])
    assert score(folders, "--unknown", tmp_path / "unknown") == 0
    assert "WARNING" not in capsys.readouterr().out


@pytest.mark.parametrize("mask", [np.ones((32, 32), np.float32), np.zeros((8, 8), np.float32)], ids=["all", "size"])
def test_a_mask_that_does_not_serve_is_named(folders, tmp_path, capsys, mask):
    (tmp_path / "masks").mkdir()
    write_alpha(tmp_path / "masks" / "photo1.png", mask)
    assert score(folders, "--unknown", tmp_path / "masks") == 1
    (line,) = lines_with("failed: ", capsys.readouterr().err)
    assert line.startswith("failed: photo1: ") and line.endswith(".")


def test_composite_columns_from_the_photos(folders, tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    for name in ("photo0", "photo1", "photo2", "photo3", "nobodys"):
        write_image(tmp_path / "photos" / f"{name}.jpg", np.full((32, 32, 3), 90, dtype=np.uint8))
    assert score(folders, "--composite", "--images", tmp_path / "photos") == 1  # photo4 has none
    output = capsys.readouterr()
    assert "composite_green" in output.out and "failed: photo4" in output.err and "nobodys" not in output.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--predictions", "nowhere", "--ground-truth", "nowhere"],
        ["--checkpoint", "nowhere.safetensors", "--dataset", "nowhere", "--device", "cpu"],
        ["--checkpoint", "nowhere.safetensors", "--device", "abacus"],
    ],
    ids=["folder", "checkpoint", "device"],
)
def test_what_cannot_start_says_why_in_one_sentence(arguments, capsys):
    assert run(*arguments) == 2
    errors = capsys.readouterr().err.strip()
    assert errors.count("\n") == 0 and errors.endswith(".")


@pytest.mark.parametrize(
    "arguments",
    [["--predictions", "a"], ["--predictions", "a", "--ground-truth", "b", "--checkpoint", "c"], ["--workers", "-1"],
     ["--predictions", "a", "--ground-truth", "b", "--composite"], ["--checkpoint", "c", "--unknown", "d"]],
)  # fmt: skip
def test_flags_that_do_not_fit_together(arguments):
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert stop.value.code == 2


def test_torchrun_writes_the_same_json_as_one_process(folders, tmp_path):
    """Two processes for five photos, one of them unreadable."""
    (folders[0] / "photo2.png").write_bytes(b"no picture")
    assert score(folders, "--json", tmp_path / "one.json") == 1
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "evaluate.py",
               "--predictions", folders[0], "--ground-truth", folders[1], "--json", tmp_path / "two.json",
               "--workers", "1"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 1, done.stderr
    assert (tmp_path / "two.json").read_bytes() == (tmp_path / "one.json").read_bytes()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Untrained checkpoints with and without refiner, and a dataset of four photos."""
    root = tmp_path_factory.mktemp("trained")
    for use_refiner in (True, False):
        torch.manual_seed(0)
        options = dict(backbone="swin_tiny_patch4_window7_224", image_size=64, use_refiner=use_refiner)
        model = build_model(**options)
        for parameter in model.refiner.parameters() if use_refiner else ():
            torch.nn.init.normal_(parameter, std=0.5)  # the last layer is zero at first, and would change nothing
        folder = root / ("refined" if use_refiner else "coarse")
        folder.mkdir()
        config = dict(val_samples=2, seed=0)
        save_model(folder / MODEL_FILE, model, model_options=options, config=config, scores={})
    for name in ("im", "gt"):
        (root / "set" / "val" / name).mkdir(parents=True)
    for index in range(4):
        write_image(root / "set" / "val" / "im" / f"p{index}.png", np.uint8(255 * np.dstack([disc(index, 48)] * 3)))
        write_alpha(root / "set" / "val" / "gt" / f"p{index}.png", disc(index, 48))
    return {"refined": root / "refined", "coarse": root / "coarse", "set": root / "set"}


def measure(dataset: object, *arguments: object) -> int:
    return run("--dataset", dataset, "--workers", 0, "--device", "cpu", *arguments)


def test_a_checkpoint_on_a_dataset(trained, tmp_path, capsys):
    assert measure(trained["set"], "--checkpoint", trained["refined"], "--csv", tmp_path / "a.csv", "--dis") == 0
    output = capsys.readouterr().out
    assert "best.safetensors" in output and "TwinSwin" not in output and "binarised" in output
    assert [row["matte"] for row in read_csv(tmp_path / "a.csv")] == ["TSR-Matte"] * 4


def test_truths_of_another_scale_in_a_dataset(trained, tmp_path, capsys):
    """Refused before the network is asked, or noted; twice the mattes do not make twice the truths."""
    root = Path(shutil.copytree(trained["set"], tmp_path / "set"))
    rewrite(root / "val" / "gt", CERTAIN["0 and 1"][0], "p1")
    rewrite(root / "val" / "gt", DOUBTFUL["percent"][0], "p2")
    assert measure(root, "--compare", trained["refined"], "--figure", tmp_path / "c.png") == 1
    output = capsys.readouterr()
    assert f"failed: p1: {root / 'val' / 'gt' / 'p1.png'} reaches only 1 of 255" in output.err
    assert "WARNING: 1 of 3 truths may have a wrong scale. The first: " in output.out
    rewrite(root / "val" / "gt", CERTAIN["0 and 1"][0], "p[03]")
    (root / "val" / "gt" / "p2.png").unlink()
    assert measure(root, "--checkpoint", trained["coarse"]) == 1
    assert capsys.readouterr().err.count("reaches only 1 of") == 3


def test_the_synthetic_set_of_the_checkpoint(trained, tmp_path):
    assert measure("synthetic", "--checkpoint", trained["coarse"], "--json", tmp_path / "a.json") == 0
    report = read_json(tmp_path / "a.json")
    assert report["photos"] == 2 and list(report["mattes"]) == ["TwinSwin-Matte"]


@pytest.mark.parametrize("config", [{}, {"val_samples": 2}, {"val_samples": "2", "seed": 0}])
def test_a_checkpoint_that_names_no_synthetic_photos(trained, tmp_path, capsys, config):
    file, path = trained["coarse"] / "best.safetensors", tmp_path / "best.safetensors"
    save_model(path, load_model(file), model_options=read_metadata(file)["model"], config=config, scores={})
    assert measure("synthetic", "--checkpoint", path) == 2
    errors = capsys.readouterr().err.strip()
    assert errors.startswith(str(path)) and errors.endswith(".") and "\n" not in errors


def test_ranks_wait_for_the_one_with_the_large_photos(monkeypatch):
    waits = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "setup", lambda device, patience_minutes=30: waits.append(patience_minutes))
    evaluate.join_processes(None)
    assert waits == [distributed.LONG_PATIENCE_MINUTES]


def test_a_photo_without_its_alpha_is_named(trained, tmp_path, capsys):
    root = Path(shutil.copytree(trained["set"] / "val", tmp_path / "set"))
    write_image(root / "im" / "alone.png", np.zeros((8, 8, 3), np.uint8))
    assert measure(root, "--checkpoint", trained["coarse"]) == 1
    assert "failed: alone" in capsys.readouterr().err


def test_comparison_prints_side_by_side_and_draws(trained, tmp_path, capsys):
    """A single checkpoint is compared with its own coarse matte, where it has a refiner."""
    figure = tmp_path / "figures" / "compare.png"
    compare = ("--figure", figure, "--compare")
    assert measure(trained["set"], *compare, trained["refined"], trained["coarse"]) == 0
    output = capsys.readouterr().out
    assert all(label in output for label in ("A TwinSwin-Matte", "A TSR-Matte", "B TwinSwin-Matte"))
    assert cv2.imread(str(figure)).std() > 0
    assert measure(trained["set"], *compare, trained["refined"]) == 0
    assert "TwinSwin-Matte" in capsys.readouterr().out
    assert measure(trained["set"], *compare, trained["coarse"]) == 2


def test_a_figure_that_cannot_be_written_loses_nothing(trained, tmp_path, capsys, monkeypatch):
    figure, table, report = tmp_path / "figures" / "compare.png", tmp_path / "a.csv", tmp_path / "a.json"

    def full_disk(source: object, target: Path) -> None:
        if Path(target) == figure:
            raise OSError(28, "No space left on device")
        rename(source, target)

    rename = os.replace
    monkeypatch.setattr(os, "replace", full_disk)
    files = ("--csv", table, "--json", report, "--figure", figure)
    assert measure(trained["set"], "--compare", trained["refined"], *files) == 2
    output = capsys.readouterr()
    assert "image  sad" in output.out and table.exists() and report.exists()
    assert output.err.splitlines()[-1].startswith(f"{figure} cannot be written (No space left on device)")
    assert not list(figure.parent.iterdir())


def test_the_figure_shows_largest_median_and_smallest_difference(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(plots, "comparison", lambda path, rows, pair: drawn.extend(row["name"] for row in rows))
    monkeypatch.setattr(checkpoints, "predict_sources", lambda sources, image: {})
    dataset = [{"name": f"p{i}", "image": torch.zeros(3, 4, 4), "alpha": torch.zeros(1, 4, 4)} for i in range(5)]
    rows = [{"index": i, "difference": d} for i, d in enumerate([0.2, 0.5, 0.1, 0.9, 0.3])]
    sources = [MatteSource("A", None, COARSE), MatteSource("B", None, REFINED)]
    checkpoints.draw_comparison(tmp_path / "c.png", sources, dataset, rows)
    assert drawn == ["p3", "p4", "p2"]
