"""Which output belongs to each input of predict.py, by one rule.

An output has its input's path below the folder that all inputs share, and another suffix: sub/cat.jpg -> sub/cat.png.
Where another file of that folder would get the same name, or a file its own, it keeps its suffix: cat.jpg.png. Nothing
that predict.py did not write is overwritten, nor the output of another input that still exists: that job is refused.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from common.errors import UserError
from common.files import is_another_file
from inference.inputs import Inputs
from inference.manifest import Manifest
from inference.media import VIDEO, is_named_as_media, kind_of


@dataclass(frozen=True)
class Job:
    """One input and its output, a path below the output folder."""

    source: Path
    output: Path
    is_video: bool = False
    refusal: str = ""  # why it cannot be done
    is_done: bool = False  # its output is there, made of the same file by the same settings


def plan_jobs(inputs: Inputs, manifest: Manifest, suffixes: Mapping[str, str], name: str = "") -> list[Job]:
    """A job for each input. suffixes: of the output of a PHOTO and of a VIDEO. name: that of the only output.

    Raises UserError if nothing can be done.
    """
    if name and len(inputs.files) != 1:
        file = manifest.folder / name
        raise UserError(f"{file} is the name of one output, for {len(inputs.files)} inputs: give --output a folder.")
    taken: dict[str, Path] = {}  # in one case: A.png and a.png are one file on many systems
    jobs = []
    for source, kind, refusal in inputs.files:
        suffix = suffixes[kind]
        below = Path(os.path.relpath(os.path.dirname(os.path.abspath(source)), inputs.root))
        stem = source.stem if is_named_as_media(source.name) else source.name
        is_long = any(suffixes.get(kind_of(other)) == suffix for other in inputs.named_alike(source))
        is_long |= os.path.realpath(manifest.folder / below / (stem + suffix)) == os.path.realpath(source)
        if name and Path(name).suffix.lower().replace(".jpeg", ".jpg") != suffix:
            refusal = f"{source} is a {kind}, whose output ends in {suffix} here, unlike {name}: rename that."
        output = below / (name or (source.name if is_long else stem) + suffix)
        job = Job(source, output, kind == VIDEO, refusal)
        jobs.append(job if refusal else _checked(job, manifest, taken))
    if all(job.refusal for job in jobs):
        raise UserError(jobs[0].refusal if jobs else "There is nothing to do: name photos, videos or folders of them.")
    return jobs


def _checked(job: Job, manifest: Manifest, taken: dict[str, Path]) -> Job:
    """The job, marked if its output is up to date, refused if it would overwrite what it must not."""
    target = manifest.folder / job.output
    row, would = manifest.row_of(target), f"{job.source} would overwrite {target}"
    rival = taken.setdefault(job.output.as_posix().casefold(), job.source)
    if rival is not job.source:
        why = f"{job.source} would have the same output as {rival}: rename one, or give each its own --output."
    elif row is None and os.path.lexists(target):
        why = f"{would}, which predict.py did not write: move that, or choose another --output."
    elif row and is_another_file(row["source"], job.source):
        why = f"{would}, the output of {row['source']}: choose another --output."
    else:
        return replace(job, is_done=manifest.is_up_to_date(row, job.source))
    return replace(job, refusal=why)
