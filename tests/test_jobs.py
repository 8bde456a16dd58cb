"""Which output belongs to which input: one rule, never two to one, and nothing of anybody else's is overwritten."""

from __future__ import annotations

import errno
import json
import os
import random
from pathlib import Path

import pytest

from common.errors import UserError
from inference.inputs import Inputs
from inference.jobs import Job, plan_jobs
from inference.manifest import PROGRAM, Manifest, new_row
from inference.media import PHOTO, VIDEO, kind_of

SETTINGS = {"kind": "alpha", "bits": 8}
SUFFIXES = {PHOTO: ".png", VIDEO: ".mkv"}


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def plan(inputs: list[Path], output: Path, name: str = "", suffixes: dict[str, str] = SUFFIXES) -> list[Job]:
    manifest = Manifest(output, SETTINGS)
    return plan_jobs(Inputs(inputs, output, manifest.row_of), manifest, suffixes, name)


def do(jobs: list[Job], output: Path) -> None:
    """As predict.py does what is not refused."""
    output.mkdir(exist_ok=True)
    manifest = Manifest(output, SETTINGS)
    done = [job for job in jobs if not job.refusal]
    touch(output, *(job.output.as_posix() for job in done))
    manifest.write({}, [new_row(job.source, job.output, SETTINGS) for job in done])


def outputs(root: Path, jobs: list[Job]) -> dict[str, str]:
    return {job.source.relative_to(root).as_posix(): job.output.as_posix() for job in jobs}


def test_an_output_keeps_its_path_and_its_suffix_where_names_clash(tmp_path):
    names = ("a.jpg", "b.jpg", "b.PNG", "B.webp", "c.jpg", "c.png", "c.mp4", "d.e.f.jpg", "sub/a.jpg", "sub/b.gif")
    touch(tmp_path / "in", *names)
    assert outputs(tmp_path / "in", plan([tmp_path / "in"], tmp_path / "out")) == {
        "a.jpg": "a.png",
        "b.jpg": "b.jpg.png",
        "b.PNG": "b.PNG.png",
        "B.webp": "B.webp.png",
        "c.jpg": "c.jpg.png",
        "c.png": "c.png.png",
        "c.mp4": "c.mkv",
        "d.e.f.jpg": "d.e.f.png",
        "sub/a.jpg": "sub/a.png",
        "sub/b.gif": "sub/b.png",
    }


def test_no_two_outputs_are_alike_and_none_is_an_input_whatever_the_names(tmp_path):
    chance = random.Random(0)
    ends = (".jpg", ".png", ".webp", ".mp4", ".mkv")
    pieces = ("a", "B", "A", "b", *ends)
    names = {"a" + "".join(chance.choices(pieces, k=3)) + chance.choice(ends) for _ in range(300)}
    touch(tmp_path / "in", *names)
    before = {path.name for path in (tmp_path / "in").iterdir()}
    for output in (tmp_path / "out", tmp_path / "in"):
        for _ in range(2):  # the second time with the first one's outputs there
            jobs = plan([tmp_path / "in"], output)
            assert {job.source.name for job in jobs} == before
            done = [job for job in jobs if not job.refusal]
            assert len({job.output.as_posix().lower() for job in done}) == len(done) > 100
            assert not {job.output.name for job in done if output.name == "in"} & before
            do(jobs, output)


def test_names_do_not_depend_on_what_else_is_done(tmp_path):
    touch(tmp_path / "in", "a.jpg", "a.png", "b.jpg")
    whole = outputs(tmp_path / "in", plan([tmp_path / "in"], tmp_path / "out"))
    for name, output in whole.items():
        twice = [tmp_path / "in" / name, tmp_path / "in" / "." / name]
        assert outputs(tmp_path / "in", plan(twice, tmp_path / "out")) == {name: output}


def test_several_inputs_are_named_from_the_folder_they_share(tmp_path):
    touch(tmp_path, "one/a.jpg", "two/a.jpg", "two/sub/b.jpg")
    jobs = plan([tmp_path / "one" / "a.jpg", tmp_path / "two"], tmp_path / "out")
    expected = {"one/a.jpg": "one/a.png", "two/a.jpg": "two/a.png", "two/sub/b.jpg": "two/sub/b.png"}
    assert outputs(tmp_path, jobs) == expected


