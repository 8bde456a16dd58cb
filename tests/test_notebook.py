"""examples/quickstart.ipynb: it runs as a stranger's clone would run it, and holds no outputs."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"


@pytest.fixture
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def code_cells(notebook: nbformat.NotebookNode) -> dict[str, nbformat.NotebookNode]:
    return {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}


def test_it_holds_no_outputs(notebook) -> None:
    nbformat.validate(notebook)
    for cell in code_cells(notebook).values():
        assert cell.outputs == [] and cell.execution_count is None and not cell.metadata, f"strip the cell {cell.id}"


def test_its_links_lead_somewhere(notebook) -> None:
    text = "".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert links and [link for link in links if not (NOTEBOOK.parent / link).is_file()] == []


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """This checkout without anybody's runs; of the starter model, the code knows the real place."""
    folder = tmp_path / "clone"
    (folder / "examples").mkdir(parents=True)
    for path in ROOT.iterdir():
        if path.name not in ("examples", "checkpoints", "test_results"):
            (folder / path.name).symlink_to(path)
    return folder


def test_it_runs_from_the_first_cell_to_the_last(notebook, clone, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    client = NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(clone / "examples")}})
    client.create_kernel_manager().shutdown_wait_time = 60  # seconds; it removes a gigabyte when it ends
    client.execute()
    cells = code_cells(notebook)
    assert cells["set-up"].outputs == []
    assert "0 errors" in "".join(output.get("text", "") for output in cells["dataset"].outputs)
    (log,) = [output for output in cells["fine-tune"].outputs if output.output_type == "execute_result"]
    assert log.data["text/html"].count("<tr>") == 5  # the log's epochs, from the start to the fourth
    before, after = map(float, re.findall(r"0\.\d+", cells["compare"].outputs[0].text))
    assert after < 0.8 * before
    assert Image.open(clone / "test_results" / "astronaut_cutout.png").mode == "RGBA"
    for name in ("photo", "compare"):
        assert cells[name].outputs[-1].data["image/png"]
    assert not (clone / "checkpoints").exists()
    assert not list(tmp_path.glob("*/tuned"))  # its data and runs are gone with the kernel


@pytest.mark.parametrize("place", ["root", "examples", "elsewhere"])
def test_only_elsewhere_it_clones_and_installs(place, notebook, clone, tmp_path, monkeypatch) -> None:
    commands = []

    class Shell:
        def system(self, command: str) -> None:
            commands.append(command)
            if command.startswith("git clone"):
                os.mkdir(command.split()[-1])

    start = {"root": clone, "examples": clone / "examples", "elsewhere": tmp_path / "a" / "b"}[place]
    start.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(start)
    monkeypatch.setattr(sys, "path", list(sys.path))
    exec(TransformerManager().transform_cell(code_cells(notebook)["set-up"].source), {"get_ipython": Shell})
    assert sys.path[0] == os.getcwd() == str(start / "TSR-Matte" if place == "elsewhere" else clone)
    assert [command.split()[0:2] for command in commands[:1]] == ([["git", "clone"]] if place == "elsewhere" else [])
    assert len(commands) == (2 if place == "elsewhere" else 0)
    assert all((ROOT / command.split()[-1]).is_file() for command in commands[1:])
