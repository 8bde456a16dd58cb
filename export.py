"""Export a trained model to ONNX. The files are kept only if they compute what PyTorch computes.

    python export.py                                        the newest run's best model (else the starter), to best.onnx
    python export.py --checkpoint C --output matte.onnx     student + decoder + refiner, without the teacher
    python export.py --output matte.fp16.onnx --half        float16 inside, float32 in and out; half the size
    python predict.py --checkpoint matte.onnx               mattes photos with onnxruntime

Needs `pip install -r requirements/export.txt -c requirements/constraints.txt`. Writes two files, for a
TwinSwin-Matte only the first:

    matte.onnx           image -> coarse_alpha, refined_alpha; of a photo reduced to the working size
    matte.refiner.onnx   image, coarse_alpha -> refined_alpha; for tiles, in octaves up to the photo's own size

A photo fed at its own size gives garbage: the student was trained at the working size. examples/matte_onnx.py does what
predict.py does with numpy and onnxruntime alone.

image (N, 3, H, W) and the alphas (N, 1, H, W) are float32 in [0, 1]; N, H and W are free. A height or width that is not
a multiple of 4 is padded inside by replicating the border, and cropped. The metadata of each file holds the rest:
variant, preprocessing, working size, and how many pixels a tile must overlap its neighbours (receptive_radius).

Exit codes: 0 written and checked, 1 they differ or the disk is full (nothing is written), 2 could not start.
"""

from __future__ import annotations

from inference.options import export_options

if __name__ == "__main__":
    export_options(__doc__)  # --help and wrong flags are answered before the imports that take seconds

import contextlib
import copy
import json
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.onnx import symbolic_helper

from common.command import command
from common.errors import UserError, after_start
from common.files import atomic_write, make_folder
from config import Config
from models import MattingNetwork
from models.checkpoint import FORMAT, find_model, load_model, read_metadata

try:
    import onnx

    from inference import onnx_parity
    from inference.onnx_model import COARSE, IMAGE, NETWORK_PART, REFINED, REFINER_PART, cut
except ImportError as error:  # optional packages
    MISSING = str(error)
else:
    MISSING = ""

OPSET = 20  # the newest that the TorchScript-based exporter writes
TRACED_SIZE = (192, 256)
TOLERANCE = 1e-4  # largest |ONNX - PyTorch| of any pixel; 1e-3 let a wrong shift in the smallest maps pass
HALF_TOLERANCE = 2e-2  # against float32: half has 11 bits, and the refiner's attention multiplies the rounding error


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = export_options(__doc__, argv)
    if MISSING:
        raise UserError(
            f"The export needs more packages ({MISSING}): install them with `pip install -r requirements/export.txt "
            "-c requirements/constraints.txt`."
        )
    path = find_model(options.checkpoint, Config.output)
    output = options.output or path.with_suffix(".fp16.onnx" if options.half else ".onnx")
    model, metadata = load_model(path), read_metadata(path)
    make_folder(output.parent, "choose another --output")
    print(f"{path}: {variant_name(metadata['model'])}, {'float16' if options.half else 'float32'}, opset {OPSET}")
    with after_start():
        files = export(model, metadata, output, half=options.half)
    for file in files:
        print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
    return 0


def variant_name(model_options: dict[str, Any]) -> str:
    method = "TSR-Matte" if model_options.get("use_refiner", True) else "TwinSwin-Matte"
    return f"{method} {model_options['backbone']}"


def export(model: MattingNetwork, metadata: dict[str, Any], output: Path, *, half: bool = False) -> list[Path]:
    """Write output (and output.refiner.onnx), check them and return the files. metadata: from checkpoint.read_metadata.

    Raises UserError if the check fails; then no file is written, and earlier files of these names are kept.
    """
    files = [output] if model.refiner is None else [output, output.with_suffix(".refiner.onnx")]
    with contextlib.ExitStack() as stack:
        temporary = [stack.enter_context(atomic_write(file)) for file in files]
        trace(model, temporary[0], half=half)
        network = onnx.load(temporary[0])
        # the refiner is cut from the network's graph, so the two files cannot differ
        parts = {NETWORK_PART: network, REFINER_PART: cut(network, [IMAGE, COARSE], [REFINED])}
        properties = describe(model, metadata, half=half)
        for file, (name, part) in zip(temporary, parts.items(), strict=False):
            onnx.helper.set_model_props(part, {**properties, "part": name})
            onnx.checker.check_model(part)
            onnx.save(part, file)
        onnx_parity.check(model, temporary, HALF_TOLERANCE if half else TOLERANCE)
    return files


