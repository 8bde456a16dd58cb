"""config.py, and what train.py says before it starts."""

from __future__ import annotations

import argparse
import dataclasses
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

import train
from common.errors import UserError
from config import Config
from tests.tiny import FLAGS, MACHINE, use_tiny_networks
from training.flags import add_config_flags, config_from_dict, config_from_flags
from training.recipes import RECIPES


def parse(*argv: str) -> Config:
    parser = argparse.ArgumentParser()
    add_config_flags(parser)
    return config_from_flags(parser.parse_args(argv))


def other(value: object) -> object:
    return not value if isinstance(value, bool) else {int: 7, float: 0.125, str: "x", tuple: ("a", "b*2")}[type(value)]


@pytest.mark.parametrize("field", dataclasses.fields(Config), ids=lambda field: field.name)
def test_every_field_has_a_flag_and_a_line(field: dataclasses.Field) -> None:
    assert len(field.metadata["text"]) > 10
    value, flag = other(field.default), "--" + field.name.replace("_", "-")
    parser = argparse.ArgumentParser()
    add_config_flags(parser)
    if isinstance(value, bool):
        argv = [flag if value else flag.replace("--", "--no-", 1)]
    else:
        argv = [flag, *map(str, value if isinstance(value, tuple) else [value])]
    assert vars(parser.parse_args(argv)) == {field.name: list(value) if isinstance(value, tuple) else value}


def test_flags_override_and_nothing_else_changes() -> None:
    assert parse() == Config()
    assert parse("--epochs", "3", "--no-use-refiner") == dataclasses.replace(Config(), epochs=3, use_refiner=False)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_holds_but_for_the_flags_beside_it(name: str) -> None:
    config = parse("--recipe", name, "--epochs", "3")
    assert config == dataclasses.replace(Config(), **(RECIPES[name] | {"epochs": 3}))
    assert config != parse("--epochs", "3")


@pytest.mark.parametrize(
    "setting",
    [
        {"crop_scale_min": 3.0},
        {"epochs": 0},
        {"batch_size": -1},
        {"learning_rate": 0.0},
        {"model_idx": 9},
        {"image_size": 16},
        {"amp": "half"},
        {"lr_schedule": "poly"},
        {"ema_decay": 1.0},
        {"drop_path": 1.0},
        {"num_workers": -2},
        {"refiner_channels": 24},
        {"foregrounds": ("there",)},
        {"gradient_clip": -1.0},
        {"max_hours": -1.0},
        {"weight_l1": -0.5},
        {"max_bad_steps": 0},
        {"seed": -1},
        {"encoder_lr_scale": -0.1},
        {"refiner_lr_scale": 0.0},
        {"learning_rate": math.inf},
        {"gradient_clip": math.nan},
    ],
    ids=str,
)
def test_impossible_values_are_named(setting: dict) -> None:
    with pytest.raises(UserError) as error:
        Config(**setting)
    assert next(iter(setting)) in str(error.value) and str(error.value).endswith(".") and "\n" not in str(error.value)


def test_stored_config_returns_as_it_was() -> None:
    config = Config(epochs=5, ema_decay=0.5, dataset=("synthetic", "mine*2"))
    assert config_from_dict(config.as_dict(), "config.json") == config
    older = {name: value for name, value in config.as_dict().items() if name != "tensorboard"}
    assert config_from_dict(older, "config.json") == config
    assert config_from_dict({"max_hours": 2}, "config.json").max_hours == 2


@pytest.mark.parametrize(
    "values, part",
    [
        ({"moon": 1}, "moon"),
        ({"epochs": "5"}, "epochs = '5'"),
        ({"epochs": True}, "epochs = True"),
        ({"epochs": 0}, "epochs is 0"),
        ({"dataset": "mine"}, "dataset = 'mine': it must be a list of names"),
        ({"dataset": [1]}, "must be a list of names"),
    ],
)
def test_stored_config_that_cannot_work(values: dict, part: str) -> None:
    with pytest.raises(UserError, match=part):
        config_from_dict(values, "config.json")


def test_derived_values() -> None:
    assert Config(model_idx=2).working_size == 1024 and Config(image_size=64).working_size == 64
    assert Config().method == "TSR-Matte" and Config(use_refiner=False).method == "TwinSwin-Matte"


@pytest.mark.parametrize(
    "flags, part",
    [
        (["--epochs", "0"], "epochs is 0"),
        (["--dataset", "no/such/folder"], "is not there"),
        (["--device", "warp"], "choose another with --device"),
        (["--amp", "fp16"], "fp16 does not work on a CPU"),
        (["--init-from", "missing.safetensors"], "or its run folder, with --init-from"),
        (["--init-from", "."], "best.safetensors does not exist"),
        (["--output", "/dev/null/runs"], "cannot be made"),
        (["--foregrounds", "a", "--backgrounds", "b"], "a cannot be listed"),
        (["--resume"], "holds no run"),
    ],
)
def test_bad_settings_are_one_sentence(
    flags: list[str], part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    use_tiny_networks(monkeypatch)
    monkeypatch.chdir(tmp_path)
    assert train.main([*FLAGS, "--output", str(tmp_path / "runs"), *flags]) == 2
    error = capsys.readouterr().err
    assert part in error and error.count("\n") == 1 and not (tmp_path / "runs").exists()


def test_tensorboard_is_asked_for_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("training.report.importlib.util.find_spec", lambda name: None)
    assert train.main([*FLAGS, "--output", str(tmp_path / "runs"), "--tensorboard"]) == 2
    assert "pip install tensorboard" in capsys.readouterr().err and not (tmp_path / "runs").exists()


def test_a_faulty_folder_is_found_before_the_first_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    use_tiny_networks(monkeypatch)
    for split in ("train", "val"):
        for folder, shape in (("im", (40, 50, 3)), ("gt", (40, 50))):
            (tmp_path / split / folder).mkdir(parents=True)
            cv2.imwrite(str(tmp_path / split / folder / "cat.png"), np.full(shape, 128, np.uint8))
    flags = [*MACHINE, "--batch-size", "1", "--epochs", "1", "--dataset", str(tmp_path)]
    flags += ["--output", str(tmp_path / "runs")]
    cv2.imwrite(str(tmp_path / "train" / "gt" / "cat.png"), np.zeros((10, 10), np.uint8))
    assert train.main(flags) == 2
    assert "cat.png" in capsys.readouterr().err and not (tmp_path / "runs").exists()
    cv2.imwrite(str(tmp_path / "train" / "gt" / "cat.png"), np.full((40, 50), 128, np.uint8))
    assert train.main(flags) == 0
