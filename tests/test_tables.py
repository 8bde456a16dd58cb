"""tables.py: the summary of known rows, and the notes printed with the figures."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from evaluation.dis_metrics import DIS, F_CURVE
from evaluation.scoring import by_matte, summarize
from evaluation.tables import kinds_table, notes, table, write_csv, write_json
from metrics import EDGE_RULE, METRICS, TITLES


def row(name: str, sad: float, edge_share: float = 0.1, soft_share: float = 0.0, matte: str = "m") -> dict:
    edge = {"edge_sad": sad / 2} if edge_share else {}
    return {"matte": matte, "name": name, "image_sad": sad, **edge, "edge_share": edge_share,
            "soft_share": soft_share, "unknown_pixels": 0}  # fmt: skip


DIS_NAMES = [name for name in METRICS if name.startswith(DIS)]
ROWS = [row("a", 1.0), row("b", 5.0), row("c", 2.0), row("d", 4.0, edge_share=0.0)]


def test_mean_median_and_worst_by_hand():
    assert list(summarize(ROWS).loc["image_sad"]) == [3.0, 3.0, [("b", 5.0), ("d", 4.0), ("c", 2.0)]]


def test_photos_without_an_edge_do_not_dilute_the_edge_figures():
    assert list(summarize(ROWS).loc["edge_sad"]) == [8 / 6, 1.0, [("b", 2.5), ("c", 1.0), ("a", 0.5)]]
    assert "edge_sad" not in summarize(ROWS[3:]).index
    assert any("1 photos have no edge band" in line for line in notes(ROWS))


def test_worst_is_lowest_where_high_is_good():
    rows = [row(name, 0.0) | dict.fromkeys(DIS_NAMES, value) | {F_CURVE: [value, 1 - value]}
            for name, value in (("good", 0.9), ("bad", 0.2))]  # fmt: skip
    summary = summarize(rows)
    assert summary["worst"]["dis_s"][0][0] == "bad"
    assert summary["worst"]["dis_hce"][0][0] == "good"
    assert summary["mean"]["dis_max_f"] == pytest.approx(0.55)  # of the mean curve, not of each image's maximum


def test_tables_hold_every_figure():
    one = table({"m": summarize(ROWS)})
    assert "b 5, d 4, c 2" in one and one.count("\n") == 3
    other = [row("a", 7.25, edge_share=0, matte="other")]
    both = table({label: summarize(rows) for label, rows in by_matte(ROWS + other).items()})
    assert both.count("\n") == 4 and "7.25" in both and "other" in both.splitlines()[0]
    assert both.splitlines()[-1].split() == ["edge", "sad", "1.3333", "1", "-", "-"]  # no other photo has an edge


def test_notes_name_units_regions_the_kind_of_truth_and_what_was_left_out():
    text = "\n".join(notes([row("a", 1.0) | {"unknown_pixels": 1200}, row("b", 1.0, soft_share=0.3)]))
    assert EDGE_RULE in text and "1 soft, 1 binary" in text and "sad: sum |p - g| / 1000" in text
    assert "1200 pixels in 1 photos" in text and "binarised" not in text
    assert "unknown" not in "\n".join(notes(ROWS))
    dis = dict.fromkeys(DIS_NAMES, 0.5) | {F_CURVE: [0.5]}
    assert any("binarised" in line and "1 soft truths" in line for line in notes([row("a", 1.0, 0.1, 0.3) | dis]))


def test_csv_and_json(tmp_path: Path):
    write_csv(tmp_path / "a.csv", [r | {F_CURVE: [1.0]} for r in ROWS])
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [line["name"] for line in lines] == list("abcd") and F_CURVE not in lines[0]
    assert float(lines[1]["image_sad"]) == 5.0 and lines[3]["edge_sad"] == ""  # d has no edge: missing, not perfect
    write_json(tmp_path / "a.json", ROWS, [("e", "cut short")])
    report = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert report["mattes"]["m"]["image_sad"]["worst"][0] == {"name": "b", "value": 5.0}
    assert report["failed"] == [{"name": "e", "reason": "cut short"}]
    assert report["edge_rule"] == EDGE_RULE and report["photos"] == 4
    write_json(tmp_path / "a.json", [], [("e", "cut short")])  # nothing but failures
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["mattes"] == {}


def test_means_by_kind_count_each_photo_once_and_no_edge_that_is_not_there():
    rows = [row("dog_1", 1.0), row("dog-2", 3.0), row("a/cat#3", 5.0, edge_share=0.0)]
    text = kinds_table(rows)
    assert text.split()[:2] == ["photos", "image_sad"] and set(rows[0]) & set(TITLES) == {"image_sad", "edge_sad"}
    lines = [line.split() for line in text.splitlines()[-2:]]
    assert [line[:4] for line in lines] == [["m", "dog", "2", "2"], ["m", "cat", "1", "5"]]
    assert lines[0][-1] == "1" and lines[1][-1] == "-"  # edge SAD, half of SAD in these rows
