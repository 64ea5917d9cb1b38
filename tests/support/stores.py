"""Remote stores on loopback: a web server of a folder, a Hub, and moto's S3, all of which fail as they are told."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


def commit_of(repository: str) -> str:
    """The one commit that a repository of the fake Hub has."""
    return hashlib.sha1(repository.encode()).hexdigest()


@dataclass
class Faults:
    """What goes wrong: ``plan(method, path, number)`` names a fault of the number-th request, or None.

    Faults are ``500``, ``503``, ``403``, ``cut`` (half of the body, then the connection closes) and ``hang up``.
    ``log`` holds (method, path, range) of every request.
    """

    plan: Callable[[str, str, int], str | None] = lambda method, path, number: None
    latency: float = 0.0
    log: list[tuple[str, str, str | None]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, method: str, path: str, range_: str | None) -> str | None:
        """Note a request; what is to go wrong with it."""
        if self.latency:
            time.sleep(self.latency)
        with self.lock:
            self.log.append((method, path, range_))
            return self.plan(method, path, len(self.log))

    def bytes_of(self, suffix: str) -> int:
        """Bytes asked for in ranges of files whose names end like that."""
        ranges = [found for method, path, found in self.log if method == "GET" and path.endswith(suffix)]
        bounds = [re.fullmatch(r"bytes=(\d+)-(\d+)", found or "") for found in ranges]
        return sum(int(b[2]) - int(b[1]) + 1 for b in bounds if b)


def times(count: int, fault: str, suffix: str = "", method: str = "GET") -> Callable[[str, str, int], str | None]:
    """A plan by which the first ``count`` requests for names with this end fail."""
    left = [count]

    def plan(verb: str, path: str, number: int) -> str | None:
        if left[0] and verb == method and path.endswith(suffix):
            left[0] -= 1
            return fault
        return None

    return plan


class _Folder(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    root: Path
    faults: Faults
    ranges = True

    def log_message(self, *_: object) -> None:
        """Tests are quiet."""

    def do_HEAD(self) -> None:
        self.respond(self.root, unquote(urlsplit(self.path).path))

    do_GET = do_HEAD

    def respond(self, root: Path, path: str) -> None:
        """A file below ``root``, or a part of it."""
        fault = self.faults.of(self.command, path, self.headers.get("Range"))
        if fault == "hang up":
            self.close_connection = True
            self.connection.close()
            return
        file = root / path.lstrip("/")
        if fault and fault.isdigit():
            self.answer(int(fault))
        elif not file.is_file():
            self.answer(404)
        else:
            self.send_file(file.read_bytes(), f'"{digests(file)[1]}"', fault == "cut")

    def send_file(self, data: bytes, tag: str, cut: bool) -> None:
        if self.headers.get("If-Match", tag) != tag:
            self.answer(412)
            return
        headers = {"ETag": tag, "Last-Modified": "Thu, 26 Nov 2026 00:00:00 GMT", "Accept-Ranges": "bytes"}
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        status = 200
        if found and self.ranges:
            first, last = int(found[1]), min(int(found[2]), len(data) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
            data, status = data[first : last + 1], 206
        self.answer(status, data, headers, cut)

    def answer(self, status: int, data: bytes = b"", headers: dict[str, str] | None = None, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self.close_connection = True


class _Hub(_Folder):
    """The parts of the Hub's interface that reading takes: repositories are folders ``root/org/name``.

    Weights are served under ``/cdn/`` at links that say when they were made; ``expire`` ends all that there are.
    """

    made: list[int]
    visibility: dict[str, bool] = {}  # noqa: RUF012 - replaced, never changed

    def do_HEAD(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self.faults.of(self.command, path, None)
            self.describe(found[1], found[2] or "main")
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.resolve(found[1], found[3])
        elif found := re.fullmatch(r"/cdn/(\d+)/(.+)", path):
            if int(found[1]) < self.made[0]:
                self.faults.of(self.command, path, self.headers.get("Range"))
                self.answer(403)
            else:
                assert "authorization" not in {name.lower() for name in self.headers}, "a token left the Hub"
                self.respond(self.root, f"/{found[2]}")
        else:
            self.answer(404)

    do_GET = do_HEAD

    def describe(self, repository: str, revision: str) -> None:
        folder = self.root / repository
        if not folder.is_dir():
            self.answer(404, headers={"X-Error-Code": "RepoNotFound"})
        elif revision not in ("main", commit_of(repository)):
            self.answer(404, headers={"X-Error-Code": "RevisionNotFound"})
        else:
            files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
            siblings = [_sibling(path, path.relative_to(folder).as_posix()) for path in files]
            content = {"id": repository, "sha": commit_of(repository), "siblings": siblings, **self.visibility}
            self.answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def resolve(self, repository: str, name: str) -> None:
        path = self.root / repository / name
        if not path.is_file():
            self.answer(404, headers={"X-Error-Code": "EntryNotFound"})
            return
        data = path.read_bytes()
        sha1, sha256 = digests(path)
        headers = {"X-Repo-Commit": commit_of(repository)}
        if not name.endswith(".safetensors"):
            self.faults.of(self.command, self.path, self.headers.get("Range"))
            headers["ETag"] = f'"{sha1}"'
            self.answer(200, data, headers)
            return
        self.faults.of(self.command, self.path, self.headers.get("Range"))
        headers["X-Linked-Size"], headers["X-Linked-ETag"] = str(len(data)), f'"{sha256}"'
        # Another host than the Hub's, as its content servers are.
        place = f"http://localhost:{self.server.server_address[1]}/cdn/{self.made[0]}/{repository}/{name}"
        headers["Location"] = f"{place}?signature=secret"
        self.answer(302, headers=headers)


def _sibling(path: Path, name: str) -> dict[str, object]:
    sha1, sha256 = digests(path)
    entry: dict[str, object] = {"rfilename": name, "size": path.stat().st_size, "blobId": sha1}
    if name.endswith(".safetensors"):
        entry["lfs"] = {"sha256": sha256, "size": path.stat().st_size, "pointerSize": 130}
    return entry


def digests(path: Path) -> tuple[str, str]:
    """Git's SHA-1 and the SHA-256 of a file, taken once of each edition."""
    status = path.stat()
    return _digests(path, status.st_mtime_ns, status.st_size, status.st_ino)


