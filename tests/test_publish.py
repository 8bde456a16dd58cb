"""A run reaches the Hub with a card that states its facts, and every script finds it there by its name."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from PIL import Image

import export
from config import Config
from experiments.benchmark_prediction import checkpoint_cases
from experiments.options import benchmark_options
from models import build_model
from models.checkpoint import MODEL_FILE, load_model, save_model
from publishing import publish
from publishing.model_card import model_card
from tests.hub_server import TOKEN, HubServer
from training.flags import config_from_flags, parse_flags

ROOT = Path(__file__).resolve().parent.parent
OPTIONS = dict(backbone="swin_tiny_patch4_window7_224", image_size=64, use_refiner=True)
SETTINGS = dict(model_idx=0, image_size=64, dataset=("synthetic", "Datasets/mine*2"), pretrained=False, epochs=9)
SCORES = {
    f"{prefix}{matte}_{region}_{metric}": value + (metric != "mad")
    for prefix, value in (("", 0.25), ("synthetic_", 0.125), ("mine_", 0.375))
    for matte in ("coarse", "refined")
    for region in ("image", "edge")
    for metric in ("sad", "mse", "mad", "grad")
}
ROUND_TRIP = """
import sys
import hubconf, predict, torch
from publishing import publish
codes = [publish.main([sys.argv[1], "me/cats", "--private"])]
codes += [predict.main(["--input", "cat.png", "--output", "out", "--checkpoint", "hf:me/cats", "--device", "cpu"])]
torch.save(hubconf.tsr_matte("hf:me/cats").state_dict(), "weights.pt")
sys.exit(any(codes))
"""
REFUSALS = """
import contextlib, importlib, io, json, sys
sentences = []
for script, flags in json.loads(sys.argv[1]):
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        code = importlib.import_module(script).main(flags)
    sentences.append([code, errors.getvalue().splitlines()[-1]])
print(json.dumps(sentences))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a small random network, and a log whose second of three epochs is the best."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("runs") / "run"
    folder.mkdir()
    config = Config(**SETTINGS).as_dict()
    facts = dict(model_options=OPTIONS, config=config, scores=SCORES)
    save_model(folder / MODEL_FILE, build_model(**OPTIONS), **facts, dtype=torch.float16)  # half as much to upload
    rows = [
        {"epoch": 1, "step": 10, "seconds": 60.0, "images_per_second": 2.0, "val_refined_image_mad": 0.5},
        {"epoch": 2, "step": 20, "seconds": 60.0, "images_per_second": 2.0, "val_refined_image_mad": 0.25},
        {"epoch": 3, "step": 30, "seconds": 60.0, "images_per_second": 2.0, "val_refined_image_mad": 0.375},
    ]
    pd.DataFrame(rows).to_csv(folder / "training_log.csv", index=False)
    Image.new("RGB", (8, 8)).save(folder / "preview.png")
    return folder


@pytest.fixture
def folder(run: Path, tmp_path: Path) -> Path:
    """A copy of the run without its weights: the card needs only what the file says of them."""
    with safetensors.safe_open(run / MODEL_FILE, "pt") as file:
        safetensors.torch.save_file({}, tmp_path / MODEL_FILE, metadata=file.metadata())
    for name in ("training_log.csv", "preview.png"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    return tmp_path


def test_what_is_published_is_what_a_stranger_predicts_with(run, tmp_path):
    photo = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    Image.fromarray(photo).save(tmp_path / "cat.png")
    with HubServer() as server:
        environment = server.environment(tmp_path / "home", HF_TOKEN=TOKEN, PYTHONPATH=str(ROOT))
        command = [sys.executable, "-c", ROUND_TRIP, str(run)]
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=600)
        files = server.repositories["me/cats"]["main"]
    assert server.private == {"me/cats"}
    assert set(files) == {"README.md", "config.json", MODEL_FILE, "preview.png"}
    assert Config(**{k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(files["config.json"]).items()})
    downloads = {line for line in server.requests if line.startswith("GET")}
    assert downloads == {f"GET /me/cats/resolve/main/{MODEL_FILE}"}, "of a stranger's repository only the weights"
    assert Image.open(tmp_path / "out" / "cat.png").size == (56, 40)
    own, loaded = load_model(run / MODEL_FILE).state_dict(), torch.load(tmp_path / "weights.pt", weights_only=True)
    assert all(torch.equal(value, loaded[name]) for name, value in own.items())


