"""Parameter groups, learning-rate schedule, gradient clipping and weight averaging."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from models import MattingNetwork

FINAL_LR_SHARE = 0.01


def build_optimizer(
    parts: Mapping[str, nn.Module], *, learning_rate: float, lr_scales: Mapping[str, float], weight_decay: float
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, 2019) with groups by part and by decay; each group has its name and lr_scale.

    parts: what learns, by name; lr_scales: by the same names, 1 where there is none. Vectors (biases, norms) and
    relative position tables are not decayed, as in Swin's own training.
    """
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for part, module in parts.items():
        for name, parameter in module.named_parameters():
            decays = parameter.ndim > 1 and "relative_position" not in name
            groups.setdefault((part, decays), []).append(parameter)
    rows: list[dict[str, Any]] = [
        dict(
            params=parameters,
            name=f"{part}{'' if decays else ' without decay'}",
            weight_decay=weight_decay if decays else 0.0,
            lr_scale=lr_scales.get(part, 1.0),
        )
        for (part, decays), parameters in groups.items()
    ]
    fused = all(p.device.type in ("cpu", "cuda") for row in rows for p in row["params"])
    optimizer = torch.optim.AdamW(rows, lr=learning_rate, fused=fused)
    set_learning_rate(optimizer, learning_rate)
    return optimizer


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Restore the moments; this run's own settings hold where they differ from the saved ones.

    `fused` and `foreach` too: they belong to the device, and a run saved on one kind resumes on another.
    """
    restored = ("params", "lr")  # the rate of the last step; the next step sets its own
    groups = [
        saved | {name: value for name, value in own.items() if name not in restored}
        for saved, own in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict(state | {"param_groups": groups})  # where it puts its step counts depends on `fused`


def learning_rate_at(step: int, total_steps: int, peak: float, schedule: str) -> float:
    """Learning rate of a step (0-based): constant, or half a cosine from the peak to a hundredth of it. No warm-up:
    smart initialization makes it unnecessary."""
    if schedule == "constant":
        return peak
    share = 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / max(1, total_steps))))
    return peak * (FINAL_LR_SHARE + (1.0 - FINAL_LR_SHARE) * share)


def clip_gradients(parameters: Iterable[nn.Parameter], largest: float) -> Tensor:
    """Scale the gradients so that their common norm is at most `largest` (0: no limit). Returns the norm before.

    A norm that is not finite must not touch finite gradients: without clipping they stay as they are.
    """
    with_gradient = [parameter for parameter in parameters if parameter.grad is not None]
    norm = nn.utils.get_total_norm([parameter.grad for parameter in with_gradient if parameter.grad is not None])
    if largest:
        nn.utils.clip_grads_with_norm_(with_gradient, largest, norm)
    return norm


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give each group its share of the learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["lr_scale"]


def unscaled_learning_rate(optimizer: torch.optim.Optimizer) -> float:
    """The rate last set, of the groups of scale 1: every stage has a decoder, whose scale it is."""
    return next(group["lr"] for group in optimizer.param_groups if group["lr_scale"] == 1.0)


class AveragedNetwork:
    """Exponential moving average of the network's weights. This is validated and saved.

    The decay grows as (1 + k) / (10 + k) up to its setting, k the updates since the start of the student's stage:
    the fixed decay of torch's AveragedModel would still hold the random start of a short run. decay 0 tracks the
    weights.
    """

    def __init__(self, network: MattingNetwork, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self._averages: list[Tensor] = list(self.network.parameters())
        self._sources: list[Tensor] = list(network.parameters())

    @torch.no_grad()
    def restart(self) -> None:
        """Forget the past: the average is the current weights."""
        self.updates = 0
        torch._foreach_copy_(self._averages, self._sources)

    @torch.no_grad()
    def update(self) -> None:
        """Move toward the current weights after an optimizer step, in one fused call."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self._averages, self._sources, 1.0 - decay)
        self.updates += 1
