"""Build backend (PEP 517) that lets `pip install .` end with one sentence; pyproject.toml names it."""

from __future__ import annotations

import sys
from typing import NoReturn


def refuse(*_: object) -> NoReturn:
    sys.exit(
        "TSR-Matte runs from its own folder and is not installed as a package, since names such as models and data "
        "would collide with those of others: pip install -r requirements.txt -c requirements/constraints.txt, "
        "or torch.hub.load (docs/install.md)."
    )


build_wheel = build_sdist = build_editable = refuse
get_requires_for_build_wheel = get_requires_for_build_sdist = get_requires_for_build_editable = refuse
