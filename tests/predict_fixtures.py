"""What the tests of predict.py share: a small random network, and photos."""

from __future__ import annotations

import functools
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import predict
from inference import loading
from models import build_model, checkpoint

OPTIONS = dict(backbone="swin_tiny_patch4_window7_224", image_size=64, use_refiner=True)
Run = Callable[..., int]


@functools.cache
def load_once(path: Path, device: torch.device) -> torch.nn.Module:
    return checkpoint.load_model(path, device)


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """best.safetensors of a random network, in a run folder in a folder of runs."""
    torch.manual_seed(0)
    model = build_model(**OPTIONS)
    torch.nn.init.normal_(model.refiner.head.weight, std=0.003)  # at 0 the refiner does nothing, at 0.01 it saturates
    path = tmp_path_factory.mktemp("work") / "checkpoints" / "run" / checkpoint.MODEL_FILE
    path.parent.mkdir(parents=True)
    checkpoint.save_model(path, model, model_options=OPTIONS, config={}, scores={})
    return path


@pytest.fixture
def run(model_file: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """predict.main in this process, with the small network, which is loaded once for all tests."""
    monkeypatch.setattr(loading, "load", load_once)

    def call(*arguments: object, named: bool = True) -> int:
        checkpoint_flags = ["--checkpoint", str(model_file)] if named else []
        return predict.main(["--device", "cpu", *map(str, arguments), *checkpoint_flags])

    return call


def stop_at(monkeypatch: pytest.MonkeyPatch, count: int) -> list[int]:
    """SIGTERM comes while the network has its photo or frame of this number (from 1); returns a list of the calls."""
    network, calls = predict.predict_alpha, []

    def stop_at_that(*arguments: object, **options: object) -> torch.Tensor:
        calls.append(len(calls) + 1)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)  # the main thread gets to it
        return network(*arguments, **options)

    monkeypatch.setattr(predict, "predict_alpha", stop_at_that)
    return calls


def picture(seed: int = 0, height: int = 24, width: int = 36) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path: Path, image: np.ndarray | None = None, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture() if image is None else image).save(path, **options)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    """Path below the folder -> bytes, of every file but the manifest."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


def manifest_of(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


def flat_mattes(value: float):
    """In place of the network: the same alpha everywhere."""

    def predict_flat(model, image, **options) -> torch.Tensor:
        return torch.full((1, *image.shape[-2:]), value)

    return predict_flat
