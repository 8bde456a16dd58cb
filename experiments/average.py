"""A model between a checkpoint and what was fine-tuned from it: much of the gain, less forgotten.

    python -m experiments.average checkpoints/TSR-Matte_SwinTiny_starter checkpoints/TUNED runs/between --share 0.5

Writes runs/between/best.safetensors: (1 - share) * start + share * tuned, weight by weight (Wortsman et al., "Robust
fine-tuning of zero-shot models", CVPR 2022).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from common.command import command, new_parser
from common.errors import UserError
from models.checkpoint import MODEL_FILE, find_model, load_model, read_metadata, save_model


def write_between(start: Path, tuned: Path, target: Path, share: float) -> None:
    """Write the model file `target`, with the settings of `tuned` and no scores. Raises UserError."""
    metadata, model = read_metadata(tuned), load_model(tuned)
    first, second = load_model(start).state_dict(), model.state_dict()
    if {name: value.shape for name, value in first.items()} != {name: value.shape for name, value in second.items()}:
        raise UserError(f"{tuned} has other weights than {start}: give it and the checkpoint that it was tuned from.")
    model.load_state_dict({name: value.lerp(second[name], share) for name, value in first.items()})
    target.parent.mkdir(parents=True, exist_ok=True)
    save_model(target, model, model_options=metadata["model"], config=metadata["config"], scores={})


@command
def main(argv: Sequence[str] | None = None) -> int:
    parser = new_parser(__doc__)
    parser.add_argument("start", type=Path, help="best.safetensors, its run folder or hf:owner/name")
    parser.add_argument("tuned", type=Path, help="the same of the fine-tuned model")
    parser.add_argument("output", type=Path, help="folder for best.safetensors")
    parser.add_argument("--share", type=float, default=0.5, metavar="0..1", help="of the fine-tuned weights")
    options = parser.parse_args(argv)
    start, tuned = (find_model(name, "checkpoints") for name in (options.start, options.tuned))
    write_between(start, tuned, options.output / MODEL_FILE, options.share)
    print(options.output / MODEL_FILE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
