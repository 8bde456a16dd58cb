"""The one kind of error that a user can cure. common.command ends a script with its sentence and its exit code."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

CURES = {
    **dict.fromkeys((errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)), "make room, or use another folder"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "look at its permissions, or use another folder"),
    errno.ENAMETOOLONG: "shorten its name",
    errno.ENOENT: "make its folder first",
}
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
    return f"{error.filename} cannot be used {reason_and_cure(error)}."


def reason_and_cure(error: OSError) -> str:
    """ "(No space left on device): make room, or use another folder". Only a full disk asks for room."""
    reason = error.strerror or str(error) or type(error).__name__
    return f"({reason}): {CURES.get(error.errno or 0, 'use another file or folder')}"
