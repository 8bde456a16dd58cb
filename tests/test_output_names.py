"""Names that stdout cannot hold cost neither the work nor its files; every script's main is a common.command."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import evaluate
from common.files import write_json
from training.log import write_log

ROOT = Path(__file__).resolve().parent.parent
CAT = "\u732b"
NO_TEXT = os.fsdecode(b"\xc4\xe3") if os.name != "nt" else CAT  # of a zip from another decade
FILES = [
    path for pattern in ("*.py", "data/**/*.py", "experiments/*.py", "figures/*.py") for path in ROOT.glob(pattern)
]
SCRIPTS = [path for path in FILES if "__main__" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_main_is_a_command(path):
    """Which starts with print_any_name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    main = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main")
    assert [ast.unparse(decorator) for decorator in main.decorator_list] == ["command"]


def pairs(folder: Path, *names: str) -> Path:
    """A data set of a photo and its alpha for each name, and a photo without one."""
    y, x = np.mgrid[:48, :64]
    alpha = np.clip((20 - np.hypot(x - 30, y - 24)) / 4, 0, 1)
    for part in ("train", "val"):
        for kind in ("im", "gt"):
            (folder / part / kind).mkdir(parents=True)
        for number, name in enumerate(names):
            noise = np.random.default_rng(number).integers(0, 256, (48, 64, 3), np.uint8)
            Image.fromarray(noise).save(folder / part / "im" / f"{name}.jpg")
            Image.fromarray(np.uint8(alpha * 255)).save(folder / part / "gt" / f"{name}.png")
    (folder / "train" / "gt" / f"{names[0]}.png").unlink()
    return folder


def start(*arguments: object) -> subprocess.CompletedProcess:
    """A script whose output goes to a log file on Windows."""
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, env=environment, capture_output=True)


@pytest.mark.parametrize("name", [CAT, NO_TEXT], ids=["text", "no text"])
def test_data_check_reports_names_of_any_kind(tmp_path, name):
    folder = pairs(tmp_path / "set", name, "b")
    done = start("-m", "data.check", folder, "--json", tmp_path / "r.json", "--contact-sheet", tmp_path / "s.png")
    assert done.returncode == 1 and b"Traceback" not in done.stderr
    assert ascii(name)[1:-1].encode() in done.stdout
    faults = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["faults"]
    assert any(Path(fault["path"]).stem == name for fault in faults) and (tmp_path / "s.png").exists()


def test_evaluate_reports_names_of_any_kind(tmp_path):
    truths = pairs(tmp_path / CAT, CAT, NO_TEXT) / "val" / "gt"
    files = ("--csv", tmp_path / f"{CAT}.csv", "--json", tmp_path / "s.json")
    flags = ("--predictions", truths, "--ground-truth", truths, "--workers", 0)
    done = start("evaluate.py", *flags, *files)
    assert done.returncode == 0 and done.stderr.count(b"Traceback") == 0
    assert ascii(CAT)[1:-1].encode() in done.stdout
    assert CAT in set(pd.read_csv(tmp_path / f"{CAT}.csv")["name"])
    worst = json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))["mattes"].popitem()[1]["image_sad"]["worst"]
    assert {entry["name"] for entry in worst} == {CAT, NO_TEXT}


def test_results_are_on_disk_before_the_table_is_printed(tmp_path, monkeypatch):
    """A reader who leaves (| head) costs no file."""

    def leave(*arguments, **options):
        raise BrokenPipeError

    truths = pairs(tmp_path / "set", "a", "b") / "val" / "gt"
    monkeypatch.setattr(evaluate, "print", leave, raising=False)
    files = ("--csv", tmp_path / "s.csv", "--json", tmp_path / "s.json")
    with pytest.raises(BrokenPipeError):
        evaluate.main([*map(str, ("--predictions", truths, "--ground-truth", truths, "--workers", 0, *files))])
    assert (tmp_path / "s.csv").exists() and (tmp_path / "s.json").exists()


def test_files_hold_names_that_are_no_text(tmp_path):
    write_json(tmp_path / "a.json", {"name": NO_TEXT})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"name": NO_TEXT}
    write_log(tmp_path, [{"epoch": 1, f"{NO_TEXT}_coarse_image_sad": 2.0}])
    assert "coarse_image_sad" in (tmp_path / "training_log.csv").read_text(encoding="utf-8")
