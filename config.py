"""The settings of a training run. Probabilities and strengths of augmentations are in data/augmentation.py.

Edit MODEL_IDX, DATASET or a field of Config here, or override any field for one run with its flag: image_size is
--image-size, use_refiner is --use-refiner / --no-use-refiner. A field's text is its flag's help.
A checkpoint stores the settings it was trained with; predict.py, evaluate.py and export.py follow the checkpoint.
"""

from __future__ import annotations

import dataclasses
import math
import re
import typing
from dataclasses import dataclass
from functools import partial
from typing import Any

from common.errors import UserError

MODEL_IDX = 0  # 0 = Tiny, 1 = Small, 2 = Base, 3 = Large, 4 = ConvNeXt-Tiny
DATASET = "Datasets/DIS5K_Flat"  # folder with train/im, train/gt, val/im, val/gt; or the word synthetic


class Variant(typing.NamedTuple):
    """One row of the table of variants."""

    name: str  # as in the run folder's name
    backbone: str  # timm model whose weights --pretrained loads
    image_size: int  # default working size in pixels


VARIANTS = (  # a new one goes to the end: saved settings name theirs by its number
    Variant("SwinTiny", "swin_tiny_patch4_window7_224", 1024),
    Variant("SwinSmall", "swin_small_patch4_window7_224", 1024),
    Variant("SwinBase", "swin_base_patch4_window12_384", 1024),
    Variant("SwinLarge", "swin_large_patch4_window12_384", 1024),
    Variant("ConvNeXtTiny", "convnext_tiny.fb_in1k", 1024),
)


def setting(group: str, default: Any, text: str) -> Any:
    """A field of Config: the heading under which train.py's help shows it, its value, and what it is."""
    return dataclasses.field(default=default, metadata={"group": group, "text": text})


essential, model, data, optimizer, loss, machine, run = (
    partial(setting, group) for group in ("essential", "model", "data", "optimizer", "losses", "machine", "run")
)


