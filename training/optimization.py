"""Parameter groups, learning-rate schedule and weight averaging."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from models import MattingNetwork

FINAL_LR_SHARE = 0.01


def build_optimizer(
    model: MattingNetwork,
    *,
    learning_rate: float,
    student_lr_scale: float,
    teacher_lr_scale: float,
    refiner_lr_scale: float,
    weight_decay: float,
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, 2019) with groups by part and by decay; each group has its name and lr_scale.

    Vectors (biases, norms) and relative position tables are not decayed, as in Swin's own training.
    """
    scales = {"student": student_lr_scale, "teacher": teacher_lr_scale, "refiner": refiner_lr_scale}
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        decays = parameter.ndim > 1 and "relative_position" not in name
        groups.setdefault((name.split(".")[0], decays), []).append(parameter)
    rows = []
    for (part, decays), parameters in groups.items():
        scale = scales.get(part, 1.0)
        rows.append(
            dict(
                params=parameters,
                name=f"{part}{'' if decays else ' without decay'}",
                weight_decay=weight_decay if decays else 0.0,
                lr_scale=scale,
                lr=learning_rate * scale,
            )
        )
    fused = all(p.device.type in ("cpu", "cuda") for p in model.parameters())
    return torch.optim.AdamW(rows, lr=learning_rate, fused=fused)


def learning_rate_at(step: int, total_steps: int, peak: float, schedule: str) -> float:
    """Learning rate of a step (0-based): constant, or half a cosine from the peak to a hundredth of it. No warm-up:
    smart initialization makes it unnecessary."""
    if schedule == "constant":
        return peak
    share = 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / max(1, total_steps))))
    return peak * (FINAL_LR_SHARE + (1.0 - FINAL_LR_SHARE) * share)


def clip_gradients(parameters: Iterable[nn.Parameter], largest: float) -> Tensor:
    """Scale the gradients so that their common norm is at most `largest` (0: leave them); the norm before, a scalar.

    A norm that is not finite must not touch finite gradients: without clipping they stay as they are.
    """
    with_gradient = [parameter for parameter in parameters if parameter.grad is not None]
    norm = nn.utils.get_total_norm([parameter.grad for parameter in with_gradient])
    if largest:
        nn.utils.clip_grads_with_norm_(with_gradient, largest, norm)
    return norm


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Give each group its share of the learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["lr_scale"]


class AveragedNetwork:
    """Exponential moving average of what ships: student, decoder, refiner. This is validated and saved.

    torch's AveragedModel would also copy the teacher, and its fixed decay would still hold the random start of a
    short run; here the decay grows as (1 + step) / (10 + step) up to its setting. decay 0 tracks the weights.
    """

    def __init__(self, model: MattingNetwork, decay: float) -> None:
        self.decay = decay
        teacher, model.teacher = model.teacher, None
        self.network = copy.deepcopy(model).requires_grad_(False).eval()
        model.teacher = teacher
        names = dict(self.network.named_parameters())
        self._averages = list(names.values())
        self._sources = [parameter for name, parameter in model.named_parameters() if name in names]

    @torch.no_grad()
    def restart(self) -> None:
        """Forget the past: the average is the current weights."""
        torch._foreach_copy_(self._averages, self._sources)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move toward the current weights after optimizer step number `step`, in one fused call."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._averages, self._sources, 1.0 - decay)
