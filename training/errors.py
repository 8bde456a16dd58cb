"""What torch and the system raise during a run and a user can cure, in one sentence each."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import distributed
from common.devices import is_out_of_memory
from common.errors import FAILED, INTERRUPTED, NOT_STARTED, UserError
from common.processes import rank

LOST_WORKER = "DataLoader worker (pid"  # how torch's message starts; it is raised wherever the process happens to be
SHARED_MEMORY_WORDS = ("Bus error", "</torch_")  # torch's workers name their files /torch_PID_...
# by name, since to import torch's compiler takes seconds
COMPILER_ERRORS = {"TorchDynamoException", "CppCompileError", "InvalidCxxCompiler"}


def resume_hint(folder: Path) -> str:
    return f"python train.py --resume {shlex.quote(str(folder))}"


@contextmanager
def explained() -> Iterator[None]:
    """Raise what torch and the system raise, and a user can cure, as UserError; leave bugs as they are."""
    try:
        yield
    except UserError:
        raise
    except KeyboardInterrupt:
        raise UserError("Stopped at once; --resume resumes what was saved last.", INTERRUPTED) from None
    except Exception as error:
        if sentence := sentence_of(error):
            raise UserError(sentence, FAILED if is_out_of_memory(error) else NOT_STARTED) from error
        if distributed.is_lost_peer(error):
            raise UserError(
                f"Process {rank()} stops, since another process of this run is gone or silent "
                f"({str(error).splitlines()[0]}): look for that one's message, then resume with --resume.",
                FAILED,
            ) from error
        raise


def sentence_of(error: Exception) -> str | None:
    """What the user can do about an error of torch; None for a bug, and for a file: see common.errors."""
    first_line = (str(error).splitlines() or [""])[0]
    if is_shared_memory_full(error):
        return (
            "The loader's workers ran out of shared memory (/dev/shm): give the container more with docker run "
            "--shm-size 16g or --ipc=host, or load in the training process with --num-workers 0, then resume with "
            "--resume."
        )
    if isinstance(error, RuntimeError) and LOST_WORKER in str(error):
        return f"{first_line} Too little memory is the usual reason: lower --num-workers, then resume with --resume."
    if is_out_of_memory(error):
        return (
            f"The memory does not suffice ({first_line}): lower --batch-size and raise --accumulation-steps by "
            "the same factor, or add --gradient-checkpointing."
        )
    if COMPILER_ERRORS.intersection(kind.__name__ for kind in type(error).__mro__):
        reason = " ".join(str(error).split())[:300]
        return (
            f"--compile does not work on this machine ({reason}): it needs a C++ compiler, and on a GPU Triton (on "
            "Windows the package triton-windows); install them, or leave --compile out."
        )
    return None


def is_shared_memory_full(error: Exception) -> bool:
    """Whether /dev/shm, through which the loader's workers pass photos, ran full: a bus error, or a failing write."""
    text = str(error)
    return isinstance(error, (RuntimeError, OSError)) and any(words in text for words in SHARED_MEMORY_WORDS)


def explained_batches(batches: Iterable[dict[str, Any]], folder: Path) -> Iterator[dict[str, Any]]:
    """The loader's batches; an error that it raises (broken files only) becomes a UserError with the way to resume."""
    try:
        yield from batches
    except (RuntimeError, ValueError, OSError) as error:
        if LOST_WORKER in str(error) or is_shared_memory_full(error):
            raise
        reason = str(error).strip().splitlines()[-1]  # a worker sends its whole traceback
        raise UserError(
            f"The photos could not be loaded ({reason}): mend this, then resume with: {resume_hint(folder)}"
        ) from error
