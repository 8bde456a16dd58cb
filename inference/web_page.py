"""The web page's layout and events, in Gradio. web_files.py does the work on a photo."""

from __future__ import annotations

import html
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from common import photos
from common.errors import UserError
from inference.web_files import Cut, Cutter, hex_colour

EXAMPLES = Path(__file__).parent.parent / "test_data"
KEPT = 3600  # seconds that a photo's files stay after their last use
HEIGHT = 560  # pixels of the picture area
COLOUR, PHOTO, BLUR = "Colour", "Photo", "Blur"

# Fonts of the visitor's own system: nothing is fetched.
THEME = gr.themes.Base(
    primary_hue="teal",
    neutral_hue="slate",
    radius_size="lg",
    font=["Segoe UI", "Helvetica Neue", "Noto Sans", "DejaVu Sans", "sans-serif"],
    font_mono=["Consolas", "Menlo", "DejaVu Sans Mono", "monospace"],
)

CSS = """
.gradio-container { width: 100% !important; max-width: 1240px !important; margin: 0 auto !important; }
#title .html-container, #status .html-container { padding: 0; }
#title .prose { display: flex; flex-wrap: wrap; gap: 0 1rem; align-items: baseline; max-width: none; }
#title h1 { font-size: 1.9rem; font-weight: 700; letter-spacing: -0.02em; margin: 0; }
#title p { margin: 0; color: var(--body-text-color-subdued); }
#title .facts { font-size: 0.8rem; margin-left: auto; }
#drop .wrap:has(.or) { font-size: 0; }
#drop .wrap:has(.or)::after { content: "Drop a photo, paste it, or click"; font-size: 1rem; }
#drop .or { display: none; }
#examples .gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(68px, 1fr)); gap: 0.5rem; }
#examples .gallery-item, #examples .gallery-item span { display: block; }
#examples .gallery-item .container { width: 100%; height: auto; max-height: none; aspect-ratio: 1; }
#examples .gallery-item img { width: 100%; height: 100%; object-fit: cover; }
#status { min-height: 1.5rem; }
#status p { margin: 0; overflow-wrap: anywhere; }
#status .note { color: #b45309; }
#status .refusal { color: #b91c1c; font-weight: 600; }
.dark #status .note { color: #fbbf24; }
.dark #status .refusal { color: #f87171; }
#stage .empty { background: repeating-conic-gradient(#94a3b81c 0 25%, transparent 0 50%) 0 0 / 32px 32px; }
#stage .empty .icon { display: none; }
#stage img { object-fit: contain; }
#cutout img, #alpha img, #composite img { width: 100%; height: 100%; }
#background { align-items: center; }
#background > * { width: auto; }
#colour { overflow: visible !important; flex: none; min-width: 48px !important; }
#colour .dialog-button { width: 44px; height: 34px; }
#colour .color-picker { position: absolute; z-index: 20; box-shadow: 0 8px 24px #0003; }
"""

# A picture that is pasted anywhere on the page is handled like a chosen file.
HEAD = """
<script>
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((candidate) => candidate.type.startsWith("image/"));
  const input = document.querySelector("#drop input[type=file]");
  if (!file || !input) return;
  const files = new DataTransfer();
  files.items.add(file);
  input.files = files.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
});
</script>
"""

Outcome = dict[Any, Any]  # component -> its new value; Gradio leaves the other components as they are


