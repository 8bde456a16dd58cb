"""What every script shares: its parser, common options, and the one way to end.

    @command
    def main(argv: Sequence[str] | None = None) -> int:
        parser = new_parser(__doc__)
        ...

Exit codes: 0 all done, 1 some of the work failed, 2 nothing could start, 130 interrupted.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common.errors import FAILED, INTERRUPTED, NOT_STARTED, UserError, os_sentence
from common.processes import print_any_name, world_size

Add = Callable[..., Any]  # add_argument of a parser or of a group


def command(main: Callable[[Sequence[str] | None], int]) -> Callable[..., int]:
    """A script's main, which now prints on stderr what the user can cure, and returns the exit code.

    One of several processes leaves at once on an error: closing their group in order would mean waiting for the others,
    which wait for this one.
    """

    @functools.wraps(main)
    def run(argv: Sequence[str] | None = None) -> int:
        print_any_name()
        try:
            return main(argv)
        except (Exception, KeyboardInterrupt) as error:
            code = _told(error)
            if world_size() > 1:
                if code is None:
                    traceback.print_exc()
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(FAILED if code is None else code)
            if code is None:
                raise
            return code

    return run


def _told(error: BaseException) -> int | None:
    """Print the sentence of an error; the exit code. None for a bug."""
    if isinstance(error, UserError):
        # what is wrong before the start is mostly the same in every process of a host
        if error.is_of_process or error.exit_code != NOT_STARTED or os.environ.get("LOCAL_RANK", "0") == "0":
            print(error, file=sys.stderr)
        return error.exit_code
    if isinstance(error, OSError) and error.filename and error.strerror:
        print(os_sentence(error), file=sys.stderr)
        return NOT_STARTED
    if isinstance(error, KeyboardInterrupt):
        print("Stopped.", file=sys.stderr)
        return INTERRUPTED
    return None


def new_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that shows the script's docstring as it stands, and the command by which the script was started."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    module = spec.name.removesuffix(".__main__") if spec else ""
    return argparse.ArgumentParser(
        prog=f"python -m {module}" if module else None,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_checkpoint(add: Add, formats: str = ".onnx, ") -> None:
    """--checkpoint, for models.checkpoint.find_model. formats: what serves besides best.safetensors."""
    text = f"best.safetensors, its run folder, {formats}or hf:owner/name (default: the newest run, else the starter)"
    add("--checkpoint", type=Path, metavar="C", help=text)


def add_device(add: Add) -> None:
    """--device, for common.devices.choose_device."""
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: %(default)s)")
