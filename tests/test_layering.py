"""Imports point one way: scripts and tools, then packages, then matting and its peers, then parts, then leaves."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = {"train", "evaluate", "predict", "export", "app", "benchmark"}
TOOLS = {"benchmarks", "figures", "experiments"}  # benchmark.py's, and what is run as python -m figures.architecture
USES = {"training": {"evaluation"}, "evaluation": {"prediction"}, "prediction": set(), "web": {"prediction"},
        "benchmarks": {"training"}, "figures": {"prediction", "web"}, "experiments": set()}  # package: others of these
PARTS = {"models", "data", "losses", "metrics"}
LEAVES = {"photos", "metrics", "losses", "devices", "distributed", "plots"}


def modules() -> dict[str, Path]:
    files = [*ROOT.glob("*.py"), *(file for name in ("models", "data", *USES) for file in ROOT.glob(f"{name}/*.py"))]
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
    top, imported = name.split(".")[0], project_imports(modules()[name])
    if top not in SCRIPTS:
        assert not imported & SCRIPTS, "only scripts import scripts"
        assert "config" not in imported or top in TOOLS, "only scripts and tools read the config"
        assert imported & USES.keys() <= USES.get(top, set()) | {top}, "packages use each other as the table says"
    elif top != "train":
        assert not imported & (SCRIPTS - {top}), "scripts do not import scripts"
    else:
        assert imported & SCRIPTS <= {"evaluate"}
    if top in LEAVES:
        assert not imported - LEAVES, "a leaf imports no part of the project but leaves"
    if top in PARTS:
        assert imported <= {top, "photos", "metrics"} if top == "data" else imported <= {top}


@pytest.mark.parametrize("name", sorted(modules()))
def test_no_work_at_import(name):
    """A module may define, import and name constants; only scripts act, and only under their main guard."""
    for node in ast.parse(modules()[name].read_text(encoding="utf-8")).body:
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        allowed = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign,
                   ast.AugAssign, ast.If, ast.Try)
        assert is_docstring or isinstance(node, allowed), f"line {node.lineno} of {name} does something at import"
