"""What is saved rebuilds itself; what strangers send loads safely or is refused in a sentence."""

from __future__ import annotations

import copy
import json
import os
import pickle
import socket
from pathlib import Path

import pytest
import safetensors.torch
import torch

from common.errors import UserError
from models import build_model, checkpoint
from models.checkpoint import (
    MODEL_FILE,
    find_model,
    load_model,
    newest_run,
    read_metadata,
    save_model,
)
from training.checkpoint import load_training_state, save_training_state

OPTIONS = dict(
    backbone="swin_tiny_patch4_window7_224", image_size=64, use_refiner=True, refiner_channels=32, refiner_blocks=3
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    torch.manual_seed(0)
    model = build_model(**OPTIONS).eval()
    torch.nn.init.normal_(model.refiner.head.weight, std=0.05)
    path = tmp_path_factory.mktemp("run") / "best.safetensors"
    save_model(path, model, model_options=OPTIONS, config={"seed": 1}, scores={"refined_image_sad": 2.0})
    return model, path


def test_a_checkpoint_rebuilds_its_own_model(saved):
    model, path = saved
    loaded, image = load_model(path), torch.rand(1, 3, 64, 64)
    assert loaded.image_size == 64 and not loaded.training
    own = model.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in loaded.state_dict().items())
    same_kernels = copy.deepcopy(model).to(memory_format=torch.channels_last)  # load_model's format: equal rounding
    with torch.no_grad():
        assert torch.equal(loaded(image).refined_alpha, same_kernels(image).refined_alpha)
    assert read_metadata(path)["config"] == {"seed": 1}
    assert "long side" in read_metadata(path)["preprocessing"]


def test_a_half_precision_file_loads_as_float32(saved, tmp_path):
    model, _ = saved
    path = tmp_path / "half.safetensors"
    save_model(path, model, model_options=OPTIONS, config={}, scores={}, dtype=torch.float16)
    loaded = load_model(path)
    assert next(loaded.parameters()).dtype == torch.float32
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert (loaded(image).coarse_alpha - model(image).coarse_alpha).abs().max() < 0.02


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code from a checkpoint ran')",))


def test_strangers_are_refused_in_a_sentence_that_names_the_file(saved, tmp_path):
    _, path = saved
    data, metadata = path.read_bytes(), None
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    state = safetensors.torch.load_file(path)
    (tmp_path / "pickle.safetensors").write_bytes(pickle.dumps(Bomb()))
    torch.save({"model": Bomb()}, tmp_path / "torch.pt")
    (tmp_path / "truncated.safetensors").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.safetensors").write_bytes(b"")
    safetensors.torch.save_file(state, tmp_path / "no_metadata.safetensors")
    wrong = metadata | {"model": json.dumps(OPTIONS | {"backbone": "swin_base_patch4_window12_384"})}
    safetensors.torch.save_file(state, tmp_path / "wrong_variant.safetensors", metadata=wrong)
    unknown = metadata | {"model": json.dumps(OPTIONS | {"depth": 3})}
    safetensors.torch.save_file(state, tmp_path / "unknown_option.safetensors", metadata=unknown)
    broken = metadata | {"config": "{"}
    safetensors.torch.save_file(state, tmp_path / "broken_metadata.safetensors", metadata=broken)
    for file in [*sorted(tmp_path.iterdir()), tmp_path / "not there.safetensors"]:
        with pytest.raises(UserError) as refusal:
            load_model(file)
        assert file.name in str(refusal.value) and str(refusal.value).endswith(".") and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"model": OPTIONS | {"backbone": "hf-hub:a/b"}}, "'hf-hub:a/b' is not the name of an encoder"),
        ({"model": OPTIONS | {"backbone": 7}}, "'7' is not the name of an encoder"),
        ({"model": OPTIONS | {"backbone": "swin_unheard_of"}}, "Unknown model"),
        ({"model": {"image_size": 64}}, "broken metadata ('backbone')"),
        ({"model": ["swin"]}, "model holds ['swin']"),
        ({"config": "seed 1"}, "config holds 'seed 1'"),
        ({"model": OPTIONS | {"image_size": "64"}}, "image_size is '64'"),
        ({"model": OPTIONS | {"refiner_channels": 1.5}}, "refiner_channels is 1.5"),
        ({"model": OPTIONS | {"refiner_blocks": 10**12}}, "refiner_blocks is 1000000000000"),
        ({"model": OPTIONS | {"use_refiner": "x", "refiner_channels": 24}}, "does not fit the variant"),
        ({"model": OPTIONS | {"pretrained": True}}, "multiple values for keyword argument 'pretrained'"),
        ({"model": OPTIONS | {"backbone_weights": "x.pth"}}, "multiple values for keyword argument 'backbone_weights'"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value,
)
def test_metadata_of_strangers_is_not_believed(saved, tmp_path, monkeypatch, changed, reason):
    """Nor does it make timm ask the network or read another file."""

    def connect(*_):
        raise SystemExit("a checkpoint asked the network")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    with safetensors.safe_open(saved[1], "pt") as file:
        metadata = file.metadata() | {key: json.dumps(value) for key, value in changed.items()}
    path = tmp_path / "strange.safetensors"
    safetensors.torch.save_file({}, path, metadata=metadata)
    with pytest.raises(UserError) as refusal:
        load_model(path)
    assert str(refusal.value).startswith(str(path)) and reason in str(refusal.value)
    assert str(refusal.value).endswith(".") and "\n" not in str(refusal.value)


