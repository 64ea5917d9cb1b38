"""A web server of a folder with the latency and bandwidth of a distant store: `python bench/_serve.py FOLDER …`.

Each request waits for ``--latency`` before its answer begins; all answers together go out at ``--bandwidth``. Prints
its port, then serves until it is killed.
"""

from __future__ import annotations

import argparse
import os
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PIECE = 64 * 1024


class Bandwidth:
    """Bytes that may leave: ``take`` sleeps until it is the turn of some."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._next = 0.0
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        """Wait for the time at which ``count`` bytes have gone out, after all that were asked for before."""
        with self._lock:
            now = time.monotonic()
            self._next = max(self._next, now) + count / self.rate
            due = self._next
        if due - now > 0.005:
            time.sleep(due - now)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    root: Path
    latency: float
    bandwidth: Bandwidth

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""

    def do_HEAD(self) -> None:
        time.sleep(self.latency)
        path = self.root / self.path.lstrip("/")
        if not path.is_file():
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        size, found = path.stat().st_size, re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        first, last = (int(found[1]), min(size, int(found[2]) + 1)) if found else (0, size)
        self.send_response(206 if found else 200)
        if found:
            self.send_header("Content-Range", f"bytes {first}-{last - 1}/{size}")
        self.send_header("Content-Length", str(last - first))
        self.send_header("ETag", f'"{size}-{path.stat().st_mtime_ns}"')
        self.send_header("Last-Modified", "Thu, 26 Nov 2026 00:00:00 GMT")
        self.end_headers()
        if self.command == "GET":
            self.wfile.flush()
            with path.open("rb") as file:
                while first < last:
                    count = min(PIECE, last - first)
                    self.bandwidth.take(count)
                    first += os.sendfile(self.connection.fileno(), file.fileno(), first, count)

    do_GET = do_HEAD


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latency", type=float, default=0.03, help="seconds before each answer")
    parser.add_argument("--bandwidth", type=float, default=100e6, help="bytes a second of all answers")
    asked = parser.parse_args()
    Handler.root, Handler.latency, Handler.bandwidth = asked.folder, asked.latency, Bandwidth(asked.bandwidth)
    with Server(("127.0.0.1", 0), Handler) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()