class Page:
    """The components of the page and what happens to them. facts: short texts about the model, for the title."""

    def __init__(self, cutter: Cutter, facts: tuple[str, ...]) -> None:
        self.cutter = cutter
        gr.set_static_paths(cutter.root)  # served from there: Gradio would copy each file, and keep the copy
        with gr.Blocks(title="TSR-Matte", analytics_enabled=False, delete_cache=(KEPT // 6, KEPT)) as self.blocks:
            title = "<h1>TSR-Matte</h1><p>Cut the subject out of a photo.</p>"
            gr.HTML(title + _paragraph("facts", " · ".join(facts)), elem_id="title")
            self.cut = gr.State(None, time_to_live=KEPT, delete_callback=cutter.discard)
            with gr.Row():
                with gr.Column(scale=2, min_width=280):
                    self._lay_out_input()
                with gr.Column(scale=5, min_width=320), gr.Tabs(elem_id="stage"):
                    self._lay_out_pictures()
            self._connect()

    def _lay_out_input(self) -> None:
        self.drop = gr.File(label="Photo", file_types=["image"], height=170, elem_id="drop")
        self.example_paths = photos.list_images(EXAMPLES)
        self.examples = gr.Dataset(
            components=[gr.Image(visible=False)],
            samples=[[str(path)] for path in self.example_paths],
            type="index",
            label="Or try one of these",
            visible=bool(self.example_paths),
            elem_id="examples",
        )
        self.status = gr.HTML(elem_id="status")
        with gr.Row():
            self.save_cutout = _save_button("Save cut-out", "save-cutout", variant="primary")
            self.save_alpha = _save_button("Save alpha", "save-alpha")

    def _lay_out_pictures(self) -> None:
        with gr.Tab("Before / after"):
            look: dict[str, Any] = dict(show_label=False, height=HEIGHT, interactive=False, buttons=["fullscreen"])
            self.compare = gr.ImageSlider(max_height=HEIGHT, elem_id="compare", **look)
        with gr.Tab("Cut-out"):
            self.cutout = gr.Image(elem_id="cutout", **look)
        with gr.Tab("Matte"):
            self.alpha = gr.Image(elem_id="alpha", **look)
        with gr.Tab("Background"):
            with gr.Row(elem_id="background"):
                bare: dict[str, Any] = dict(show_label=False, container=False, scale=0)
                self.kind = gr.Radio([COLOUR, PHOTO, BLUR], value=COLOUR, min_width=280, **bare)
                self.colour = gr.ColorPicker("#2a9d8f", elem_id="colour", **bare)
                self.picture = gr.File(
                    file_types=["image"], height=90, visible=False, scale=2, show_label=False, elem_id="backdrop"
                )
                self.save_placed = _save_button("Save picture", "save-composite", scale=1)
            self.placed = gr.Image(elem_id="composite", **look)

    def _connect(self) -> None:
        # one queue for all that needs memory: the second visitor waits until the first one's photo is done
        queued: dict[str, Any] = dict(concurrency_id="photo", concurrency_limit=1, api_visibility="private")
        pictures = [self.compare, self.cutout, self.alpha]
        show: dict[str, Any] = dict(
            fn=self.show,
            outputs=[self.cut, self.drop, self.status, self.save_cutout, self.save_alpha, *pictures],
            show_progress_on=pictures,
            **queued,
        )
        place: dict[str, Any] = dict(
            fn=self.place,
            inputs=[self.cut, self.kind, self.colour, self.picture],
            outputs=[self.cut, self.placed, self.save_placed, self.status],
            show_progress_on=self.placed,
            **queued,
        )
        self.drop.upload(inputs=[self.cut, self.drop], **show).then(**place)
        self.examples.click(inputs=[self.cut, self.examples], **show).then(**place)
        self.kind.change(
            lambda kind: (gr.update(visible=kind == COLOUR), gr.update(visible=kind == PHOTO)),
            self.kind,
            [self.colour, self.picture],
            queue=False,
            api_visibility="private",
        ).then(**place)
        picked = [self.colour.release, self.colour.submit, self.picture.upload, self.picture.clear]
        gr.on(picked, trigger_mode="always_last", **place)

    def show(self, earlier: Cut | None, chosen: str | int) -> Iterator[Outcome]:
        """Matte an uploaded file or the example of this number: what the page shows of a large photo soon, then all.

        The files of the photo before it are removed first.
        """
        self.cutter.discard(earlier)
        source = self.example_paths[chosen] if isinstance(chosen, int) else Path(chosen)
        sketch, _ = _try(lambda: self.cutter.sketch(source), source)  # what is wrong is said below
        if sketch is not None:
            status = _paragraph("done", f"{source.name} · a preview, until the files of the full size are done")
            yield {self.status: status, self.compare: sketch, self.cutout: sketch[1], self.alpha: None}
        yield self._cut(source)

    def _cut(self, source: Path) -> Outcome:
        cut, refusal = _try(lambda: self.cutter.cut(source), source)
        if cut is None:
            nothing = dict.fromkeys((self.cut, self.compare, self.cutout, self.alpha))
            nothing |= {self.save_cutout: _offer(None), self.save_alpha: _offer(None)}
            return nothing | {self.drop: None, self.status: refusal}
        width, height = cut.size
        done = _paragraph("done", f"{source.name} · {width} × {height} · {cut.seconds:.1f} s")
        return {
            self.cut: cut,
            self.drop: None,
            self.status: done + "".join(_paragraph("note", f"{note[0].upper()}{note[1:]}.") for note in cut.notes),
            self.compare: (cut.preview, cut.cutout.preview),
            self.cutout: cut.cutout.preview,
            self.alpha: cut.alpha.preview,
            self.save_cutout: _offer(cut.cutout.file),
            self.save_alpha: _offer(cut.alpha.file),
        }

    def place(self, cut: Cut | None, kind: str, colour: str, picture: str | None) -> Outcome:
        """Put the subject on the chosen background; shows nothing where either is missing."""
        background = {COLOUR: hex_colour(colour), PHOTO: picture and Path(picture), BLUR: "blur"}[kind]
        if cut is None or not background:
            return {self.placed: None, self.save_placed: _offer(None)}
        placed, refusal = _try(lambda: self.cutter.compose(cut, background), cut.source)
        if placed is None:
            return {self.placed: None, self.save_placed: _offer(None), self.status: refusal}
        # the unchanged cut is returned because only a written state's time to live starts again
        return {self.cut: cut, self.placed: placed.preview, self.save_placed: _offer(placed.file)}


def _save_button(text: str, name: str, **options: Any) -> gr.DownloadButton:
    return gr.DownloadButton(text, interactive=False, min_width=110, size="md", elem_id=name, **options)


def _offer(file: Path | None) -> dict[str, Any]:
    """What a save button gets: a file, or nothing, and then it cannot be pressed."""
    return gr.update(value=file, interactive=file is not None)


def _try(work: Callable[[], Any], source: Path) -> tuple[Any, str]:
    """(result, "") or (None, a sentence for the page): the page survives whatever happens to one photo."""
    try:
        return work(), ""
    except UserError as error:
        return None, _paragraph("refusal", str(error))
    except Exception as error:  # torch raises a plain RuntimeError for what does not fit into memory
        traceback.print_exc()
        sentence = f"{source.name} failed ({type(error).__name__}): try a smaller photo; the server's log says more."
        return None, _paragraph("refusal", sentence)


def _paragraph(kind: str, text: str) -> str:
    return f'<p class="{kind}">{html.escape(text)}</p>'