def test_a_training_state_with_code_in_it_is_not_run(tmp_path):
    torch.save({"model": Bomb()}, tmp_path / "last.pt")
    with pytest.raises(UserError, match="no training state to resume"):
        load_training_state(tmp_path)


def test_the_previous_state_stays_and_serves_when_the_last_is_broken(tmp_path):
    for step in (1, 2):
        save_training_state(tmp_path, {"step": step})
    assert load_training_state(tmp_path) == {"step": 2}
    (tmp_path / "last.pt").write_bytes(b"half")
    assert load_training_state(tmp_path) == {"step": 1}
    assert not list(tmp_path.glob(".*tmp"))


def test_a_failed_save_leaves_the_old_file_whole(saved, tmp_path, monkeypatch):
    model, _ = saved
    path = tmp_path / "best.safetensors"
    path.write_bytes(b"the old one")

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full_disk)
    with pytest.raises(UserError):
        save_model(path, model, model_options=OPTIONS, config={}, scores={})
    assert path.read_bytes() == b"the old one" and len(list(tmp_path.iterdir())) == 1


def test_newest_run_is_the_one_whose_model_was_written_last(tmp_path):
    assert newest_run(tmp_path) is None
    for name in ("b", "a", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ("last.pt" if name == "c" else "best.safetensors")).write_bytes(b"x")
    os.utime(tmp_path / "b" / "best.safetensors", (1, 1))
    assert newest_run(tmp_path) == tmp_path / "a"


def test_without_a_run_the_starter_model_is_taken_and_it_is_no_run(tmp_path, monkeypatch):
    starter = tmp_path / "checkpoints" / "starter"
    monkeypatch.setattr(checkpoint, "STARTER", starter)
    with pytest.raises(UserError, match="train a model"):
        find_model(None, tmp_path / "checkpoints")
    starter.mkdir(parents=True)
    (starter / MODEL_FILE).write_bytes(b"x")
    assert newest_run(tmp_path / "checkpoints") is None
    assert find_model(None, tmp_path / "checkpoints") == starter / MODEL_FILE
    (tmp_path / "checkpoints" / "mine").mkdir()
    (tmp_path / "checkpoints" / "mine" / MODEL_FILE).write_bytes(b"x")
    os.utime(tmp_path / "checkpoints" / "mine" / MODEL_FILE, (1, 1))  # older than the starter
    assert find_model(None, tmp_path / "checkpoints") == tmp_path / "checkpoints" / "mine" / MODEL_FILE


def test_a_name_too_long_for_the_disk_is_a_file_that_does_not_exist() -> None:
    long = Path("x" * 400)
    with pytest.raises(UserError, match="does not exist"):
        read_metadata(find_model(long, "checkpoints"))
