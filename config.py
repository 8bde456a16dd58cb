"""Every setting of a training run.

Edit a constant here, or override it for one run with the flag of the same name: IMAGE_SIZE is --image-size,
USE_REFINER is --use-refiner / --no-use-refiner. The comment behind a constant is also the flag's help text.
Only scripts read this file; a checkpoint carries the settings it was trained with.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import re
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# model
MODEL_IDX = 0  # 0 = Tiny, 1 = Small, 2 = Base, 3 = Large
IMAGE_SIZE = 0  # working size in pixels: training crop, and long side of what the student sees; 0 = the variant's own
USE_TEACHER = True  # train with the Swin teacher that encodes the true alpha
USE_REFINER = True  # full-resolution refiner; without it the network is TwinSwin-Matte
REFINER_CHANNELS = 32  # width of the refiner: 16, 32 or a multiple of 32
REFINER_BLOCKS = 3  # dilated blocks of the refiner; each adds 4 pixels to its reach
USE_COLOURS = True  # show the refiner what alpha the colours nearby suggest; without it (for comparison) it learns that
USE_ATTENTION = True  # hold the refiner to uncertain pixels; without it (for comparison) no tile can be skipped
SMART_INIT = True  # the refiner starts as the identity; without it (for comparison) it starts with random corrections
PRETRAINED = True  # start the encoders from ImageNet weights (downloaded once by timm)
BACKBONE_WEIGHTS = ""  # local file with the backbone's weights: timm's or official Swin naming, or a best.safetensors
INIT_FROM = ""  # checkpoint (best.safetensors) to fine-tune; it is evaluated before the first step

# data
DATASET = "Datasets/DIS5K_Flat"  # folder with train/im, train/gt, val/im, val/gt; or the word synthetic
FOREGROUNDS = ""  # optional folder of RGBA cut-outs, composited on the fly over BACKGROUNDS
BACKGROUNDS = ""  # folder of photos without a main object, for FOREGROUNDS
TRAIN_SAMPLES = 2000  # size of the synthetic training set: samples an epoch
VAL_SAMPLES = 64  # size of the synthetic validation set
NUM_WORKERS = -1  # loader processes a GPU; -1 = as many as the cores allow, 0 = load in the training process
MAX_STUDENT_DOWNSCALE = 2  # the student's view of a crop is up to this many times smaller than the refiner's

# optimization
EPOCHS = 100  # passes over the training set
BATCH_SIZE = 8  # images a step and process
ACCUMULATION_STEPS = 1  # batches whose gradients are added before a step
LEARNING_RATE = 2e-4  # peak learning rate of decoder, refiner and encoders without pretrained weights
ENCODER_LR_SCALE = 0.25  # pretrained encoders learn at this share of LEARNING_RATE
REFINER_LR_SCALE = 5.0  # the refiner, small and without normalization, learns at this multiple of LEARNING_RATE
TEACHER_EPOCHS = 1  # epochs at the start in which the teacher learns, alone with the decoder; then it is frozen
LR_SCHEDULE = "cosine"  # cosine (to a hundredth of the peak) or constant
WEIGHT_DECAY = 0.01  # AdamW decay of weights; biases, norms and position tables have none
GRADIENT_CLIP = 1.0  # largest gradient norm; 0 = no clipping
EMA_DECAY = 0.999  # averaging of the weights that are validated and shipped; 0 = off
DROP_PATH = 0.0  # stochastic depth of the encoders
FREEZE_ENCODER_EPOCHS = 0  # epochs at the start in which the student encoder does not move

# losses: weights of the named terms; 0 leaves the term out
WEIGHT_BCE = 1.0  # cross-entropy on the coarse logits
WEIGHT_L1 = 1.0  # |alpha - truth|, coarse and refined
WEIGHT_GRADIENT = 1.0  # |gradient of alpha - gradient of truth|, coarse and refined
WEIGHT_LAPLACIAN = 0.5  # Laplacian pyramid, coarse and refined
WEIGHT_EDGE = 2.0  # |alpha - truth| once more in the band around the true alpha's edges, refined only
WEIGHT_ALIGNMENT = 0.5  # the student's features toward the teacher's; fades to 0 over the run

# machine
DEVICE = "auto"  # auto (CUDA, else Apple MPS, else CPU), or a torch device name
AMP = "auto"  # auto (bf16 where the hardware has it, else fp16 on CUDA, else off), bf16, fp16, off
SEED = 0  # seed of weights, data and augmentation
DETERMINISTIC = False  # only deterministic kernels: slower on a GPU
COMPILE = False  # torch.compile the network: slow first step, faster later
GRADIENT_CHECKPOINTING = False  # recompute encoder activations: less memory, about a third slower

# run
OUTPUT = "checkpoints"  # where run folders are made
LOG_INTERVAL = 20  # steps between readings of the loss: each reading waits for the device
SAVE_EVERY_MINUTES = 15.0  # last.pt is also written this often within an epoch; 0 = only at epoch ends
EARLY_STOP_EPOCHS = 0  # stop after this many epochs without a better validation SAD; 0 = never
MAX_BAD_STEPS = 20  # non-finite steps in a row after which the run stops
MAX_HOURS = 0.0  # stop cleanly after this time; 0 = no limit
TENSORBOARD = False  # also write TensorBoard events (needs the package tensorboard)


# Settings that belong together, chosen with --recipe NAME; a flag beside it still holds.
RECIPES = {
    # DIS5K (3000 photos to train) from ImageNet weights on one GPU of 24 GB
    "dis5k-24gb": dict(
        image_size=1024,  # DIS5K is about thin structures: what is lost at the working size stays lost
        batch_size=2,
        accumulation_steps=4,  # what is hoped to fit, and the effective batch of 8 that is wanted
        gradient_checkpointing=True,  # Swin's activations at 1024 are most of the memory
        epochs=100,  # 37,500 steps
        teacher_epochs=3,  # about 1000 steps, as IS-Net gives its own encoder of the truth (Qin et al., ECCV 2022)
        learning_rate=2e-4,
        encoder_lr_scale=0.25,  # the encoder knows photos already, decoder and refiner nothing
        drop_path=0.1,  # 3000 photos are few for a Swin, and 100 epochs are many
        ema_decay=0.999,  # an average over about three epochs
    ),
    # The same on 8 GPUs: torchrun --nproc-per-node 8 train.py --recipe dis5k-8gpu
    "dis5k-8gpu": dict(
        image_size=1024,
        batch_size=4,
        accumulation_steps=1,  # 32 photos a step: four times the batch, a quarter of the steps
        learning_rate=4e-4,  # AdamW: with the square root of the batch
        encoder_lr_scale=0.25,
        epochs=100,
        drop_path=0.1,
        ema_decay=0.996,  # the same three epochs, in fewer steps
    ),
    # Some hundred photos of one's own: --recipe fine-tune --init-from CHECKPOINT --dataset MINE
    "fine-tune": dict(
        learning_rate=2e-5,  # a tenth: keep what the checkpoint knows
        freeze_encoder_epochs=2,  # decoder and refiner find the new truths before the encoder follows them
        use_teacher=False,  # a released file holds none, and a new one would have too few mattes to learn from
        epochs=30,
        early_stop_epochs=8,  # a small set is learned by heart soon
        ema_decay=0.99,  # some hundred photos make few steps: a longer average would still hold the start
    ),
}


class Variant(typing.NamedTuple):
    """One row of the table of variants."""

    name: str  # as it stands in the run folder's name
    backbone: str  # timm model whose weights PRETRAINED loads
    image_size: int  # working size in pixels


VARIANTS = (
    Variant("SwinTiny", "swin_tiny_patch4_window7_224", 1024),
    Variant("SwinSmall", "swin_small_patch4_window7_224", 1024),
    Variant("SwinBase", "swin_base_patch4_window12_384", 1024),
    Variant("SwinLarge", "swin_large_patch4_window12_384", 1024),
)


class ConfigError(ValueError):
    """A setting that cannot work; the message says what to do."""


@dataclass(frozen=True)
class Config:
    """One run's settings. Derived values are properties; impossible ones raise ConfigError."""

    model_idx: int = MODEL_IDX
    image_size: int = IMAGE_SIZE
    use_teacher: bool = USE_TEACHER
    use_refiner: bool = USE_REFINER
    refiner_channels: int = REFINER_CHANNELS
    refiner_blocks: int = REFINER_BLOCKS
    use_colours: bool = USE_COLOURS
    use_attention: bool = USE_ATTENTION
    smart_init: bool = SMART_INIT
    pretrained: bool = PRETRAINED
    backbone_weights: str = BACKBONE_WEIGHTS
    init_from: str = INIT_FROM
    dataset: str = DATASET
    foregrounds: str = FOREGROUNDS
    backgrounds: str = BACKGROUNDS
    train_samples: int = TRAIN_SAMPLES
    val_samples: int = VAL_SAMPLES
    num_workers: int = NUM_WORKERS
    max_student_downscale: int = MAX_STUDENT_DOWNSCALE
    epochs: int = EPOCHS
    batch_size: int = BATCH_SIZE
    accumulation_steps: int = ACCUMULATION_STEPS
    learning_rate: float = LEARNING_RATE
    encoder_lr_scale: float = ENCODER_LR_SCALE
    refiner_lr_scale: float = REFINER_LR_SCALE
    teacher_epochs: int = TEACHER_EPOCHS
    lr_schedule: str = LR_SCHEDULE
    weight_decay: float = WEIGHT_DECAY
    gradient_clip: float = GRADIENT_CLIP
    ema_decay: float = EMA_DECAY
    drop_path: float = DROP_PATH
    freeze_encoder_epochs: int = FREEZE_ENCODER_EPOCHS
    weight_bce: float = WEIGHT_BCE
    weight_l1: float = WEIGHT_L1
    weight_gradient: float = WEIGHT_GRADIENT
    weight_laplacian: float = WEIGHT_LAPLACIAN
    weight_edge: float = WEIGHT_EDGE
    weight_alignment: float = WEIGHT_ALIGNMENT
    device: str = DEVICE
    amp: str = AMP
    seed: int = SEED
    deterministic: bool = DETERMINISTIC
    compile: bool = COMPILE
    gradient_checkpointing: bool = GRADIENT_CHECKPOINTING
    output: str = OUTPUT
    log_interval: int = LOG_INTERVAL
    save_every_minutes: float = SAVE_EVERY_MINUTES
    early_stop_epochs: int = EARLY_STOP_EPOCHS
    max_bad_steps: int = MAX_BAD_STEPS
    max_hours: float = MAX_HOURS
    tensorboard: bool = TENSORBOARD

    def __post_init__(self) -> None:
        for name in (
            "epochs",
            "batch_size",
            "accumulation_steps",
            "train_samples",
            "val_samples",
            "log_interval",
            "max_student_downscale",
            "refiner_blocks",
            "max_bad_steps",
            "learning_rate",
            "refiner_lr_scale",
        ):
            _require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}: give a value above 0")
        not_negative = [
            field.name
            for field in dataclasses.fields(self)
            if field.name.startswith("weight_") or field.name.endswith(("_epochs", "_minutes", "_hours", "_clip"))
        ]
        for name in ("seed", "encoder_lr_scale", *not_negative):
            _require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}: it cannot be negative")
        _require(
            0 <= self.model_idx < len(VARIANTS),
            f"model_idx is {self.model_idx}: choose 0 Tiny, 1 Small, 2 Base or 3 Large",
        )
        _require(
            self.image_size == 0 or self.image_size >= 32,
            f"image_size is {self.image_size}: Swin needs at least 32 pixels (0 takes the variant's own)",
        )
        _require(self.amp in ("auto", "bf16", "fp16", "off"), f"amp is {self.amp}: choose auto, bf16, fp16 or off")
        _require(
            self.lr_schedule in ("cosine", "constant"), f"lr_schedule is {self.lr_schedule}: choose cosine or constant"
        )
        _require(0 <= self.ema_decay < 1, f"ema_decay is {self.ema_decay}: choose 0 (off) or a value such as 0.999")
        _require(0 <= self.drop_path < 1, f"drop_path is {self.drop_path}: choose a share from 0 to below 1")
        _require(self.num_workers >= -1, f"num_workers is {self.num_workers}: choose -1 (as the cores allow) or more")
        _require(
            self.refiner_channels == 16 or (self.refiner_channels > 0 and self.refiner_channels % 32 == 0),
            f"refiner_channels is {self.refiner_channels}: choose 16, 32 or a multiple of 32",
        )
        _require(
            bool(self.foregrounds) == bool(self.backgrounds),
            "foregrounds and backgrounds belong together: give both folders or neither",
        )

    @property
    def variant(self) -> Variant:
        return VARIANTS[self.model_idx]

    @property
    def working_size(self) -> int:
        return self.image_size or self.variant.image_size

    @property
    def method(self) -> str:
        return "TSR-Matte" if self.use_refiner else "TwinSwin-Matte"

    @property
    def model_options(self) -> dict:
        """Keyword arguments of models.build_model that a checkpoint needs to rebuild its model."""
        return dict(
            backbone=self.variant.backbone,
            image_size=self.working_size,
            use_refiner=self.use_refiner,
            refiner_channels=self.refiner_channels,
            refiner_blocks=self.refiner_blocks,
            use_colours=self.use_colours,
            use_attention=self.use_attention,
        )

    def as_dict(self) -> dict:
        return dataclasses.asdict(self)


