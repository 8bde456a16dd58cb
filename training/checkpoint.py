"""last.pt: all that a bit-exact resume needs, as plain types and tensors (loading runs no code); best.safetensors."""

from __future__ import annotations

import os
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from common import distributed
from common.errors import UserError
from common.files import atomic_write
from common.processes import is_main, print_once, rank, world_size
from models.checkpoint import MODEL_FILE, save_model
from training.optimization import load_optimizer_state
from training.run import Run
from training.run_folder import PREVIOUS_STATE_FILE, STATE_FILE
from training.schedule import Progress


def capture(run: Run) -> dict[str, Any]:
    """The state of a run between two steps. Every rank must call it: each has sums and random generators of its own.

    Raises UserError.
    """
    run.meter.check(run.config.max_bad_steps)
    own = {"meter": run.meter.state_dict(), "random": random_state(run.device)}
    optimizer, scaler = run.optimizer.state_dict(), run.scaler.state_dict()
    return {
        "network": run.network.state_dict(),
        "teacher": run.teacher.state_dict() if run.teacher else None,
        "guide": run.guide.state_dict() if run.guide else None,
        "average": run.average.network.state_dict(),
        "average_updates": run.average.updates,
        "stage": {"optimizer": optimizer, "scaler": scaler, "precision": str(run.precision)},
        "progress": asdict(run.progress),
        "layout": layout(run),
        "ranks": distributed.all_gather_objects([own]),
    }


def restore(run: Run, state: dict[str, Any], folder: Path) -> None:
    """Restore the captured state, but keep this run's settings.

    Batch size, accumulation and process count can change only between epochs. Raises UserError.
    """
    try:
        check_types(state)
        changed = [
            f"{name} {state['layout'][name]}, now {value}"
            for name, value in layout(run).items()
            if state["layout"][name] != value
        ]
        if state["progress"]["batch"] and changed:
            raise UserError(
                f"{folder} stopped within an epoch with {'; '.join(changed)}: resume it with what it had until "
                "the epoch ends; after that it may change."
            )
        _load(run, state)
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"The state in {folder} does not fit these settings: resume it without the flags that change the network, "
            f"or fine-tune with --init-from ({reason})."
        ) from error


def _load(run: Run, state: dict[str, Any]) -> None:
    run.network.load_state_dict(state["network"])
    if run.teacher:
        run.teacher.load_state_dict(state["teacher"])
    elif state["teacher"]:
        raise ValueError("it has a teacher")
    if run.guide:
        run.guide.load_state_dict(state["guide"])
    run.average.network.load_state_dict(state["average"])
    run.average.updates = state["average_updates"]
    vars(run.progress).update(vars(type(run.progress)(**state["progress"])))
    run.enter_stage(run.progress.stage)
    load_optimizer_state(run.optimizer, state["stage"]["optimizer"])
    if state["stage"]["precision"] == str(run.precision):
        run.scaler.load_state_dict(state["stage"]["scaler"])
    if rank() < len(state["ranks"]):  # a rank that is new starts from its own seed
        own = state["ranks"][rank()]
        run.reset_meter(own["meter"])
        restore_random_state(own["random"], run.device)


def random_state(device: torch.device) -> dict[str, Any]:
    """State of every generator that this process uses, in types that weights_only loads."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    version, words, gauss = random.getstate()
    return {
        "python": [version, list(words), gauss],
        "numpy": [kind, np.asarray(keys).tolist(), *rest],
        "torch": torch.get_rng_state(),
        # only this process's GPU: its copy of the other GPUs' generator states is stale
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Undo what happened since random_state; a generator of another kind of device is left as it is."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"], device)


def layout(run: Run) -> dict[str, int]:
    """What must not change within an epoch, or the rest of the epoch would get different batches."""
    own = {name: getattr(run.config, name) for name in ("batch_size", "accumulation_steps")}
    return {"processes": world_size(), "batches_per_epoch": run.schedule.batches_per_epoch, **own}


def save_training_state(folder: Path, state: dict[str, Any], keep_previous: bool = True) -> None:
    """Write last.pt; the one before it stays as last.previous.pt, or not."""
    path = folder / STATE_FILE
    with atomic_write(path) as temporary:
        torch.save(state, temporary)
        if not keep_previous:
            (folder / PREVIOUS_STATE_FILE).unlink(missing_ok=True)
        elif path.exists():
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())  # before the old state leaves its place
            os.replace(path, folder / PREVIOUS_STATE_FILE)


def load_training_state(folder: Path) -> dict[str, Any]:
    """last.pt, or the one before it where a kill hit the moment between two renames. Raises UserError."""
    reasons = []
    for name in (STATE_FILE, PREVIOUS_STATE_FILE):
        path = folder / name
        if path.is_file():
            try:
                state = torch.load(path, map_location="cpu", weights_only=True)
            except Exception as error:  # zip, pickle and torch raise their own classes for a broken file
                reasons.append(f"{name}: {type(error).__name__}")
                continue
            if isinstance(state, dict):
                return state
            reasons.append(f"{name}: not a training state")
    raise UserError(
        f"{folder} has no training state to resume ({'; '.join(reasons) or 'no last.pt'}): start a new run, or "
        "fine-tune its best.safetensors with --init-from."
    )


def saved_state(folder: Path | None) -> dict[str, Any] | None:
    """The state to resume; None for a new run, and for one that was killed before its first saving: it starts over."""
    if folder and any((folder / name).is_file() for name in (STATE_FILE, PREVIOUS_STATE_FILE)):
        return load_training_state(folder)
    return None


def check_types(state: dict[str, Any]) -> None:
    """Raises TypeError where a value is of no type that capture writes, but would only be found while training."""
    kinds: dict[str, Any] = {"guide": dict | None, "average_updates": int, "ranks": list}
    for name, kind in kinds.items():
        if not isinstance(state[name], kind):
            raise TypeError(f"{name} is of a wrong type")
    for name, default in asdict(Progress()).items():
        value = state["progress"].get(name, default)
        own_kind: Any = float | int if isinstance(default, float) else type(default)
        if not isinstance(value, own_kind) or isinstance(value, bool):
            raise TypeError(f"{name} is of a wrong type")
    if not all(isinstance(row, dict) for row in state["progress"].get("rows", [])):
        raise TypeError("rows are of a wrong type")


def save_best(run: Run, scores: dict[str, float]) -> bool:
    """Write best.safetensors; every rank must come here.

    Returns whether it could be written: if not, the epoch must not count as the best, or a later, slightly worse one
    would never be saved.
    """
    written, path = True, run.folder / MODEL_FILE
    settings: dict[str, Any] = dict(model_options=run.config.model_options, config=run.config.as_dict())
    if is_main():
        try:
            save_model(path, run.average.network, scores=scores, **settings)
        except (UserError, SafetensorError) as error:  # for a full disk safetensors raises its own
            print_once(
                f"This epoch's weights are the best, but {path} could not be written "
                f"({str(error).splitlines()[0]}): look at the room and the permissions of {run.folder}."
            )
            written = False
    return distributed.broadcast_object(written)
