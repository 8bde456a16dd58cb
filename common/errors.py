"""The one kind of error that a user can cure. common.command ends a script with its sentence and its exit code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

FAILED, NOT_STARTED, INTERRUPTED = 1, 2, 130  # exit codes; 130 as shells have it


class UserError(ValueError):
    """What the user can cure. The message is one sentence: which file or setting, what is wrong, what to do."""

    is_of_process = False  # whether it may be in one process of several, as a missing GPU is

    def __init__(self, sentence: str, exit_code: int = NOT_STARTED) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


@contextmanager
def after_start() -> Iterator[None]:
    """Around what a script does once it has begun: errors end it with exit code 1 instead of 2."""
    try:
        yield
    except UserError as error:
        error.exit_code = FAILED if error.exit_code == NOT_STARTED else error.exit_code
        raise
    except OSError as error:
        if not (error.filename and error.strerror):
            raise
        raise UserError(os_sentence(error), FAILED) from error


def os_sentence(error: OSError) -> str:
    """What the system refused, and of which file; the error must have a filename."""
    return f"{error.filename} cannot be used ({error.strerror}): look at its permissions, and at the disk's room."
