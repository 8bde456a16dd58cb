"""A web page that mattes photos: drop one, see the matte, put the subject on another background, download.

    python app.py                                  http://127.0.0.1:7860, with the newest run's model, else the starter
    python app.py --checkpoint best.safetensors --port 8000
    python app.py --host 0.0.0.0                   for the whole network, not only for this computer

Needs Gradio: `make app` installs it and starts the page. The page works offline and sends nothing to other computers.
It mattes one photo at a time and removes all files when it ends.

Exit codes: 0 ended by Ctrl-C, 2 could not start.
"""

from __future__ import annotations

from inference.options import app_options

if __name__ == "__main__":
    app_options(__doc__)  # --help and wrong flags are answered before the imports that take seconds

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch

from common import hub
from common.command import command
from common.devices import choose_device, describe
from common.errors import UserError
from config import Config
from inference import loading
from inference.web_files import Cutter
from matting import predict_alpha
from models.checkpoint import MODEL_FILE, find_model

RUNS = Config.output  # folder of the run folders


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = app_options(__doc__, argv)
    try:
        if find_spec("gradio") is None:
            raise UserError(
                "The page needs Gradio, which is not installed: `make app` installs it and starts the page; "
                "without make: pip install -r requirements/app.txt -c requirements/constraints.txt."
            )
        device = choose_device(options.device)
        path = find_model(options.checkpoint, RUNS)
        predictor = partial(predict_alpha, loading.load(path, device))
        print(f"checkpoint: {path}", flush=True)
        with tempfile.TemporaryDirectory(prefix="tsr-matte-") as folder:
            set_environment(folder, options.host)
            facts = model_facts(path, device, options.checkpoint)
            serve(Cutter(predictor, Path(folder, "cuts"), options.max_pixels), facts, options)
    except KeyboardInterrupt:
        print("Stopped.")
    return 0


def model_facts(path: Path, device: torch.device, named: Path | None = None) -> tuple[str, ...]:
    """For the page: the checkpoint, the network, the device. named: as --checkpoint names the file at `path`."""
    model = loading.read_metadata(path)["model"]
    name = path.parent.name if path.name == MODEL_FILE and path.parent.name else path.name
    if named and hub.is_name(named):  # its folder is named by a commit
        name = named.as_posix()
    return name, f"{model['backbone']} at {model['image_size']} px", describe(device)


def set_environment(folder: str, host: str) -> None:
    """Put uploads below `folder` and keep Gradio from calling out. Gradio reads this when it is imported."""
    os.environ["GRADIO_TEMP_DIR"] = folder
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_OFFLINE"] = "1"
    # Gradio asks its own server whether it is up; a company's proxy must not get that request
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1", "localhost", host)))


def serve(cutter: Cutter, facts: tuple[str, ...], options: argparse.Namespace) -> None:
    """Show the page until Ctrl-C or SIGTERM. Raises UserError if the address is taken."""
    from inference import web_page  # imports Gradio, which is optional and reads the environment

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print("Getting ready (the first start on a computer compiles for a minute) ...", flush=True)
    cutter.warm_up()
    page = web_page.Page(cutter, facts).blocks.queue(api_open=False, default_concurrency_limit=1)
    try:
        page.launch(
            server_name=f"[{options.host}]" if ":" in options.host else options.host,  # as IPv6 stands in an address
            root_path=options.root_path,
            server_port=options.port,
            max_file_size=f"{options.max_upload}mb",
            theme=web_page.THEME,
            css=web_page.CSS,
            head=web_page.HEAD,
            footer_links=[],
            share=False,  # GRADIO_SHARE would publish the page through a tunnel
            enable_monitoring=False,
            quiet=True,
            prevent_thread_lock=True,
        )
    except OSError as error:
        raise UserError(
            f"The page cannot listen on {options.host}, port {options.port}: the port is in use, or the address is "
            "not this computer's; choose others with --port and --host."
        ) from error
    print(f"The page is at {page.local_url} (Ctrl-C ends it)", flush=True)
    page.block_thread()


if __name__ == "__main__":
    sys.exit(main())