def test_in_the_folder_of_its_inputs(tmp_path):
    touch(tmp_path, "a.jpg", "b.jpg", "b.png", "c.png", "out/d.jpg")
    expected = {"a.jpg": "a.png", "b.jpg": "b.jpg.png", "b.png": "b.png.png", "c.png": "c.png.png"}
    for _ in range(2):  # outputs are no inputs, and change no names
        jobs = plan([tmp_path], tmp_path)
        assert outputs(tmp_path, jobs) == {**expected, "out/d.jpg": "out/d.png"}
        assert not any(job.refusal for job in jobs)
        do(jobs, tmp_path)
    assert "out/d.jpg" not in outputs(tmp_path, plan([tmp_path], tmp_path / "out"))  # a folder of results inside
    touch(tmp_path, "e.mp4", "e.frames/000001.png")
    manifest = Manifest(tmp_path, SETTINGS)
    manifest.write({}, [new_row(tmp_path / "e.mp4", Path("e.frames"), SETTINGS)])
    assert "e.frames/000001.png" not in outputs(tmp_path, plan([tmp_path], tmp_path))


@pytest.mark.parametrize("target", ["a.png", "a.frames/mine.txt"])
def test_what_predict_did_not_write_is_not_overwritten(tmp_path, target):
    touch(tmp_path, "in/a.jpg" if target == "a.png" else "in/a.mp4", f"out/{target}")
    (job,) = plan_or_refusals(tmp_path / "in", tmp_path / "out", {PHOTO: ".png", VIDEO: ".frames"})
    assert "which predict.py did not write" in job


def plan_or_refusals(folder: Path, output: Path, suffixes: dict[str, str] = SUFFIXES) -> list[str]:
    try:
        return [job.refusal for job in plan([folder], output, suffixes=suffixes)]
    except UserError as error:
        return [str(error)]


def test_a_file_put_in_the_place_of_an_output_is_somebodys(tmp_path):
    touch(tmp_path, "a.jpg")
    output = tmp_path / "a.png"
    output.write_bytes(b"matte")
    Manifest(tmp_path, SETTINGS).write({}, [new_row(tmp_path / "a.jpg", Path("a.png"), SETTINGS) | {"bytes": 5}])
    assert outputs(tmp_path, plan([tmp_path], tmp_path)) == {"a.jpg": "a.png"}
    output.write_bytes(b"a photo of mine")
    assert outputs(tmp_path, plan([tmp_path], tmp_path)) == {"a.jpg": "a.jpg.png", "a.png": "a.png.png"}


