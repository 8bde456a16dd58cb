"""best.safetensors: weights with all that is needed to rebuild their model. Loading it runs no code."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from common.errors import UserError
from common.files import atomic_write
from models import MattingNetwork, build_model
from models.encoder import find_family

FORMAT = "tsr-matte-2"
PREPROCESSING = (
    "RGB in [0, 1], normalized inside the model; long side resized to image_size, antialiased, aspect "
    "kept; refined in octaves up to native size"
)
MODEL_FILE = "best.safetensors"
STARTER = Path(__file__).resolve().parent.parent / "checkpoints" / "TSR-Matte_SwinTiny_starter"  # comes with the code
LARGEST = {"image_size": 2**14, "refiner_channels": 1024, "refiner_blocks": 64}  # more would be built for ever


def save_model(
    path: Path,
    model: MattingNetwork,
    *,
    model_options: dict,
    config: dict,
    scores: dict,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Student, decoder and refiner with all that is needed to rebuild them; never the teacher."""
    state = {name: value.detach().to("cpu", dtype).contiguous() for name, value in model.state_dict().items()}
    metadata = {
        "format": FORMAT,
        "model": json.dumps(model_options),
        "config": json.dumps(config),
        "scores": json.dumps(scores),
        "preprocessing": PREPROCESSING,
    }
    with atomic_write(path) as temporary:
        safetensors.torch.save_file(state, temporary, metadata=metadata)


def read_metadata(path: Path) -> dict[str, Any]:
    """Metadata of a model file: format, model, config, scores, preprocessing. Raises UserError."""
    if not os.path.isfile(path):
        raise UserError(
            f"{path} does not exist: train a model with `python train.py`, or name a checkpoint with --checkpoint."
        )
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(
            f"{path} is not a whole .safetensors file ({error}): copy it again; other formats "
            "are not loaded, since they can run code."
        ) from error
    return parse_metadata(path, metadata)


def parse_metadata(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """What read_metadata returns, from the strings in a model file of any kind. Raises UserError."""
    if metadata.get("format") != FORMAT:
        raise UserError(
            f"{path} is not a TSR-Matte checkpoint (its metadata names no format {FORMAT}): use the "
            f"{MODEL_FILE} that train.py writes, or what export.py makes of it."
        )
    try:
        values = {key: json.loads(metadata[key]) for key in ("model", "config", "scores")}
        _check_values(values)
        return {"preprocessing": metadata["preprocessing"], **values}
    except (KeyError, ValueError, RecursionError) as error:  # a JSONDecodeError is a ValueError
        raise UserError(
            f"{path} has broken metadata ({error}): use the {MODEL_FILE} that train.py writes, or "
            "what export.py makes of it."
        ) from error


def _check_values(values: dict[str, Any]) -> None:
    """What every reader of metadata relies on, whoever wrote it. Raises KeyError and ValueError."""
    for key, value in values.items():
        if not isinstance(value, dict):
            raise ValueError(f"{key} holds {value!r:.40}, not values by name")
    options = values["model"]
    find_family(str(options["backbone"]))
    for name, largest in LARGEST.items():
        size = options[name] if name == "image_size" else options.get(name, 1)
        if not isinstance(size, int) or isinstance(size, bool) or not 0 < size <= largest:
            raise ValueError(f"{name} is {size!r:.40}, not a number from 1 to {largest}")


def load_model(path: str | Path, device: torch.device | str = "cpu") -> MattingNetwork:
    """Rebuild the model from its own file, in evaluation mode and float32 on `device`. Raises UserError."""
    path = Path(path)
    metadata = read_metadata(path)
    try:
        # a file may not ask for weights from elsewhere: an option that is named twice is a TypeError
        model = build_model(**metadata["model"], pretrained=False, backbone_weights=None)
        load_weights(model, path)
    except (
        TypeError,
        ValueError,
        AttributeError,
        KeyError,
        OSError,
        RuntimeError,
        safetensors.SafetensorError,
    ) as error:
        raise UserError(
            f"{path} does not fit the variant that its metadata names "
            f"({' '.join(str(error).split())[:200]}): train it again, or use the file as written."
        ) from error
    return model.to(device).to(memory_format=torch.channels_last).eval()


def load_weights(model: MattingNetwork, path: Path, fresh: Sequence[str] = ()) -> None:
    """Copy a model file's weights into a model of the same shape; parts whose names begin with one of `fresh` stay as
    they are. Raises RuntimeError if the file does not fit."""
    state = safetensors.torch.load_file(path)
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.startswith(tuple(fresh))]
    if missing or unexpected:
        raise RuntimeError(
            f"{len(missing)} tensors missing, {len(unexpected)} unknown, such as {(missing + unexpected)[0]}"
        )


def newest_run(output: str | Path) -> Path | None:
    """The run folder whose model file was written last, or None; the starter model is no run of the user's."""
    files = [file for file in Path(output).glob(f"*/{MODEL_FILE}") if file.parent.resolve() != STARTER]
    return max(files, key=lambda file: file.stat().st_mtime).parent if files else None


def find_model(named: Path | None, output: str | Path) -> Path:
    """The model file that is named, by itself, by its run folder or as hf:owner/name, else the newest below `output`,
    else the starter model's. Raises UserError where there is none."""
    if named and str(named).startswith("hf:"):
        from common import hub  # most models are on this machine

        return hub.fetch(named, MODEL_FILE)  # the only file that is downloaded, and one that holds no code
    path = named or newest_run(output) or STARTER
    if path == STARTER and not (STARTER / MODEL_FILE).is_file():
        raise UserError(
            f"{output} holds no {MODEL_FILE}: train a model with `python train.py`, or name one with --checkpoint."
        )
    return path / MODEL_FILE if os.path.isdir(path) else path
