"""An exported network, run by onnxruntime, as a model for matting.predict_mattes.

An exported file holds student, decoder and refiner in one graph: image -> coarse_alpha, refined_alpha. onnxruntime
computes the whole graph even if only one output is requested, so the graph is cut in two: the student's half runs once
at the working size, the refiner's half on the tiles that need it.

Needs requirements/export.txt; loading.py says so where it is missing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
from torch import Tensor

from common.errors import UserError
from models.checkpoint import parse_metadata
from models.refiner import WHOLE_PHOTO, Borders, crop

IMAGE, COARSE, REFINED = "image", "coarse_alpha", "refined_alpha"  # names of the tensors in the file
NETWORK_PART, REFINER_PART = "network", "refiner"  # what a file holds, under "part" in its metadata


class OnnxMatting:
    """Has what matting.predict_mattes asks of a MattingNetwork. Tensors go in and come out on the CPU."""

    def __init__(
        self, model: onnx.ModelProto, image_size: int, refiner: dict[str, Any] | None, providers: Sequence[str]
    ) -> None:
        """refiner: the metadata about it (the arguments of OnnxRefiner), or None for a model without one."""
        self.image_size = image_size
        self.device = torch.device("cpu")  # onnxruntime moves what a GPU provider needs
        self.student = Session(cut(model, [IMAGE], [COARSE]), providers)
        self.refiner = None
        if refiner is not None:
            self.refiner = OnnxRefiner(Session(cut(model, [IMAGE, COARSE], [REFINED]), providers), **refiner)

    def working_alpha(self, image: Tensor) -> Tensor:
        """(N, 3, h, w) in [0, 1] -> (N, 1, h, w); any size, padded inside the graph."""
        return self.student(image)


@dataclass(frozen=True, eq=False)
class OnnxRefiner:
    """Has what matting.refine_uncertain asks of a models.Refiner."""

    session: Session
    channels: int
    receptive_radius: int
    use_attention: bool = True
    use_octaves: bool = True

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if "CUDAExecutionProvider" in self.session.session.get_providers() else "cpu")

    def __call__(self, image: Tensor, coarse_alpha: Tensor, borders: Borders = WHOLE_PHOTO) -> Tensor:
        """As models.Refiner: the graph computes the whole window, of which the part that holds is returned."""
        return crop(self.session(image, coarse_alpha), self.receptive_radius, borders)


class Session:
    """A graph with one output, called with tensors in the order of its inputs."""

    def __init__(self, model: onnx.ModelProto, providers: Sequence[str]) -> None:
        self.session = open_session(model.SerializeToString(), providers)
        self.names = [value.name for value in self.session.get_inputs()]

    def __call__(self, *tensors: Tensor) -> Tensor:
        arrays = {name: tensor.float().cpu().numpy() for name, tensor in zip(self.names, tensors, strict=True)}
        return torch.from_numpy(self.session.run(None, arrays)[0])


def open_session(
    source: str | bytes, providers: Sequence[str] = ("CPUExecutionProvider",)
) -> onnxruntime.InferenceSession:
    """source: a file name, or the bytes of a model. Raises onnxruntime's own exceptions."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # obeys torchrun's one thread a process
    return onnxruntime.InferenceSession(source, options, providers=list(providers))


def load_onnx(path: Path, device: torch.device | str = "cpu") -> OnnxMatting:
    """Load a file that export.py wrote. Raises UserError.

    device: "cuda" runs on the GPU if the installed onnxruntime can, else on the CPU.
    """
    model, metadata = _read(path)
    if metadata["part"] != NETWORK_PART:
        raise UserError(
            f"{path} holds only the {metadata['part']}: name the file of the whole network, which export.py wrote "
            "into the same folder."
        )
    wanted = ["CUDAExecutionProvider"] if torch.device(device).type == "cuda" else []
    providers = [name for name in (*wanted, "CPUExecutionProvider") if name in onnxruntime.get_available_providers()]
    try:
        return OnnxMatting(model, metadata["model"]["image_size"], metadata["refiner"], providers)
    except Exception as error:  # onnxruntime raises a different class for each way a graph can be wrong
        what = f"is not a graph that onnxruntime {onnxruntime.__version__} can run ({str(error).splitlines()[0]})"
        raise UserError(f"{path} {what}: export it again.") from error


def read_onnx_metadata(path: Path) -> dict[str, Any]:
    """The checkpoint's metadata, and part, variant, precision, refiner. Raises UserError."""
    return _read(path)[1]


def _read(path: Path) -> tuple[onnx.ModelProto, dict[str, Any]]:
    if not os.path.isfile(path):
        cure = f"write it with `python export.py --output {path}`, or name another with --checkpoint"
        raise UserError(f"{path} does not exist: {cure}.")
    try:
        model = onnx.load(path, load_external_data=False)  # protobuf: reading it runs no code
    except Exception as error:  # protobuf's decoders raise classes that differ between its versions
        what = f"is not a complete .onnx file ({type(error).__name__})"
        raise UserError(f"{path} {what}: copy it again, or export it again.") from error
    properties = {entry.key: entry.value for entry in model.metadata_props}
    metadata = parse_metadata(path, properties)
    try:
        texts = {key: properties[key] for key in ("part", "variant", "precision")}
        return model, metadata | texts | {"refiner": json.loads(properties["refiner"])}
    except (KeyError, ValueError, RecursionError) as error:
        raise UserError(f"{path} has broken metadata ({error}): export it again.") from error


def cut(model: onnx.ModelProto, inputs: Sequence[str], outputs: Sequence[str]) -> onnx.ModelProto:
    """The part of a graph between these inputs and outputs, with the weights that it uses.

    onnx.utils.Extractor cannot: it refuses an output of the graph (the coarse alpha) as an input of the part.
    """
    values = {value.name: value for value in (*model.graph.input, *model.graph.output)}
    needed, nodes = set(outputs), []
    for node in reversed(model.graph.node):  # nodes are stored in topological order
        if needed.intersection(node.output) and not set(inputs).intersection(node.output):
            nodes.append(node)
            needed.update(node.input)
    graph = onnx.helper.make_graph(
        nodes[::-1],
        model.graph.name,
        [values[name] for name in inputs],
        [values[name] for name in outputs],
        [weight for weight in model.graph.initializer if weight.name in needed],
    )
    return onnx.helper.make_model(
        graph,
        ir_version=model.ir_version,
        opset_imports=model.opset_import,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
    )
