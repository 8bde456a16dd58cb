"""The student of a trained TSR-Matte alone, as a TwinSwin-Matte that experiments start from.

    python -m experiments.student checkpoints/TSR-Matte_SwinTiny_starter runs/student

Writes runs/student/best.safetensors: encoder and decoder as they are, in float32, and no refiner.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from common.command import command, new_parser
from models import build_model
from models.checkpoint import MODEL_FILE, find_model, load_model, read_metadata, save_model


def write_student(source: Path, target: Path) -> None:
    """Write the student of the model file `source` to the model file `target`. Raises UserError."""
    metadata = read_metadata(source)
    model = load_model(source)
    options = metadata["model"] | {"use_refiner": False}
    student = build_model(**options, pretrained=False)
    names = student.state_dict().keys()
    student.load_state_dict({name: value for name, value in model.state_dict().items() if name in names})
    target.parent.mkdir(parents=True, exist_ok=True)
    config = metadata["config"] | {"use_refiner": False}
    save_model(target, student, model_options=options, config=config, scores={})


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = new_parser(__doc__)
    parser.add_argument("checkpoint", type=Path, help="best.safetensors, its run folder or hf:owner/name")
    parser.add_argument("output", type=Path, help="folder for the student's best.safetensors")
    options = parser.parse_args(argv)
    write_student(find_model(options.checkpoint, "checkpoints"), options.output / MODEL_FILE)
    print(f"{options.output / MODEL_FILE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
