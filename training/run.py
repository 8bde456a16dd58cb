"""A run: its networks, data and progress, and of the current stage the losses, the optimizer and the scaler."""

from __future__ import annotations

import contextlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from common.interrupt import Interrupt
from common.processes import world_size
from common.resize import resize, resize_alpha
from config import Config
from losses import FEATURES, GUIDED, REFINED, Terms, has_weight_on, matting_losses, teacher_losses, weighted
from models import MattingNetwork, TeacherAutoencoder
from training.log import Meter
from training.optimization import AveragedNetwork, build_optimizer
from training.run_folder import Lock
from training.schedule import STUDENT, TEACHER, Progress, Schedule

if TYPE_CHECKING:
    from models.guide import Guide

# what keeps the buffers, which are constants, from being sent at every step; torch 2.13 gave it another name
BUFFER_SWITCH = (
    "forward_sync_buffers"
    if "forward_sync_buffers" in inspect.signature(nn.parallel.DistributedDataParallel).parameters
    else "broadcast_buffers"
)
COMPILATIONS_PER_VIEW = 4  # as parts freeze and unfreeze, with and without gradients


class Networks(NamedTuple):
    """What a run has: the network that is shipped, and those that teach it."""

    network: MattingNetwork
    teacher: TeacherAutoencoder | None = None
    guide: Guide | None = None


class TeacherLosses(nn.Module):
    """The first stage's batch to the terms of its loss. See StudentLosses."""

    def __init__(self, teacher: TeacherAutoencoder, wanted: frozenset[str]) -> None:
        super().__init__()
        self.teacher, self.wanted = teacher, wanted

    def forward(self, image: Tensor, alpha: Tensor, known: Tensor, scale: int) -> Terms:
        truth, known = downscaled(alpha, scale), downscaled(known, scale)  # (N, 1, S / scale, S / scale)
        return teacher_losses(self.teacher(truth), truth, self.wanted, known)


class StudentLosses(nn.Module):
    """The second stage's batch to the terms of its loss: compiled and distributed as a whole.

    image: (N, 3, S, S); alpha, known: (N, 1, S, S), the truth and where it is known; all float32 in [0, 1]. scale: how
    many times smaller the student's view is.
    """

    def __init__(
        self,
        network: MattingNetwork,
        frozen_teacher: TeacherAutoencoder | None,
        guide: Guide | None,
        wanted: frozenset[str],
    ) -> None:
        super().__init__()
        self.network, self.frozen_teacher, self.guide, self.wanted = network, frozen_teacher, guide, wanted

    def forward(self, image: Tensor, alpha: Tensor, known: Tensor, scale: int) -> Terms:
        truth = downscaled(alpha, scale)  # what the student should see, (N, 1, S / scale, S / scale)
        size = (truth.shape[-2], truth.shape[-1])
        output = self.network(image, resize(image, size))
        targets = self.frozen_teacher.targets(truth) if self.frozen_teacher else None
        guided = self.guide(output.features, image, size) if self.guide else None
        return matting_losses(output, alpha, self.wanted, known, targets, guided)


