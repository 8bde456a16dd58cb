"""Imports point one way: scripts, then publishing, training, evaluation and inference, then the parts, then common."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = {"train", "evaluate", "predict", "export", "app", "benchmark", "hubconf"}
TOOLS = {"figures", "experiments"}  # run as python -m figures.architecture
# room: which other rooms it may import from; scripts and tools may import every room, and no script
USES = {
    "common": set(),
    "losses": {"common", "models"},
    "metrics": {"common"},
    "config": {"common", "losses"},
    "models": {"common"},
    "data": {"common", "metrics"},
    "matting": {"common", "models"},
    "inference": {"common", "data", "matting", "models"},
    "evaluation": {"common", "config", "data", "inference", "matting", "metrics", "models"},
    "publishing": {"common", "config", "data", "evaluation", "inference", "metrics", "models", "training"},
    "training": {"common", "config", "data", "evaluation", "inference", "losses", "matting", "metrics", "models"},
}


def modules() -> dict[str, Path]:
    rooms = (*USES, *TOOLS)
    files = [*ROOT.glob("*.py"), *(file for room in rooms for file in (ROOT / room).rglob("*.py"))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}


def project_imports(path: Path) -> set[str]:
    """Top-level names of the project that a file imports anywhere, also inside functions."""
    own = {name.split(".")[0] for name in modules()}
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
    return found & own


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_point_one_way(name):
    room, imported = name.split(".")[0], project_imports(modules()[name])
    if room in SCRIPTS | TOOLS:
        steps = {f"experiments.{tool}" for tool in ("benchmark_training", "benchmark_memory")}
        measured = {"train"} if name in steps else set()  # its own step, not a copy
        assert not imported & (SCRIPTS - {room} - measured), "scripts do not import scripts"
    else:
        assert imported <= USES[room] | {room}, f"{room} may use {sorted(USES[room])}"


@pytest.mark.parametrize("name", sorted(modules()))
def test_no_work_at_import(name):
    """A module may define, import and name constants; only scripts act, and only under their main guard."""
    for node in ast.parse(modules()[name].read_text(encoding="utf-8")).body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        allowed = (
            ast.Import,
            ast.ImportFrom,
            ast.FunctionDef,
            ast.ClassDef,
            ast.Assign,
            ast.AnnAssign,
            ast.AugAssign,
            ast.If,
            ast.Try,
        )
        assert is_docstring or isinstance(node, allowed), f"line {node.lineno} of {name} does something at import"
