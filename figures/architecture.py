"""Draw figures/tsr_architecture.png from the networks themselves, so that the figure cannot go stale.

    python -m figures.architecture [--output F.png] [--model-idx 0]

Every number in the figure is read from what models.build_model and build_teacher return: channels, strides, blocks,
parameters.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import nn

from common.command import command, new_parser
from common.files import atomic_write
from config import VARIANTS, Config, Variant
from figures.shapes import GREY, INK, arrow, box, note, panel, tensor
from models import MattingNetwork, TeacherAutoencoder, build_model, build_teacher
from models.encoder import STRIDES
from models.octaves import octave_sizes
from models.refiner import DILATIONS

OUTPUT = Path(__file__).with_name("tsr_architecture.png")
SIZE = (16.0, 8.4)  # inches, and units of the axes
DPI = 110
STUDENT, TEACHER, DECODER, REFINER = "#3b78c2", "#8a63b5", "#2f8a5e", "#bd6412"
MIDDLE, LOW = 5.2, 1.5  # heights of the two rows: the network, and the teacher's stage
BOX = 0.82  # width of a feature map's box
EXAMPLE = 4096  # long side of the photo whose octaves are named


class Map(NamedTuple):
    """A feature map: its name, channels, and size as a fraction 1 / stride of the input."""

    name: str
    channels: int
    stride: int
    detail: str = ""


class Parts(NamedTuple):
    """What the figure says of a network and its teacher."""

    encoder: list[Map]
    decoder: list[Map]
    refiner: list[str]  # inputs, body, output
    octaves: list[int]  # long sides at which a photo of EXAMPLE pixels is refined
    parameters: dict[str, int]  # student, decoder, refiner, teacher
    family: str


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = new_parser(__doc__)
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="F.png")
    parser.add_argument("--model-idx", type=int, default=0, choices=range(len(VARIANTS)), help="variant to draw")
    options = parser.parse_args(argv)
    draw(options.output, options.model_idx)
    print(options.output)
    return 0


def build(variant: Variant) -> tuple[MattingNetwork, TeacherAutoencoder]:
    """Both networks on the meta device, where even the largest takes no memory."""
    settings = Config(model_idx=VARIANTS.index(variant)).model_options | {"use_refiner": True}
    with torch.device("meta"):
        network = build_model(**settings)
        return network, build_teacher(network, backbone=variant.backbone)


def parts_of(network: MattingNetwork, teacher: TeacherAutoencoder) -> Parts:
    """Read channels, strides, depths and parameter counts from the modules."""
    depths = [len(stage.blocks) for stage in network.student.backbone.children() if hasattr(stage, "blocks")]
    encoder = [
        Map(f"f{i}", channels, stride, f"{depth} blocks")
        for i, (channels, stride, depth) in enumerate(zip(network.student.channels, STRIDES, depths, strict=True), 1)
    ]
    names = ("decode3", "decode2", "decode1")
    decoder = [
        Map(name, getattr(network.decoder, name).lateral.out_channels, stride)
        for name, stride in zip(names, STRIDES[2::-1], strict=True)
    ]
    refiner = network.refiner
    assert refiner is not None
    dilations = ", ".join(map(str, DILATIONS))
    branch = refiner.blocks[0].branches[0].out_channels  # type: ignore[index, union-attr]  # a block of three branches
    texts = [
        f"photo, gradients, alpha so\nfar, alpha by local colours:\n{refiner.stem.in_channels} channels",
        f"{len(refiner.blocks)} blocks of {refiner.channels} channels:\n3x3 dilated {dilations} ({branch} each),\n"
        "mixed and added",
        f"delta in [-1, 1]; each pixel\nsees {refiner.receptive_radius} to each side",
    ]
    octaves = [max(size) for size in octave_sizes((EXAMPLE, EXAMPLE), (network.image_size, network.image_size))]
    counts = {name: count(part) for name, part in network.named_children()} | {"teacher": count(teacher.encoder)}
    return Parts(encoder, decoder, texts, octaves, counts, network.student.family.name)


def count(part: nn.Module) -> int:
    return sum(parameter.numel() for parameter in part.parameters())


def millions(parameters: int) -> str:
    """27544506 -> "27.5 M", 900000 -> "0.90 M", 53921 -> "0.054 M"."""
    number = parameters / 1e6
    return f"{number:.{1 if number >= 1 else 2 if number >= 0.1 else 3}f} M"


def described() -> str:
    """What the figure says of every variant; stored in the picture, so that a test can tell when it is stale."""
    return "; ".join(f"{variant.name} {parts_of(*build(variant))}" for variant in VARIANTS)


def draw(path: Path, model_idx: int = 0) -> None:
    """Write the figure as PNG; the same network gives the same bytes."""
    parts = parts_of(*build(VARIANTS[model_idx]))
    figure = Figure(figsize=SIZE, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, SIZE[0]), ylim=(0, SIZE[1]))
    axes.axis("off")
    note(axes, 0.2, 8.02, "TSR-Matte", INK, 21, ha="left", weight="bold")
    title = f"Twin-Swin-Refiner, drawn for {VARIANTS[model_idx].name}. An RGB photo in, its alpha matte out."
    note(axes, 2.45, 8.0, title, fontsize=12.5, ha="left")
    draw_student_and_decoder(axes, parts)
    draw_refiner(axes, parts)
    draw_teacher(axes, parts)
    draw_table(axes)
    with atomic_write(path) as temporary:
        # no Software: it would name the version of matplotlib
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None, "Description": described()})


def draw_student_and_decoder(axes: Axes, parts: Parts) -> None:
    """The upper row, left to right: photo, student, decoder, coarse alpha."""
    tensor(axes, 0.2, MIDDLE, "photo", "(N, 3, H, W)")
    panel(axes, (2.1, 3.55, 4.1, 3.35), STUDENT, f"student: {parts.family}, {millions(parts.parameters['student'])}")
    panel(axes, (6.75, 3.55, 3.05, 3.35), DECODER, f"decoder, {millions(parts.parameters['decoder'])}")
    arrow(axes, (1.5, MIDDLE), (2.3, MIDDLE))
    note(axes, 1.82, MIDDLE + 0.33, "working\nsize", fontsize=8.6)
    encoder = pyramid(axes, parts.encoder, 2.3, 0.97, MIDDLE, STUDENT)
    decoder = pyramid(axes, parts.decoder, 6.95, 0.94, MIDDLE, DECODER)
    arrow(axes, (encoder[-1] + BOX / 2, MIDDLE), (decoder[0] - BOX / 2, MIDDLE))
    for depth, (left, right, stage) in enumerate(zip(encoder[2::-1], decoder, parts.decoder, strict=True)):
        below = 4.25 - 0.22 * depth  # f3 -> decode3 innermost, f1 -> decode1 outermost
        bottom = MIDDLE - half_height(stage.stride)  # both maps have the same stride
        arrow(axes, (left, bottom), (left, below), (right, below), (right, bottom), colour=STUDENT)
    tensor(axes, 10.15, MIDDLE, "coarse\nalpha", "(N, 1, h, w)")
    arrow(axes, (decoder[-1] + BOX / 2, MIDDLE), (10.15, MIDDLE))
    note(axes, 9.97, MIDDLE + 0.17, f"x{parts.decoder[-1].stride}", fontsize=9)


def draw_refiner(axes: Axes, parts: Parts) -> None:
    """The right of the upper row: native pixels come over everything else, and each octave feeds the next."""
    panel(axes, (11.95, 3.55, 2.2, 3.35), REFINER, f"refiner, {millions(parts.parameters['refiner'])}")
    for text, top, height in zip(parts.refiner, (6.4, 5.45, 4.5), (0.75, 0.75, 0.6), strict=True):
        box(axes, (12.05, top - height, 2.0, height), REFINER, text, 8.4)
        if top > 4.5:
            arrow(axes, (13.05, top - height), (13.05, top - 0.95))
    arrow(axes, (11.45, MIDDLE), (11.95, MIDDLE))
    tensor(axes, 14.45, MIDDLE, "refined\nalpha", "(N, 1, H, W)")
    arrow(axes, (14.15, MIDDLE), (14.45, MIDDLE))
    arrow(axes, (15.1, MIDDLE - 0.55), (15.1, 3.2), (11.7, 3.2), (11.7, MIDDLE - 0.05), colour=REFINER)
    sizes = ", ".join(map(str, parts.octaves))
    note(axes, 13.4, 3.02, f"next octave, twice as large; a photo of {EXAMPLE}: {sizes}", REFINER, 9)
    arrow(axes, (0.85, MIDDLE + 0.55), (0.85, 7.35), (13.05, 7.35), (13.05, 6.92))
    note(axes, 7.0, 7.53, "the photo at each octave up to its native size, only the tiles in which alpha is uncertain")
    gate = "refined = clamp(alpha + attention x delta, 0, 1), attention = 4 alpha (1 - alpha)"
    note(axes, 15.8, 2.62, gate, REFINER, 10, ha="right", weight="bold")


def draw_teacher(axes: Axes, parts: Parts) -> None:
    """The lower row, dashed: the autoencoder of the first stage, whose features the second stage aligns with."""
    tensor(axes, 0.2, LOW, "true alpha", "(N, 1, H, W)", dashed=True)
    title = f"teacher: {parts.family}, {millions(parts.parameters['teacher'])}, training only"
    panel(axes, (2.1, 0.4, 4.1, 2.55), TEACHER, title, dashed=True)
    arrow(axes, (1.5, LOW), (2.3, LOW), dashed=True)
    pyramid(axes, parts.encoder, 2.3, 0.97, LOW, TEACHER, shrink=0.8)
    arrow(axes, (3.1, 2.97), (3.1, 3.53), colour=TEACHER, dashed=True)
    note(axes, 3.25, 3.25, "second stage, teacher frozen: alignment of f1 ... f4", TEACHER, ha="left")
    panel(axes, (6.75, 0.95, 1.25, 1.1), DECODER, "decoder", dashed=True)
    note(axes, 7.37, 1.3, "a copy: its\nown weights", DECODER, 9)
    arrow(axes, (6.2, LOW), (6.75, LOW), dashed=True)
    tensor(axes, 8.35, LOW, "alpha again", "(N, 1, H, W)", dashed=True)
    arrow(axes, (8.0, LOW), (8.35, LOW), dashed=True)
    note(axes, 8.2, 0.62, "first stage: an autoencoder of alphas", TEACHER)


def draw_table(axes: Axes) -> None:
    """Parameters of every variant, counted."""
    places = (10.0, 11.0, 12.8, 13.6, 14.35, 15.15)
    rows = [("variant", "f1 ... f4 channels", "student", "decoder", "refiner", "shipped")]
    for variant in VARIANTS:
        parts = parts_of(*build(variant))
        counts = [parts.parameters[name] for name in ("student", "decoder", "refiner")]
        channels = ", ".join(str(stage.channels) for stage in parts.encoder)
        rows.append((variant.name, channels, *map(millions, (*counts, sum(counts)))))  # type: ignore[arg-type]
    for number, row in enumerate(rows):
        for cell, x in zip(row, places, strict=True):
            note(axes, x, 2.15 - 0.26 * number, cell, INK if number else GREY, 9, ha="left")
    axes.plot([10.0, 15.8], [2.03, 2.03], color=GREY, linewidth=0.8)
    note(axes, 10.0, 0.57, "M: million parameters. Dashed: training only, never shipped.", fontsize=9, ha="left")


def half_height(stride: int) -> float:
    """Half the height of a map's box: finer maps are taller, by a fixed step so that the last can hold its text."""
    return 1.02 - 0.13 * (stride.bit_length() - STRIDES[0].bit_length())


def pyramid(
    axes: Axes, maps: Sequence[Map], left: float, step: float, middle: float, colour: str, shrink: float = 1.0
) -> list[float]:
    """Boxes in a row with arrows between; returns the x of their centres."""
    centres = [left + index * step + BOX / 2 for index in range(len(maps))]
    for x, stage in zip(centres, maps, strict=True):
        half = half_height(stage.stride) * shrink
        text = "\n".join(filter(None, (stage.name, f"{stage.channels} ch", f"H/{stage.stride}", stage.detail)))
        box(axes, (x - BOX / 2, middle - half, BOX, 2 * half), colour, text)
    for x in centres[1:]:
        arrow(axes, (x - step + BOX / 2, middle), (x - BOX / 2, middle), colour=colour)
    return centres


if __name__ == "__main__":
    sys.exit(main())
