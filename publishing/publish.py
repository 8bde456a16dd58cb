"""Upload a trained model to the Hugging Face Hub, where everyone can use it as hf:owner/name.

    python -m publishing.publish checkpoints/RUN owner/name --dry-run       only write the files, to RUN/hub_dry_run
    python -m publishing.publish checkpoints/RUN owner/name --license mit   upload them (log in first: hf auth login)
    python predict.py --checkpoint hf:owner/name                          use them, from anywhere

Uploads best.safetensors, its config.json, README.md (the model card), preview.png and, if export.py has made them,
the ONNX files. The card is made from the run's log and scores; a MODEL_CARD.md in the run folder replaces it.

Exit codes: 0 uploaded, or written for --dry-run; 1 could not be uploaded or written; 2 could not start.
"""

from __future__ import annotations

from publishing.options import DRY_RUN_FOLDER, publish_options

if __name__ == "__main__":
    publish_options(__doc__)  # --help and wrong flags are answered before the imports that take seconds

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors
import safetensors.torch

from common import hub
from common.command import command
from common.errors import UserError, after_start
from common.files import atomic_write, make_folder
from config import Config
from inference.loading import read_metadata as read_exported
from models.checkpoint import MODEL_FILE, find_model, read_metadata
from publishing.model_card import PREVIEW_FILE, model_card, public
from training.run_folder import CONFIG_FILE

CARD_FILE = "MODEL_CARD.md"


@command
def main(argv: Sequence[str] | None = None) -> int:
    options = publish_options(__doc__, argv)
    run = find_model(options.run, Config.output).parent
    contents = gather(run, options.repository, options.license, half=options.half)
    with after_start():
        if options.dry_run:
            write(run / DRY_RUN_FOLDER, contents)
        else:
            print(hub.upload(options.repository, contents, private=options.private))
    return 0


def gather(run: Path, repository: str, licence: str, *, half: bool = False) -> dict[str, Path | bytes]:
    """The repository's files by name. Raises UserError."""
    card, preview = run / CARD_FILE, run / PREVIEW_FILE
    metadata = read_metadata(run / MODEL_FILE)
    exported = sorted(run.glob("*.onnx"))
    for path in exported:
        if read_exported(path)["scores"] != metadata["scores"]:
            raise UserError(f"{path} was exported from another epoch than {MODEL_FILE}: export it again.")
    return {
        "README.md": card if card.is_file() else model_card(run, f"{hub.PREFIX}{repository}", licence).encode(),
        # of the best epoch: the run's own config.json may have changed when it was resumed
        CONFIG_FILE: (json.dumps(public(metadata["config"]), indent=2) + "\n").encode(),
        MODEL_FILE: public_model(run / MODEL_FILE, half),
        **{path.name: path for path in [*([preview] if preview.is_file() else []), *exported]},
    }


def public_model(path: Path, half: bool) -> bytes:
    """The model file, with settings that name no folder of this machine; half: with float16 weights."""
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata())
    metadata["config"] = json.dumps(public(json.loads(metadata["config"])))
    state = safetensors.torch.load_file(path)
    return safetensors.torch.save({name: value.half() if half else value for name, value in state.items()}, metadata)


def write(folder: Path, contents: Mapping[str, Path | bytes]) -> None:
    """A folder with these files and no others. Raises UserError."""
    shutil.rmtree(folder, ignore_errors=True)
    make_folder(folder, "look at its permissions, or at the room on its disk")
    for name, source in contents.items():
        with atomic_write(folder / name) as temporary:
            temporary.write_bytes(source if isinstance(source, bytes) else source.read_bytes())
        print(f"{folder / name}: {(folder / name).stat().st_size / 1e6:.3g} MB")


if __name__ == "__main__":
    sys.exit(main())