@dataclass(frozen=True)
class Config:
    """One run's settings. Derived values are properties; impossible ones raise UserError."""

    # model
    model_idx: int = essential(MODEL_IDX, "0 = Tiny, 1 = Small, 2 = Base, 3 = Large, 4 = ConvNeXt-Tiny")
    image_size: int = essential(0, "pixels of the student's long side; 0 = the checkpoint's, or the variant's own")
    use_teacher: bool = model(True, "train a teacher of the true alpha first, and align the student with it")
    use_refiner: bool = model(True, "full-resolution refiner; without it the network is TwinSwin-Matte")
    refiner_channels: int = model(32, "width of the refiner: 16, 32 or a multiple of 32")
    refiner_blocks: int = model(3, "dilated blocks of the refiner; each adds 4 pixels to its reach")
    use_colours: bool = model(True, "show the refiner the alpha that local colours suggest (off: for comparison)")
    use_attention: bool = model(True, "hold the refiner to uncertain pixels (off: for comparison; no tile is skipped)")
    use_octaves: bool = model(True, "refine in octaves from the student's size up (off: for comparison; one jump)")
    smart_init: bool = model(True, "the refiner starts as the identity (off: for comparison; random corrections)")
    pretrained: bool = essential(True, "start the encoders from ImageNet weights (downloaded once by timm)")
    backbone_weights: str = model("", "local backbone weights: timm or Swin naming, or a best.safetensors")
    guide: str = model("", "frozen timm network with ImageNet weights whose features guide a random student")
    guide_weights: str = model("", "local weights of --guide, in timm's naming")
    init_from: str = essential("", "checkpoint to fine-tune: best.safetensors, its run folder or hf:owner/name")

    # data
    dataset: tuple[str, ...] = essential((DATASET,), "folders, or the word synthetic; mine*2 counts twice")
    foregrounds: tuple[str, ...] = data((), "folders of RGBA cut-outs, composited on the fly over --backgrounds")
    backgrounds: tuple[str, ...] = data((), "folders of photos without a main object, for --foregrounds")
    train_samples: int = data(2000, "size of the synthetic training set: samples per epoch")
    val_samples: int = data(64, "size of the synthetic validation set")
    check_data: bool = data(True, "look for faults in a sample of the data first, and stop if there are any")
    num_workers: int = essential(-1, "loader processes per GPU; -1 = as the cores allow, 0 = none")
    crop_size: int = data(0, "side of the training crop, a multiple of the working size; 0 = that size")
    crop_scale_min: float = data(1.0, "smallest zoom of a crop: 1 = all of the photo; below 1 it is padded")
    crop_scale_max: float = data(2.0, "largest zoom: 2 = the crop spans half of the long side")
    max_student_downscale: int = data(2, "the student's view is 1, 2, 4 ... up to this many times smaller")

    # optimizer
    epochs: int = essential(100, "passes over the training set")
    batch_size: int = essential(4, "images per step and process; what fits which GPU: docs/training.md")
    accumulation_steps: int = essential(1, "batches whose gradients are added before a step")
    learning_rate: float = essential(2e-4, "peak learning rate of the decoder, and of encoders with random weights")
    encoder_lr_scale: float = optimizer(0.25, "encoders with trained weights learn at this share of --learning-rate")
    refiner_lr_scale: float = optimizer(5.0, "the refiner, small and unnormalized, learns at this multiple")
    teacher_epochs: int = optimizer(1, "epochs of the first stage, in which only the teacher and its decoder learn")
    lr_schedule: str = optimizer("cosine", "cosine (to a hundredth of the peak) or constant")
    weight_decay: float = optimizer(0.01, "AdamW decay of weights; biases, norms and position tables have none")
    gradient_clip: float = optimizer(1.0, "largest gradient norm; 0 = no clipping")
    ema_decay: float = optimizer(0.999, "averaging of the weights that are validated and shipped; 0 = off")
    drop_path: float = optimizer(0.0, "stochastic depth of the encoders")
    freeze_encoder_epochs: int = optimizer(0, "epochs of the student's stage in which its encoder is frozen first")

    # losses: weight_NAME for each row of losses.TERMS; 0 leaves the term out
    weight_bce: float = loss(1.0, "cross-entropy on the coarse logits")
    weight_l1: float = loss(1.0, "|alpha - truth|, coarse and refined")
    weight_gradient: float = loss(1.0, "|gradient of alpha - gradient of truth|, coarse and refined")
    weight_laplacian: float = loss(0.5, "Laplacian pyramid, coarse and refined")
    weight_edge: float = loss(2.0, "|alpha - truth| in a band around the true edges, refined only")
    weight_alignment: float = loss(0.5, "the student's features toward the teacher's; fades to 0 over the run")
    weight_guide: float = loss(2.0, "the student's features toward those of --guide, in all steps")

    # machine
    device: str = machine("auto", "auto (CUDA, else Apple MPS, else CPU), or a torch device name")
    amp: str = machine("auto", "auto (bf16 where native, else fp16 on CUDA, else off), bf16, fp16, off")
    seed: int = machine(0, "seed of weights, data and augmentation")
    deterministic: bool = machine(False, "only deterministic kernels: slower on a GPU")
    compile: bool = machine(False, "torch.compile the step: slow at first, faster later")
    gradient_checkpointing: bool = machine(False, "recompute: 30 to 60 % of the memory, a third slower")

    # run
    output: str = essential("checkpoints", "where run folders are made")
    tag: str = essential("", "a word for the name of the run's folder")
    log_interval: int = run(20, "steps between readings of the loss: each reading waits for the device")
    save_every_minutes: float = run(15.0, "last.pt is also written this often within an epoch; 0 = only at its end")
    validate_every: int = run(1, "epochs from one validation to the next; the last epoch always has one")
    validate_every_steps: int = run(0, "also validate within an epoch, after this many steps; 0 = never")
    keep_previous: bool = run(True, "keep the state before last.pt too, as last.previous.pt: twice the disk")
    early_stop_epochs: int = run(0, "stop after this many epochs without a lower validation MAD; 0 = never")
    max_bad_steps: int = run(20, "non-finite steps in a row after which the run stops")
    max_hours: float = run(0.0, "stop cleanly after this time; 0 = no limit")
    tensorboard: bool = run(False, "also write TensorBoard events (needs the package tensorboard)")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            require(not isinstance(value, float) or math.isfinite(value), f"{field.name} is {value}: give a number")
            if field.name in ABOVE_ZERO:
                require(value > 0, f"{field.name} is {value}: give a value above 0")
            if field.name in NOT_NEGATIVE or field.name.startswith("weight_"):
                require(value >= 0, f"{field.name} is {value}: it cannot be negative")
            if field.name in CHOICES:
                choices = CHOICES[field.name]
                require(value in choices, f"{field.name} is {value}: choose {', '.join(choices[:-1])} or {choices[-1]}")
        variants = ", ".join(f"{number} {variant.name}" for number, variant in enumerate(VARIANTS))
        require(0 <= self.model_idx < len(VARIANTS), f"model_idx is {self.model_idx}: choose {variants}")
        require(
            self.image_size == 0 or self.image_size >= 32,
            f"image_size is {self.image_size}: the encoder needs at least 32 pixels (0 takes the variant's own)",
        )
        require(re.fullmatch(r"[\w.+-]*", self.tag), f"tag is {self.tag}: use letters, digits and . _ + - alone")
        require(0 <= self.ema_decay < 1, f"ema_decay is {self.ema_decay}: choose 0 (off) or a value such as 0.999")
        require(0 <= self.drop_path < 1, f"drop_path is {self.drop_path}: choose a share from 0 to below 1")
        require(self.num_workers >= -1, f"num_workers is {self.num_workers}: choose -1 (as the cores allow) or more")
        require(
            self.refiner_channels == 16 or (self.refiner_channels > 0 and self.refiner_channels % 32 == 0),
            f"refiner_channels is {self.refiner_channels}: choose 16, 32 or a multiple of 32",
        )
        require(
            self.crop_size >= 0 and self.crop_size % self.working_size == 0,
            f"crop_size is {self.crop_size}: give a multiple of the working size {self.working_size}, or 0 for it",
        )
        require(
            bool(self.foregrounds) == bool(self.backgrounds), "foregrounds and backgrounds belong together: give both"
        )
        require(
            self.crop_scale_min <= self.crop_scale_max,
            f"crop_scale_min is {self.crop_scale_min}, above crop_scale_max {self.crop_scale_max}: swap them",
        )
        from losses import COARSE, LOGITS, TERMS  # here, since it loads torch, which --help does without

        coarse = [f"weight_{term.name}" for term in TERMS if {COARSE, LOGITS}.intersection(term.looks_at)]
        require(
            any(getattr(self, name) for name in coarse),
            f"{', '.join(coarse)} are all 0: give at least one a weight, or the coarse matte has nothing to learn from",
        )

    @property
    def variant(self) -> Variant:
        return VARIANTS[self.model_idx]

    @property
    def working_size(self) -> int:
        return self.image_size or self.variant.image_size

    @property
    def training_size(self) -> int:
        """Side of the training crop in pixels."""
        return self.crop_size or self.working_size

    @property
    def smallest_downscale(self) -> int:
        """How many times smaller than the crop the student's largest view is."""
        return self.training_size // self.working_size

    @property
    def method(self) -> str:
        return "TSR-Matte" if self.use_refiner else "TwinSwin-Matte"

    @property
    def model_options(self) -> dict[str, Any]:
        """Keyword arguments of models.build_model that a checkpoint needs to rebuild its model."""
        return dict(
            backbone=self.variant.backbone,
            image_size=self.working_size,
            use_refiner=self.use_refiner,
            refiner_channels=self.refiner_channels,
            refiner_blocks=self.refiner_blocks,
            use_colours=self.use_colours,
            use_attention=self.use_attention,
            use_octaves=self.use_octaves,
        )

    @property
    def loss_weights(self) -> dict[str, float]:
        """Weights of losses.TERMS, by name."""
        fields = [field.name for field in dataclasses.fields(self) if field.metadata["group"] == "losses"]
        return {name.removeprefix("weight_"): getattr(self, name) for name in fields}

    @property
    def first_stage_epochs(self) -> int:
        """Epochs of the teacher's stage. The last epoch is always the student's."""
        return min(self.teacher_epochs, self.epochs - 1) if self.use_teacher else 0

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


ABOVE_ZERO = (
    "epochs", "batch_size", "accumulation_steps", "train_samples", "val_samples", "log_interval",
    "max_student_downscale", "crop_scale_min", "refiner_blocks", "max_bad_steps", "learning_rate", "refiner_lr_scale",
    "validate_every",
)  # fmt: skip
NOT_NEGATIVE = (
    "seed", "encoder_lr_scale", "teacher_epochs", "freeze_encoder_epochs", "early_stop_epochs", "save_every_minutes",
    "max_hours", "gradient_clip", "validate_every_steps",
)  # fmt: skip
CHOICES = {"amp": ("auto", "bf16", "fp16", "off"), "lr_schedule": ("cosine", "constant")}


def require(holds: object, sentence: str) -> None:
    if not holds:
        raise UserError(sentence + ".")
