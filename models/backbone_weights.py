"""First weights of a backbone: ImageNet's from the hub, or a file in timm's naming, Swin's own or this project's."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import huggingface_hub
import safetensors.torch
import timm
import torch

from common import hub
from common.errors import UserError

HUB_FILE = "model.safetensors"
OWN_PREFIX = re.compile(r"student\.(?:backbone|swin)\.")  # where a checkpoint of this project keeps its backbone


def create_with_weights(backbone: str, weights_file: str | None, options: Mapping[str, Any]) -> Any:
    """A network of timm with the weights of a file, or without one with ImageNet's. Raises UserError."""
    path = weights_file or download_weights(backbone)
    state = read_weights(path)
    names = set(state)
    try:
        network = timm.create_model(backbone, pretrained=True, pretrained_cfg_overlay={"state_dict": state}, **options)
    except (RuntimeError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path} does not hold weights of {backbone} ({reason}): name a file for this MODEL_IDX."
        ) from error
    # for features_only timm loads what fits and leaves the rest random; only the downsampling has two namings
    wanted = [_in_file(name) for name, _ in network.named_parameters() if "downsample" not in name]
    missing = [name for name in wanted if name not in names]
    # a deeper network holds all that a shallower one wants
    surplus = [name for name in names.difference(wanted) if ".blocks." in name and name.endswith((".weight", ".bias"))]
    if missing:
        raise UserError(
            f"{path} lacks {len(missing)} weights of {backbone}, such as {missing[0]}: name a file for this MODEL_IDX."
        )
    if surplus:
        raise UserError(
            f"{path} holds {len(surplus)} weights that {backbone} has no place for, such as {min(surplus)}: name a "
            "file for this MODEL_IDX."
        )
    return network


def _in_file(name: str) -> str:
    """A weight's name in timm's own files: layers_2.blocks... of a feature extractor is layers.2.blocks... there."""
    return re.sub(r"^(layers|stages|stem)_(\d)", r"\1.\2", name)


def download_weights(backbone: str) -> str:
    """timm's ImageNet weights of the backbone, from the hub's cache on this machine or, once, from the hub."""
    repository = str(getattr(timm.get_pretrained_cfg(backbone), "hf_hub_id", ""))
    cached = huggingface_hub.try_to_load_from_cache(repository, HUB_FILE)
    if isinstance(cached, str):
        return cached
    try:
        return str(hub.download(repository, HUB_FILE))
    except UserError as error:
        raise UserError(
            f"The ImageNet weights of {backbone} could not be downloaded. {error} Or give a local file with "
            "--backbone-weights FILE, or start from scratch with --no-pretrained (with --init-from only the teacher "
            "needs them: --no-use-teacher leaves it out)."
        ) from error


def read_weights(path: str) -> dict[str, Any]:
    """State dict in timm's or the official Swin naming (timm's filter maps the latter), or the student's of a
    best.safetensors. Runs no code from the file. Raises UserError."""
    if not os.path.isfile(path):
        raise UserError(f"{path} does not exist: name a .safetensors or .pth file of the backbone.")
    try:
        if path.endswith(".safetensors"):
            state: Any = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and safetensors each raise their own classes for a broken file
        raise UserError(
            f"{path} is not a readable weight file ({type(error).__name__}): download it again, or convert it to "
            ".safetensors."
        ) from error
    if isinstance(state, dict):
        state = state.get("model", state.get("state_dict", state))
    if not isinstance(state, dict) or not state:  # for an empty one timm would ask the hub
        raise UserError(f"{path} holds no weights by name: name a .safetensors or .pth file of the backbone.")
    own = {_in_file(OWN_PREFIX.sub("", name)): value for name, value in state.items() if OWN_PREFIX.match(str(name))}
    return own or state
