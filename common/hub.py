"""Files of the Hugging Face Hub; HF_ENDPOINT names another server that speaks its protocol, HF_TOKEN who asks.

fetch("hf:owner/name@v2", "best.safetensors")    # Path in the Hub client's cache on this machine
upload("owner/name", {"README.md": b"...", "best.safetensors": Path("checkpoints/RUN/best.safetensors")})
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import (
    EntryNotFoundError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from common.errors import UserError

PREFIX = "hf:"
REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
TIMEOUT = 10  # seconds
DENIED = (401, 403)  # HTTP status
LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def is_name(text: object) -> bool:
    """Whether this names a repository of the Hub, not a file of this machine: hf:owner/name or hf:owner/name@revision.

    A path that argparse made of such a name is one, too.
    """
    return str(text).startswith(PREFIX)


def fetch(name: str | Path, file: str) -> Path:
    """A file of the repository that is_name knows, as download gives it. Raises UserError."""
    text = Path(name).as_posix()  # on Windows a Path has turned its slashes
    repository, _, revision = text.removeprefix(PREFIX).partition("@")
    if not REPOSITORY.fullmatch(repository):
        raise UserError(f"{text} names no repository of the Hub: write hf:owner/name or hf:owner/name@revision.")
    return download(repository, file, revision or None)


def download(repository: str, file: str, revision: str | None = None) -> Path:
    """A file of a repository, newly downloaded if it has changed; without a network the copy in the cache.

    revision: branch, tag or commit; None is the newest state. Raises UserError.
    """
    # the client repeats a failing request for most of a minute: ask once whether there is a network
    offline = not is_reachable()
    try:
        return Path(huggingface_hub.hf_hub_download(repository, file, revision=revision, local_files_only=offline))
    except Exception as error:  # the client raises a different class for each way a network can fail
        raise _explained(error, repository, file, revision) from error


def upload(repository: str, contents: Mapping[str, Path | bytes], *, private: bool = False) -> str:
    """Make the repository, if it is not there, and put all files into it in one commit; returns the commit's address.

    contents: by name in the repository, a file of this machine or bytes. private: of a repository that is made; one
    that is there stays as it is. Raises UserError.
    """
    if not is_reachable():
        raise UserError(f"{repository} was not changed, since {_unreachable()}: try again with a network.")
    api = huggingface_hub.HfApi()
    files = [huggingface_hub.CommitOperationAdd(name, source) for name, source in contents.items()]
    try:
        api.create_repo(repository, private=private or None, exist_ok=True)  # None: as the owner's settings say
        return str(api.create_commit(repository, files, commit_message="Published by TSR-Matte").commit_url)
    except Exception as error:
        if _status(error) in DENIED:
            raise UserError(f"You may not write to {repository}: {LOG_IN}, with a token that may write.") from error
        raise UserError(f"{repository} could not be written ({_first_line(error)}): try again.") from error


def is_reachable() -> bool:
    """Whether the Hub answers now."""
    try:
        response = huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=TIMEOUT)
    except Exception:  # see download; also where HF_HUB_OFFLINE forbids to ask
        return False
    return response.status_code < 500


def _explained(error: Exception, repository: str, file: str, revision: str | None) -> UserError:
    if isinstance(error, LocalEntryNotFoundError):
        reason = f"{file} of {repository} is not on this machine, and {_unreachable()}"
        return UserError(f"{reason}: connect to the network once, and it is kept in the cache.")
    if isinstance(error, RepositoryNotFoundError) or _status(error) in DENIED:  # a stranger is not told which it is
        cure = f"check its name; if it is private or gated, {LOG_IN}"
        return UserError(f"{repository} is not on the Hub, or you may not read it: {cure}.")
    if isinstance(error, RevisionNotFoundError):
        return UserError(f"{repository} has no revision {revision}: name one of its branches, tags or commits.")
    if isinstance(error, EntryNotFoundError):
        return UserError(f"{repository} holds no {file}: name a repository that has one.")
    return UserError(f"{file} of {repository} could not be downloaded ({_first_line(error)}): try again.")


def _unreachable() -> str:
    constants = huggingface_hub.constants
    return "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{constants.ENDPOINT} cannot be reached"


def _status(error: Exception) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _first_line(error: Exception) -> str:
    return (str(error).split("\n\n")[-1].strip().splitlines() or [type(error).__name__])[0]
