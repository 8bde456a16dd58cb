"""TSR-Matte through torch.hub, without a clone of your own.

    import torch
    predict = torch.hub.load("OWNER/REPO", "tsr_matte_predict", checkpoint="best.safetensors")
    alpha = predict(image)      # uint8 (3, H, W) RGB -> float32 (1, H, W) in [0, 1]

With source="local" the first argument is the path of a clone. The general module names of this repository (data,
models, config) forbid a pip install; torch.hub loads it from a folder of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from matting import MattingModel, predict_alpha
from models.checkpoint import load_model

dependencies = ["torch", "torchvision", "timm", "safetensors", "huggingface_hub"]


def tsr_matte(checkpoint: str | Path, device: torch.device | str = "cpu") -> MattingModel:
    """The model of a best.safetensors on `device`, ready for matting.predict_alpha. Raises CheckpointError."""
    return load_model(checkpoint, device)


def tsr_matte_predict(checkpoint: str | Path, device: torch.device | str = "cpu") -> Callable[..., Tensor]:
    """A function from a photo, uint8 (3, H, W), to its matte, float32 (1, H, W) in [0, 1]. Raises CheckpointError.

    Options of the function are those of matting.predict_mattes.
    """
    return partial(predict_alpha, load_model(checkpoint, device))
