"""The model card of a run: what others need to know about best.safetensors, from the facts in the run folder.

print(model_card(Path("checkpoints/RUN")))                                     # commands name the run folder
print(model_card(Path("checkpoints/RUN"), "hf:owner/name", licence="mit"))     # commands name the repository
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from huggingface_hub import ModelCardData

from config import Config
from data.build import SYNTHETIC, parse_source
from evaluation.validation import COARSE, REFINED, final_figures
from metrics import DECIDES, EDGE_RULE, IN_TRAINING, METRICS, TITLES
from models.checkpoint import MODEL_FILE, read_metadata
from publishing.options import NO_LICENCE
from training.flags import config_from_dict
from training.log import LOG_FILE

PREVIEW_FILE = "preview.png"
TAGS = ["image-matting", "background-removal", "tsr-matte"]
ALWAYS_NAMED = ("model_idx", "dataset")  # a clone's config.py may have other defaults for these
OF_THE_MACHINE = ("device", "output", "num_workers", "tensorboard")  # fields of Config that change no weight


def model_card(run: Path, checkpoint: str = "", licence: str = NO_LICENCE) -> str:
    """Markdown with the metadata that the Hub reads. What the folder does not hold (log, preview) is left out.

    checkpoint: what a reader gives to --checkpoint (default: the run folder); licence: of the weights, as the Hub
    names licences, such as mit. Raises UserError for settings of another version.
    """
    metadata = read_metadata(run / MODEL_FILE)
    config, checkpoint = config_from_dict(metadata["config"], str(run / MODEL_FILE)), checkpoint or run.as_posix()
    header = ModelCardData(license=licence, pipeline_tag="image-segmentation", tags=TAGS).to_yaml()
    name = checkpoint.removeprefix("hf:").rstrip("/").split("/")[-1]
    refiner = "; the refiner works from there up to the photo's own size" if config.use_refiner else ""
    preview = (
        f"\n\n![photos, true alphas and this model's mattes]({PREVIEW_FILE})\n\n"
        "*Validation photos, their true alphas, and mattes of the best epoch*"
    )
    weights = "none has been named" if licence == NO_LICENCE else licence
    sections = [
        f"---\n{header}\n---",
        f"# {name}",
        f"{config.method} {config.variant.name} predicts an alpha matte from one RGB photo, at the photo's own size, "
        f"without a trimap. The student sees the photo with {config.working_size} pixels on its long side{refiner}."
        + (preview if (run / PREVIEW_FILE).is_file() else ""),
        "## Use\n\nIn a clone of TSR-Matte:",
        _shell(f"python predict.py --input cat.jpg --checkpoint {shlex.quote(checkpoint)}"),
        f"Input: {metadata['preprocessing']}. {MODEL_FILE} holds weights and settings, and no code.",
        "## Training",
        _training(run, config, metadata["scores"]),
        _shell("python train.py " + shlex.join(_flags(config))),
        "config.json holds every setting.",
        _scores(config, metadata["scores"], checkpoint),
        _limits(config),
        f"## Licence\n\nWeights: {weights}. Code: MIT. The terms of the data sets, and of the weights that the "
        "training started from, hold for this model too.",
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def _training(run: Path, config: Config, scores: Mapping[str, float]) -> str:
    """A table of what the weights come from."""
    start = "random weights"
    if config.init_from:
        start = f"the checkpoint {public(config.init_from)}"
    elif config.backbone_weights:
        start = f"an encoder with the weights {public(config.backbone_weights)}"
    elif config.pretrained:
        start = f"an encoder with timm's ImageNet weights of {config.variant.backbone}"
    facts = {
        "data": _sets(config.dataset),
        "cut-outs": _sets(config.foregrounds),
        "backgrounds": ", ".join(map(public, config.backgrounds)),
        "start": start,
        "teacher": "" if config.use_teacher else "none",
        "length": _length(run, config, scores),
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {fact} |" for name, fact in facts.items() if fact)])


def _sets(sources: Sequence[str]) -> str:
    parts = []
    for path, weight in map(parse_source, sources):
        name = "drawn subjects (synthetic)" if path == SYNTHETIC else public(path)
        parts.append(name if weight == 1 else f"{name} (weight {weight:g})")
    return ", ".join(parts)


def _length(run: Path, config: Config, scores: Mapping[str, float]) -> str:
    """How far the weights were trained: to the row of the log, if there is one, whose scores the model file holds."""
    figure = f"{REFINED if config.use_refiner else COARSE}_{DECIDES}"
    if not (run / LOG_FILE).is_file() or figure not in scores:
        return f"{config.epochs} epochs"
    log = pd.read_csv(run / LOG_FILE)
    differences = (log[f"val_{figure}"] - scores[figure]).abs()
    until = log.loc[: differences.idxmin()]
    last = until.iloc[-1]
    photos = round(float(last["images_per_second"] * last["seconds"]))
    minutes = until["seconds"].sum() / 60
    return (
        f"epoch {last['epoch']:.0f} of {config.epochs}, the best on the validation photos: {last['step']:.0f} steps, "
        f"{photos} photos per epoch, " + (f"{minutes / 60:.1f} hours" if minutes > 90 else f"{minutes:.1f} minutes")
    )


def _scores(config: Config, scores: Mapping[str, float], checkpoint: str) -> str:
    figures = final_figures(scores)
    if not figures:
        return ""
    sets = _validation_sets(config, scores)
    shown = [name for name in TITLES if name in figures]
    lines = [f"| set | {' | '.join(TITLES[name] for name in shown)} |", f"|---{'|---' * len(shown)}|"]
    for name, prefix in ([("mean", "")] if len(sets) > 1 else []) + [(n, p) for n, (p, _) in sets.items()]:
        own = {key.removeprefix(prefix): value for key, value in scores.items() if key.startswith(prefix)}
        row = final_figures(own)
        lines.append(f"| {name} | {' | '.join(f'{row[figure]:.4g}' if figure in row else '-' for figure in shown)} |")
    commands = [
        f"python evaluate.py --dataset {shlex.quote(path)} --checkpoint {shlex.quote(checkpoint)}"
        for _, path in sets.values()
    ]
    units = "; ".join(f"{METRICS[name].title}: {METRICS[name].unit}" for name in IN_TRAINING)
    return (
        "## Scores\n\nOn the validation photos, means over photos. The best epoch was chosen on them, which flatters "
        "it a little.\n\n" + "\n".join(lines) + "\n\n"
        f"{_shell(*commands)}\n\nOver all pixels, and over the {EDGE_RULE}. {units}."
    )


def _validation_sets(config: Config, scores: Mapping[str, float]) -> dict[str, tuple[str, str]]:
    """By name: what its scores' names begin with, and what --dataset takes. See data.build.build_validation_sets."""
    paths = list(dict.fromkeys(parse_source(text).path for text in config.dataset))
    named = {path: f"{path if path == SYNTHETIC else Path(path).absolute().name}_" for path in paths}
    measured = {path: prefix for path, prefix in named.items() if any(key.startswith(prefix) for key in scores)}
    if not measured:  # one set's scores have no name before them
        validated = [path for path in paths if path == SYNTHETIC or Path(path, "val").is_dir()]
        measured = dict.fromkeys((validated or paths)[:1], "")
    return {
        public(path): (prefix, path if path == SYNTHETIC else f"{public(path)}/val")
        for path, prefix in measured.items()
    }