def test_the_output_of_another_input_that_is_there_is_not_overwritten(tmp_path):
    touch(tmp_path, "one/a.jpg", "two/a.jpg", "two/b.jpg")
    do(plan([tmp_path / "one"], tmp_path / "out"), tmp_path / "out")
    assert plan_or_refusals(tmp_path / "one", tmp_path / "out") == [""]  # once more
    refused, fine = plan_or_refusals(tmp_path / "two", tmp_path / "out")
    assert fine == "" and f"two{os.sep}a.jpg would overwrite" in refused and f"one{os.sep}a.jpg: choose" in refused
    (tmp_path / "one" / "a.jpg").rename(tmp_path / "one" / "moved.jpg")
    assert plan_or_refusals(tmp_path / "two", tmp_path / "out") == ["", ""]


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_an_input_and_an_output_are_the_same_by_another_way(tmp_path):
    touch(tmp_path, "one/sub/a.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "one")
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").symlink_to(tmp_path / "disk")
    do(plan([tmp_path / "one"], tmp_path / "out"), tmp_path / "out")
    assert [(job.refusal, job.is_done) for job in plan([tmp_path / "link"], tmp_path / "out")] == [("", True)]


def test_of_two_inputs_with_one_output_the_second_is_refused(tmp_path):
    """A name without a suffix that is known keeps it, and so may another."""
    touch(tmp_path, "x.dat", "x.dat.png")
    first, second = plan([tmp_path / "x.dat", tmp_path / "x.dat.png"], tmp_path / "out")
    assert not first.refusal and "would have the same output as" in second.refusal


def test_one_named_output(tmp_path):
    touch(tmp_path, "a.jpg", "b.jpg", "c.mp4")
    assert outputs(tmp_path, plan([tmp_path / "a.jpg"], tmp_path / "out", "cut.png")) == {"a.jpg": "cut.png"}
    with pytest.raises(UserError, match="is the name of one output, for 3 inputs"):
        plan([tmp_path], tmp_path / "out", "cut.png")
    with pytest.raises(UserError, match=r"c\.mp4 is a video, whose output ends in \.mkv here, unlike cut\.png"):
        plan([tmp_path / "c.mp4"], tmp_path / "out", "cut.png")
    touch(tmp_path, "cut.png")
    with pytest.raises(UserError, match="which predict.py did not write"):
        plan([tmp_path / "a.jpg"], tmp_path, "cut.png")


# Inputs


def refusals(inputs: list[Path]) -> list[str]:
    return [found.refusal for found in Inputs(inputs, Path("out"), lambda path: None).files]


LONG = 400 * "x" + ".jpg"


@pytest.mark.parametrize("name", [LONG, f"{LONG}/a.jpg", LONG.replace(".jpg", ".txt")])
def test_a_name_that_is_too_long_is_one_refusal(tmp_path, name):
    touch(tmp_path, "a.jpg")
    refused, fine = refusals([tmp_path / name, tmp_path / "a.jpg"])
    assert name in refused and refused.endswith(".") and not fine


@pytest.mark.skipif(os.name == "nt", reason="os.path does not go by os.stat there")
@pytest.mark.parametrize("functions", [("stat", "lstat"), ("scandir",)], ids=["enter", "list"])
def test_a_folder_that_cannot_be_entered_or_listed_is_one_refusal(tmp_path, monkeypatch, functions):
    touch(tmp_path, "a.jpg", "locked/b.jpg")

    def refuse(real):  # chmod would not stop root, which is what tests often run as
        def call(path, *arguments, **options):
            if "locked" in str(path):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return real(path, *arguments, **options)

        return call

    for name in functions:
        monkeypatch.setattr(os, name, refuse(getattr(os, name)))
    given = [tmp_path] if "scandir" in functions else [tmp_path / "a.jpg", tmp_path / "locked" / "b.jpg"]
    fine, refused = refusals(given)
    assert not fine and "(Permission denied): check its" in refused


def test_folders_without_a_photo_are_refused(tmp_path):
    touch(tmp_path, "album.jpg/a.jpg", "texts/readme.md")
    (tmp_path / "x.jpg").mkdir()
    assert "is a folder, not a photo" in refusals([tmp_path / "x.jpg"])[0]
    assert "holds no photo or video" in refusals([tmp_path / "texts"])[0]
    assert [bool(refusal) for refusal in refusals([tmp_path])] == [False, True]  # a.jpg, x.jpg
    for given, reason in (
        ([], "nothing to do"),
        ([tmp_path / "texts"], "holds no photo"),
        ([tmp_path / "no"], "exist"),
    ):
        with pytest.raises(UserError, match=reason):
            plan(given, tmp_path / "out")


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_in_a_circle_end(tmp_path):
    touch(tmp_path, "sub/a.jpg")
    (tmp_path / "sub" / "up").symlink_to(tmp_path)
    assert refusals([tmp_path]) == [""]


def test_lists_and_patterns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "a.jpg", "b.jpg", "#1.jpg", " c.jpg", "sub/d.jpg")
    lines = "# chosen\r\na.jpg\n\n  b.jpg \n#1.jpg\n c.jpg\n#gone.jpg\na.jpg\nsub\n"
    Path("list.txt").write_text(lines, encoding="utf-8-sig")
    inputs = Inputs([Path("list.txt")], Path("out"), lambda path: None)
    assert [str(found.path) for found in inputs.files] == ["a.jpg", "b.jpg", "#1.jpg", " c.jpg", str(Path("sub/d.jpg"))]
    assert inputs.dropped == {"commented out in list.txt": 2, "named twice": 1}
    found = Inputs([Path("?.jpg"), Path("**/d.*"), Path("x*")], Path("out"), lambda path: None).files
    assert [path.name for path, _, _ in found] == ["a.jpg", "b.jpg", "d.jpg", "x*"] and "x* does not" in found[
        -1
    ].refusal
    for content in (b"\xff\xfe\x00\x80", "a.jpg".encode("utf-16-le")):
        Path("list.txt").write_bytes(content)
        with pytest.raises(UserError, match="cannot be read as a list"):
            Inputs([Path("list.txt")], Path("out"), lambda path: None)


STREAM = b"".join(b"G" + bytes(187) for _ in range(20))
KINDS = {
    "a.ts": (b"export const a: number = 1;\n", ""),
    "b.mts": (b"GET G export\n" * 400, ""),
    "c.ts": (STREAM, VIDEO),
    "d.ts": (bytes(100) + STREAM, VIDEO),  # begins within a packet
    "e.mts": (b"".join(bytes(4) + b"G" + bytes(187) for _ in range(20)), VIDEO),
    "f.ts": (b"", VIDEO),  # a recording that failed: named as one
    "g.jpg": (b"\0\0\0\x18ftypmp42", VIDEO),
    "h.mp4": (b"\xff\xd8\xff\xe0", PHOTO),
    "i.mov": (b"\0\0\0\x18ftypheic", PHOTO),
    "j.avif": (b"\0\0\0\x18ftypavif", PHOTO),
    "k.mkv": (b"Dear Sir", VIDEO),
    "l.jpg": (b"Dear Sir", PHOTO),
    "m": (b"\x1aE\xdf\xa3", VIDEO),
    "n": (b"\x89PNG\r\n\x1a\n", PHOTO),
    "o.txt": (b"Dear Sir", ""),
}


