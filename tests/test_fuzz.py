"""Damaged files of every kind through whole commands: no traceback, no hang, and every file accounted for.

Seeds are fixed: the same files each time. The network is replaced by one that costs nothing.
"""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from make_film import make_film
from make_mixed_folder import by_opencv, encoded, see_through, turned
from PIL import Image

import predict
from common.errors import UserError
from data.check import check_dataset
from data.quick_check import quick_check
from inference import loading, options
from models import build_model, checkpoint
from tests.tiny import TinyEncoder

SECONDS = 60  # of one test; a hang would be longer
OPTIONS = dict(backbone="swin_tiny_patch4_window7_224", image_size=64, refiner_channels=16, refiner_blocks=1)


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def end(*_: object) -> None:
        pytest.fail(f"not done after {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def picture(seed: int, height: int = 24, width: int = 36) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Bytes changed, taken out and put in, in headers more often, or the end cut off."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 2, 8))):
        at = chance.randrange(max(1, min(len(changed), chance.choice((60, 400, len(changed))))))
        length = chance.choice((0, 1, 4, 100))
        changed[at : at + length] = chance.randbytes(chance.choice((length, 0, 4)))
    return bytes(changed[: chance.randrange(len(changed) + 1)] if chance.random() < 0.2 else changed)


def matte_folder(folder: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[int, list[dict]]:
    """predict.py on a folder with a network that takes the red for the alpha; its exit code and its manifest's rows."""
    monkeypatch.setattr(predict, "find_model", lambda *_: Path(__file__))
    monkeypatch.setattr(loading, "load", lambda *_: None)
    monkeypatch.setattr(predict, "predict_alpha", lambda model, image, **_: image[:1].float() / 255)
    code = predict.main(["--input", str(folder), "--output", str(output), "--device", "cpu"])
    return code, json.loads((output / "manifest.json").read_text(encoding="utf-8"))["files"]


def check_rows(rows: list[dict], names: set[str], output: Path) -> tuple[int, int]:
    """Each input has one row, with an output that is there or a sentence that names it; returns how many of each."""
    assert {Path(row["input"]).name for row in rows} == names and len(rows) == len(names)
    for row in rows:
        if row["output"] is None:
            assert row["error"].startswith(row["input"]) and row["error"].endswith(".")
            assert "could not be done" not in row["error"], row["error"]  # what nobody foresaw
        else:
            assert (output / row["output"]).exists()
    failed = sum(row["output"] is None for row in rows)
    return len(rows) - failed, failed


def photo_bytes() -> dict[str, bytes]:
    image = picture(0)
    return {
        ".jpg": turned(image, 6),
        ".png": encoded(image, "PNG"),
        ".webp": encoded(see_through(image), "WEBP"),
        ".tif": encoded(image, "TIFF", compression="tiff_lzw"),
        ".bmp": encoded(image, "BMP"),
        ".gif": encoded(image, "GIF"),
        ".tiff": by_opencv(image, ".tiff"),
        ".PNG": by_opencv(image, ".png"),
        ".jpeg": encoded(Image.fromarray(image).convert("CMYK"), "JPEG"),
        ".jfif": encoded(image, "JPEG", progressive=True),
    }


def test_300_photos_through_predict(tmp_path, monkeypatch, capsys):
    chance, names = random.Random(0), set()
    (tmp_path / "in").mkdir()
    for suffix, whole in photo_bytes().items():
        for number in range(30):
            path = tmp_path / "in" / f"{suffix[1:]}_{number}{suffix}"
            path.write_bytes(mutated(whole, chance))
            names.add(path.name)
    code, rows = matte_folder(tmp_path / "in", tmp_path / "out", monkeypatch)
    done, failed = check_rows(rows, names, tmp_path / "out")
    assert code == 1 and done > 50 and failed > 50 and len(rows) == 300
    assert capsys.readouterr().err.count("failed: ") == failed


FILMS = {"a.avi": "mjpeg", "b.mp4": "libx264", "c.mkv": "ffv1", "d.webm": "libvpx-vp9", "e.ts": "mpeg2video"}
FILMS["f.mov"] = "prores_ks"


@pytest.mark.parametrize("form", ["mp4", "png"])
def test_60_films_through_predict(tmp_path, monkeypatch, form):
    chance, names = random.Random(1), set()
    for name, codec in FILMS.items():
        pixels = {"prores_ks": "yuva444p10le"}.get(codec)
        sounds = ["aac"] if name.endswith((".mp4", ".mkv", ".ts")) else []
        pictures = [picture(number) for number in range(4)]
        whole = make_film(tmp_path / name, pictures, codec, pixels, rate=25, sounds=sounds, seconds=0.2).read_bytes()
        for number in range(10):
            path = tmp_path / "in" / f"{number}_{name}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(mutated(whole, chance))
            names.add(path.name)
    monkeypatch.setattr(options, "USUAL_VIDEO", {"alpha": form})
    code, rows = matte_folder(tmp_path / "in", tmp_path / "out", monkeypatch)
    done, failed = check_rows(rows, names, tmp_path / "out")
    assert code == 1 and done > 15 and failed > 5


def test_50_pairs_through_data_check(tmp_path):
    chance, wholes = random.Random(2), photo_bytes()
    truth = encoded(np.uint8(np.clip(np.arange(36) * 20 - 200, 0, 255))[None].repeat(24, axis=0), "PNG")
    for kind in ("im", "gt"):
        (tmp_path / "train" / kind).mkdir(parents=True)
    for number in range(50):
        suffix = chance.choice((".png", ".bmp", ".webp"))
        photo, alpha = wholes[suffix], truth
        photo, alpha = (mutated(photo, chance), alpha) if number % 2 else (photo, mutated(alpha, chance))
        (tmp_path / "train" / "im" / f"{number:02}{suffix}").write_bytes(photo)
        (tmp_path / "train" / "gt" / f"{number:02}.png").write_bytes(alpha)
    report = check_dataset(tmp_path, workers=2)
    assert len(report.inspections) == 50 and len(report.errors) > 10
    named = {Path(fault.path).stem for fault in report.errors}
    fine = [entry for entry in report.inspections if entry.pair.image.stem not in named]
    assert len(fine) > 5 and all(entry.size for entry in fine)
    assert all(sentence and "\n" not in sentence for sentence in quick_check(tmp_path).errors)


def mutated_options(chance: random.Random) -> dict:
    """Metadata that another program, or a person, has changed."""
    values: tuple[object, ...] = (None, -1, 0, 5, 3.5, "x", "16", [], {}, True, 10**12, float("nan"))
    options: dict[str, object] = dict(OPTIONS)
    name = chance.choice([*options, "use_refiner", "pretrained", "backbone_weights", "nonsense"])
    if chance.random() < 0.2:
        options.pop(name, None)
    else:
        options[name] = chance.choice(values)
    return options


def test_50_checkpoints(tmp_path, monkeypatch):
    """Whole and damaged in their bytes or in their metadata: a model that can predict, or one sentence."""
    monkeypatch.setattr("models.Encoder", lambda backbone, **_: TinyEncoder(3))
    chance, path = random.Random(3), tmp_path / checkpoint.MODEL_FILE
    model = build_model(**OPTIONS)
    done = {"loaded": 0, "refused": 0}
    for number in range(50):
        options = mutated_options(chance) if number % 2 else OPTIONS
        checkpoint.save_model(path, model, model_options=options, config={}, scores={})
        if not number % 2:
            path.write_bytes(mutated(path.read_bytes(), chance))
        try:
            loaded = checkpoint.load_model(path)
            assert loaded.working_alpha(torch.rand(1, 3, 32, 32)).shape == (1, 1, 32, 32)
            done["loaded"] += 1
        except UserError as error:
            assert str(error).startswith(str(path)) and str(error).endswith(".") and "\n" not in str(error)
            done["refused"] += 1
    assert min(done.values()) > 3, done
