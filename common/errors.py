"""The one kind of error that the person at the console can cure, and how a script ends with it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence


class UserError(ValueError):
    """Something the user can cure. The message is one sentence: which file or setting, what is wrong, what to do."""


def exit_code(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Run a script's main. A UserError becomes its sentence on stderr and exit code 2: nothing could start."""
    try:
        return main(argv)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
