"""Load a model for matting.predict_mattes from .safetensors, or from .onnx as export.py writes it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from common.errors import UserError
from models import MattingNetwork, checkpoint

if TYPE_CHECKING:
    from types import ModuleType

    from inference.onnx_model import OnnxMatting


def load(path: str | Path, device: torch.device | str = "cpu") -> MattingNetwork | OnnxMatting:
    """Load a model file, ready to predict. Raises UserError."""
    path = Path(path)
    return onnx_module(path).load_onnx(path, device) if is_onnx(path) else checkpoint.load_model(path, device)


def read_metadata(path: str | Path) -> dict[str, Any]:
    """A file's metadata: model, config, scores, preprocessing; for .onnx see onnx_model. Raises UserError."""
    path = Path(path)
    return onnx_module(path).read_onnx_metadata(path) if is_onnx(path) else checkpoint.read_metadata(path)


def is_onnx(path: Path) -> bool:
    return path.suffix.lower() == ".onnx"


def onnx_module(path: Path) -> ModuleType:
    """inference.onnx_model, imported only for a .onnx file: its packages are optional. Raises UserError."""
    try:
        from inference import onnx_model
    except ImportError as error:
        raise UserError(
            f"{path} needs onnx and onnxruntime ({error}): install them with `pip install -r "
            "requirements/export.txt -c requirements/constraints.txt`."
        ) from error
    return onnx_model