def test_every_script_asks_the_hub_and_refuses_what_is_no_model(folder, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (exec, ("raise SystemExit('code from the hub ran')",))

    other = safetensors.torch.save({"weight": torch.zeros(1)})
    training = ["--dataset", "synthetic", "--no-pretrained", "--image-size", "32", "--no-use-teacher", "--init-from"]
    calls = [
        ("predict", ["--checkpoint", "hf:me/bomb"], "is not a whole .safetensors file"),
        ("predict", ["--checkpoint", "hf:me/other@v1"], "is not a TSR-Matte checkpoint"),
        ("evaluate", ["--checkpoint", "hf:me/none"], "me/none is not on the Hub"),
        ("evaluate", ["--compare", "hf:me/none", "hf:me/bomb"], "me/none is not on the Hub"),
        ("export", ["--checkpoint", "hf:me/none", "--output", "x.onnx"], "me/none is not on the Hub"),
        ("app", ["--checkpoint", "hf:me/none"], "me/none is not on the Hub"),
        ("benchmark", ["--checkpoint", "hf:me/none"], "me/none is not on the Hub"),
        ("train", [*training, "hf:me/none"], "me/none is not on the Hub"),
        ("publishing.publish", [str(folder), "me/cats"], "You may not write to me/cats: log in"),
    ]
    with HubServer() as server:
        server.repositories = {
            "me/bomb": {"main": {MODEL_FILE: pickle.dumps(Bomb())}},
            "me/other": {"v1": {MODEL_FILE: other}},
        }
        command = [sys.executable, "-c", REFUSALS, json.dumps([call[:2] for call in calls])]
        environment = server.environment(tmp_path / "home", PYTHONPATH=str(ROOT))
        result = subprocess.run(
            command, cwd=tmp_path, env=environment, check=True, timeout=600, stdout=subprocess.PIPE, text=True
        )
    assert "POST /api/repos/create" in server.requests
    missing = {"export": "requirements/export.txt", "app": "needs Gradio"}  # where these are not installed
    for (script, _, words), (code, sentence) in zip(calls, json.loads(result.stdout.splitlines()[-1]), strict=True):
        assert words in sentence or missing.get(script, words) in sentence, (script, sentence)
        assert code == (1 if script == "publishing.publish" else 2) and sentence.endswith(".")


def test_without_a_network_nothing_is_uploaded(folder, monkeypatch, capsys):
    monkeypatch.setattr(publish.hub, "is_reachable", lambda: False)
    assert publish.main([str(folder), "me/cats"]) == 1
    sentence = capsys.readouterr().err
    assert sentence.startswith("me/cats was not changed, since ") and "try again with a network" in sentence


def test_a_dry_run_writes_the_folder_and_asks_nobody(folder, monkeypatch, capsys):
    monkeypatch.setattr(publish.hub, "upload", lambda *_, **__: pytest.fail("uploads all the same"))
    (folder / "hub_dry_run").mkdir()
    (folder / "hub_dry_run" / "old.onnx").write_bytes(b"of an earlier dry run")
    assert publish.main([str(folder), "me/cats", "--dry-run", "--license", "mit"]) == 0
    written = {path.name: path.read_bytes() for path in (folder / "hub_dry_run").iterdir()}
    assert set(written) == {"README.md", "config.json", MODEL_FILE, "preview.png"}
    assert safetensors.torch.load(written[MODEL_FILE]).keys() == safetensors.torch.load_file(folder / MODEL_FILE).keys()
    assert written["README.md"].startswith(b"---\nlicense: mit\n")
    assert "README.md" in capsys.readouterr().out
    (folder / "MODEL_CARD.md").write_text("written by hand", encoding="utf-8")
    assert publish.main([str(folder), "me/cats", "--dry-run"]) == 0
    assert (folder / "hub_dry_run" / "README.md").read_text(encoding="utf-8") == "written by hand"


def test_half_of_the_bytes_is_the_same_model_without_the_folders_of_a_machine(tmp_path):
    torch.manual_seed(0)
    model = build_model(**OPTIONS)
    config = Config(**SETTINGS, init_from="/runs/mine/best.safetensors", foregrounds=("/cuts",), backgrounds=("b",))
    save_model(tmp_path / MODEL_FILE, model, model_options=OPTIONS, config=config.as_dict(), scores=SCORES)
    assert publish.main([str(tmp_path), "me/cats", "--dry-run", "--half"]) == 0
    half = tmp_path / "hub_dry_run" / MODEL_FILE
    assert half.stat().st_size < 0.51 * (tmp_path / MODEL_FILE).stat().st_size
    for name, value in load_model(half).state_dict().items():
        assert torch.equal(value, model.state_dict()[name].half().float())
    text = half.read_bytes()[:20000] + (tmp_path / "hub_dry_run" / "config.json").read_bytes()
    assert b"best.safetensors" in text and b"/runs/mine" not in text and b"/cuts" not in text


def test_an_export_of_another_epoch_is_not_published(folder, monkeypatch, capsys):
    (folder / "best.onnx").write_bytes(b"x")
    monkeypatch.setattr(publish, "read_exported", lambda path: {"scores": {"refined_image_mad": 0.5}})
    assert publish.main([str(folder), "me/cats", "--dry-run"]) == 2
    assert "best.onnx was exported from another epoch" in capsys.readouterr().err
    monkeypatch.setattr(publish, "read_exported", lambda path: {"scores": SCORES})
    assert publish.main([str(folder), "me/cats", "--dry-run"]) == 0
    assert (folder / "hub_dry_run" / "best.onnx").read_bytes() == b"x"


def test_an_export_from_the_hub_is_not_written_into_its_cache(capsys):
    with pytest.raises(SystemExit) as end:
        export.export_options(None, ["--checkpoint", "hf:me/cats"])
    assert end.value.code == 2 and "--output" in capsys.readouterr().err


def test_a_trained_model_is_benchmarked_at_its_own_working_size(run, capsys):
    flags = benchmark_options(None, ["--checkpoint", str(run), "--sizes", "96"])
    label, _ = next(checkpoint_cases(flags, torch.device("cpu"), torch.float32))
    assert label == {"variant": "run", "size": 96, "photo": "portrait"}
    assert "run: working size 64;" in capsys.readouterr().out


@pytest.mark.parametrize("repository", ["cats", "me/cats/more", "hf:me/cats"])
def test_a_repository_is_owner_and_name(folder, repository, capsys):
    with pytest.raises(SystemExit) as end:
        publish.main([str(folder), repository, "--dry-run"])
    assert end.value.code == 2 and "owner/name" in capsys.readouterr().err


def test_the_card_states_the_facts_of_the_run(folder):
    card = model_card(folder, "hf:me/cats", "cc-by-4.0")
    assert "license: cc-by-4.0" in card and "Weights: cc-by-4.0." in card
    assert "epoch 2 of 9" in card and "20 steps, 120 photos per epoch, 2.0 minutes" in card
    assert "drawn subjects (synthetic), Datasets/mine (weight 2)" in card
    rows = [line for line in card.splitlines() if line.startswith(("| mean |", "| synthetic |", "| Datasets/mine |"))]
    assert [row.split(" | ")[:3] for row in rows] == [
        ["| mean", "1.25", "0.25"],
        ["| synthetic", "1.125", "0.125"],
        ["| Datasets/mine", "1.375", "0.375"],
    ]
    assert "![" in card and "](preview.png)" in card
    assert "python evaluate.py --dataset synthetic --checkpoint hf:me/cats\n" in card
    assert "python evaluate.py --dataset Datasets/mine/val --checkpoint hf:me/cats\n" in card


def test_the_cards_training_command_gives_the_runs_settings(folder):
    [line] = [line for line in model_card(folder).splitlines() if line.startswith("python train.py")]
    flags = parse_flags(None, line.replace("'", "").split()[2:])
    assert config_from_flags(flags) == Config(**SETTINGS)


def test_the_card_of_a_file_alone_leaves_out_what_is_not_known(folder):
    for name in ("training_log.csv", "preview.png"):
        (folder / name).unlink()
    card = model_card(folder)
    assert "9 epochs" in card and "photos per epoch" not in card and "preview" not in card
    assert f"--checkpoint {folder.as_posix()}" in card
    assert "license: other" in card and "none has been named" in card


def test_the_card_does_not_tell_where_data_lies_on_a_machine(tmp_path):
    config = Config(dataset=(str(tmp_path / "private" / "mine"),), init_from=str(tmp_path / "a.safetensors")).as_dict()
    metadata = {"format": "tsr-matte-2", "model": json.dumps(OPTIONS), "config": json.dumps(config)}
    metadata |= {"scores": "{}", "preprocessing": "as usual"}
    safetensors.torch.save_file({}, tmp_path / MODEL_FILE, metadata=metadata)
    card = model_card(tmp_path, "hf:me/cats")
    assert "| data | mine |" in card and "a.safetensors" in card and str(tmp_path) not in card
    assert "## Scores" not in card
