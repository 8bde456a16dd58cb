"""torch.hub.load gives a model that matting.predict_alpha takes, from any folder."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import hubconf
from common.errors import UserError
from models import build_model
from models.checkpoint import MODEL_FILE, STARTER, load_model, read_metadata, save_model

ROOT = Path(__file__).resolve().parent.parent
OPTIONS = dict(backbone="swin_tiny_patch4_window7_224", image_size=64, use_refiner=True)
SCRIPT = """
import sys, torch
model = torch.hub.load(sys.argv[1], "tsr_matte", source="local", checkpoint=sys.argv[2])
from matting import predict_alpha
photo = torch.arange(3 * 40 * 56).remainder(251).to(torch.uint8).view(3, 40, 56)
torch.save(predict_alpha(model, photo, precision=torch.float32), "alpha.pt")
"""


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("run")
    save_model(folder / MODEL_FILE, build_model(**OPTIONS), model_options=OPTIONS, config={}, scores={})
    return folder


def test_a_program_elsewhere_predicts_with_the_model_of_the_hub(run_folder, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", SCRIPT, str(ROOT), str(run_folder)]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment, timeout=120)
    photo = torch.arange(3 * 40 * 56).remainder(251).to(torch.uint8).view(3, 40, 56)
    model = load_model(run_folder / MODEL_FILE)
    expected = hubconf.predict_alpha(model, photo, precision=torch.float32)
    assert torch.allclose(torch.load(tmp_path / "alpha.pt", weights_only=True), expected, atol=1e-6)
    assert not model.training


def test_without_a_name_it_is_the_starter():
    assert hubconf.tsr_matte().image_size == read_metadata(STARTER / MODEL_FILE)["model"]["image_size"]


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(UserError, match="none.safetensors"):
        hubconf.tsr_matte(tmp_path / "none.safetensors")


def test_dependencies_are_what_the_model_imports():
    """Each can be imported, and the project's requirements install it."""
    requirements = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    for name in hubconf.dependencies:
        importlib.import_module(name)
        assert {"PIL": "pillow"}.get(name, name) in requirements
