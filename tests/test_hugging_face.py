"""Files from the Hugging Face Hub, through its own client, from a server on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_server import TOKEN, HubServer

ROOT = Path(__file__).resolve().parent.parent
FETCH = """
import json, sys
from pathlib import Path
from common import hub
from common.errors import UserError

def outcome(name):
    try:
        return hub.fetch(Path(name), "best.safetensors").read_text()
    except UserError as error:
        return str(error)

print(json.dumps([outcome(name) for name in sys.argv[1:]]))
"""


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer() as server:
        server.repositories = {
            "me/cats": {"main": {"best.safetensors": b"main"}, "v1": {"best.safetensors": b"v1"}},
            "me/empty": {"main": {"README.md": b"nothing else"}},
            "me/secret": {"main": {"best.safetensors": b"secret"}},
        }
        server.private.add("me/secret")
        yield server


def fetch(server: HubServer, home: Path, *names: str, **environment: str) -> list[str]:
    """What each file holds, or the sentence about what is wrong, as a new process finds it."""
    command = [sys.executable, "-c", FETCH, *names]
    environment = server.environment(home, **environment)
    result = subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=120, stdout=subprocess.PIPE)
    return json.loads(result.stdout)


def test_a_name_is_a_repository_and_perhaps_a_revision(server, tmp_path):
    assert fetch(server, tmp_path, "hf:me/cats", "hf:me/cats@v1") == ["main", "v1"]
    assert [line for line in server.requests if line.startswith("GET")] == [
        "GET /me/cats/resolve/main/best.safetensors",
        "GET /me/cats/resolve/v1/best.safetensors",
    ]


def test_a_private_repository_is_read_by_its_owner(server, tmp_path):
    assert fetch(server, tmp_path, "hf:me/secret", HF_TOKEN=TOKEN) == ["secret"]


def test_what_cannot_be_fetched_is_one_sentence_that_says_what_to_do(server, tmp_path):
    faults = {
        "hf:me/none": ("me/none is not on the Hub, or you may not read it", "check its name"),
        "hf:me/secret": ("me/secret is not on the Hub, or you may not read it", "hf auth login"),
        "hf:me/empty": ("me/empty holds no best.safetensors", "name a repository"),
        "hf:me/cats@v9": ("me/cats has no revision v9", "branches, tags or commits"),
        "hf:cats": ("hf:cats names no repository", "hf:owner/name"),
        "hf:me/cats/more": ("names no repository", "hf:owner/name"),
    }
    for sentence, words in zip(fetch(server, tmp_path, *faults), faults.values(), strict=True):
        assert all(word in sentence for word in words), sentence
        assert sentence.endswith(".") and "\n" not in sentence
    assert fetch(server, tmp_path, "hf:me/secret", HF_TOKEN="hf_of_a_stranger")[0].startswith("me/secret is not on")


@pytest.mark.parametrize("state", ["broken", "off", "forbidden"])
def test_without_the_hub_the_copy_in_the_cache_serves(server, tmp_path, state):
    assert fetch(server, tmp_path, "hf:me/cats") == ["main"]
    environment = {"HF_HUB_OFFLINE": "1"} if state == "forbidden" else {}
    server.is_broken = state == "broken"
    if state == "off":
        server.__exit__()
    server.requests.clear()
    copy, sentence = fetch(server, tmp_path, "hf:me/cats", "hf:me/none", **environment)
    assert copy == "main"
    assert sentence.startswith("best.safetensors of me/none is not on this machine, and ")
    assert ("HF_HUB_OFFLINE is set" if environment else "cannot be reached") in sentence
    assert "connect to the network" in sentence
    # the client would repeat a failing request for most of a minute
    assert server.requests == (["HEAD /", "HEAD /"] if state == "broken" else [])
