"""What one stage trains: the module, which of its parts learn, its optimizer and its gradient scaler."""

from __future__ import annotations

import contextlib
import inspect
from typing import Any

import torch
from torch import nn

from common.processes import world_size
from config import Config
from models import Guide, MattingNetwork, TeacherAutoencoder
from training.optimization import build_optimizer, load_optimizer_state
from training.schedule import Schedule

# what keeps the buffers, which are constants, from being sent at every step; torch 2.13 gave it another name
BUFFER_SWITCH = (
    "forward_sync_buffers"
    if "forward_sync_buffers" in inspect.signature(nn.parallel.DistributedDataParallel).parameters
    else "broadcast_buffers"
)
COMPILATIONS_PER_VIEW = 4  # as parts freeze and unfreeze, with and without gradients


class Stage:
    """The teacher's stage (model: TeacherAutoencoder) or the student's (model: MattingNetwork)."""

    def __init__(
        self,
        model: TeacherAutoencoder | MattingNetwork,
        config: Config,
        device: torch.device,
        precision: torch.dtype,
        guide: Guide | None = None,
    ) -> None:
        self.model, self.config, self.device, self.precision = model, config, device, precision
        self.module: nn.Module = model  # the model as it is called: compiled, and wrapped for several processes
        self._learning: frozenset[str] | None = None  # parts that learn, as the module was last wrapped
        self.optimizer = build_optimizer(
            dict(model.named_children()) | ({"guide": guide.projections} if guide else {}),
            learning_rate=config.learning_rate,
            lr_scales=lr_scales(config),
            weight_decay=config.weight_decay,
        )
        # Always on: it skips a non-finite step without asking the device. Only fp16 needs its scale, see train.py.
        self.scaler = torch.amp.GradScaler(device.type, init_scale=2.0**16 if precision == torch.float16 else 1.0)

    def start_epoch(self, schedule: Schedule) -> None:
        """Freeze and unfreeze parts for this epoch, and set their modes.

        A frozen part has no gradient: it costs no backward pass, does not move and does not decay. Frozen parts run in
        eval mode, so that drop path adds no noise. DDP has to be told when the set of learning parts changes.
        """
        learning = frozenset(
            name for name, part in self.model.named_children() if any(True for _ in part.parameters())
        ) - self._frozen(schedule)
        if learning != self._learning:
            for name, part in self.model.named_children():
                part.requires_grad_(name in learning)
            self.module, self._learning = self._wrap(), learning
        self.module.train()
        for name, part in self.model.named_children():
            part.train(name in learning)

    def _frozen(self, schedule: Schedule) -> set[str]:
        """Parts without anything to learn in this epoch."""
        if schedule.wants_teacher_stage:
            # with --init-from the teacher must learn features that the checkpoint's decoder can read
            return {"decoder"} if self.config.init_from else set()
        frozen = {"student"} if schedule.student_is_frozen else set()
        if not any(self.config.loss_weights[name] for name in ("l1", "gradient", "laplacian", "edge")):
            frozen.add("refiner")  # no loss looks at the refined matte
        return frozen

    def _wrap(self) -> nn.Module:
        module: Any = compiled(self.model, self.config) if self.config.compile else self.model
        switches: dict[str, Any] = {BUFFER_SWITCH: False}
        if world_size() > 1:
            module = nn.parallel.DistributedDataParallel(
                module,
                device_ids=[self.device] if self.device.type == "cuda" else None,
                gradient_as_bucket_view=True,
                **switches,
            )
        return module

    def without_sync(self) -> contextlib.AbstractContextManager[None]:
        """Gradients of several processes are added up only at the last batch of a step."""
        no_sync = getattr(self.module, "no_sync", None)
        return no_sync() if no_sync else contextlib.nullcontext()

    def state_dict(self) -> dict[str, Any]:
        """Optimizer and scaler; the weights are saved by themselves."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "precision": str(self.precision),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_optimizer_state(self.optimizer, state["optimizer"])
        if state["precision"] == str(self.precision):
            self.scaler.load_state_dict(state["scaler"])


def compiled(model: nn.Module, config: Config) -> Any:
    """The model, compiled for each size of the student's view by itself: one graph for all would have dynamic shapes,
    which make a Swin's windows slow. At the limit of recompilations torch would go on uncompiled without a word."""
    views = config.max_student_downscale.bit_length()
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, COMPILATIONS_PER_VIEW * views)
    return torch.compile(model, dynamic=False)


def lr_scales(config: Config) -> dict[str, float]:
    """Part -> multiple of the learning rate: pretrained encoders move less, the small refiner more."""
    pretrained = bool(config.pretrained or config.backbone_weights)  # the teacher's only start: no checkpoint holds it
    return {
        "student": config.encoder_lr_scale if pretrained or config.init_from else 1.0,
        "teacher": config.encoder_lr_scale if pretrained else 1.0,
        "refiner": config.refiner_lr_scale,
    }