class Exported(nn.Module):
    """What the file computes at any size; student and refiner see the same image."""

    def __init__(self, model: MattingNetwork) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        coarse = self.model.working_alpha(image.to(next(self.model.parameters()).dtype))
        # without a refiner: the two outputs need a tensor each, since each has a name
        refined = coarse.clone() if self.model.refiner is None else self.model.refiner(image, coarse)
        return coarse, refined


def trace(model: MattingNetwork, path: Path, *, half: bool) -> None:
    """Write the graph with the TorchScript-based exporter.

    It records the shape arithmetic of padding, windows and masks as nodes, so one trace serves all sizes. It is
    deprecated, but torch.export with dynamic height and width does not finish on Swin's padding and masks. When it is
    removed, only this function has to change: to dynamo=True if that handles dynamic sizes by then, else to one file
    per fixed size, which works today. dynamic_roll is not needed then.
    """
    exported = Exported(copy.deepcopy(model).half() if half else model).eval()
    axes = {0: "batch", 2: "height", 3: "width"}
    with warnings.catch_warnings(), torch.no_grad(), dynamic_roll():
        warnings.simplefilter("ignore")  # deprecation, and constants that a trace freezes, which onnx_parity would find
        torch.onnx.export(
            exported,
            (torch.rand(2, 3, *TRACED_SIZE),),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=[IMAGE],
            output_names=[COARSE, REFINED],
            dynamic_axes=dict.fromkeys((IMAGE, COARSE, REFINED), axes),
        )


@contextlib.contextmanager
def dynamic_roll() -> Iterator[None]:
    """Export torch.roll with shifts that depend on the size: a map that its window spans does not shift.

    PyTorch's own translation takes only constants.
    """

    @symbolic_helper.parse_args("v", "v", "is")
    def roll(g: Any, x: Any, shifts: Any, dims: list[int]) -> Any:
        def constant(value: int) -> Any:
            return g.op("Constant", value_t=torch.tensor([value]))

        for shift, dim in zip(symbolic_helper._unpack_list(shifts), dims, strict=True):
            size = g.op("Shape", x, start_i=dim, end_i=dim + 1)
            back = g.op("Neg", g.op("Reshape", shift, constant(1)))
            start = g.op("Mod", back, size)  # never negative: Mod takes the divisor's sign
            back = g.op("Slice", x, start, size, constant(dim))
            front = g.op("Slice", x, constant(0), start, constant(dim))
            x = g.op("Concat", back, front, axis_i=dim)
        return x

    torch.onnx.register_custom_op_symbolic("aten::roll", roll, OPSET)
    try:
        yield
    finally:
        torch.onnx.unregister_custom_op_symbolic("aten::roll", OPSET)


def describe(model: MattingNetwork, metadata: dict[str, Any], *, half: bool) -> dict[str, str]:
    """The file's metadata: the checkpoint's, and what a program without PyTorch needs to know."""
    refiner = model.refiner
    names = ("channels", "receptive_radius", "use_attention", "use_octaves")  # the arguments of OnnxRefiner
    needs = None if refiner is None else {name: getattr(refiner, name) for name in names}
    texts = {key: json.dumps(metadata[key]) for key in ("model", "config", "scores")}
    return {
        "format": FORMAT,
        **texts,
        "preprocessing": metadata["preprocessing"],
        "variant": variant_name(metadata["model"]),
        "precision": "float16" if half else "float32",
        "refiner": json.dumps(needs),
    }


if __name__ == "__main__":
    sys.exit(main())
