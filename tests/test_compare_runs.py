"""experiments.compare_runs: two runs whose figures are known by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from common import plots
from config import Config
from experiments import compare_runs
from experiments.ablation_tables import COLUMNS
from training.log import LOG_FILE, write_log
from training.pictures import draw_runs
from training.run_folder import write_settings


def make_run(folder: Path, mads: list[float], matte: str = "refined", **settings: object) -> Path:
    """A run as train.py leaves it: an epoch of the teacher, then one of 10 steps and half an hour for each MAD.

    SAD is best in the last epoch, whatever the MAD.
    """
    folder.mkdir(parents=True)
    rows = [{"epoch": 1, "stage": "teacher", "step": 10, "seconds": 1800.0, "loss": 9.0, "teacher_l1": 0.5}]
    for epoch, mad in enumerate(mads, 2):
        row = {"epoch": epoch, "stage": "student", "step": 10 * epoch, "seconds": 1800.0, "loss": 2 * mad}
        for kind in dict.fromkeys(("coarse", matte)):
            row |= {f"val_{kind}_{name}": mad * (2 if kind != matte else 1) for name in COLUMNS.values()}
            row[f"val_{kind}_image_sad"] = 5.0 - epoch
        rows.append(row)
    write_log(folder, rows)
    write_settings(folder, dataclasses.replace(Config(), **settings).as_dict())
    return folder


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    first = make_run(tmp_path / "with", [0.3, 0.1, 0.2], batch_size=8, output="here")
    return first, make_run(tmp_path / "without", [0.4, 0.25], "coarse", batch_size=4, use_refiner=False)


def test_best_epochs_and_settings_that_differ(two, tmp_path, capsys):
    assert compare_runs.main([*map(str, two), "--figure", str(tmp_path / "new" / "a.png")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "| with | refined | 3 of 4 | 30 | 1.50 | 2 | 0.1 | 0.1 | 0.1 | 0.1 | 0.1 | 0.1 | 0.1 |" in lines
    assert "| without | coarse | 3 of 3 | 30 | 1.50 | 2 | 0.25 | 0.25 | 0.25 | 0.25 | 0.25 | 0.25 | 0.25 |" in lines
    start = lines.index("| setting | with | without |") + 2
    assert set(lines[start : start + 2]) == {"| use_refiner | True | False |", "| batch_size | 8 | 4 |"}
    assert lines[start + 2] == "" and "different photos" not in "".join(lines)
    assert (tmp_path / "new" / "a.png").read_bytes().startswith(b"\x89PNG")


def test_the_curves_are_those_of_the_matte_that_is_shipped(two, tmp_path, monkeypatch):
    figures: list[Figure] = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: figures.append(figure))
    draw_runs(tmp_path / "a.png", {run.name: compare_runs.read_log(run) for run in two})
    loss, mad = ({line.get_label(): line for line in axis.lines} for axis in figures[0].axes[:2])
    steps, values = loss["with"].get_data()
    assert list(steps) == [20, 30, 40]  # without the teacher's epoch, whose loss sums other terms
    assert list(values) == [0.6, 0.2, 0.4]
    assert list(mad["with, refined"].get_ydata()) == [0.3, 0.1, 0.2]
    assert list(mad["without, coarse"].get_ydata()) == [0.4, 0.25]


def test_other_validation_photos_are_pointed_out(two, tmp_path, capsys):
    other = make_run(tmp_path / "other", [0.2], dataset=("mine", "synthetic"), batch_size=8)
    figure = ["--figure", str(tmp_path / "a.png")]
    assert compare_runs.main([str(two[0]), str(other), *figure]) == 0
    out = capsys.readouterr().out
    assert "| dataset | Datasets/DIS5K_Flat | mine synthetic |" in out
    assert "different photos (dataset)" in out and "evaluate.py --compare" in out
    assert compare_runs.main([str(two[0]), str(two[0]), *figure]) == 0
    assert "All settings are the same." in capsys.readouterr().out


def test_runs_of_one_name_go_by_their_paths_and_one_may_be_young(two, tmp_path, capsys):
    young = make_run(tmp_path / "elsewhere" / "with", [])
    assert compare_runs.main([str(two[0]), str(young), "--figure", str(tmp_path / "a.png")]) == 0
    out = capsys.readouterr().out
    assert f"| {two[0]} | refined | 3 of 4 |" in out and f"| {young} |  | none of 1 validated |" in out


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda run: (run / LOG_FILE).unlink(), "cannot be read"),
        (lambda run: (run / LOG_FILE).write_text(""), "cannot be read"),
        (lambda run: (run / LOG_FILE).write_text("epoch,step\n"), "has no epochs"),
        (lambda run: (run / LOG_FILE).write_text("a,b\n1,2\n"), "has no epochs"),
        (lambda run: (run / "config.json").unlink(), "config.json cannot be read"),
        (lambda run: (run / "config.json").write_text("{"), "config.json cannot be read"),
    ],
)
def test_what_is_no_run_is_one_sentence(spoil, sentence, two, tmp_path, capsys):
    spoil(two[1])
    assert compare_runs.main([*map(str, two), "--figure", str(tmp_path / "a.png")]) == 2
    error = capsys.readouterr().err
    assert sentence in error and str(two[1]) in error and error.count("\n") == 1
    assert not (tmp_path / "a.png").exists()
