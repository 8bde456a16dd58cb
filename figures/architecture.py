"""Draw figures/tsr_architecture.png from the network itself, so that the figure cannot go stale.

    python -m figures.architecture [--output F.png] [--model-idx 0]

Every number in the figure is read from what models.build_model returns: channels, strides, blocks, parameters.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import nn

from common.files import atomic_write
from config import VARIANTS, Config, Variant
from figures.shapes import DASHED, GREY, INK, arrow, box, lateral, panel, tensor
from models import MattingNetwork, build_model
from models.encoder import STRIDES
from models.refiner import DILATIONS

OUTPUT = Path(__file__).with_name("tsr_architecture.png")
SIZE = (16.0, 8.4)  # inches, and units of the axes
DPI = 110
STUDENT, TEACHER, DECODER, REFINER = "#3b78c2", "#8a63b5", "#2f8a5e", "#bd6412"
MIDDLE = 5.2  # height of the line on which a photo travels
TEACHER_MIDDLE = 1.5


class Stage(NamedTuple):
    """One map of a pyramid: its name, channels, and size as a fraction 1 / stride of the input."""

    name: str
    channels: int
    stride: int
    detail: str = ""


class Parts(NamedTuple):
    """What the figure says of a network."""

    encoder: list[Stage]
    decoder: list[Stage]
    refiner_inputs: int
    refiner_channels: int
    refiner_branch_channels: int
    refiner_blocks: int
    receptive_radius: int
    parameters: dict[str, int]  # student, teacher, decoder, refiner


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="F.png")
    parser.add_argument("--model-idx", type=int, default=0, choices=range(len(VARIANTS)), help="variant to draw")
    options = parser.parse_args(argv)
    draw(options.output, options.model_idx)
    print(options.output)
    return 0


def build(variant: Variant) -> MattingNetwork:
    """With every part; on the meta device, so even the largest takes no memory."""
    settings = Config(model_idx=VARIANTS.index(variant)).model_options | {"use_refiner": True}
    with torch.device("meta"):
        return build_model(**settings, use_teacher=True)


def parts_of(model: MattingNetwork) -> Parts:
    """Read channels, strides, depths and parameter counts from the modules."""
    depths = [
        sum(hasattr(module, "attn") for module in stage.modules())
        for name, stage in model.student.swin.named_children()
        if name.startswith("layers")
    ]
    encoder = [
        Stage(f"f{i}", channels, stride, f"{depth} blocks")
        for i, (channels, stride, depth) in enumerate(
            zip(model.student.channels, STRIDES, depths, strict=True), start=1
        )
    ]
    fuses = [(name, getattr(model.decoder, name)) for name in ("decode3", "decode2", "decode1")]
    decoder = [
        Stage(name, fuse.lateral.out_channels, stride)
        for (name, fuse), stride in zip(fuses, STRIDES[2::-1], strict=True)
    ]
    refiner = model.refiner
    return Parts(
        encoder,
        decoder,
        refiner.stem.in_channels,
        refiner.channels,
        refiner.blocks[0].branches[0].out_channels,
        len(refiner.blocks),
        refiner.receptive_radius,
        {name: count(part) for name, part in model.named_children()},
    )


def count(part: nn.Module) -> int:
    return sum(parameter.numel() for parameter in part.parameters())


def millions(parameters: int) -> str:
    """27544506 -> "27.5 M", 900000 -> "0.90 M", 53921 -> "0.054 M"."""
    number = parameters / 1e6
    return f"{number:.{1 if number >= 1 else 2 if number >= 0.1 else 3}f} M"


def described() -> str:
    """What the figure says of every variant: stored in the picture, so that a test can tell when it is stale."""
    return "; ".join(f"{variant.name} {parts_of(build(variant))}" for variant in VARIANTS)


def draw(path: Path, model_idx: int = 0) -> None:
    parts = parts_of(build(VARIANTS[model_idx]))
    figure = Figure(figsize=SIZE, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, SIZE[0]), ylim=(0, SIZE[1]))
    axes.axis("off")
    draw_title(axes, VARIANTS[model_idx])
    draw_student_and_decoder(axes, parts)
    draw_refiner(axes, parts)
    draw_teacher(axes, parts)
    draw_table(axes)
    with atomic_write(path) as temporary:
        # without the version of matplotlib, so that the same network gives the same bytes
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None, "Description": described()})


def draw_title(axes: Axes, variant: Variant) -> None:
    axes.text(0.2, 8.02, "TSR-Matte", fontsize=21, weight="bold", color=INK, va="center")
    axes.text(
        2.45,
        8.0,
        f"Twin-Swin-Refiner, drawn for {variant.name}. An RGB photo in, its alpha matte out.",
        fontsize=12.5,
        color=GREY,
        va="center",
    )


def draw_student_and_decoder(axes: Axes, parts: Parts) -> None:
    """The upper row, left to right: photo, student, decoder, coarse alpha."""
    tensor(axes, 0.2, MIDDLE, "photo", "(N, 3, H, W)")
    panel(axes, (2.1, 3.55, 4.1, 3.35), STUDENT, f"student: Swin, {millions(parts.parameters['student'])}")
    panel(axes, (6.75, 3.55, 3.05, 3.35), DECODER, f"decoder, {millions(parts.parameters['decoder'])}")
    arrow(axes, (1.5, MIDDLE), (2.25, MIDDLE), label="working\nsize")
    encoder = pyramid(axes, parts.encoder, 2.3, 0.97, MIDDLE, STUDENT)
    decoder = pyramid(axes, parts.decoder, 6.95, 0.94, MIDDLE, DECODER)
    arrow(axes, (encoder[-1] + 0.41, MIDDLE), (decoder[0] - 0.41, MIDDLE))
    for depth, (left, right, stage) in enumerate(zip(encoder[2::-1], decoder, parts.decoder, strict=True)):
        low = 4.25 - 0.22 * depth  # the laterals: f3 -> decode3 innermost, f1 -> decode1 outermost
        lateral(
            axes,
            (left, MIDDLE - half_height(parts.encoder[2 - depth].stride)),
            (right, MIDDLE - half_height(stage.stride)),
            low,
            STUDENT,
        )
    tensor(axes, 10.15, MIDDLE, "coarse\nalpha", "(N, 1, H, W)")
    arrow(axes, (decoder[-1] + 0.41, MIDDLE), (10.15, MIDDLE))
    axes.text(9.97, MIDDLE + 0.12, f"x{parts.decoder[-1].stride}", fontsize=9, color=GREY, ha="center")


def draw_refiner(axes: Axes, parts: Parts) -> None:
    """The right of the upper row, and the native pixels that reach it over everything else."""
    panel(axes, (11.95, 3.55, 2.2, 3.35), REFINER, f"refiner, {millions(parts.parameters['refiner'])}")
    lines = [
        (f"photo, gradients, coarse,\nalpha by colours: {parts.refiner_inputs} channels", 0.60),
        (
            f"{parts.refiner_blocks} blocks of {parts.refiner_channels} channels:\n3x3 dilated "
            f"{', '.join(map(str, DILATIONS))} ({parts.refiner_branch_channels} each),\nmixed and added",
            0.82,
        ),
        ("delta in [-1, 1]", 0.40),
    ]
    top = MIDDLE + 1.12
    for text, height in lines:
        box(axes, (12.1, top - height, 1.9, height), REFINER, text, fontsize=8.6)
        if text is not lines[-1][0]:
            arrow(axes, (13.05, top - height), (13.05, top - height - 0.2))
        top -= height + 0.2
    axes.text(
        13.05,
        3.82,
        f"full resolution; a pixel\nsees {parts.receptive_radius} to each side",
        fontsize=8.6,
        color=REFINER,
        ha="center",
        va="center",
    )
    arrow(axes, (11.45, MIDDLE), (11.95, MIDDLE))
    tensor(axes, 14.45, MIDDLE, "refined\nalpha", "(N, 1, H, W)")
    arrow(axes, (14.15, MIDDLE), (14.45, MIDDLE))
    axes.plot([0.85, 0.85, 13.05], [MIDDLE + 0.55, 7.35, 7.35], color=GREY, linewidth=1.6)
    arrow(axes, (13.05, 7.35), (13.05, 6.92))
    axes.text(
        7.0,
        7.42,
        "native pixels, only the tiles in which the coarse alpha is unsure",
        fontsize=9.5,
        color=GREY,
        ha="center",
        va="bottom",
    )
    axes.text(
        12.95,
        3.2,
        "refined = clamp(coarse + attention x delta, 0, 1)\nattention = 4 coarse (1 - coarse)",
        fontsize=10.5,
        color=REFINER,
        ha="center",
        va="center",
        weight="bold",
    )


def draw_teacher(axes: Axes, parts: Parts) -> None:
    """The lower row, dashed: what exists in training only."""
    tensor(axes, 0.2, TEACHER_MIDDLE, "true alpha", "(N, 1, H, W)", dashed=True)
    panel(
        axes,
        (2.1, 0.4, 4.1, 2.55),
        TEACHER,
        f"teacher: Swin, {millions(parts.parameters['teacher'])}, training only",
        dashed=True,
    )
    arrow(axes, (1.5, TEACHER_MIDDLE), (2.25, TEACHER_MIDDLE), dashed=True)
    pyramid(axes, parts.encoder, 2.3, 0.97, TEACHER_MIDDLE, TEACHER, shrink=0.8)
    arrow(axes, (3.1, 2.97), (3.1, 3.53), color=TEACHER, dashed=True)
    axes.text(3.25, 3.25, "alignment loss: features like the teacher's", fontsize=9.5, color=TEACHER, va="center")
    axes.plot([6.2, 8.28], [TEACHER_MIDDLE] * 2, color=TEACHER, linewidth=1.6, linestyle=DASHED)
    arrow(axes, (8.28, TEACHER_MIDDLE), (8.28, 3.53), color=TEACHER, dashed=True)
    axes.text(
        6.35,
        TEACHER_MIDDLE - 0.13,
        "the same decoder gives\nthe true alpha back",
        fontsize=9.5,
        color=TEACHER,
        va="top",
    )


def draw_table(axes: Axes) -> None:
    """Parameters of every variant, counted."""
    columns = (
        ("variant", 9.3),
        ("f1 ... f4 channels", 10.6),
        ("student", 12.55),
        ("decoder", 13.35),
        ("refiner", 14.2),
        ("shipped", 15.05),
    )
    for title, x in columns:
        axes.text(x, 2.45, title, fontsize=9.5, color=GREY, va="center")
    axes.plot([9.3, 15.7], [2.27, 2.27], color=GREY, linewidth=0.8)
    for row, variant in enumerate(VARIANTS):
        parts = parts_of(build(variant))
        counts = [parts.parameters[name] for name in ("student", "decoder", "refiner")]
        cells = [
            variant.name,
            ", ".join(str(stage.channels) for stage in parts.encoder),
            *(millions(number) for number in (*counts, sum(counts))),
        ]
        for cell, (_, x) in zip(cells, columns, strict=True):
            axes.text(x, 2.05 - 0.3 * row, cell, fontsize=9.5, color=INK, va="center")
    axes.text(
        9.3,
        0.68,
        "M: million parameters. Dashed: training only, in no file that is shipped.",
        fontsize=9.5,
        color=GREY,
        va="center",
    )


def half_height(stride: int) -> float:
    """Of a map's box: finer maps are taller, by a fixed step an octave so that the last can hold its text."""
    return 1.02 - 0.13 * (stride.bit_length() - STRIDES[0].bit_length())


def pyramid(
    axes: Axes, stages: Sequence[Stage], left: float, step: float, middle: float, color: str, shrink: float = 1.0
) -> list[float]:
    """Boxes side by side with arrows between; returns the x of their centres."""
    centres = []
    for index, stage in enumerate(stages):
        half = half_height(stage.stride) * shrink
        text = "\n".join(filter(None, (stage.name, f"{stage.channels} ch", f"H/{stage.stride}", stage.detail)))
        box(axes, (left + index * step, middle - half, 0.82, 2 * half), color, text)
        if index:
            arrow(axes, (centres[-1] + 0.41, middle), (left + index * step, middle), color=color)
        centres.append(left + index * step + 0.41)
    return centres


if __name__ == "__main__":
    sys.exit(main())
