"""A Hugging Face Hub in memory on 127.0.0.1: the few requests that downloading a file and one commit consist of."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

TOKEN = "hf_of_the_owner"


class HubServer(ThreadingHTTPServer):
    """Use as a context manager. repositories: {"owner/name": {"revision": {"file": bytes}}}; requests: "GET /path"."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self.requests: list[str] = []
        self.is_broken = False

    def __enter__(self) -> HubServer:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.shutdown()
        self.server_close()

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """The environment of a process that takes this server for the Hub; read when it imports the client."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        return own | {
            "HF_ENDPOINT": f"http://127.0.0.1:{self.server_port}",
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
        } | more  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    server: HubServer

    def do_HEAD(self) -> None:
        self.log()
        if self.path == "/":
            return self.answer(503 if self.server.is_broken else 200)
        if self.path.startswith("/api/"):
            return self.answer(404 if self.is_owner() else 401, error="RepoNotFound")
        owner, name, _, revision, file = (unquote(part) for part in self.path[1:].split("/", 4))
        revisions = self.server.repositories.get(f"{owner}/{name}")
        if revisions is None or (f"{owner}/{name}" in self.server.private and not self.is_owner()):
            return self.answer(401, error="RepoNotFound")
        if revision not in revisions:
            return self.answer(404, error="RevisionNotFound")
        if file not in revisions[revision]:
            return self.answer(404, error="EntryNotFound")
        content = revisions[revision][file]
        commit = hashlib.sha1(b"".join(revisions[revision].values())).hexdigest()
        return self.answer(200, content, **{"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": commit})

    do_GET = do_HEAD

    def do_POST(self) -> None:
        self.log()
        body = self.rfile.read(int(self.headers["Content-Length"]))
        lines = [json.loads(line) for line in body.splitlines()]
        if not self.is_owner():
            return self.answer(401)
        if self.path == "/api/validate-yaml":
            return self.answer_json({"errors": [], "warnings": []})
        if self.path == "/api/repos/create":
            name = f"{lines[0]['organization']}/{lines[0]['name']}"
            if lines[0].get("visibility") == "private":
                self.server.private.add(name)
            self.server.repositories.setdefault(name, {"main": {}})
            return self.answer_json({"url": f"/{name}"})
        owner, name, action, revision = self.path.removeprefix("/api/models/").split("/")
        if action == "preupload":
            files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in lines[0]["files"]]
            return self.answer_json({"files": files})
        assert action == "commit", self.path
        files = self.server.repositories[f"{owner}/{name}"][revision]
        for line in lines:
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        return self.answer_json({"commitUrl": f"/{owner}/{name}/commit/1", "commitOid": "1"})

    def is_owner(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def answer_json(self, value: dict) -> None:
        self.answer(200, json.dumps(value).encode())

    def answer(self, status: int, content: bytes = b"{}", error: str = "", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), "X-Error-Code": error, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")

    def log_message(self, *_) -> None:
        """The test looks at `requests` instead."""
