"""data.check: each planted fault is found and named, a clean set has none."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from common.photos import write_alpha
from data.alpha_faults import alpha_faults
from data.check import as_json, check_dataset, main
from data.copies import HASH_DISTANCE, THUMBNAIL_DISTANCE, Inspection, Look, find_copies
from data.faults import FAULTS
from data.pairs import Pair, read_pair
from data.quick_check import quick_check
from data.synthetic.folder import write_folder
from tests.planted_faults import PLANTED, alpha, photo, plant, portrait, truth, write_unknown


@pytest.fixture(scope="module")
def clean_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clean")
    write_folder(root, count=6, size=128, seed=3)
    return root


@pytest.fixture
def dataset(clean_set: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(clean_set, tmp_path / "set"))


@pytest.mark.parametrize("name", PLANTED)
def test_finds_each_planted_fault(dataset: Path, name: str) -> None:
    path, kind = plant(name, dataset, 2), PLANTED[name]
    report = check_dataset(dataset)
    assert [(fault.kind, Path(fault.path)) for fault in report.faults] == [(kind, path)]  # it, and nothing else
    assert path.name in report.faults[0].sentence
    assert main([str(dataset)]) == (1 if FAULTS[kind][0] == "error" else 0)


def test_finds_all_in_one_dataset(tmp_path: Path) -> None:
    """Each at a pair of its own, so that none hides another: the values of an unreadable alpha are not known."""
    write_folder(tmp_path, count=len(PLANTED), size=128, seed=3)
    planted = {(kind, plant(name, tmp_path, number)) for number, (name, kind) in enumerate(PLANTED.items())}
    report = check_dataset(tmp_path)
    assert len(report.faults) == len(planted) == len(PLANTED)  # these, and nothing else
    assert {(fault.kind, Path(fault.path)) for fault in report.faults} == planted
    assert set(FAULTS) == {*PLANTED.values(), "folder_missing", "split_incomplete"}
    assert main([str(tmp_path), "--json", str(tmp_path / "report.json")]) == 1
    written = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    counts = written["errors"], written["warnings"], len(written["faults"])
    assert counts == (len(report.errors), len(report.warnings), len(planted))


def test_clean_set_has_no_fault(clean_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    report = check_dataset(clean_set)
    assert report.faults == [] and quick_check(clean_set).errors == []
    assert as_json(report)["splits"]["train"]["pairs"] == 6
    sheet = tmp_path / "sheet.png"
    assert main([str(clean_set), "--contact-sheet", str(sheet)]) == 0
    assert cv2.imread(str(sheet)) is not None
    assert "train: 6 pairs" in capsys.readouterr().out


def test_quick_check_reads_headers_only(dataset: Path) -> None:
    plant("sizes_differ", dataset, 2)
    photo(dataset, 4).unlink()
    alpha(dataset, 1, "val").unlink()
    plant("photo_truncated", dataset, 0)  # only decoding would tell
    sentences = quick_check(dataset).errors
    assert len(sentences) == 3
    for sentence, name in zip(sentences, ("val_000001", "train_000004", "train_000002"), strict=True):
        assert name in sentence


def test_what_a_folder_leaves_out_is_counted_and_does_not_stop_a_training(dataset: Path) -> None:
    plant("files_left_out", dataset, 0)
    (fault,) = check_dataset(dataset).faults
    assert fault.sentence.startswith(f"{dataset / 'train' / 'im'}: 3 files left out: 2 .jxl, 1 .txt;")
    assert quick_check(dataset).errors == []


def test_the_command_in_a_sentence_can_be_copied(dataset: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(dataset, tmp_path / "my photos"))
    for number in range(3):
        plant("photo_without_alpha", root, number)
    (sentence,) = quick_check(root).errors
    assert sentence.endswith(f" 2 more of this kind (photo_without_alpha): python -m data.check '{root}'")


def test_a_mask_whose_pixels_are_damaged_is_named(dataset: Path) -> None:
    """Its header is whole: only decoding tells."""
    path = write_unknown(dataset, 2, np.random.default_rng(0).random((128, 128)))
    path.write_bytes(path.read_bytes()[:-2000])
    assert [(fault.kind, fault.path) for fault in check_dataset(dataset).faults] == [("unknown_unreadable", str(path))]


def test_an_empty_truth_does_not_hide_the_scale_of_the_others(dataset: Path) -> None:
    for number in range(6):
        plant("alpha_perhaps_scale", dataset, number)
    plant("alpha_empty", dataset, 3)
    assert [fault.kind for fault in check_dataset(dataset).errors].count("alpha_scale") == 5
    assert "percent" in quick_check(dataset).errors[0]


def test_missing_folders(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main([str(tmp_path / "nowhere")]) == 2
    assert main([str(tmp_path)]) == 2
    (tmp_path / "im").mkdir()
    assert main([str(tmp_path)]) == 1  # there is half a dataset
    (tmp_path / "gt").mkdir()
    assert main([str(tmp_path)]) == 2
    assert "holds no photos" in capsys.readouterr().err
    assert "nowhere" in quick_check(tmp_path / "nowhere").errors[0]
    assert quick_check(tmp_path).errors[0].startswith(f"{tmp_path} holds no photos: ")


SCALES = {
    "labels": (lambda a: np.uint8(a > 0.5) * 15, "value 15", "17"),
    "0/1": (lambda a: np.uint8(a > 0.5), "value 1;", "255"),
    "0/127": (lambda a: np.uint8(a > 0.5) * 127, "value 127", "2.0079"),
    "0/128": (lambda a: np.uint8(a > 0.5) * 128, "value 128", "1.9922"),
    "percent": (lambda a: np.uint8(a * 100), "percent", "2.55"),
    "7 bits": (lambda a: np.uint8(a * 127), "0 to 127", "2.0079"),
    "8 in 16": (lambda a: np.uint16(a * 255), "8 bit values in a 16", "257"),
    "12 in 16": (lambda a: np.uint16(a * 4095), "12 bit values in a 16", "16.004"),
    "14 in 16": (lambda a: np.uint16(a * 16383), "14 bit values in a 16", "4.0002"),
    "trimap": (
        lambda a: np.where(a == 0, 0, np.where(a == 1, 255, 128)).astype(np.uint8),
        "0, 128 and 255",
        "trimap",
    ),
}


@pytest.mark.parametrize("name", SCALES)
def test_a_set_whose_truths_never_reach_1_does_not_train(dataset: Path, name: str) -> None:
    """Each named with its likely scale, by data.check and at the start of a training."""
    change, scale, factor = SCALES[name]
    for split in ("train", "val"):
        for number in range(6):
            cv2.imwrite(str(alpha(dataset, number, split)), change(portrait()))
    report = check_dataset(dataset)
    assert [fault.kind for fault in report.errors] == ["alpha_scale"] * 12 and not report.warnings
    for sentence in (report.errors[0].sentence, *quick_check(dataset).errors):
        assert scale in sentence and factor in sentence and "train_000000.png" in sentence


def rewrite(dataset: Path, change: Callable[[np.ndarray], np.ndarray], split: str) -> None:
    for path in (dataset / split / "gt").iterdir():
        cv2.imwrite(str(path), np.uint8(np.rint(change(np.float32(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)) / 255))))


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: 0 * a, "is 0 everywhere"),
        (lambda a: 0 * a + 2, "is nearly 0 everywhere"),
        (lambda a: 0 * a + 254, "is nearly 1 everywhere"),
        (lambda a: 255 - 255 * a, "inverted"),
    ],
    ids=["empty", "nearly empty", "nearly full", "inverted"],
)
def test_a_training_does_not_start_on_truths_of_which_none_is_of_use(dataset: Path, change, words, split: str) -> None:
    rewrite(dataset, change, split)
    (sentence,) = quick_check(dataset).errors
    assert words in sentence and str(dataset / split / "gt") in sentence and "--no-check-data" in sentence
    assert check_dataset(dataset).errors


def test_a_training_starts_where_some_truths_are_of_no_use_and_says_so(dataset: Path) -> None:
    plant("alpha_empty", dataset, 2)
    errors, warnings, _ = quick_check(dataset)
    assert not errors and len(warnings) == 1 and "is 0 everywhere" in warnings[0]


@pytest.mark.parametrize(
    ("change", "kind"), [(lambda a: 200 * a, "alpha_faint"), (lambda a: 1 + 253 * a, "alpha_noisy")]
)
def test_smoke_and_nearly_sure_truths_are_trained_on_with_a_warning(dataset: Path, change, kind: str) -> None:
    """Of no usual scale, so the subjects may be faint; and 1 and 254 for 0 and 255, as a film leaves them."""
    rewrite(dataset, change, "train")
    report = check_dataset(dataset)
    assert {fault.kind for fault in report.faults} == {kind} and not report.errors
    errors, warnings, _ = quick_check(dataset)
    assert not errors and len(warnings) == 1 and str(alpha(dataset, 0)) in warnings[0]


def test_a_large_set_is_sampled_and_that_is_said(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data.quick_check.SAMPLED_HEADERS", 4)
    monkeypatch.setattr("data.quick_check.SAMPLED_TRUTHS", 4)
    plant("sizes_differ", dataset, 2)
    plant("photo_without_alpha", dataset, 3)  # names are cheap: all are looked at
    errors, _, scope = quick_check(dataset)
    assert len(errors) == 1 and "train_000003" in errors[0]
    assert "names of 11 pairs, the sizes of 4 and 4 alphas" in scope and f"python -m data.check {dataset}" in scope


def test_one_faint_truth_among_others_may_be_a_glass(dataset: Path) -> None:
    plant("alpha_perhaps_scale", dataset, 2)
    plant("alpha_levels", dataset, 3)
    assert quick_check(dataset).errors == []
    plant("alpha_scale", dataset, 4)  # two levels: certainly no glass
    assert ["train_000004.png" in sentence for sentence in quick_check(dataset).errors] == [True]


def test_a_mask_keeps_its_grey_where_its_alpha_channel_says_nothing(dataset: Path) -> None:
    for number in range(6):
        grey = np.rint(truth(dataset, number) * 255).astype(np.uint8)
        channel = np.full_like(grey, 255)
        channel[0, :5] = 254
        Image.fromarray(np.dstack([grey, grey, grey, channel])).save(alpha(dataset, number))
    assert check_dataset(dataset).faults == [] and quick_check(dataset).errors == []


def test_unknown_pixels_are_not_judged_but_counted(dataset: Path, capsys: pytest.CaptureFixture) -> None:
    """A trimap is a good truth where its band is marked as unknown."""
    for number in range(6):
        levels = cv2.imread(str(plant("alpha_levels", dataset, number)), cv2.IMREAD_GRAYSCALE)
        write_unknown(dataset, number, levels == 128)
    assert quick_check(dataset).errors == []
    report = check_dataset(dataset)
    assert {fault.kind for fault in report.faults} == {"alpha_binary"}
    shares = [entry.truth.unknown_share for entry in report.inspections if entry.split == "train"]
    assert all(0 < share < 1 for share in shares)
    figures = as_json(report)["splits"]
    assert figures["train"]["unknown_share_mean"] == pytest.approx(np.mean(shares))
    assert (figures["train"]["unknown_masks"], figures["val"]["unknown_masks"]) == (6, 0)
    main([str(dataset)])
    assert f"6 masks of unknown pixels, {np.mean(shares):.2%}" in capsys.readouterr().out


def test_inverted_or_not() -> None:
    crown = np.zeros((120, 120), np.float32)
    crown[:80] = 1
    crown[80:, 45:75] = 1  # a tree fills the upper half
    corner = np.zeros((120, 120), np.float32)
    corner[30:, 20:] = 1  # fills two borders
    kinds = [
        [fault.kind for fault in alpha_faults(cv2.blur(matte, (3, 3)), "a.png")]
        for matte in (portrait(), 1 - portrait(), crown, corner)
    ]
    assert kinds == [[], ["alpha_perhaps_inverted"], [], []]


def test_exif_that_the_sizes_confirm_is_no_fault(dataset: Path) -> None:
    pixels, matte = read_pair(photo(dataset, 2), alpha(dataset, 2))
    photo(dataset, 2).unlink()
    write_alpha(alpha(dataset, 2), matte[:100])
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(pixels[:100]).transpose(Image.Transpose.ROTATE_90)
    stored.save(photo(dataset, 2).with_suffix(".jpg"), exif=exif, quality=95)
    assert check_dataset(dataset).faults == []


def test_what_lies_beside_train_and_val_does_not_stop_a_training(dataset: Path) -> None:
    for folder in ("test/im", "__MACOSX/im", "@eaDir/gt", "train/im/@eaDir/a.png", "train/unlabeled"):
        (dataset / folder).mkdir(parents=True)
    shutil.copy(photo(dataset, 0), dataset / "test" / "im" / "a.png")
    for junk in ("train/im/._x.jpg", "val/gt/Thumbs.db", "train/gt/.DS_Store", "train/im/@eaDir/a.png/SYNO.jpg"):
        (dataset / junk).write_bytes(b"junk")
    assert quick_check(dataset).errors == []
    report = check_dataset(dataset)
    assert [(fault.kind, Path(fault.path)) for fault in report.faults] == [
        ("split_incomplete", dataset / "test" / "gt")
    ]
    assert main([str(dataset)]) == 0
    shutil.rmtree(dataset / "val" / "gt")
    assert len(quick_check(dataset).errors) == 1 and main([str(dataset)]) == 1


def test_copies_are_those_of_a_comparison_of_all_with_all() -> None:
    """Looks drawn near one another, as many within both distances as outside one of them."""
    rng = np.random.default_rng(0)
    bits = np.repeat(rng.integers(0, 2, (40, 256), np.uint8), 5, axis=0)
    colours = np.repeat(rng.integers(0, 256, (40, 1, 1, 3)), 5, axis=0) + np.zeros((1, 16, 16, 1), np.int64)
    for number in range(200):
        flipped = rng.permutation(256)[: rng.integers(5, 20)]
        bits[number, flipped] ^= 1
        colours[number] += rng.integers(-9, 10)
    hashes, thumbnails = np.packbits(bits, axis=1).view(np.uint64), colours.astype(np.int16)
    expected = []
    for one in range(200):
        close = (np.bitwise_count(hashes[:one] ^ hashes[one]).sum(axis=1) <= HASH_DISTANCE) & (
            np.abs(thumbnails[:one] - thumbnails[one]).mean(axis=(1, 2, 3)) <= THUMBNAIL_DISTANCE
        )
        expected += [(one, int(np.argmax(close)))] if close.any() else []
    entries = [
        Inspection(
            Pair(str(n), Path(f"{n}.jpg"), Path()), "train", look=Look(str(n).encode(), hashes[n], thumbnails[n])
        )
        for n in range(200)
    ]
    found = [re.findall(r"(\d+)\.jpg", fault.sentence) for fault in find_copies(entries)]
    assert [(int(one), int(other)) for one, other in found] == expected and 30 < len(expected) < 150
