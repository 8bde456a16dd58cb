"""torch.hub gives the model that the checkpoint holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from matting import predict_alpha
from models import build_model
from models.checkpoint import CheckpointError, load_model, save_model

ROOT = Path(__file__).resolve().parent.parent
OPTIONS = dict(backbone="swin_tiny_patch4_window7_224", image_size=32, use_refiner=True)


def from_hub(entry: str, **arguments: object):
    return torch.hub.load(str(ROOT), entry, source="local", **arguments)


def test_model_and_function_predict_as_the_checkpoint_does(tmp_path):
    model_file = tmp_path / "best.safetensors"
    save_model(model_file, build_model(**OPTIONS), model_options=OPTIONS, config={}, scores={})
    image = torch.randint(0, 256, (3, 40, 70), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = predict_alpha(load_model(model_file), image)
    assert expected.std() > 0
    assert torch.equal(predict_alpha(from_hub("tsr_matte", checkpoint=model_file), image), expected)
    assert torch.equal(from_hub("tsr_matte_predict", checkpoint=str(model_file))(image), expected)


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.safetensors does not exist"):
        from_hub("tsr_matte", checkpoint=tmp_path / "none.safetensors")
