"""The web page as a visitor has it: app.py in its own process, headless Chromium in front of it.

    make test-app                              needs a Chromium of the system (Debian: apt-get install chromium)
    TSR_SCREENSHOTS=folder make test-app       keeps pictures of the page

Neither the browser nor the server may turn to any computer but this one: the browser's requests and the server's
connections are recorded all along.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from models import build_model
from models.checkpoint import MODEL_FILE, save_model

pytest.importorskip("gradio", reason="Gradio is not installed: make test-app installs it")
sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: make test-app installs it")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("no Chromium is installed (Debian: apt-get install chromium)", allow_module_level=True)

ROOT = Path(__file__).parent.parent
PHOTO = ROOT / "test_data" / "cat.jpg"
SECOND_PHOTO = ROOT / "test_data" / "coffee.jpg"
PATIENCE = 60_000  # ms
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
FLAGS += ["--disable-background-networking", "--disable-component-update"]
# Read by every Python at its start: writes down whom the process asks for an address and whom it connects to.
WITNESS = """
import os, sys
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        place = arguments[1] if event == "socket.connect" else arguments
        with open(os.environ["TSR_WITNESS"], "a") as file:
            file.write(f"{place[0] if isinstance(place, tuple) else 'local'}\\n")
sys.addaudithook(watch)
"""


class Server(NamedTuple):
    url: str
    checkpoint: Path
    environment: dict[str, str]
    witness: Path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "temporary").mkdir()
    options = dict(backbone="swin_tiny_patch4_window7_224", image_size=64)
    checkpoint = folder / "random_weights" / MODEL_FILE
    checkpoint.parent.mkdir()
    save_model(checkpoint, build_model(**options), model_options=options, config={}, scores={})
    (folder / "sitecustomize.py").write_text(WITNESS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}
    environment |= {"TMPDIR": str(folder / "temporary"), "TSR_WITNESS": str(folder / "witness.txt")}
    flags = f"--checkpoint {checkpoint} --port {port} --device cpu --max-pixels 1000000 --max-upload 1"
    command = [sys.executable, "app.py", *flags.split()]
    with (
        open(folder / "log.txt", "w") as log,
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        try:
            wait_for(lambda: process.poll() is not None or "page is at" in (folder / "log.txt").read_text(), 180)
            assert process.poll() is None, (folder / "log.txt").read_text()
            yield Server(f"http://127.0.0.1:{port}", checkpoint, environment, folder / "witness.txt")
        finally:
            process.terminate()
            process.wait(120)
    assert "Traceback" not in (folder / "log.txt").read_text()
    assert list((folder / "temporary").glob("tsr-matte-*")) == []  # nothing of anybody's photos is left


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sync_api.BrowserContext]:
    with sync_api.sync_playwright() as playwright:
        profile = tmp_path_factory.mktemp("profile")
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, headless=True, args=FLAGS, viewport=dict(width=1280, height=800)
        )
        context.hosts = set()
        context.on("request", lambda request: context.hosts.add(urlsplit(request.url)[:2]))
        yield context
        context.close()


@pytest.fixture
def visit(browser: sync_api.BrowserContext, server: Server) -> Iterator[Callable[[], sync_api.Page]]:
    """Opens the page for one more visitor."""
    pages = []

    def open_page() -> sync_api.Page:
        page = browser.new_page()
        pages.append(page)
        page.set_default_timeout(PATIENCE)
        page.goto(server.url)
        page.wait_for_selector("#drop input[type=file]", state="attached")
        page.wait_for_selector("#examples img")
        return page

    yield open_page
    for page in pages:
        page.close()


@pytest.fixture
def screenshot(tmp_path: Path) -> Callable[[sync_api.Page, str], None]:
    folder = Path(os.environ.get("TSR_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return lambda page, name: page.screenshot(path=folder / f"{name}.png")


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)


def choose(page: sync_api.Page, photo: Path) -> None:
    page.set_input_files("#drop input[type=file]", photo)


def status(page: sync_api.Page, pattern: str) -> str:
    """The status once it shows the pattern."""
    element = page.locator("#status")
    sync_api.expect(element).to_contain_text(re.compile(pattern), timeout=PATIENCE)
    return element.inner_text()


def shown(page: sync_api.Page, tab: str, element: str) -> np.ndarray:
    """The pixels that a tab's picture has, as the browser got them."""
    page.get_by_role("tab", name=tab).click()
    image = page.locator(f"#{element} img").first
    image.wait_for()
    page.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=image.element_handle())
    content = image.evaluate("async image => Array.from(new Uint8Array(await (await fetch(image.src)).arrayBuffer()))")
    with Image.open(io.BytesIO(bytes(content))) as picture:
        return np.array(picture.convert("RGB"))


def download(page: sync_api.Page, button: str, folder: Path) -> Path:
    with page.expect_download() as expected:
        page.click(f"#{button}")
    path = folder / expected.value.suggested_filename
    expected.value.save_as(path)
    return path