def _require(holds: bool, sentence: str) -> None:
    if not holds:
        raise ConfigError(sentence + ".")


@functools.cache
def explanations() -> dict[str, str]:
    """Field name -> the comment behind its constant, read from this file so that no line is written twice."""
    lines = re.findall(r"^([A-Z0-9_]+) = .*?  # (.+)$", Path(__file__).read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {name.lower(): text for name, text in lines}


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    """One flag per field of Config; a flag that is not given leaves nothing in the namespace."""
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        default=argparse.SUPPRESS,
        help="settings that belong together, see config.py; other flags still hold",
    )
    types = typing.get_type_hints(Config)
    for field in dataclasses.fields(Config):
        text = f"{explanations()[field.name]} (default: {field.default!r})".replace("%", "%%")
        kind = (
            dict(action=argparse.BooleanOptionalAction)
            if types[field.name] is bool
            else dict(type=types[field.name], metavar=types[field.name].__name__.upper())
        )
        parser.add_argument("--" + field.name.replace("_", "-"), default=argparse.SUPPRESS, help=text, **kind)


def config_from_flags(flags: argparse.Namespace, base: Config | None = None) -> Config:
    """The base (default: this file's constants), the recipe over it, and over both the flags that were given."""
    names = {field.name for field in dataclasses.fields(Config)}
    given = {name: value for name, value in vars(flags).items() if name in names}
    recipe = RECIPES.get(getattr(flags, "recipe", None), {})
    return dataclasses.replace(base or Config(), **(recipe | given))


def config_from_dict(values: dict, source: str) -> Config:
    """A stored config, such as a run's config.json; settings that it lacks are this file's. Raises ConfigError."""
    types = typing.get_type_hints(Config)
    unknown = sorted(values.keys() - types.keys())
    _require(
        not unknown,
        f"{source} has settings that this version does not know ({', '.join(unknown)}): use the "
        "version that wrote it, or take them out",
    )
    for name, value in values.items():
        fits = isinstance(value, types[name]) or (types[name] is float and isinstance(value, int))
        _require(
            fits and (types[name] is bool or not isinstance(value, bool)),
            f"{source} has {name} = {value!r}: it must be of the type {types[name].__name__}",
        )
    return Config(**values)


def parse_config(argv: Sequence[str] | None = None) -> Config:
    """Flags to Config; raises ConfigError for impossible values, exits 2 for unknown flags."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_flags(parser)
    return config_from_flags(parser.parse_args(argv))
