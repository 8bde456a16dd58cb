"""The settings of a training run. Probabilities and strengths of augmentations are in data/augmentation.py.

Edit MODEL_IDX, DATASET or a field of Config here, or override any field for one run with its flag: image_size is
--image-size, use_refiner is --use-refiner / --no-use-refiner. A field's comment is its flag's help text.
A checkpoint stores the settings it was trained with; predict.py, evaluate.py and export.py follow the checkpoint.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from dataclasses import dataclass
from typing import Any

from common.errors import UserError

MODEL_IDX = 0  # 0 = Tiny, 1 = Small, 2 = Base, 3 = Large, 4 = ConvNeXt-Tiny
DATASET = "Datasets/DIS5K_Flat"  # folder with train/im, train/gt, val/im, val/gt; or the word synthetic


class Variant(typing.NamedTuple):
    """One row of the table of variants."""

    name: str  # as in the run folder's name
    backbone: str  # timm model whose weights --pretrained loads
    image_size: int  # default working size in pixels


VARIANTS = (
    Variant("SwinTiny", "swin_tiny_patch4_window7_224", 1024),
    Variant("SwinSmall", "swin_small_patch4_window7_224", 1024),
    Variant("SwinBase", "swin_base_patch4_window12_384", 1024),
    Variant("SwinLarge", "swin_large_patch4_window12_384", 1024),
    Variant("ConvNeXtTiny", "convnext_tiny.fb_in1k", 1024),
)


@dataclass(frozen=True)
class Config:
    """One run's settings. Derived values are properties; impossible ones raise UserError."""

    # model
    model_idx: int = MODEL_IDX  # 0 = Tiny, 1 = Small, 2 = Base, 3 = Large, 4 = ConvNeXt-Tiny
    image_size: int = 0  # working size: pixels of the student's long side in prediction; 0 = checkpoint's or variant's
    use_teacher: bool = True  # train a teacher of the true alpha first, and align the student with it
    use_refiner: bool = True  # full-resolution refiner; without it the network is TwinSwin-Matte
    refiner_channels: int = 32  # width of the refiner: 16, 32 or a multiple of 32
    refiner_blocks: int = 3  # dilated blocks of the refiner; each adds 4 pixels to its reach
    use_colours: bool = True  # show the refiner the alpha that local colours suggest (off: for comparison)
    use_attention: bool = True  # hold the refiner to uncertain pixels (off: for comparison; no tile can be skipped)
    use_octaves: bool = True  # refine at each octave from the student's size up (off: for comparison; one jump)
    smart_init: bool = True  # the refiner starts as the identity (off: for comparison; random corrections)
    pretrained: bool = True  # start the encoders from ImageNet weights (downloaded once by timm)
    backbone_weights: str = ""  # local backbone weights: timm or official Swin naming, or a best.safetensors
    guide: str = ""  # frozen timm network with ImageNet weights whose features guide a student from random weights
    guide_weights: str = ""  # local weights of --guide, in timm's naming
    init_from: str = ""  # checkpoint to fine-tune (best.safetensors, hf:owner/name); evaluated before the first step

    # data
    dataset: tuple[str, ...] = (DATASET,)  # folders with train and val, or the word synthetic; mine*2 counts twice
    foregrounds: tuple[str, ...] = ()  # folders of RGBA cut-outs, composited on the fly over --backgrounds
    backgrounds: tuple[str, ...] = ()  # folders of photos without a main object, for --foregrounds
    train_samples: int = 2000  # size of the synthetic training set: samples per epoch
    val_samples: int = 64  # size of the synthetic validation set
    check_data: bool = True  # before the first step look for faults in a sample of the data, and stop if there are any
    num_workers: int = -1  # loader processes per GPU; -1 = as many as the cores allow, 0 = load in the training process
    crop_size: int = 0  # pixels of the training crop's side, a multiple of the working size; 0 = the working size
    crop_scale_min: float = 1.0  # smallest zoom of a crop: 1 = it spans the photo's long side; below 1 it is padded
    crop_scale_max: float = 2.0  # largest zoom: 2 = the crop spans half of the long side
    max_student_downscale: int = 2  # the student's view is 1, 2, 4 ... up to this many times below the working size

    # optimization
    epochs: int = 100  # passes over the training set
    batch_size: int = 4  # images per step and process; what fits which GPU: docs/training.md
    accumulation_steps: int = 1  # batches whose gradients are added before a step
    learning_rate: float = 2e-4  # peak learning rate of the decoder, and of encoders that start from random weights
    encoder_lr_scale: float = 0.25  # encoders with trained weights learn at this share of --learning-rate
    refiner_lr_scale: float = 5.0  # the refiner, small and unnormalized, learns at this multiple of --learning-rate
    teacher_epochs: int = 1  # epochs of the first stage: only the teacher and (without --init-from) its decoder learn
    lr_schedule: str = "cosine"  # cosine (to a hundredth of the peak) or constant
    weight_decay: float = 0.01  # AdamW decay of weights; biases, norms and position tables have none
    gradient_clip: float = 1.0  # largest gradient norm; 0 = no clipping
    ema_decay: float = 0.999  # averaging of the weights that are validated and shipped; 0 = off
    drop_path: float = 0.0  # stochastic depth of the encoders
    freeze_encoder_epochs: int = 0  # epochs at the start of the student's stage in which its encoder is frozen

    # losses: weights of the named terms; 0 leaves the term out
    weight_bce: float = 1.0  # cross-entropy on the coarse logits
    weight_l1: float = 1.0  # |alpha - truth|, coarse and refined
    weight_gradient: float = 1.0  # |gradient of alpha - gradient of truth|, coarse and refined
    weight_laplacian: float = 0.5  # Laplacian pyramid, coarse and refined
    weight_edge: float = 2.0  # |alpha - truth| in the band around the true alpha's edges, refined only
    weight_alignment: float = 0.5  # the student's features toward the teacher's; fades to 0 over the run
    weight_guide: float = 2.0  # the student's features toward those of --guide, in all steps

    # machine
    device: str = "auto"  # auto (CUDA, else Apple MPS, else CPU), or a torch device name
    amp: str = "auto"  # auto (bf16 where the hardware has it, else fp16 on CUDA, else off), bf16, fp16, off
    seed: int = 0  # seed of weights, data and augmentation
    deterministic: bool = False  # only deterministic kernels: slower on a GPU
    compile: bool = False  # torch.compile the network: slow first step, faster later
    gradient_checkpointing: bool = False  # recompute the encoders' blocks: 30 to 60 % of the memory, a third slower

    # run
    output: str = "checkpoints"  # where run folders are made
    log_interval: int = 20  # steps between readings of the loss: each reading waits for the device
    save_every_minutes: float = 15.0  # last.pt is also written this often within an epoch; 0 = only at epoch ends
    validate_every: int = 1  # epochs from one validation to the next; the last epoch always has one
    early_stop_epochs: int = 0  # stop after this many epochs without a lower validation MAD; 0 = never
    max_bad_steps: int = 20  # non-finite steps in a row after which the run stops
    max_hours: float = 0.0  # stop cleanly after this time; 0 = no limit
    tensorboard: bool = False  # also write TensorBoard events (needs the package tensorboard)

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
        require(
            0 <= self.model_idx < len(VARIANTS),
            f"model_idx is {self.model_idx}: choose 0 Tiny, 1 Small, 2 Base or 3 Large",
        )
        require(
            self.image_size == 0 or self.image_size >= 32,
            f"image_size is {self.image_size}: the encoder needs at least 32 pixels (0 takes the variant's own)",
        )
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
            bool(self.foregrounds) == bool(self.backgrounds),
            "foregrounds and backgrounds belong together: give both folders or neither",
        )
        require(
            self.crop_scale_min <= self.crop_scale_max,
            f"crop_scale_min is {self.crop_scale_min}, above crop_scale_max {self.crop_scale_max}: swap them",
        )
        require(
            any(self.loss_weights[name] for name in ("bce", "l1", "gradient", "laplacian")),
            "weight_bce, weight_l1, weight_gradient and weight_laplacian are all 0: give at least one a weight, or "
            "the coarse matte has nothing to learn from",
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
        """Weights of losses.matting_losses, by term."""
        names = ("bce", "l1", "gradient", "laplacian", "edge", "alignment", "guide")
        return {name: getattr(self, f"weight_{name}") for name in names}

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


ABOVE_ZERO = (
    "epochs", "batch_size", "accumulation_steps", "train_samples", "val_samples", "log_interval",
    "max_student_downscale", "crop_scale_min", "refiner_blocks", "max_bad_steps", "learning_rate", "refiner_lr_scale",
    "validate_every",
)  # fmt: skip
NOT_NEGATIVE = (
    "seed", "encoder_lr_scale", "teacher_epochs", "freeze_encoder_epochs", "early_stop_epochs", "save_every_minutes",
    "max_hours", "gradient_clip",
)  # fmt: skip
CHOICES = {"amp": ("auto", "bf16", "fp16", "off"), "lr_schedule": ("cosine", "constant")}


def require(holds: bool, sentence: str) -> None:
    if not holds:
        raise UserError(sentence + ".")
