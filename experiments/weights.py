"""Model files made from others, as RUN/best.safetensors in float32: a student alone, or the average of two models.

    python -m experiments.weights student checkpoints/TSR-Matte_SwinTiny_starter runs/student
    python -m experiments.weights average checkpoints/TSR-Matte_SwinTiny_starter RUN runs/between --share 0.5

student: encoder and decoder as they are and no refiner, a TwinSwin-Matte that experiments start from. average: much of
the gain of a fine-tuning, less forgotten: (1 - share) * start + share * tuned, weight by weight (Wortsman et al.,
"Robust fine-tuning of zero-shot models", CVPR 2022).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.command import command, new_parser
from common.errors import UserError
from config import Config
from models import MattingNetwork, build_model
from models.checkpoint import MODEL_FILE, find_model, load_model, read_metadata, save_model

Made = tuple[MattingNetwork, dict[str, Any]]  # a model, and the metadata of the file that it comes from


def student_of(options: argparse.Namespace) -> Made:
    source = find_model(options.checkpoint, Config.output)
    metadata = read_metadata(source)
    for settings in (metadata["model"], metadata["config"]):
        settings["use_refiner"] = False
    student = build_model(**metadata["model"], pretrained=False)
    names = student.state_dict().keys()
    student.load_state_dict({name: value for name, value in load_model(source).state_dict().items() if name in names})
    return student, metadata


def average_of(options: argparse.Namespace) -> Made:
    """Raises UserError where the two models differ."""
    start, tuned = (find_model(path, Config.output) for path in (options.start, options.tuned))
    model = load_model(tuned)
    first, second = load_model(start).state_dict(), model.state_dict()
    if {name: value.shape for name, value in first.items()} != {name: value.shape for name, value in second.items()}:
        raise UserError(f"{tuned} has other weights than {start}: give it and the checkpoint that it was tuned from.")
    model.load_state_dict({name: value.lerp(second[name], options.share) for name, value in first.items()})
    return model, read_metadata(tuned)


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = new_parser(__doc__)
    kinds = parser.add_subparsers(required=True, metavar="student|average")
    names = {"student": (student_of, ["checkpoint"]), "average": (average_of, ["start", "tuned"])}
    for name, (make, sources) in names.items():
        kind = kinds.add_parser(name)
        kind.set_defaults(make=make)
        for source in sources:
            kind.add_argument(source, type=Path, help="best.safetensors, its run folder or hf:owner/name")
        kind.add_argument("output", type=Path, help="folder for best.safetensors")
    kind.add_argument("--share", type=float, default=0.5, metavar="0..1", help="of the tuned weights")
    options = parser.parse_args(argv)
    model, metadata = options.make(options)
    target = options.output / MODEL_FILE
    target.parent.mkdir(parents=True, exist_ok=True)
    save_model(target, model, model_options=metadata["model"], config=metadata["config"], scores={})
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
