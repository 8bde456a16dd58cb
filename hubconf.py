"""Entry point of torch.hub: a trained model without an installation.

    model = torch.hub.load(REPOSITORY, "tsr_matte")     # the starter; yours: checkpoint="best.safetensors"
    from matting import predict_alpha
    alpha = predict_alpha(model, image)  # image: PIL, array or tensor; alpha: float32 (1, H, W) in [0, 1]

REPOSITORY is OWNER/NAME on GitHub, or the folder of a clone with source="local".
"""

from __future__ import annotations

from pathlib import Path

import torch

from matting import predict_alpha  # noqa: F401  # the hub's path is gone after the load: import it while it is there
from models import MattingNetwork
from models.checkpoint import STARTER, find_model, load_model

dependencies = ["torch", "torchvision", "timm", "huggingface_hub", "safetensors", "numpy", "PIL"]


def tsr_matte(checkpoint: str | Path = STARTER, device: torch.device | str = "cpu") -> MattingNetwork:
    """A trained model in evaluation mode, ready for matting.predict_alpha.

    checkpoint: a best.safetensors that train.py wrote, its run folder, or hf:owner/name[@revision] on the Hugging Face
    Hub; by default the starter model. Raises common.errors.UserError where it cannot be used.
    """
    return load_model(find_model(Path(checkpoint), Path()), device)
