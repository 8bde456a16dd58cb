"""The build backend that pyproject.toml names, so that `pip install .` says what to do instead of guessing packages."""

from __future__ import annotations

from typing import Any, NoReturn


def build_wheel(*_: Any, **__: Any) -> NoReturn:
    raise SystemExit(
        "TSR-Matte is not installed with pip: its modules (train, config, data, ...) have names too general for "
        "site-packages. Clone the repository, run `pip install -r requirements.txt -c requirements/constraints.txt` "
        "and use the scripts in the clone, or load a model with torch.hub (docs/prediction.md)."
    )


build_sdist = build_editable = build_wheel
get_requires_for_build_wheel = get_requires_for_build_sdist = get_requires_for_build_editable = build_wheel