def test_upload_matte_and_downloads_equal_predict(visit, server: Server, screenshot, tmp_path: Path) -> None:
    page = visit()
    screenshot(page, "1_empty")
    choose(page, PHOTO)
    report = status(page, r"cat\.jpg · 451 × 300 · \d+\.\d s")
    assert "random_weights" in page.inner_text("#title")
    assert page.locator("#compare img").count() >= 2, report
    screenshot(page, "2_before_after")
    matte = shown(page, "Matte", "alpha")
    screenshot(page, "3_matte")
    assert matte.shape == (300, 451, 3)
    assert shown(page, "Cut-out", "cutout").shape == (300, 451, 3)
    screenshot(page, "4_cutout")
    cutout, alpha = (download(page, button, tmp_path) for button in ("save-cutout", "save-alpha"))
    assert (cutout.name, alpha.name) == ("cat_cutout.png", "cat_alpha.png")
    flags = f"--checkpoint {server.checkpoint} --input {PHOTO} --output {tmp_path}/predicted --kind cutout --device cpu"
    command = [sys.executable, "predict.py", *flags.split()]
    subprocess.run(command, cwd=ROOT, env=server.environment, check=True, capture_output=True)
    assert cutout.read_bytes() == (tmp_path / "predicted" / "cat.png").read_bytes()
    assert np.array_equal(np.array(Image.open(alpha)), np.array(Image.open(cutout))[..., 3])
    choose(page, SECOND_PHOTO)
    status(page, r"coffee\.jpg")
    other = shown(page, "Matte", "alpha")
    assert other.shape == (400, 600, 3)
    assert not np.array_equal(other[:300, :451], matte)
    # the cat's goes soon after, and Gradio has kept no copy
    made = lambda: [path.name for path in Path(server.environment["TMPDIR"]).rglob("*_cutout.png")]  # noqa: E731
    wait_for(lambda: made() == ["coffee_cutout.png"], 30)
    assert made() == ["coffee_cutout.png"]


def test_photos_that_are_switched_quickly(visit) -> None:
    """The server's log, which is looked at in the end, must have no traceback of a preview that is gone."""
    page = visit()
    for number in (0, 1, 2, 1, 0):
        page.locator("#examples button.gallery-item").nth(number).click()
        page.wait_for_timeout(500)
    choose(page, PHOTO)
    status(page, r"cat\.jpg · 451 × 300")


def composite_after(page: sync_api.Page, action: Callable[[], None], folder: Path) -> np.ndarray:
    """The downloaded composite once an action has changed the picture of it."""
    picture = page.locator("#composite img")
    before = picture.first.get_attribute("src") if picture.count() else None
    action()
    page.wait_for_function(
        "before => { const image = document.querySelector('#composite img');"
        " return image && image.getAttribute('src') !== before; }",
        arg=before,
    )
    return np.array(Image.open(download(page, "save-composite", folder)))


def test_backgrounds(visit, screenshot, tmp_path: Path) -> None:
    page = visit()
    page.get_by_role("tab", name="Background").click()
    page.locator("#examples button.gallery-item").first.click()
    coloured = composite_after(page, lambda: status(page, r"astronaut\.jpg"), tmp_path)
    screenshot(page, "5_colour")

    def pick() -> None:
        page.click("#colour button.dialog-button")
        page.locator("#colour .color-gradient").click(position=dict(x=5, y=5))

    whitish = composite_after(page, pick, tmp_path)
    blurred = composite_after(page, page.locator("#background").get_by_label("Blur").check, tmp_path)
    screenshot(page, "6_blur")
    page.locator("#background").get_by_label("Photo").check()
    placed = composite_after(page, lambda: page.set_input_files("#backdrop input[type=file]", SECOND_PHOTO), tmp_path)
    screenshot(page, "7_photo")
    pictures = (coloured, whitish, blurred, placed)
    assert {picture.shape for picture in pictures} == {(512, 512, 3)}
    assert len({picture.tobytes() for picture in pictures}) == 4


def test_bad_files_give_a_sentence_and_the_page_lives_on(visit, screenshot, tmp_path: Path) -> None:
    page = visit()
    (tmp_path / "notes.jpg").write_text("not a photo")
    choose(page, tmp_path / "notes.jpg")
    assert str(tmp_path) not in status(page, r"^\s*notes\.jpg is no photo that can be read: give a JPEG")
    screenshot(page, "8_bad_file")
    sync_api.expect(page.locator("#save-cutout")).to_be_disabled()
    Image.new("RGB", (1100, 1000)).save(tmp_path / "wide.png")
    choose(page, tmp_path / "wide.png")
    status(page, r"wide\.png has 1100 x 1000 pixels, more than the limit of 1000000")
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "heavy.png")
    choose(page, tmp_path / "heavy.png")
    sync_api.expect(page.locator(".toast-body")).to_contain_text("exceed the maximum allowed size of 1.0 Mb")
    choose(page, PHOTO)
    status(page, r"cat\.jpg ·")


def test_a_pasted_photo_is_matted(visit) -> None:
    page = visit()
    page.evaluate("""async () => {
      const response = await fetch(document.querySelector("#examples img").src);
      const clipboard = new DataTransfer();
      clipboard.items.add(new File([await response.blob()], "pasted.jpg", { type: "image/jpeg" }));
      document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData: clipboard, bubbles: true }));
    }""")
    status(page, r"pasted\.jpg · 512 × 512")


def test_two_visitors_at_once_each_get_their_own(visit) -> None:
    first, second = visit(), visit()
    choose(first, PHOTO)
    choose(second, SECOND_PHOTO)
    status(second, r"coffee\.jpg · 600 × 400")
    status(first, r"cat\.jpg · 451 × 300")
    assert shown(first, "Matte", "alpha").shape == (300, 451, 3)
    assert shown(second, "Matte", "alpha").shape == (400, 600, 3)


def test_nobody_outside_is_asked_for_anything(visit, browser: sync_api.BrowserContext, server: Server) -> None:
    """Runs last, over all that the tests above have done; the visit is for when it runs alone."""
    visit().close()
    assert {host for scheme, host in browser.hosts if scheme not in ("data", "blob")} == {urlsplit(server.url).netloc}
    assert set(server.witness.read_text().split()) <= {"127.0.0.1", "localhost", "local"}
