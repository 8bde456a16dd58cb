"""benchmark.py on a network of a few thousand weights: what a row holds, and that a failed row leaves the others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import benchmark
from common.photos import write_image
from experiments import benchmark_prediction as prediction
from experiments import benchmark_training as training
from experiments.measuring import measure, peak_memory
from tests.tiny import build_tiny, use_tiny_networks

COMMON = ("--sizes", "32", "--variants", "tiny", "--repeats", "1", "--device", "cpu")
TRAIN = ("--train", *COMMON, "--options")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_networks(monkeypatch)
    monkeypatch.setattr(prediction, "build_model", build_tiny)
    for module in (training, prediction):
        monkeypatch.setattr(module, "matrix_peak", lambda *_: 1e12)


def rows_of(folder: Path, *flags: str) -> list[dict]:
    assert benchmark.main([*flags, "--json", str(folder / "deep" / "rows.json")]) == 0
    return json.loads((folder / "deep" / "rows.json").read_text())


def test_time_and_memory_are_those_of_the_call() -> None:
    measure(lambda: torch.ones(25_000_000), CPU, repeats=1)  # the first call also loads the code that it runs
    result = measure(lambda: torch.ones(25_000_000), CPU, repeats=2)  # 95 MB
    assert 0 < result.seconds < 5
    assert result.megabytes is None or 90 < result.megabytes < 130


def test_memory_that_was_freed_before_does_not_count() -> None:
    torch.ones(20_000_000)
    with peak_memory(CPU) as peak:
        torch.ones(1000)
    assert peak() is None or peak() < 40e6


def test_prediction_is_measured_by_part(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    portrait, worst = rows_of(tmp_path, *COMMON, "--working-size", "32")
    assert worst["refined"] == 1 and portrait["photo"] == "portrait"
    for part in ("encoder", "decoder", "refiner", "refiner, no gate", "writing", "all"):
        assert portrait[f"{part} s"] > 0
    assert "worst" in capsys.readouterr().out


def test_real_photos_are_measured_by_part_and_octave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction, "load_model", lambda *_: build_tiny(image_size=32).eval())
    write_image(tmp_path / "photo.png", torch.randint(0, 256, (128, 100, 3), dtype=torch.uint8).numpy())
    photo, native, half, quarter = rows_of(tmp_path, "--photos", str(tmp_path), "--device", "cpu")
    assert photo["size"] == "100x128" and photo["writing s"] > 0 and photo["encoder s"] > 0
    assert [row["photo"] for row in (native, half, quarter)] == [f"all, 1/{n} size" for n in (1, 2, 4)]
    assert sum(row["refiner s"] for row in (native, half, quarter)) == pytest.approx(photo["refiner s"])
    assert 0 <= photo["uncertain"] <= photo["refined"] <= 1 and photo["of peak"] < 1


def test_a_compiled_step_is_not_divided_into_parts_that_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.run.torch.compile", lambda model, **_: model)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    plain, compiled = rows_of(tmp_path, *TRAIN, "teacher", "compile", "--profile")
    assert torch.backends.cudnn.benchmark  # as train.py has it
    assert plain["host s"] > 0 and plain["kernels"] == 0 < plain["estimated GB"]
    assert {"teacher", "decoder", "loss", "rest", "loader"} <= plain.keys() and "student" not in plain
    assert "decoder" not in compiled and compiled["s/step"] > 0


def test_a_row_without_memory_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    measure_step = training.measure_step

    def measure_small(config, *arguments):
        if config.use_teacher:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return measure_step(config, *arguments)

    monkeypatch.setattr(training, "measure_step", measure_small)
    rows = rows_of(tmp_path, *TRAIN, "teacher", "no-teacher")
    assert [row.get("error") for row in rows] == ["out of memory", None] and rows[1]["s/step"] > 0
    assert "out of memory" in capsys.readouterr().out


def test_ctrl_c_prints_the_rows_so_far(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    results = iter([{"s/step": 1.5}])

    def measure_once(*arguments):
        try:
            return next(results)
        except StopIteration:
            raise KeyboardInterrupt from None

    monkeypatch.setattr(training, "measure_step", measure_once)
    assert benchmark.main([*TRAIN, "teacher", "no-teacher"]) == 130
    assert "1.5" in capsys.readouterr().out


@pytest.mark.parametrize("workers", ["0", "1"])
def test_fed_steps_show_a_loader_that_starves_them(workers: str, tmp_path: Path) -> None:
    flags = ("--dataset", "synthetic", "--steps", "2", "--num-workers", workers)
    (row,) = rows_of(tmp_path, *TRAIN, "no-teacher", *flags)
    assert row["workers"] == int(workers) and row["fed s/step"] > 0 and 0 < row["waiting"] < 1


@pytest.mark.parametrize("flags", [(*TRAIN, "no-teacher", "--dataset"), ("--loader",)])
def test_a_data_set_that_is_not_there_is_one_sentence(
    flags: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert benchmark.main([*flags, str(tmp_path / "none")]) == 2
    printed = capsys.readouterr()
    assert "none" in printed.err and printed.err.count("\n") == 1 and "images/s" not in printed.out
