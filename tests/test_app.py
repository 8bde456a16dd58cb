"""The web page without a browser: what it makes of photos, what it forgets, how it refuses to start."""

from __future__ import annotations

import gc
import signal
import socket
import time
import urllib.request
import weakref
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import app
from common import photos
from common.errors import UserError
from inference import web_files
from inference.rendering import Style, render
from inference.web_files import Cutter, hex_colour, on_checkerboard
from models import build_model, checkpoint
from models.checkpoint import find_model, save_model

HEIGHT, WIDTH = 40, 56


def red_is_alpha(image: torch.Tensor) -> torch.Tensor:
    """A predictor whose matte anybody can foresee. image: uint8 (3, H, W)."""
    return image[:1].float() / 255


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def cutter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cutter:
    monkeypatch.setattr(web_files, "GRACE", 0.3)
    return Cutter(red_is_alpha, tmp_path / "cuts", max_pixels=10_000)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A photo with a sure subject on the left, a sure background on the right and a ramp between them."""
    image = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    image[..., 0] = np.clip(np.linspace(3, -2, WIDTH), 0, 1) * 255
    path = tmp_path / "my photo.png"
    photos.write_image(path, image)
    return path


def read(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def test_files_are_those_of_predict_at_native_size(cutter: Cutter, photo: Path) -> None:
    cut = cutter.cut(photo)
    source = photos.read_photo(photo)
    matte = source.image[..., 0].astype(np.float32) / 255
    assert cut.size == (WIDTH, HEIGHT)
    assert cut.alpha.file.name == "my photo_alpha.png"
    assert np.array_equal(read(cut.alpha.file), source.image[..., 0])
    assert np.array_equal(read(cut.cutout.file), render(source, matte, Style("cutout")))
    assert not cut.notes
    assert cut.seconds > 0


def test_sixteen_bits_and_own_transparency(cutter: Cutter, tmp_path: Path) -> None:
    pixels = np.full((HEIGHT, WIDTH, 4), 65535, np.uint16)  # white: all subject, but for what the file cut away
    pixels[:, :20, 3] = 0
    cv2.imwrite(str(tmp_path / "deep.png"), pixels)
    cut = cutter.cut(tmp_path / "deep.png")
    alpha = read(cut.alpha.file)
    assert (alpha[:, :20] == 0).all()
    assert (alpha[:, 20:] == 255).all()
    assert read(cut.preview).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(
    ("content", "reason"), [(b"hello", "is no photo"), (b"", "is empty"), (b"\xff\xd8\xff\xe0 cut short", "notes.jpg")]
)
def test_a_bad_file_gives_one_sentence_without_its_folder(
    cutter: Cutter, tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "notes.jpg"
    path.write_bytes(content)
    with pytest.raises(UserError) as raised:
        cutter.cut(path)
    sentence = str(raised.value)
    assert sentence.startswith("notes.jpg")
    assert reason in sentence
    assert str(tmp_path) not in sentence
    assert "\n" not in sentence


def test_a_photo_over_the_limit_is_refused(cutter: Cutter, tmp_path: Path) -> None:
    Image.new("RGB", (200, 100)).save(tmp_path / "wide.png")
    with pytest.raises(UserError, match=r"^wide.png has 200 x 100 pixels, more than the limit of 10000"):
        cutter.cut(tmp_path / "wide.png")


def test_nothing_of_a_photo_stays_in_memory(cutter: Cutter, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref] = []
    read_photo, predict = photos.read_photo, web_files.predict_matte

    def watched(array: np.ndarray) -> np.ndarray:
        alive.append(weakref.ref(array))
        return array

    def watched_read(*args, **options) -> photos.Photo:
        photo = read_photo(*args, **options)
        watched(photo.image)
        return photo

    monkeypatch.setattr(photos, "read_photo", watched_read)
    monkeypatch.setattr(web_files, "predict_matte", lambda *args: watched(predict(*args)))
    cut = cutter.cut(photo)
    placed = cutter.compose(cut, "blur")
    gc.collect()
    assert len(alive) == 3  # photo and matte, and the photo again for its background
    assert placed.file.exists()
    assert [reference() for reference in alive] == [None] * 3


def test_files_go_with_their_photo(cutter: Cutter, photo: Path, tmp_path: Path) -> None:
    first, second = cutter.cut(photo), cutter.cut(photo)
    assert first.folder != second.folder
    cutter.discard(first)
    assert read(first.preview).shape == (HEIGHT, WIDTH, 3)  # a browser may be loading it
    wait_for(lambda: not first.folder.exists())
    assert list(cutter.root.iterdir()) == [second.folder]
    with pytest.raises(UserError, match="choose it again"):
        cutter.compose(first, "blur")
    assert list(cutter.root.iterdir()) == [second.folder]


def test_a_large_photo_is_sketched_before_it_is_cut(
    cutter: Cutter, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cutter.sketch(photo) is None  # as quick to cut
    monkeypatch.setattr(web_files, "PREVIEW_SIDE", WIDTH // 2)
    monkeypatch.setattr(web_files, "SKETCHED", 0.3)
    before, after = (read(path) for path in cutter.sketch(photo))
    assert before.shape == after.shape and after.shape[1] == WIDTH // 2
    cut = cutter.cut(photo)
    assert np.abs(after.astype(int) - read(cut.cutout.preview)).mean() < 8
    assert np.abs(before.astype(int) - read(cut.preview)).mean() < 8
    wait_for(lambda: [cut.folder] == list(cutter.root.iterdir()))


def test_a_failure_leaves_no_files(cutter: Cutter, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise UserError("The disk is full.")

    monkeypatch.setattr(photos, "write_alpha", full)
    with pytest.raises(UserError):
        cutter.cut(photo)
    assert list(cutter.root.iterdir()) == []


def test_backgrounds(cutter: Cutter, photo: Path, tmp_path: Path) -> None:
    cut = cutter.cut(photo)
    alpha = read(cut.alpha.file)
    beach = tmp_path / "beach.png"
    Image.new("RGB", (13, 17), (1, 2, 3)).save(beach)
    for background, colour in (("#0a141e", (10, 20, 30)), (beach, (1, 2, 3))):
        placed = cutter.compose(cut, background)
        picture = read(placed.file)
        assert picture.shape == (HEIGHT, WIDTH, 3)
        assert (picture[alpha == 0] == colour).all()
        assert np.array_equal(picture[alpha == 255], read(photo)[alpha == 255])
    blurred = cutter.compose(cut, "blur")
    assert blurred.preview != placed.preview  # a browser would show the one that it has
    assert not np.array_equal(read(blurred.file), picture)


def test_a_bad_background_gives_a_sentence(cutter: Cutter, photo: Path, tmp_path: Path) -> None:
    cut = cutter.cut(photo)
    (tmp_path / "beach.jpg").write_text("sand")
    Image.new("RGB", (200, 100)).save(tmp_path / "wide.png")
    for name in ("beach.jpg", "wide.png"):
        with pytest.raises(UserError, match=f"^{name} ") as raised:
            cutter.compose(cut, tmp_path / name)
        assert str(tmp_path) not in str(raised.value)


def test_previews_are_small_and_show_what_is_transparent(cutter: Cutter, tmp_path: Path) -> None:
    cutter.max_pixels = 10**7
    Image.new("RGB", (1500, 3000), (90, 7, 7)).save(tmp_path / "tall.png")
    cut = cutter.cut(tmp_path / "tall.png")
    for preview in (cut.preview, cut.alpha.preview, cut.cutout.preview):
        assert read(preview).shape == (1280, 640, 3)
    small = np.full((90, 70, 4), 7, np.uint8)
    small[:45, :, 3], small[45:, :, 3] = 255, 0
    shown = on_checkerboard(small)
    assert (shown[:45] == 7).all()
    assert set(np.unique(shown[45:])) == set(web_files.GREYS)


@pytest.mark.parametrize(
    ("text", "colour"),
    [("#2a9d8f", "#2a9d8f"), ("rgba(42.4, 157, 143, 1)", "#2a9d8f"), ("rgb(255.9 0 16)", "#ff0010"), ("blur", "blur")],
)
def test_colours_as_browsers_write_them(text: str, colour: str) -> None:
    assert hex_colour(text) == colour


def test_without_gradio_one_sentence_names_the_cure(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(app, "find_spec", lambda name: None)
    assert app.main([]) == 2
    assert "`make app`" in one_line(capsys)


def test_without_a_usable_checkpoint_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys) -> None:
    monkeypatch.setattr(app, "find_spec", lambda name: name)
    monkeypatch.setattr(app, "RUNS", str(tmp_path))
    monkeypatch.setattr(checkpoint, "STARTER", tmp_path / "starter")
    assert app.main(["--device", "cpu"]) == 2
    assert "--checkpoint" in one_line(capsys)
    assert app.main(["--device", "cpu", "--checkpoint", str(tmp_path / "none.safetensors")]) == 2
    assert "none.safetensors does not exist" in one_line(capsys)


def one_line(capsys) -> str:
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    return output.err


def test_the_newest_run_is_named_on_the_page(tmp_path: Path) -> None:
    options = dict(backbone="swin_tiny_patch4_window7_224", image_size=64)
    path = tmp_path / "run_7" / "best.safetensors"
    path.parent.mkdir()
    save_model(path, build_model(**options), model_options=options, config={}, scores={})
    assert find_model(None, tmp_path) == find_model(path.parent, tmp_path) == path
    name, network, _ = app.model_facts(path, torch.device("cpu"))
    assert (name, network) == ("run_7", "swin_tiny_patch4_window7_224 at 64 px")
    assert app.model_facts(path, torch.device("cpu"), Path("hf:me/cats"))[0] == "hf:me/cats"


class TestPage:
    """What Gradio is told; skipped where it is not installed."""

    @pytest.fixture
    def page(self, cutter: Cutter, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        pytest.importorskip("gradio", reason="Gradio is not installed: make test-app installs it")
        from inference import web_page

        return web_page.Page(cutter, ("run <7>",))

    def test_photos_are_done_one_at_a_time_and_by_nobody_else(self, page) -> None:
        functions = [function for function in page.blocks.fns.values() if function.queue is not False]
        assert {function.concurrency_id for function in functions} == {"photo"}
        assert {function.concurrency_limit for function in functions} == {1}
        assert {function.api_visibility for function in page.blocks.fns.values()} == {"private"}

    def test_fonts_come_from_the_visitors_computer(self) -> None:
        pytest.importorskip("gradio", reason="Gradio is not installed: make test-app installs it")
        from inference.web_page import CSS, HEAD, THEME

        assert THEME._stylesheets == []
        assert not [text for text in (CSS, HEAD, *THEME._font_css) if "http" in text or "url(" in text]

    def test_the_page_lives_on_whatever_happens_to_a_photo(
        self, page, photo: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        *_, good = page.show(None, photo)
        monkeypatch.setattr(page.cutter, "predictor", lambda image: 1 / 0)
        *_, bad = page.show(good[page.cut], photo)
        assert bad[page.cut] is None
        assert "ZeroDivisionError" in bad[page.status]
        assert bad[page.compare] is None
        wait_for(lambda: not good[page.cut].folder.exists())
        assert page.place(bad[page.cut], "Blur", "#ffffff", None)[page.placed] is None

    def test_a_large_photo_is_shown_before_its_files_are_done(
        self, page, photo: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(web_files, "PREVIEW_SIDE", WIDTH // 2)
        first, last = page.show(None, photo)
        assert page.cut not in first and page.save_cutout not in first
        assert read(first[page.compare][1]).shape == read(last[page.compare][1]).shape

    def test_no_subject_is_said_on_the_page(self, page, tmp_path: Path) -> None:
        Image.new("RGB", (WIDTH, HEIGHT), (0, 200, 200)).save(tmp_path / "sea.png")
        *_, shown = page.show(None, tmp_path / "sea.png")
        assert "No subject found" in shown[page.status]

    def test_a_new_background_keeps_the_photo_alive(self, page, photo: Path) -> None:
        """Gradio forgets a state an hour after it was last written: choosing a background must write it."""
        *_, shown = page.show(None, photo)
        cut = shown[page.cut]
        assert page.place(cut, "Colour", "#ffffff", None)[page.cut] is cut

    @pytest.fixture
    def serve(self, cutter: Cutter, monkeypatch: pytest.MonkeyPatch):
        """app.serve with these flags, quickly, and without a trace in this process."""
        pytest.importorskip("gradio", reason="Gradio is not installed: make test-app installs it")
        monkeypatch.setattr(Cutter, "warm_up", lambda self: None)
        before = signal.getsignal(signal.SIGTERM)
        yield lambda *flags: app.serve(cutter, ("run 7",), app.app_options(None, flags))
        signal.signal(signal.SIGTERM, before)

    def test_ipv6_and_a_path_behind_a_proxy(self, serve, monkeypatch: pytest.MonkeyPatch) -> None:
        import gradio

        try:
            with socket.socket(socket.AF_INET6) as probe:
                probe.bind(("::1", 0))
                port = probe.getsockname()[1]
        except OSError:
            pytest.skip("no IPv6 here")
        for name, value in dict(GRADIO_ANALYTICS_ENABLED="False", NO_PROXY="::1", no_proxy="::1").items():
            monkeypatch.setenv(name, value)
        answers = []

        def ask(page) -> None:
            answers.append(urllib.request.urlopen(f"http://[::1]:{port}/", timeout=30).read().decode())
            page.close()

        monkeypatch.setattr(gradio.Blocks, "block_thread", ask)
        serve("--host", "::1", "--port", str(port), "--root-path", "/matte")
        assert "/matte" in answers[0] and "TSR-Matte" in answers[0]

    def test_a_port_in_use_is_one_sentence(self, serve) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            with pytest.raises(UserError, match=r"cannot listen on 127\.0\.0\.1, port \d+: the port is in use"):
                serve("--port", str(taken.getsockname()[1]))

    def test_names_are_text_not_markup(self, page, tmp_path: Path) -> None:
        path = tmp_path / "a&b.jpg"
        path.write_text("no photo")
        (shown,) = page.show(None, path)
        assert "a&amp;b.jpg is no photo" in shown[page.status]