def _limits(config: Config) -> str:
    limits = [
        "It mattes the most prominent subject of a photo. You cannot point at another one.",
        f"A strand that is too thin to be seen at {config.working_size} pixels is lost"
        + (": the refiner sharpens what is there." if config.use_refiner else ", and nothing sharpens the edges."),
        "Videos are matted frame by frame, without temporal smoothing.",
        "It has learned what its training photos show. How its errors differ between people, subjects and scenes has "
        "not been measured.",
    ]
    if set(config.dataset) == {SYNTHETIC} and not (config.foregrounds or config.init_from):
        limits.insert(0, "It has seen drawn subjects only: do not expect a useful matte of a real photo.")
    return "## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits)


def _flags(config: Config) -> list[str]:
    """The flags of train.py that give this config, without those that change no weight."""
    default, flags = Config(), []
    for field in dataclasses.fields(Config):
        value = getattr(config, field.name)
        if field.name in OF_THE_MACHINE or (value == getattr(default, field.name) and field.name not in ALWAYS_NAMED):
            continue
        flag = field.name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            values = value if isinstance(value, tuple) else (value,)
            flags += [f"--{flag}", *(str(public(value)) for value in values)]
    return flags


def public(setting: Any) -> Any:
    """As strangers may see it: of an absolute path, which tells how a machine is set up, the last name. Also of each in
    a list or dict."""
    if isinstance(setting, dict):
        return {name: public(value) for name, value in setting.items()}
    if isinstance(setting, list | tuple):
        return [public(part) for part in setting]
    return Path(setting).name if isinstance(setting, str) and Path(setting).is_absolute() else setting


def _shell(*commands: str) -> str:
    return "```bash\n" + "\n".join(commands) + "\n```"
