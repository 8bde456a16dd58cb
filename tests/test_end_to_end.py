"""The real scripts with the real network: train, resume, predict; and the network can learn four photos by heart."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import benchmark
import predict
import train
from common import plots
from config import Config
from data.synthetic.dataset import SyntheticDataset
from data.synthetic.folder import write_folder
from experiments import benchmark_prediction as prediction
from models import build_model
from tests.tiny import Batches, use_tiny_networks
from training.pictures import draw_curves
from training.run import Networks, Run

SMALL = [
    "--no-pretrained",
    "--image-size",
    "64",
    "--batch-size",
    "2",
    "--val-samples",
    "2",
    "--train-samples",
    "4",
    "--num-workers",
    "0",
    "--device",
    "cpu",
]


def test_train_resume_predict_round_trip(tmp_path, capsys):
    runs = ["--output", str(tmp_path / "runs")]
    assert train.main(["--dataset", "synthetic", "--epochs", "2", *SMALL, *runs]) == 0
    assert train.main(["--resume", "--epochs", "3", *runs]) == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert {path.name for path in run.iterdir()} >= {
        "config.json",
        "training_log.csv",
        "curves.png",
        "preview.png",
        "last.pt",
        "best.safetensors",
    }
    log = pd.read_csv(run / "training_log.csv")
    assert log["epoch"].tolist() == [1, 2, 3]
    assert {"loss", "coarse_bce", "refined_gradient", "val_coarse_edge_sad", "val_refined_image_grad"} <= set(log)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 70, 3), dtype=np.uint8))
    photo.save(tmp_path / "photo.png")
    assert (
        predict.main(
            [
                "--input",
                str(tmp_path / "photo.png"),
                "--output",
                str(tmp_path / "out"),
                "--checkpoint",
                str(run),
                "--device",
                "cpu",
            ]
        )
        == 0
    )
    matte = Image.open(tmp_path / "out" / "photo.png")
    assert matte.size == (70, 40) and matte.mode == "L"
    assert "TSR-Matte SwinTiny" in capsys.readouterr().out


def test_overfitting_four_photos_lowers_sad_tenfold():
    """Training code that cannot do this cannot learn anything."""
    torch.manual_seed(0)
    config = Config(
        pretrained=False,
        image_size=64,
        batch_size=4,
        max_student_downscale=1,
        use_teacher=False,
        learning_rate=1e-3,
        lr_schedule="constant",
        epochs=1,
        ema_decay=0.0,
    )
    model = build_model(**config.model_options)
    run = Run(config, torch.device("cpu"), torch.float32, Networks(model, None), Batches(10**6), validation={})
    run.start_epoch()
    dataset = SyntheticDataset(samples=4, size=64, seed=5)
    items = [dataset[(0, index)] for index in range(4)]
    batch = {
        "image": torch.stack([item["image"] for item in items]),
        "alpha": torch.stack([item["alpha"] for item in items]),
        "unknown": torch.stack([item["unknown"] for item in items]),
        "name": [item["name"] for item in items],
    }

    def sad() -> float:
        model.eval()
        with torch.no_grad():
            error = model(batch["image"].float() / 255).refined_alpha - batch["alpha"].float() / 255
        model.train()
        return error.abs().sum().item() / 1000

    before = sad()
    model.train()
    for _ in range(12):
        for _ in range(25):
            train.train_step(run, [batch])
        if sad() <= before / 10:
            return
    raise AssertionError(f"SAD {before:.3f} only fell to {sad():.3f}")


def test_pictures_are_made_of_anything(tmp_path, monkeypatch):
    """Odd sizes, one row, no rows: a report must never end a run."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "name": str(size),
            "image": rng.integers(0, 256, (*size, 3), dtype=np.uint8),
            "truth": rng.random(size, dtype=np.float32),
            "mattes": {"coarse": rng.random(size, dtype=np.float32), "refined": rng.random(size, dtype=np.float32)},
        }
        for size in ((40, 90), (1, 1), (700, 33))
    ]
    for draw in (plots.preview, plots.comparison):
        draw(tmp_path / "picture.png", rows)
        assert Image.open(tmp_path / "picture.png").size[0] > 4 * 300
        draw(tmp_path / "none.png", [])
        assert not (tmp_path / "none.png").exists()
    rows: list[dict] = [{"epoch": 0, "stage": "start", "val_coarse_image_mad": 2.0}]
    rows += [{"epoch": 1, "stage": "teacher", "loss": 9.0}, {"epoch": 2, "stage": "student", "loss": 1.0}]
    for shown in ([], rows):
        draw_curves(tmp_path / "curves.png", shown)
        assert Image.open(tmp_path / "curves.png").size == (1300, 800)
    monkeypatch.setattr("training.pictures.curves", lambda path, panels, xlabel: drawn.extend(panels[0].lines))
    drawn: list[plots.Line] = []
    draw_curves(tmp_path / "curves.png", rows)  # the stages' losses differ: one line through both would seem to rise
    assert [line.points for line in drawn[:2]] == [[(2, 1.0)], [(1, 9.0)]]
    assert not list(tmp_path.glob(".*"))


