"""The errors that can end a run, and what train.py prints for them."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from common import distributed
from common.devices import DeviceError, is_out_of_memory
from common.processes import rank
from config import ConfigError
from data.build import DataError
from models import PretrainedWeightsError
from models.checkpoint import CheckpointError
from training.meter import NonFiniteError

LOST_WORKER = "DataLoader worker (pid"  # how torch's message starts; it is raised wherever the process happens to be
SHARED_MEMORY_WORDS = ("Bus error", "</torch_")  # torch's workers name their files /torch_PID_...
SHARED_MEMORY_FULL = (
    "The loader's workers ran out of shared memory (/dev/shm): give the container more with docker run --shm-size 16g "
    "or --ipc=host, or load in the training process with --num-workers 0"
)
# by name, since to import torch's compiler takes seconds
COMPILER_ERRORS = {"TorchDynamoException", "CppCompileError", "InvalidCxxCompiler"}
INTERRUPTED = 130


class RunError(ValueError):
    """A run that cannot start, continue or resume; the message says what to do."""


EXPECTED_ERRORS = (
    RunError, ConfigError, DataError, DeviceError, CheckpointError, PretrainedWeightsError, NonFiniteError, OSError,
)  # fmt: skip


def resume_hint(folder: Path) -> str:
    return f"python train.py --resume {shlex.quote(str(folder))}"


def exit_code_of(error: BaseException, folder: Path | None) -> int:
    """Print what happened and what to do, on stderr; returns the exit code. Re-raises bugs.

    folder: the run's, or None if it has not started yet.
    """
    sentence = sentence_of(error)
    if sentence is None:
        if isinstance(error, Exception) and distributed.is_lost_peer(error):
            leave_without_peer(error)
        raise error
    # what is wrong with the settings is the same for every process of a host
    if folder or isinstance(error, DeviceError) or os.environ.get("LOCAL_RANK", "0") == "0":
        print(sentence, file=sys.stderr)
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return 1 if folder or is_out_of_memory(error) else 2


def sentence_of(error: BaseException) -> str | None:
    """The sentence for a person about an expected error; None for a bug."""
    first_line = (str(error).splitlines() or [""])[0]
    if is_shared_memory_full(error):
        return f"{SHARED_MEMORY_FULL}, then resume with --resume."
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename} cannot be used ({error.strerror}): look at its permissions, and at the disk's room."
    if isinstance(error, EXPECTED_ERRORS):
        return str(error)
    if isinstance(error, KeyboardInterrupt):
        return "Stopped at once; --resume resumes what was saved last."
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


def is_shared_memory_full(error: BaseException) -> bool:
    """Whether /dev/shm, through which the loader's workers pass photos, ran full: a bus error, or a failing write."""
    text = str(error)
    return isinstance(error, (RuntimeError, OSError)) and any(words in text for words in SHARED_MEMORY_WORDS)


def loaded(batches: Iterable[dict[str, Any]], folder: Path) -> Iterator[dict[str, Any]]:
    """The loader's batches; an error of its own (broken files only) becomes a RunError with the way to resume."""
    try:
        yield from batches
    except (RuntimeError, ValueError, OSError) as error:
        if LOST_WORKER in str(error) or is_shared_memory_full(error):
            raise
        reason = str(error).strip().splitlines()[-1]  # a worker sends its whole traceback
        raise RunError(
            f"The photos could not be loaded ({reason}): mend this, then resume with: {resume_hint(folder)}"
        ) from error


def leave_without_peer(error: BaseException) -> None:
    """Leave at once when another process is gone: to close the group in order would be to wait for it."""
    print(
        f"Process {rank()} stops, since another process of this run is gone or silent "
        f"({str(error).splitlines()[0]}): look for that one's message, then resume with --resume.",
        file=sys.stderr,
        flush=True,
    )
    sys.stdout.flush()
    os._exit(1)
