"""benchmarks/training.py on a network of a few thousand weights: what a row holds, and what it costs the others."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import torch

import benchmark
from experiments import benchmark_training as training
from tests.tiny import build_tiny

FLAGS = ("--train", "--sizes", "32", "--variants", "tiny", "--repeats", "1", "--device", "cpu", "--options")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "build_model", build_tiny)
    monkeypatch.setattr(training, "matrix_peak", lambda *_: 1e12)


def rows_of(folder: Path, *flags: str) -> list[dict]:
    assert benchmark.main([*FLAGS, *flags, "--json", str(folder / "rows.json")]) == 0
    return json.loads((folder / "rows.json").read_text())


def test_peak_is_read_before_other_measurements_begin_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure, highest = training.measure, [0]

    @contextlib.contextmanager
    def peak_memory(device: torch.device):
        highest[0] = 5
        yield lambda: highest[0]

    def measure_anew(*arguments):
        highest[0] = 1  # as torch.cuda.reset_peak_memory_stats does
        return measure(*arguments)

    monkeypatch.setattr(training, "peak_memory", peak_memory)
    monkeypatch.setattr(training, "measure", measure_anew)
    assert rows_of(tmp_path, "no-teacher")[0]["peak"] == 5


def test_a_compiled_step_is_not_divided_into_parts_that_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.trainer.torch.compile", lambda model: model)
    plain, compiled = rows_of(tmp_path, "teacher", "compile")
    assert plain["shares"].keys() > {"decoder", "data"} and compiled["shares"] == {} and compiled["seconds"] > 0


def test_a_row_without_memory_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    measure_step = training.measure_step

    def measure_small(config, *arguments):
        if config.use_teacher:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return measure_step(config, *arguments)

    monkeypatch.setattr(training, "measure_step", measure_small)
    rows = rows_of(tmp_path, "teacher", "no-teacher")
    assert [row.get("error") for row in rows] == ["out of memory", None] and rows[1]["seconds"] > 0
    assert "teacher out of memory\n" in capsys.readouterr().out


@pytest.mark.parametrize("workers", ["0", "1"])
def test_fed_steps_show_a_loader_that_starves_them(
    workers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (row,) = rows_of(tmp_path, "no-teacher", "--dataset", "synthetic", "--steps", "2", "--num-workers", workers)
    assert row["fed"]["steps"] == 2 and row["fed"]["workers"] == int(workers)
    assert row["fed"]["seconds"] > 0 and 0 < row["fed"]["waiting_share"] < 1
    assert f"of the time waiting for it ({workers} workers)" in capsys.readouterr().out


def test_a_data_set_that_is_not_there_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert benchmark.main([*FLAGS, "no-teacher", "--dataset", str(tmp_path / "none")]) == 2
    printed = capsys.readouterr()
    assert "none is not there" in printed.err and printed.err.count("\n") == 1 and "images/s" not in printed.out