def test_benchmark_measures_every_part(tmp_path, capsys):
    json_file = tmp_path / "rows.json"
    assert (
        benchmark.main(
            [
                "--sizes",
                "64",
                "--working-size",
                "64",
                "--variants",
                "tiny",
                "--repeats",
                "1",
                "--device",
                "cpu",
                "--json",
                str(json_file),
            ]
        )
        == 0
    )
    rows = pd.read_json(json_file)
    assert rows["photo"].tolist() == ["portrait", "worst"]
    assert (rows[["encoder s", "decoder s", "refiner s", "refiner, no gate s", "all s"]] > 0).all(axis=None)
    assert (
        benchmark.main(
            [
                "--train",
                "--sizes",
                "32",
                "--variants",
                "tiny",
                "--repeats",
                "1",
                "--device",
                "cpu",
                "--options",
                "no-teacher",
            ]
        )
        == 0
    )
    assert "student" in capsys.readouterr().out


def test_benchmark_that_cannot_start_says_why_before_it_measures(tmp_path, capsys, monkeypatch):
    assert benchmark.main(["--loader", str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in (error := capsys.readouterr().err) and error.endswith(".\n") and error.count("\n") == 1
    seen = []
    monkeypatch.setattr(benchmark, "prediction_cases", lambda *_: seen.append((tmp_path / "new").is_dir()) or iter(()))
    flags = ["--variants", "tiny", "--device", "cpu", "--json"]
    assert benchmark.main([*flags, str(tmp_path / "new" / "rows.json")]) == 0
    assert seen == [True] and (tmp_path / "new" / "rows.json").read_text() == "[]\n"
    (tmp_path / "file").touch()
    assert benchmark.main([*flags, str(tmp_path / "file" / "rows.json")]) == 2 and len(seen) == 1
    assert "file cannot be made" in capsys.readouterr().err


def test_the_band_of_the_benchmark_is_as_wide_as_it_says(monkeypatch):
    """The coarse matte of a sharp vertical edge is unsure over EDGE_BAND pixels at each side of it."""
    sharp = np.repeat(np.float32(np.arange(64) >= 32)[None], 64, axis=0)
    sample = SimpleNamespace(image=np.zeros((64, 64, 3), np.float32), alpha=sharp)
    monkeypatch.setattr(prediction, "render_sample", lambda *_: sample)
    _, coarse = prediction.drawn_photo(64, "portrait", 64)
    (unsure,) = np.nonzero((coarse[0, 0, 30].numpy() > 1e-6) & (coarse[0, 0, 30].numpy() < 1 - 1e-6))
    assert unsure.tolist() == list(range(32 - prediction.EDGE_BAND, 32 + prediction.EDGE_BAND))


@pytest.mark.filterwarnings("ignore:.*another sample")
@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_set_of_broken_photos_is_not_called_a_lack_of_memory(tmp_path, capsys, monkeypatch, workers):
    """torch sends a worker's error with words of its own around it."""
    write_folder(tmp_path, count=2, size=64, seed=0)
    for path in (tmp_path / "train" / "gt").iterdir():
        cv2.imwrite(str(path.with_suffix(".jpg")), cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
        path.unlink()
        data = path.with_suffix(".jpg").read_bytes()
        path.with_suffix(".jpg").write_bytes(data[: len(data) // 2])  # only decoding tells, not the start of a run
    use_tiny_networks(monkeypatch)
    flags = ["--no-pretrained", "--image-size", "32", "--batch-size", "2", "--epochs", "1", "--device", "cpu"]
    assert (
        train.main([*flags, "--dataset", str(tmp_path), "--output", str(tmp_path / "runs"), "--num-workers", workers])
        == 1
    )
    error = capsys.readouterr().err
    assert "8 samples in a row" in error and "data.check" in error and "memory" not in error


def test_only_a_killed_worker_is_called_a_lack_of_memory(tmp_path, capsys, monkeypatch):
    use_tiny_networks(monkeypatch)
    flags = ["--dataset", "synthetic", "--device", "cpu", "--no-pretrained", "--output", str(tmp_path), *SMALL]
    messages = {
        "DataLoader worker (pid 7) is killed by signal: Killed. ": 1,
        "DataLoader worker (pid(s) 7) exited unexpectedly": 1,
        "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback": None,
    }
    for message, code in messages.items():

        def fit(run, message=message):
            raise RuntimeError(message)

        monkeypatch.setattr(train, "fit", fit)
        if code is None:
            with pytest.raises(RuntimeError, match="Caught"):
                train.main(flags)
        else:
            assert train.main(flags) == code
        assert ("memory" in capsys.readouterr().err) == (code == 1)
