"""A Hub that can be written to: what `huggingface_hub` asks of it to make a repository and one commit."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from support import stores
from support.stores import Faults, commit_of

LARGE = (".safetensors",)


class _WritableHub(stores._Hub):
    """Large files wait in ``sent`` until a commit names them; ``private`` are the repositories that are so."""

    sent: dict[str, bytes]
    private: dict[str, bool]
    branches: set[tuple[str, str]]

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.faults.of(self.command, path, None)
        if fault:
            self.answer(int(fault))
        elif self.headers.get("Authorization") != "Bearer hf_secret" and not path.startswith("/lfs/"):
            self.answer(401)
        elif path == "/api/repos/create":
            self.create(json.loads(body))
        elif path == "/api/validate-yaml":
            self.told({"errors": [], "warnings": []})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/.+", path):
            files = [each["path"] for each in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith(LARGE) else "regular" for name in files}
            self.told({"files": [{"path": n, "uploadMode": modes[n], "shouldIgnore": False} for n in files]})
        elif path.endswith(".git/info/lfs/objects/batch"):
            self.batch(json.loads(body))
        elif found := re.fullmatch(r"/lfs/(\w+)", path):
            assert hashlib.sha256(body).hexdigest() == found[1]
            self.sent[found[1]] = body
            self.answer(200)
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/branch/(.+)", path):
            self.branches.add((found[1], found[2]))
            self.told({})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/(.+)", path):
            self.commit(found[1], [json.loads(line) for line in body.splitlines()])
        else:
            self.answer(404)

    do_PUT = do_POST

    def describe(self, repository: str, revision: str) -> None:
        known = (repository, revision) in self.branches
        self.visibility = {"private": self.private.get(repository, False)}
        super().describe(repository, "main" if known else revision)

    def told(self, content: dict[str, object]) -> None:
        self.answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def create(self, asked: dict[str, object]) -> None:
        repository = f"{asked['organization']}/{asked['name']}"
        (self.root / repository).mkdir(parents=True)
        (self.root / repository / ".gitattributes").write_text("*.safetensors filter=lfs\n")
        self.private[repository] = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.told({"url": f"http://127.0.0.1/{repository}"})

    def batch(self, asked: dict[str, list[dict[str, object]]]) -> None:
        objects: list[dict[str, object]] = []
        for each in asked["objects"]:
            port = self.server.server_address[1]
            upload = {"upload": {"href": f"http://127.0.0.1:{port}/lfs/{each['oid']}"}}
            objects.append(each if each["oid"] in self.sent else {**each, "actions": upload})
        self.told({"transfer": "basic", "objects": objects})

    def commit(self, repository: str, lines: list[dict[str, dict[str, str]]]) -> None:
        folder = self.root / repository
        parent = lines[0]["value"].get("parentCommit")
        if parent not in (None, commit_of(repository)):
            self.answer(412)
            return
        for line in lines:
            value = line["value"]
            if line["key"] in ("file", "lfsFile"):
                large = line["key"] == "lfsFile"
                path = folder / value["path"]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self.sent[value["oid"]] if large else base64.b64decode(value["content"]))
            elif line["key"] == "deletedFile":
                (folder / value["path"]).unlink()
        url = f"http://127.0.0.1/{repository}/commit/{commit_of(repository)}"
        self.told({"commitUrl": url, "commitOid": commit_of(repository), "hookOutput": "", "success": True})


@contextmanager
def writable_hub(root: Path, faults: Faults, private: dict[str, bool]) -> Iterator[str]:
    """The endpoint of a Hub over the repositories ``root/org/name``; ``private`` learns which were made so."""
    settings = {"root": root, "faults": faults, "made": [1], "sent": {}, "private": private, "branches": set()}
    with stores._serving(type("Hub", (_WritableHub,), settings)) as address:
        yield address
