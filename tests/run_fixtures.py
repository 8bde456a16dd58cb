"""What the tests of whole runs of train.py share: the tiny network, and a run from its flags to its end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import train
from tests.tiny import FLAGS, use_tiny_networks
from training import pictures
from training.run_folder import find_run

posix = pytest.mark.skipif(os.name != "posix", reason="signals and fork as on Unix")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny network; and no pictures, which would take most of the time."""
    use_tiny_networks(monkeypatch)
    monkeypatch.setattr(pictures, "draw_curves", lambda *_: None)
    monkeypatch.setattr(pictures, "preview_rows", lambda *_: [])


def fit(output: Path, *flags: str, code: int = 0) -> Path:
    """Run train.py to its end in this process; the newest folder under output."""
    flags = flags if "--resume" in flags else (*FLAGS, *flags)
    assert train.main([*flags, "--output", str(output)]) == code
    return find_run(str(output), "")
