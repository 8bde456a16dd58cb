"""The comparison of variants: what it makes of runs, with numbers that can be checked by hand."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy

from experiments import ablation
from experiments.ablation import NO_TEACHER, TSR, TWIN, collect
from experiments.ablation_tables import (
    COLUMNS,
    cut_tables,
    final_table,
    first_reach,
    overfit_table,
    set_tables,
    start_table,
    steps_to_baseline,
)
from models.checkpoint import MODEL_FILE
from training.flags import add_config_flags


def make_run(output: Path, variant: str, seed: int, sads: list[float], coarse: float = 2.0, first: int = 1) -> None:
    """A run folder as train.py leaves it: one row per epoch of 10 steps; half of the SAD lies at the edge."""
    folder = output / ablation.folder_name(variant, seed) / "run"
    folder.mkdir(parents=True)
    rows = []
    for epoch, sad in enumerate(sads, first):
        row = {"epoch": epoch, "step": 10 * epoch, "seconds": 60.0 if epoch else 0.0}
        row |= {"coarse_l1": 2.0, "refined_l1": sad} if epoch else {}
        for matte, value in (("coarse", coarse), ("refined", sad)):
            row |= {f"val_{matte}_{column}": value for column in ("image_sad", "image_mse")}
            row |= {f"val_{matte}_{column}": value / 2 for column in ("edge_sad", "edge_mse", "edge_grad")}
        rows.append(row)
    pd.DataFrame(rows).to_csv(folder / "training_log.csv", index=False)
    safetensors.numpy.save_file({"a": np.zeros((1000, 1500), np.float32)}, folder / MODEL_FILE)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for seed in (0, 1):
        make_run(tmp_path, NO_TEACHER, seed, [1.8, 1.4, 1.0])
        make_run(tmp_path, TWIN, seed, [1.9, 1.8, 1.6], coarse=1.6)
    make_run(tmp_path, TSR, 0, [1.5, 1.0, 0.8])
    make_run(tmp_path, TSR, 1, [1.7, 1.3, 1.2])
    return tmp_path


def test_tables_of_known_runs(runs: Path) -> None:
    rows = collect(runs)
    assert len(rows) == 18 and set(rows["parameters"]) == {1.5}
    assert "| TSR-Matte | 2 | 1.5 | 60 | 1 ± 0.28 | 1 ± 0.28 | 0.5 ± 0.14 |" in final_table(rows)
    own, baseline = cut_tables(rows, ("no such run", TWIN))
    assert "| TSR-Matte | 50.0 ± 14 |" in own  # against 2.0: 60 % and 40 %
    assert "| TSR-Matte | 37.5 ± 18 |" in baseline  # against 1.6: 50 % and 25 %
    assert "| TwinSwin-Matte |" not in own and "| TwinSwin-Matte |" not in baseline  # nothing to compare with


@pytest.mark.parametrize("table", sorted(ablation.RESULTS.glob("*/table.md")), ids=lambda path: path.parent.name)
def test_published_tables_are_those_of_the_published_rows(table: Path) -> None:
    rows = pd.read_csv(table.with_name("log.csv"))
    published = table.read_text(encoding="utf-8")
    assert ablation.describe(rows) == published.rstrip("\n")


def test_steps_to_the_baseline_count_what_never_gets_there(runs: Path) -> None:
    # seed 0 is at 1.0 after 20 of 30 steps, seed 1 never
    assert "after 0.67 of the latter's steps in 1 seeds, and not at all in 1" in steps_to_baseline(
        collect(runs), TSR, NO_TEACHER
    )
    assert "in none of 2 seeds" in steps_to_baseline(collect(runs), TWIN, NO_TEACHER)
    curve = pd.Series([4.0, 2.0], index=[10, 20])
    assert first_reach(curve, 3.0) == 15 and first_reach(curve, 5.0) == 10 and math.isnan(first_reach(curve, 1.0))


def test_the_start_is_shown_where_runs_start_from_a_checkpoint(
    runs: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert start_table(collect(runs)) == ""
    output = tmp_path_factory.mktemp("start")
    for seed in (0, 1):
        make_run(output, TSR, seed, [2.0, 1.5, 1.0], first=0)
        make_run(output, "without smart initialization", seed, [9.0, 3.0, 1.0], first=0)
    rows = collect(output)
    assert "| TSR-Matte | 2 ± 0 | 1.5 ± 0 | 1 ± 0 | 0.75 ± 0 | 0.75 ± 0 | 0.5 ± 0 |" in start_table(rows)
    assert "| without smart initialization | 9 ± 0 | 3 ± 0 | 4.5 ± 0 | 1.5 ± 0 | 1.5 ± 0 | 0.5 ± 0 |" in start_table(
        rows
    )
    assert "| 60 |" in final_table(rows)  # row 0 trained nothing


def test_sets_have_tables_of_their_own_and_a_run_without_refiner_its_coarse_figures(tmp_path: Path) -> None:
    for variant, matte, sad in ((TSR, "refined", 1.0), (TWIN, "coarse", 3.0)):
        make_run(tmp_path, variant, 0, [sad], coarse=3.0)
        log = tmp_path / ablation.folder_name(variant, 0) / "run" / "training_log.csv"
        rows = pd.read_csv(log).drop(columns=[] if variant == TSR else ["val_refined_image_sad"])
        rows.assign(**{f"val_real_{matte}_{key}": sad for key in COLUMNS.values()}).to_csv(log, index=False)
    rows = collect(tmp_path)
    assert "| TwinSwin-Matte | 1 | 1.5 | 60 | 3 |" in final_table(rows)
    (table,) = set_tables(rows)
    assert table.startswith("On real alone.") and "| TSR-Matte | 1 | 1 |" in table and "| TwinSwin-Matte | 3 |" in table


def test_what_a_run_loses_after_its_best_epoch(tmp_path: Path) -> None:
    make_run(tmp_path, TSR, 0, [2.0, 1.0, 1.5])
    make_run(tmp_path, TSR, 1, [2.0, 1.5, 1.0])
    assert "| TSR-Matte | 1 ± 0 | 25.0 ± 35 | 1 ± 0 | 25.0 ± 35 |" in overfit_table(collect(tmp_path))


def test_uneven_runs_are_compared_at_the_last_common_epoch(runs: Path) -> None:
    make_run(runs, TSR, 2, [0.5])
    assert final_table(collect(runs)).startswith("After epoch 1 (10 steps)")


def test_report_writes_complete_files(runs: Path, capsys: pytest.CaptureFixture) -> None:
    ablation.report(collect(runs), runs / "figure")
    assert {"log.csv", "curves.png", "table.md"} == {path.name for path in (runs / "figure").iterdir()}
    assert (runs / "figure" / "table.md").read_text() == capsys.readouterr().out


def test_variants_are_flags_of_train() -> None:
    parser = argparse.ArgumentParser()
    add_config_flags(parser)
    for flags in ablation.VARIANTS.values():
        parser.parse_args(flags)


def test_finished_runs_are_not_run_again_and_started_ones_go_on(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (runs / ablation.folder_name(TSR, 0) / "run" / "config.json").write_text("{}")
    commands = []
    monkeypatch.setattr(ablation.subprocess, "run", lambda command, **_: commands.append(command))
    ablation.run_all(runs, [TSR, TWIN], seeds=1, hours=1.0, common=["--epochs", "3"])
    first, second = commands
    assert first[first.index("--resume") + 1] == str(runs / "TSR-Matte_seed_0" / "run")
    assert "--resume" not in second and "--no-use-refiner" in second and second[second.index("--epochs") + 1] == "3"
    commands.clear()
    ablation.run_all(runs, [TSR], seeds=1, hours=0.0, common=[])
    assert commands == []
