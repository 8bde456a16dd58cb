"""A model for matting.predict_mattes from any file that can hold one: .safetensors, or .onnx from export.py.

The import of onnx_model waits until a .onnx file is named: its packages are an extra.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from models import MattingNetwork, checkpoint
from models.checkpoint import CheckpointError

if TYPE_CHECKING:
    from types import ModuleType

    from inference.onnx_model import OnnxMatting


def load(path: str | Path, device: torch.device | str = "cpu") -> MattingNetwork | OnnxMatting:
    """The model of a file, ready to predict. Raises CheckpointError."""
    path = Path(path)
    return _onnx_side(path).load_onnx(path, device) if is_onnx(path) else checkpoint.load_model(path, device)


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What a file says of itself: model, config, scores, preprocessing; an .onnx file some more. Raises
    CheckpointError."""
    path = Path(path)
    return _onnx_side(path).read_onnx_metadata(path) if is_onnx(path) else checkpoint.read_metadata(path)


def is_onnx(path: Path) -> bool:
    return path.suffix.lower() == ".onnx"


def _onnx_side(path: Path) -> ModuleType:
    try:
        from inference import onnx_model
    except ImportError as error:
        raise CheckpointError(
            f"{path} needs onnx and onnxruntime ({error}): install them with `pip install -r "
            "requirements/export.txt -c requirements/constraints.txt`."
        ) from error
    return onnx_model
