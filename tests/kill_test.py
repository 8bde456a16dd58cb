"""Kill a training run at random moments with SIGKILL, resume it each time, and compare its end with a quiet run's.

    python -m tests.kill_test --kills 20 --output DIR            Swin-Tiny; about ten minutes on two cores
    python -m tests.kill_test --kills 3 --output DIR --tiny      what the test suite does

Every step is saved, and two kills of three wait until a saving has begun. Whatever is passed after -- goes to both
runs. Exit code 0: both ended with the same bits, and the log has each epoch once.
"""

from __future__ import annotations

import argparse
import csv
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from common.files import TEMPORARY_FILES
from models.checkpoint import MODEL_FILE
from tests.tiny import FLAGS
from training.checkpoint import load_training_state
from training.log import LOG_FILE
from training.run_folder import CONFIG_FILE, STATE_FILE

WALL_TIME = {"seconds", "images_per_second", "epoch_seconds"}
PATIENCE = 300  # seconds that a process may take to get where it is to be killed
# longest wait in seconds, from the first sign of life or from the start of a saving: (tiny network, Swin)
AT_RANDOM, IN_A_SAVING = (0.5, 8.0), (0.02, 0.5)


def differences(first: Any, second: Any, where: str = "") -> list[str]:
    """Paths at which two nested values differ in any bit, wall times aside."""
    if isinstance(first, torch.Tensor):
        return [] if torch.equal(first, second) and first.dtype == second.dtype else [where]
    if isinstance(first, dict):
        if first.keys() != second.keys():
            return [f"{where} (names)"]
        return [
            path
            for name in first
            if name not in WALL_TIME
            for path in differences(first[name], second[name], f"{where}/{name}")
        ]
    if isinstance(first, list | tuple):
        if len(first) != len(second):
            return [f"{where} (length)"]
        return [
            path
            for i, (a, b) in enumerate(zip(first, second, strict=True))
            for path in differences(a, b, f"{where}/{i}")
        ]
    return [] if first == second else [where]


def compare_runs(first: Path, second: Path) -> list[str]:
    """What differs between the ends of two runs: state, shipped weights, log."""
    found = differences(load_training_state(first), load_training_state(second), STATE_FILE)
    found += differences(*(safetensors.torch.load_file(run / MODEL_FILE) for run in (first, second)), MODEL_FILE)
    return found + differences(read_log(first), read_log(second), LOG_FILE)


def read_log(run: Path) -> list[dict[str, str]]:
    with open(run / LOG_FILE, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class Victim:
    """One run in one folder, started as often as it takes."""

    def __init__(self, tiny: bool, flags: Sequence[str], output: Path) -> None:
        self.module = ["-m", "tests.tiny"] if tiny else ["train.py"]
        self.tiny, self.flags, self.output = tiny, flags, output

    @property
    def folder(self) -> Path | None:
        return next((path.parent for path in self.output.glob(f"*/{CONFIG_FILE}")), None)

    def start(self) -> subprocess.Popen:
        flags = ["--resume", str(self.folder)] if self.folder else [*self.flags, "--output", str(self.output)]
        log = open(self.output / "out.txt", "a", encoding="utf-8")  # noqa: SIM115 (the process keeps it)
        return subprocess.Popen([sys.executable, *self.module, *flags], stdout=log, stderr=log)

    def run_to_the_end(self) -> None:
        if self.start().wait() != 0:
            raise RuntimeError(f"the run failed: see {self.output / 'out.txt'}.")

    def kill_once(self, chance: random.Random) -> str | None:
        """Start it and kill it; the moment in words, or None if it reached its end first."""
        process = self.start()
        saving = chance.random() < 2 / 3
        # up to two savings pass before one is cut off: a run that never finished one would not get anywhere
        deadline = time.monotonic() + PATIENCE
        pause = chance.uniform(0.0, (IN_A_SAVING if saving else AT_RANDOM)[not self.tiny])
        if saving:
            wanted, seen = chance.randint(1, 3), set()
            while len(seen) < wanted and process.poll() is None and time.monotonic() < deadline:
                new = {file.name for file in self._temporary_files()} - seen  # each saving has a name of its own
                seen |= new
                time.sleep(0.002)
        else:
            while self.folder is None and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
        time.sleep(pause)
        if process.poll() is not None:
            if process.returncode != 0:
                raise RuntimeError(f"the run failed: see {self.output / 'out.txt'}.")
            return None
        cut = self._temporary_files()
        process.send_signal(signal.SIGKILL)
        process.wait()
        return f"{'in' if cut else 'outside'} a saving, last.pt {'there' if self._state().exists() else 'not there'}"

    def _temporary_files(self) -> list[Path]:
        return list(self.output.glob(f"*/{TEMPORARY_FILES}{Path(STATE_FILE).suffix}"))

    def _state(self) -> Path:
        return self.folder / STATE_FILE if self.folder else self.output / STATE_FILE


def kill_test(kills: int, output: Path, *, tiny: bool, seed: int = 0, extra: Sequence[str] = ()) -> list[str]:
    """Problems found, none if all is well."""
    flags = [*FLAGS, *extra]
    victims = []
    for name, more in (("quiet", []), ("killed", ["--save-every-minutes", "1e-6"])):
        (output / name).mkdir(parents=True)
        victims.append(Victim(tiny, [*flags, *more], output / name))
    quiet, killed = victims
    quiet.run_to_the_end()
    chance, done = random.Random(seed), 0
    while done < kills:
        moment = killed.kill_once(chance)
        if moment is None:
            return [f"the run ended after {done} kills: give it more epochs, after --."]
        done += 1
        print(f"kill {done}: {moment}", flush=True)
    killed.run_to_the_end()
    problems = compare_runs(quiet.folder, killed.folder)
    epochs = [row["epoch"] for row in read_log(killed.folder)]
    if epochs != [str(epoch) for epoch in range(1, len(epochs) + 1)]:
        problems.append(f"epochs in the log: {epochs}")
    return problems + [f"left over: {path}" for path in killed.folder.glob(TEMPORARY_FILES)]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="how many times to kill it (default: 20)")
    parser.add_argument("--output", type=Path, required=True, help="an empty folder for both runs")
    parser.add_argument("--tiny", action="store_true", help="a network of a few thousand weights")
    parser.add_argument("--seed", type=int, default=0, help="other moments")
    parser.add_argument("extra", nargs="*", metavar="-- FLAGS", help="flags of train.py, such as --epochs 5")
    options = parser.parse_args(argv)
    problems = kill_test(options.kills, options.output, tiny=options.tiny, seed=options.seed, extra=options.extra)
    shown = problems[:10] + [f"and {len(problems) - 10} more"] * (len(problems) > 10)
    print("\n".join(shown) or f"{options.kills} kills: the end is that of the quiet run, bit for bit.")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
