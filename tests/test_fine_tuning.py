"""What a run starts from, how it is measured, what ends it early, and what a full disk costs it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

import matting
import train
from data.synthetic.dataset import SyntheticDataset
from evaluation import validation
from models import checkpoint
from tests import run_fixtures
from tests.kill_test import differences, read_log
from tests.run_fixtures import fit
from tests.tiny import FLAGS, build_tiny
from training import pictures, setup
from training.checkpoint import load_training_state
from training.flags import config_from_flags, parse_flags

tiny = run_fixtures.tiny  # pytest finds fixtures by name in the module


@pytest.mark.parametrize(
    "flags, pretrained",
    [
        ((), True),
        (("--no-use-teacher",), True),
        (("--init-from", "."), True),
        (("--init-from", ".", "--no-pretrained"), False),
        (("--recipe", "fine-tune", "--init-from", "."), False),
    ],
)
def test_fine_tuning_needs_pretrained_weights_for_a_teacher_only(
    flags: tuple, pretrained: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(setup, "build_model", lambda **options: seen.append(options["pretrained"]) or build_tiny())
    monkeypatch.setattr(setup, "build_teacher", lambda network, **options: seen.append(options["pretrained"]))
    monkeypatch.setattr(setup, "load_initial_weights", lambda *_: None)
    for state in (None, {"teacher": None}):
        setup.build_networks(config_from_flags(parse_flags(None, flags)), state)
    assert any(seen) == pretrained and seen[-1] is False


def test_fine_tuning_keeps_the_checkpoints_working_size_unless_told_otherwise(tmp_path: Path) -> None:
    trained = fit(tmp_path, "--epochs", "1", "--train-samples", "2")  # at 32 pixels
    start = ("--output", str(tmp_path), "--init-from", str(trained))
    for flags, size in (
        (start, 32),
        ((*start, "--recipe", "fine-tune", "--crop-size", "64"), 32),
        ((*start, "--image-size", "64"), 64),
        ((*start, "--recipe", "starter-refiner"), 128),  # a recipe's own size
        (("--init-from", str(tmp_path / "none")), 0),  # that it is not there is said where it is loaded
        ((), 0),
    ):
        parsed = parse_flags(None, flags)
        setup.keep_working_size(parsed)
        assert config_from_flags(parsed).image_size == size, flags


def test_fine_tuning_is_measured_before_its_first_step(tmp_path: Path) -> None:
    few = ("--epochs", "1", "--train-samples", "4")
    first = fit(tmp_path / "first", *few, "--ema-decay", "0")
    second = fit(tmp_path / "second", *few, "--init-from", str(first), "--learning-rate", "1e-9")
    rows = read_log(second)
    assert [row["epoch"] for row in rows] == ["0", "1"] and rows[0]["step"] == "0" and rows[0]["loss"] == ""
    name = "val_refined_image_sad"
    assert rows[0][name] == read_log(first)[-1][name]
    groups = load_training_state(second)["stage"]["optimizer"]["param_groups"]
    assert {g["lr_scale"] for g in groups if g["name"].startswith("student")} == {0.25}


def test_a_trained_twinswin_may_get_a_refiner_but_not_lose_one(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    few = ("--epochs", "1", "--train-samples", "4")
    twin = fit(tmp_path / "twin", *few, "--no-use-refiner") / "best.safetensors"
    row = read_log(fit(tmp_path / "tsr", *few, "--init-from", str(twin)))[0]
    assert row["epoch"] == "0"  # smart initialization: before the first step the new refiner changes nothing
    assert row["val_refined_image_sad"] == row["val_coarse_image_sad"]
    tsr = fit(tmp_path / "whole", *few) / "best.safetensors"
    fit(tmp_path / "whole", *few, "--no-use-refiner", "--init-from", str(tsr), code=2)
    assert "use_refiner True, here False" in capsys.readouterr().err


def test_a_long_epoch_is_validated_within_and_the_end_names_the_best(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    flags = ("--epochs", "2", "--train-samples", "8", "--no-use-teacher", "--tag", "mine", "--no-keep-previous")
    often = fit(tmp_path / "often", *flags, "--validate-every-steps", "3")
    printed = capsys.readouterr().out
    rows = read_log(often)
    assert [(row["epoch"], row["step"]) for row in rows] == [("1", "3"), ("1", "4"), ("2", "6"), ("2", "8")]
    assert all(row["val_refined_image_mad"] for row in rows)
    assert f"Next: python predict.py --checkpoint {often}/best.safetensors" in printed
    assert "TSR-Matte_SwinTiny_mine_" in often.name and sorted(f.name for f in often.glob("*.pt")) == ["last.pt"]
    assert printed.count("Best: MAD") == 1 and "min left" in printed and " GB (" in printed
    plain = fit(tmp_path / "plain", *flags)  # what is measured in between changes nothing
    states = [load_training_state(folder) for folder in (often, plain)]
    assert differences(*(state["network"] for state in states)) == []
    fit(tmp_path / "plain", "--resume", "--epochs", "8")
    assert "the learning rate rises from" in capsys.readouterr().out
    fit(tmp_path / "one", "--epochs", "1", "--train-samples", "2")
    assert "1 epochs leave 0 for the teacher" in capsys.readouterr().out


def replace_scores(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> None:
    """Let the validations to come find these for the figure that decides."""
    measure, left = validation.validate_sets, iter(scores)

    def measured(*arguments, **options):
        result = measure(*arguments, **options)
        return result._replace(figures=result.figures | {"refined_image_mad": next(left)})

    monkeypatch.setattr(validation, "validate_sets", measured)


def test_early_stop_and_time_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_scores(monkeypatch, [3.0, 1.0, 2.0, math.nan, 0.5])
    folder = fit(tmp_path, "--epochs", "9", "--train-samples", "2", "--early-stop-epochs", "2")
    # five: the teacher's, and four of the student's
    assert len(read_log(folder)) == 5 and "stopped early" in capsys.readouterr().out
    assert checkpoint.read_metadata(folder / "best.safetensors")["scores"]["refined_image_mad"] == 1.0
    folder = fit(tmp_path / "limited", "--epochs", "9", "--train-samples", "8", "--max-hours", "1e-9")
    assert "1 of 4 batches, all saved" in capsys.readouterr().out


def test_photos_that_cannot_be_loaded_end_the_run_in_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self, key: tuple[int, int]) -> dict:
        raise RuntimeError("8 samples in a row cannot be read.")

    monkeypatch.setattr(SyntheticDataset, "__getitem__", fail)
    for workers in ("0", "1"):
        fit(tmp_path, "--train-samples", "4", "--num-workers", workers, code=1)
        error = capsys.readouterr().err
        assert "8 samples in a row cannot be read" in error and "Traceback" not in error


def test_what_a_full_disk_or_a_broken_photo_costs(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_) -> None:
        raise OSError(28, "No space left on device")

    def broken(*_) -> list:
        raise ValueError("cat.png cannot be read.")

    monkeypatch.setattr(train, "save_training_state", full)
    monkeypatch.setattr(pictures, "preview_rows", broken)
    assert train.main([*FLAGS, "--output", str(tmp_path), "--epochs", "2", "--train-samples", "4"]) == 0
    (folder,) = tmp_path.iterdir()  # no state, so it is no run to resume
    printed = capsys.readouterr().out
    assert "No space left" in printed and "preview could not be made: cat.png" in printed
    assert len(read_log(folder)) == 2


def test_a_best_that_a_full_disk_did_not_keep_is_not_the_best(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def full_at_first(*arguments, **options) -> None:
        calls.append(1)
        if len(calls) == 1:
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        checkpoint.save_model(*arguments, **options)

    monkeypatch.setattr("training.checkpoint.save_model", full_at_first)
    replace_scores(monkeypatch, [1.0, 3.0, 2.0])
    folder = fit(tmp_path, "--epochs", "3", "--train-samples", "2", "--no-use-teacher")
    printed = capsys.readouterr().out
    assert "could not be written (Error while serializing: I/O error: No space left" in printed
    assert printed.count("  best") == 2 and len(read_log(folder)) == 3
    assert checkpoint.read_metadata(folder / "best.safetensors")["scores"]["refined_image_mad"] == 2.0
    progress = load_training_state(folder)["progress"]
    assert (progress["best_score"], progress["best_epoch"]) == (2.0, 3)


def test_validation_predicts_in_the_precision_of_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predict, seen = matting.predict_mattes, set()
    monkeypatch.setattr(
        matting,
        "predict_mattes",
        lambda *arguments, precision: seen.add(precision) or predict(*arguments, precision=precision),
    )
    for amp in ("off", "bf16"):
        fit(tmp_path / amp, "--epochs", "1", "--train-samples", "2", "--amp", amp)
    assert seen == {torch.float32, torch.bfloat16}
