"""--help and a wrong flag are answered at once: before the packages are loaded that take seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ("train", "predict", "evaluate", "export", "app", "benchmark")
MODULES = ("data.check", "data.prepare", "data.synthetic", "inference.pseudo_labels", "publishing.publish")
PROBE = """
import runpy, sys
try:
    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
except SystemExit as end:
    print("exit", end.code, *sorted({"torch", "torchvision", "timm", "gradio"} & sys.modules.keys()))
"""


@pytest.mark.parametrize("command", SCRIPTS + MODULES)
@pytest.mark.parametrize(("flag", "code"), [("--help", 0), ("--wrong-flag", 2)])
def test_nothing_slow_is_loaded_for(command, flag, code):
    words = [sys.executable, "-c", PROBE, command, flag]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.stdout.splitlines()[-1] == f"exit {code}", ended.stdout + ended.stderr
