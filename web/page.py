"""The web page's layout and events, in Gradio. What happens to a photo is in outputs.py."""

from __future__ import annotations

import html
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from common import photos
from common.photos import PhotoError
from web.outputs import Cut, Studio, hex_color

EXAMPLES = Path(__file__).parent.parent / "test_data"
KEPT = 3600  # seconds that the files of a photo stay, once nobody uses them
STAGE_HEIGHT = 560  # pixels
COLOR, PHOTO, BLUR = "Colour", "Photo", "Blur"

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
#color { overflow: visible !important; flex: none; min-width: 48px !important; }
#color .dialog-button { width: 44px; height: 34px; }
#color .color-picker { position: absolute; z-index: 20; box-shadow: 0 8px 24px #0003; }
"""

# A picture pasted anywhere on the page goes the way of a chosen file.
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


Outcome = dict[Any, Any]  # component -> its update; Gradio leaves the others as they are


class Page:
    """The components of the page and what happens to them."""

    def __init__(self, studio: Studio, facts: tuple[str, ...]) -> None:
        self.studio = studio
        with gr.Blocks(title="TSR-Matte", analytics_enabled=False, delete_cache=(KEPT // 6, KEPT)) as self.blocks:
            gr.HTML(_title(facts), elem_id="title")
            self.cut = gr.State(None, time_to_live=KEPT, delete_callback=studio.discard)
            with gr.Row():
                with gr.Column(scale=2, min_width=280):
                    self._lay_out_input()
                with gr.Column(scale=5, min_width=320), gr.Tabs(elem_id="stage"):
                    self._lay_out_stage()
            self._connect()

    def _lay_out_input(self) -> None:
        self.drop = gr.File(label="Photo", file_types=["image"], height=170, elem_id="drop")
        paths = photos.list_images(EXAMPLES)
        self.examples = gr.Dataset(
            components=[gr.Image(visible=False)],
            samples=[[str(path)] for path in paths],
            type="index",
            label="Or try one of these",
            visible=bool(paths),
            elem_id="examples",
        )
        self.example_paths = paths
        self.status = gr.HTML(elem_id="status")
        with gr.Row():
            self.save_cutout = gr.DownloadButton(
                "Save cut-out", variant="primary", interactive=False, min_width=100, size="md", elem_id="save-cutout"
            )
            self.save_alpha = gr.DownloadButton(
                "Save alpha", interactive=False, min_width=100, size="md", elem_id="save-alpha"
            )

    def _lay_out_stage(self) -> None:
        with gr.Tab("Before / after"):
            self.compare = gr.ImageSlider(
                show_label=False,
                height=STAGE_HEIGHT,
                max_height=STAGE_HEIGHT,
                interactive=False,
                buttons=["fullscreen"],
                elem_id="compare",
            )
        with gr.Tab("Cut-out"):
            self.cutout = _picture("cutout")
        with gr.Tab("Matte"):
            self.alpha = _picture("alpha")
        with gr.Tab("Background"):
            with gr.Row(elem_id="background"):
                self.kind = gr.Radio(
                    [COLOR, PHOTO, BLUR], value=COLOR, show_label=False, container=False, scale=0, min_width=280
                )
                self.color = gr.ColorPicker("#2a9d8f", show_label=False, container=False, scale=0, elem_id="color")
                self.picture = gr.File(
                    file_types=["image"], height=90, visible=False, scale=2, show_label=False, elem_id="backdrop"
                )
                self.save_placed = gr.DownloadButton(
                    "Save picture", interactive=False, scale=1, min_width=120, size="md", elem_id="save-composite"
                )
            self.placed = _picture("composite")

    def _connect(self) -> None:
        # One queue for all that needs memory: whoever comes second waits until the first one's photo is done.
        queued = dict(concurrency_id="photo", concurrency_limit=1, api_visibility="private")
        stage = [self.compare, self.cutout, self.alpha]
        shown = [self.cut, self.drop, self.status, self.save_cutout, self.save_alpha, *stage]
        new = [
            self.drop.upload(self.show_upload, [self.cut, self.drop], shown, show_progress_on=stage, **queued),
            self.examples.click(self.show_example, [self.cut, self.examples], shown, show_progress_on=stage, **queued),
        ]
        place = dict(
            fn=self.place,
            inputs=[self.cut, self.kind, self.color, self.picture],
            outputs=[self.cut, self.placed, self.save_placed, self.status],
            show_progress_on=self.placed,
            **queued,
        )
        for event in new:
            event.then(**place)
        self.kind.change(
            self.choose_kind, self.kind, [self.color, self.picture], queue=False, api_visibility="private"
        ).then(**place)
        gr.on(
            [self.color.release, self.color.submit, self.picture.upload, self.picture.clear],
            trigger_mode="always_last",
            **place,
        )

    def show_example(self, earlier: Cut | None, index: int) -> Outcome:
        return self.show(earlier, self.example_paths[index])

    def show_upload(self, earlier: Cut | None, upload: str) -> Outcome:
        return self.show(earlier, Path(upload)) | {self.drop: None}

    def show(self, earlier: Cut | None, source: Path) -> Outcome:
        """Matte a photo; the files of the one before it go first."""
        self.studio.discard(earlier)
        cut, refusal = _try(lambda: self.studio.cut(source), source)
        if cut is None:
            nothing = dict.fromkeys((self.cut, self.compare, self.cutout, self.alpha))
            return nothing | {self.status: refusal, self.save_cutout: _unsaved(), self.save_alpha: _unsaved()}
        return {
            self.cut: cut,
            self.status: _report(cut),
            self.compare: (cut.preview, cut.cutout.preview),
            self.cutout: cut.cutout.preview,
            self.alpha: cut.alpha.preview,
            self.save_cutout: _saved(cut.cutout.file),
            self.save_alpha: _saved(cut.alpha.file),
        }

    def choose_kind(self, kind: str) -> Outcome:
        return {self.color: gr.update(visible=kind == COLOR), self.picture: gr.update(visible=kind == PHOTO)}

    def place(self, cut: Cut | None, kind: str, color: str, picture: str | None) -> Outcome:
        """Put the subject on the background that is chosen; nothing where there is no subject or no background."""
        background = {COLOR: hex_color(color), PHOTO: picture and Path(picture), BLUR: "blur"}[kind]
        if cut is None or not background:
            return {self.placed: None, self.save_placed: _unsaved()}
        placed, refusal = _try(lambda: self.studio.compose(cut, background), cut.source)
        if placed is None:
            return {self.placed: None, self.save_placed: _unsaved(), self.status: refusal}
        # the cut is written back as it is: only a written state's time to live begins anew
        return {self.cut: cut, self.placed: placed.preview, self.save_placed: _saved(placed.file)}


def launch(page: gr.Blocks, host: str, port: int, max_upload: int) -> None:
    """Start serving, and return. max_upload in MB. Raises OSError where the address cannot be had."""
    page.queue(api_open=False, default_concurrency_limit=1)
    page.launch(
        server_name=host,
        server_port=port,
        max_file_size=f"{max_upload}mb",
        theme=THEME,
        css=CSS,
        head=HEAD,
        share=False,
        quiet=True,
        prevent_thread_lock=True,
        footer_links=[],
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
    )


def _picture(name: str) -> gr.Image:
    return gr.Image(show_label=False, height=STAGE_HEIGHT, interactive=False, buttons=["fullscreen"], elem_id=name)


def _saved(file: Path) -> dict[str, Any]:
    return gr.update(value=file, interactive=True)


def _unsaved() -> dict[str, Any]:
    return gr.update(value=None, interactive=False)


def _try(work: Callable[[], Any], source: Path) -> tuple[Any, str]:
    """(result, "") or (None, a sentence for the page): whatever happens to one photo, the page lives on."""
    try:
        return work(), ""
    except PhotoError as error:
        return None, _paragraph("refusal", str(error))
    except Exception as error:  # torch raises plain RuntimeErrors for what does not fit in memory
        traceback.print_exc()
        return None, _paragraph(
            "refusal",
            f"{source.name} could not be done ({type(error).__name__}): try a smaller "
            "photo; the server's log says more.",
        )


def _title(facts: tuple[str, ...]) -> str:
    return "<h1>TSR-Matte</h1><p>Cut the subject out of a photo.</p>" + _paragraph("facts", " · ".join(facts))


def _report(cut: Cut) -> str:
    width, height = cut.size
    lines = [_paragraph("done", f"{cut.source.name} · {width} × {height} · {cut.seconds:.1f} s")]
    if not cut.has_subject:
        lines.append(_paragraph("note", "No subject was found in this photo."))
    lines += [_paragraph("note", f"{note[0].upper()}{note[1:]}.") for note in cut.notes]
    return "".join(lines)


def _paragraph(kind: str, text: str) -> str:
    return f'<p class="{kind}">{html.escape(text)}</p>'
