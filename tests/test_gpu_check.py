"""experiments.gpu_check: its commands are those that the scripts have now, and a step that fails is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments import gpu_check
from experiments.gpu_check import Step, steps_of
from experiments.options import benchmark_options
from training.flags import parse_flags


@pytest.mark.parametrize("dry", [False, True])
def test_every_command_is_understood_and_all_take_15_minutes(dry):
    steps = steps_of(dry, Path("photos"), Path("runs"))
    assert sum(step.seconds for step in steps) <= 15 * 60
    parsers = {"train.py": parse_flags, "benchmark.py": benchmark_options}
    for step in steps:
        script, *flags = step.arguments
        if script in parsers:
            parsers[script](None, flags)


def test_a_step_that_fails_or_hangs_is_named_and_the_others_go_on(tmp_path, monkeypatch, capsys):
    codes = {"first": "1 / 0", "slow": "import time; time.sleep(60)", "last": "print('3.5 images/s')"}
    steps = [Step(name, 1 if name == "slow" else 30, 3, ("-c", code)) for name, code in codes.items()]
    monkeypatch.setattr(gpu_check, "FOLDER", tmp_path)
    monkeypatch.setattr(gpu_check, "steps_of", lambda *_: steps)
    assert gpu_check.main([]) == 1
    printed = capsys.readouterr().out
    assert "ZeroDivisionError" in printed and "3.5 images/s" in printed and printed.endswith("failed: first, slow\n")
    assert "slow: FAILED, it takes too long" in printed


def test_photos_are_made_once(tmp_path):
    gpu_check.make_photos(tmp_path, dry=True)
    assert len(list((tmp_path / "train" / "im").iterdir())) == len(list((tmp_path / "val" / "gt").iterdir())) == 4
    before = (tmp_path / "train" / "im" / "photo_0.jpg").stat()
    gpu_check.make_photos(tmp_path, dry=True)
    assert (tmp_path / "train" / "im" / "photo_0.jpg").stat() == before