@pytest.mark.parametrize("name", KINDS)
def test_what_a_file_holds_says_whether_it_is_a_video(tmp_path, name):
    content, kind = KINDS[name]
    (tmp_path / name).write_bytes(content)
    assert kind_of(tmp_path / name) == kind


# The manifest


def test_up_to_date_is_what_was_made_of_the_same_file_by_the_same_settings(tmp_path):
    source = tmp_path / "a.jpg"
    touch(tmp_path, "a.jpg", "a.png")
    Manifest(tmp_path, SETTINGS).write({}, [new_row(source, Path("a.png"), SETTINGS)])

    def is_done(**settings: object) -> bool:
        manifest = Manifest(tmp_path, SETTINGS | settings)
        return manifest.is_up_to_date(manifest.row_of(tmp_path / "a.png"), source)

    assert is_done()
    assert not is_done(kind="cutout") and not is_done(bits=16) and not is_done(background="red")
    os.utime(source, ns=(0, 0))  # another file, though older than the output
    assert not is_done()


def test_after_a_kill_the_manifest_knows_what_was_written(tmp_path):
    touch(tmp_path, "a.jpg", "b.jpg")
    Manifest(tmp_path, SETTINGS).announce([(tmp_path / f"{name}.jpg", Path(f"{name}.png")) for name in "ab"])
    touch(tmp_path, "a.png")
    assert [(job.source.name, job.is_done) for job in plan([tmp_path], tmp_path)] == [("a.jpg", True), ("b.jpg", False)]


def test_rows_of_earlier_runs_stay_while_their_outputs_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "a.png", "b.png", "c.png", "x.jpg", "y.jpg")

    def row(name: str, **more: object) -> dict:
        return new_row(Path(f"{name}.jpg"), Path(f"{name}.png"), SETTINGS) | more

    failure = {"input": "x.jpg", "source": "x.jpg", "output": None, "error": "x.jpg is broken."}
    Manifest(tmp_path, SETTINGS).write({}, [*map(row, "cab"), failure])
    (tmp_path / "c.png").unlink()
    monkeypatch.chdir(tmp_path.parent)
    manifest = Manifest(tmp_path, SETTINGS)
    assert Path(manifest.row_of(tmp_path / "a.png")["source"]) == (tmp_path / "a.jpg").resolve()
    manifest.write({"done": 1}, [row("b", run=2)])
    content = json.loads(manifest.path.read_text(encoding="utf-8"))
    assert [(each["output"], each.get("run")) for each in content["files"]] == [("a.png", None), ("b.png", 2)]
    name = os.fsdecode(b"\xc4\xe3") if os.name != "nt" else "d"  # of no encoding: comes back as it was
    touch(tmp_path, f"{name}.png")
    manifest.write({}, [row(name)])
    assert Manifest(tmp_path, SETTINGS).row_of(tmp_path / f"{name}.png")


ROW = {"input": "a.jpg", "source": "/a.jpg", "output": "a.png"}
ODD_ROWS: list[object] = [5, [5], [None], ["ab"], [{}], [{"input": "a"}], *([ROW | {key: 5}] for key in ROW)]
ODD_ROWS.append([ROW | {"output": "a\0.png"}])
FOREIGN = ["", "[]", "{}", '{"program": "another"}', "\x00\xff", "[" * 100_000]
FOREIGN += [json.dumps({"program": PROGRAM, "files": rows}) for rows in ODD_ROWS]


@pytest.mark.parametrize("content", [*FOREIGN, None], ids=range(len(FOREIGN) + 1))
def test_a_foreign_manifest_is_not_overwritten(tmp_path, content):
    path = tmp_path / "manifest.json"
    if content is not None:
        path.write_text(content, encoding="latin-1")
    elif hasattr(os, "mkfifo"):
        os.mkfifo(path)  # not waited for
    else:
        path.mkdir()
    with pytest.raises(UserError, match="would be overwritten"):
        Manifest(tmp_path, SETTINGS)
    assert content is None or path.read_text(encoding="latin-1") == content