@cache
def _digests(path: Path, *_: int) -> tuple[str, str]:
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(), hashlib.sha256(data).hexdigest()


@contextmanager
def web_server(root: Path, faults: Faults, *, ranges: bool = True) -> Iterator[str]:
    """The address of a server of the files below ``root``."""
    with _serving(type("Folder", (_Folder,), {"root": root, "faults": faults, "ranges": ranges})) as address:
        yield address


@contextmanager
def hub(root: Path, faults: Faults, made: list[int]) -> Iterator[str]:
    """The endpoint of a Hub whose repositories are folders of ``root``; raising ``made[0]`` ends all links."""
    with _serving(type("Hub", (_Hub,), {"root": root, "faults": faults, "made": made})) as address:
        yield address


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def use_hub(monkeypatch: Any, endpoint: str) -> None:
    """Make huggingface_hub, which reads its environment once, talk to ``endpoint`` with a token."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")


@contextmanager
def s3(faults: Faults) -> Iterator[str]:
    """The endpoint of moto's S3."""
    import logging

    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    inner = DomainDispatcherApplication(create_backend_app)

    def app(environ, start_response):
        fault = faults.of(environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("HTTP_RANGE"))
        if fault and fault.isdigit():
            start_response(f"{fault} told to fail", [("Content-Length", "0")])
            return [b""]
        if fault is None:
            return inner(environ, start_response)
        body = b"".join(inner(environ, start_response))
        return [body[: len(body) // 2]]

    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def use_s3(monkeypatch: Any, endpoint: str) -> None:
    """Make S3 the one at ``endpoint``, where there is then an empty ``bucket`` and nothing else."""
    import os
    import urllib.request

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "hunter2",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
    }.items():
        monkeypatch.setenv(name, value)
    for method, path in (("POST", "moto-api/reset"), ("PUT", "bucket")):
        request = urllib.request.Request(f"{endpoint}/{path}", data=b"", method=method)
        urllib.request.urlopen(request, timeout=10).read()