def downscaled(alpha: Tensor, scale: int) -> Tensor:
    return resize_alpha(alpha, (max(1, alpha.shape[-2] // scale), max(1, alpha.shape[-1] // scale)))


class Run:
    """What a run has and does, on one rank. The folder is set once everything else is there."""

    folder: Path
    lock: Lock | None = None  # of the folder, in the process that writes there
    model: TeacherAutoencoder | MattingNetwork  # what the stage trains
    parts: dict[str, nn.Module]  # of it, and the guide's projections
    losses: nn.Module  # the stage's forward pass, TeacherLosses or StudentLosses: compiled, and wrapped for processes
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler

    def __init__(
        self,
        config: Config,
        device: torch.device,
        precision: torch.dtype,
        networks: Networks,
        loader: DataLoader,
        validation: dict[str, Any],
    ) -> None:
        """validation: data sets as evaluation.validation.validate takes them, by name."""
        self.config, self.device, self.precision = config, device, precision
        self.network, self.teacher, self.guide = networks
        self.loader, self.validation = loader, validation
        self.average = AveragedNetwork(self.network, config.ema_decay)
        self.interrupt = Interrupt(config.max_hours)
        self.progress = Progress()
        self.reset_meter()
        self.enter_stage(TEACHER if self.teacher else STUDENT)

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.config, self.progress, self.loader.sampler.batches_per_epoch)  # type: ignore[attr-defined]

    def enter_stage(self, stage: str) -> None:
        """Train the teacher or the student from here on, with a new optimizer; start_epoch has to follow.

        A stage that the progress is in already, as where a run resumes, keeps its start and its weights.
        """
        if self.progress.stage != stage:
            if stage == STUDENT:
                self._start_student()
            self.progress.stage, self.progress.stage_start = stage, self.progress.epoch
        model = self.teacher if stage == TEACHER else self.network
        if model is None:
            raise ValueError("the saved stage is the teacher's, and there is none")
        self.model = model
        self.parts = dict(model.named_children())
        if self.guide and stage == STUDENT:
            self.parts["guide"] = self.guide.projections
        self._learning: frozenset[str] | None = None  # parts that learn, as the losses were last wrapped
        rates = dict(learning_rate=self.config.learning_rate, weight_decay=self.config.weight_decay)
        self.optimizer = build_optimizer(self.parts, lr_scales=lr_scales(self.config), **rates)
        # Always on: it skips a non-finite step without asking the device. Only fp16 needs its scale, see train_step.
        scale = 2.0**16 if self.precision == torch.float16 else 1.0
        self.scaler = torch.amp.GradScaler(self.device.type, init_scale=scale)

    def _start_student(self) -> None:
        """The student's first weights, at the end of the teacher's stage.

        A student with random weights starts as a copy of its teacher and the teacher's decoder. A pretrained one keeps
        its weights and a new decoder, since one trained on alphas reads photos worse. With --init-from both keep the
        checkpoint's weights.
        """
        config = self.config
        if self.teacher and not (config.pretrained or config.backbone_weights or config.init_from):
            self.teacher.start_student(self.network)
        self.average.restart()

    def start_epoch(self) -> None:
        """Freeze and unfreeze parts for this epoch, and set their modes.

        A frozen part has no gradient: it costs no backward pass, does not move and does not decay. Frozen parts run in
        eval mode, so that drop path adds no noise. DDP has to be told when the set of learning parts changes.
        """
        learning = frozenset(name for name, part in self.parts.items() if any(True for _ in part.parameters()))
        learning -= self._frozen()
        if self.teacher and self.model is not self.teacher:
            self.teacher.requires_grad_(False).eval()
        self.model.train()
        for name, part in self.parts.items():
            part.requires_grad_(name in learning).train(name in learning)
        if learning != self._learning:
            self.losses, self._learning = self._wrapped_losses(), learning

    def _frozen(self) -> set[str]:
        """Parts without anything to learn in this epoch."""
        if self.progress.stage == TEACHER:
            # with --init-from the teacher must learn features that the checkpoint's decoder can read
            return {"decoder"} if self.config.init_from else set()
        frozen = {"student"} if self.schedule.student_is_frozen else set()
        return frozen if has_weight_on(REFINED, self.config.loss_weights) else frozen | {"refiner"}

    def plain_losses(self) -> TeacherLosses | StudentLosses:
        """The stage's forward pass, neither compiled nor distributed."""
        weights = self.config.loss_weights
        wanted = frozenset(name for name, weight in weights.items() if weight)
        if self.teacher and self.progress.stage == TEACHER:
            return TeacherLosses(self.teacher, wanted)
        teacher_has_learned = self.progress.stage_start > 0
        aligns = teacher_has_learned and has_weight_on(FEATURES, weights)
        guide = self.guide if has_weight_on(GUIDED, weights) else None
        return StudentLosses(self.network, self.teacher if aligns else None, guide, wanted)

    def _wrapped_losses(self) -> nn.Module:
        losses: Any = self.plain_losses()
        if self.config.compile:
            # for each size of the student's view by itself: one graph for all would have dynamic shapes, which make a
            # Swin's windows slow. At the limit of recompilations torch would go on uncompiled without a word.
            limit = COMPILATIONS_PER_VIEW * self.config.max_student_downscale.bit_length()
            torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, limit)
            losses = torch.compile(losses, dynamic=False)
        if world_size() > 1:
            switches: dict[str, Any] = {BUFFER_SWITCH: False}
            losses = nn.parallel.DistributedDataParallel(
                losses,
                device_ids=[self.device] if self.device.type == "cuda" else None,
                gradient_as_bucket_view=True,
                **switches,
            )
        return losses

    def without_sync(self) -> contextlib.AbstractContextManager[None]:
        """Gradients of several processes are added up only at the last batch of a step."""
        no_sync = getattr(self.losses, "no_sync", None)
        return no_sync() if no_sync else contextlib.nullcontext()

    def batch_losses(self, batch: dict[str, Any], scale: int) -> dict[str, Tensor]:
        """Forward pass of the stage on a batch of the loader: "loss", and each term as it is.

        scale: how many times smaller than the crop the student's view is.
        """
        image = batch["image"].to(self.device, non_blocking=True, memory_format=torch.channels_last).float() / 255
        alpha = batch["alpha"].to(self.device, non_blocking=True).float() / 255  # (N, 1, S, S)
        known = 1.0 - batch["unknown"].to(self.device, non_blocking=True).float()  # (N, 1, S, S)
        return weighted(self.losses(image, alpha, known, scale), self.schedule.loss_weights)

    def reset_meter(self, state: dict[str, Any] | None = None) -> None:
        """A new meter for a new epoch, or the saved one of an epoch that was interrupted."""
        history = self.config.max_bad_steps * self.config.accumulation_steps
        self.meter = Meter(self.device, history, state)


def lr_scales(config: Config) -> dict[str, float]:
    """Part -> multiple of the learning rate: pretrained encoders move less, the small refiner more."""
    pretrained = bool(config.pretrained or config.backbone_weights)  # the teacher's only start: no checkpoint holds it
    return {
        "student": config.encoder_lr_scale if pretrained or config.init_from else 1.0,
        "encoder": config.encoder_lr_scale if pretrained else 1.0,  # of the teacher
        "refiner": config.refiner_lr_scale,
    }
